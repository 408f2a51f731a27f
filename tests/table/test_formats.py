"""An output format is one entry: a new one is offered and used by every command that prints a table."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from resnetcli.cli.root import PANELS
from resnetcli.data.table import COLUMNS
from resnetcli.errors import UsageError
from resnetcli.failures import ModelFailure
from resnetcli.reports.compare_table import CHANGES
from resnetcli.reports.crosscheck import FIELDS as CROSSCHECK
from resnetcli.roofline.peaks_table import COMPUTE, MEMORY
from resnetcli.table.fields import Field
from resnetcli.table.formats import FORMATS, Format, Output, Section
from resnetcli.table.output import write
from resnetcli.table.sheet import Column, Sheet, cell, explanation, legend, meaning
from resnetcli.train.examine import EVALUATED
from resnetcli.train.results import RESULTS, SEED_RESULTS
from tests.support.cli import run

COMMANDS = (
    "list vgg16", "info vgg16", "show vgg16", "papers resnet table 6", "papers --list", "profile vgg16",
    "profile resnet18 --by layer --receptive", "compare vgg16 resnet18", "compare vgg16 --baseline vgg16 --accuracy",
    "diff vgg16 vgg19", "max-batch vgg16 --memory 8GB", "explain vgg16 --device-profile rtx4090",
    "estimate vgg16 --device-profile rtx4090", "verify vgg16", "reconcile resnet18 1.8G",
)  # fmt: skip
WITHOUT_TABLES = {"check", "fmt", "data"}


def as_latex(output: Output) -> None:
    for section in output.sections():
        write("".join(f"% {line}\n" for line in section.before))
        if sheet := section.sheet:
            shown = [i for i, column in enumerate(sheet.columns) if column.shown]
            write("\\begin{tabular}\n")
            write("".join(" & ".join(row[i].text for i in shown) + " \\\\\n" for row in sheet.rows))
            write("\\end{tabular}\n")


@pytest.fixture
def latex() -> Iterator[None]:
    FORMATS["x"] = Format("x", "LaTeX tables", as_latex)
    yield
    del FORMATS["x"]


@pytest.mark.usefixtures("latex")
@pytest.mark.parametrize("command", COMMANDS)
def test_every_table_is_printed_in_a_new_format(command: str) -> None:
    result = run(f"{command} --format x")
    assert result.exit_code == 0, result.output
    assert "\\begin{tabular}" in result.stdout
    assert " & " in result.stdout


@pytest.mark.usefixtures("latex")
@pytest.mark.parametrize("command", sorted({name for names in PANELS.values() for name in names} - WITHOUT_TABLES))
def test_every_command_offers_a_new_format(command: str) -> None:
    help = "".join(run(f"{command} --help").stdout.replace("│", " ").split())
    assert "x>" in help
    assert "--explain-columns" in help
    assert "one of table, md, csv, json, x" in run(f"{command} --format yml").output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_column_of_a_table_is_explained(command: str) -> None:
    head, meanings = run(f"{command} --format csv"), run(f"{command} --format csv --explain-columns")
    keys = next(csv.reader(head.stdout.splitlines()))
    assert [line.partition(",")[0] for line in meanings.stdout.splitlines()[1:]] == keys
    assert not [line for line in meanings.stdout.splitlines() if line.endswith(",")]
    assert run(f"{command} --format json --explain-columns").exit_code == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_every_shown_column_is_explained(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    explained: list[Sheet] = []

    def record(sheet: Sheet) -> list[str]:
        explained.append(sheet)
        return []

    monkeypatch.setattr("resnetcli.table.sheet.explanation", record)
    assert run(f"{command} --explain-columns").exit_code == 0
    assert explained
    assert not [column for sheet in explained for column in sheet.columns if column.shown and not meaning(column)]


@pytest.mark.parametrize("fields", [RESULTS, SEED_RESULTS, EVALUATED, CROSSCHECK, COMPUTE, MEMORY, COLUMNS, CHANGES])
def test_every_column_of_a_table_of_results_is_explained(fields: Sequence[Field[Any]]) -> None:
    assert not [field.key for field in fields if not field.help]


@pytest.mark.parametrize("command", COMMANDS)
def test_legends_take_at_most_three_lines(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sections: list[Section] = []
    monkeypatch.setitem(FORMATS, "x", Format("x", "", lambda output: sections.extend(output.sections())))
    assert run(f"{command} --format x").exit_code == 0
    assert all(len(legend(section.sheet)) <= 3 * 80 for section in sections if section.sheet)


SHEET = Sheet(
    (
        Column("model", "model", help="its name"),
        Column("acts", "activations", legend="acts: outputs"),
        Column("hidden", "hidden", shown=False, help="for programs only"),
    ),
    ((cell("a"), cell(3), cell(0)),),
)


def test_columns_are_explained_by_help_or_legend_in_place_of_the_legend() -> None:
    assert explanation(SHEET) == ["model: its name", "acts (activations): outputs"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("table", "before\n\n model   acts\n ────────────\n     a      3\n\nafter\nacts: outputs\n"),
        ("md", "before  \n\n| model | acts |\n|--:|--:|\n| a | 3 |\n\nafter  \nacts: outputs  \n\n"),
        ("csv", "model,activations,hidden\na,3,0\n"),
    ],
)
def test_a_section_in_each_format(name: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    FORMATS[name].write(Output(lambda: {}, lambda: [Section(SHEET, ["before"], ["after"])]))
    assert capsys.readouterr().out == text


def test_below_a_table_are_at_most_three_lines_of_legend(capsys: pytest.CaptureFixture[str]) -> None:
    FORMATS["table"].write(Output(lambda: {}, lambda: [Section(SHEET, notes=["1", "2", "3", "4"])]))
    assert capsys.readouterr().out.endswith("\n\n1\nacts: outputs\n2\n")


def test_data_in_parts_is_one_csv_table(capsys: pytest.CaptureFixture[str]) -> None:
    FORMATS["csv"].write(Output(lambda: {}, lambda: [], data=lambda: [SHEET, SHEET]))
    assert capsys.readouterr().out == "model,activations,hidden\na,3,0\na,3,0\n"


def test_csv_in_parts_has_a_row_for_each_failure(capsys: pytest.CaptureFixture[str]) -> None:
    failures = [ModelFailure("b", UsageError("no such file"), {"k": 2})]
    FORMATS["csv"].write(Output(lambda: {}, lambda: [], data=lambda: [SHEET, SHEET], failures=failures))
    lines = ["model,activations,hidden,error", "a,3,0,", "a,3,0,", "b k=2,,,no such file", ""]
    assert capsys.readouterr().out == "\n".join(lines)


def test_json_has_failures_of_commands_that_take_several_models(capsys: pytest.CaptureFixture[str]) -> None:
    FORMATS["json"].write(Output(lambda: {"x": 1}, lambda: [], failures=[]))
    FORMATS["json"].write(Output(lambda: {"x": 1}, lambda: []))
    several, single = capsys.readouterr().out.replace("}\n{", "}\n\n{").split("\n\n")
    assert json.loads(several) == {"x": 1, "failed": []}
    assert json.loads(single) == {"x": 1}
