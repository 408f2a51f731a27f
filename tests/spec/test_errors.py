"""What is said of a spec that is wrong: golden, and read like any other text."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from resnetcli.errors import Problem, SpecError, UsageError
from resnetcli.plan.lower import lower
from resnetcli.spec.cell import parse_cell
from resnetcli.spec.read import read
from resnetcli.spec.zoo import Zoo
from tests.support.bad_specs import CASES, Bad, row
from tests.support.thin import thinned

GOLDEN = Path(__file__).parent / "golden" / "errors.txt"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory, in which files are called by their names."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def failure(bad: Bad, here: Path) -> SpecError | UsageError:
    """What reading and lowering `net.yaml` raises."""
    for name, text in bad.files.items():
        (here / name).write_text(text, encoding="utf-8")
    (here / "net.yaml").write_bytes(bad.net if isinstance(bad.net, bytes) else bad.net.encode())
    with pytest.raises((SpecError, UsageError)) as raised:
        lower(read("net.yaml", zoo=Zoo(), parameters=bad.settings), aux=True)
    assert isinstance(raised.value, SpecError | UsageError)
    return raised.value


def problems(bad: Bad, here: Path) -> tuple[Problem, ...]:
    error = failure(bad, here)
    return error.problems if isinstance(error, SpecError) else ()


def golden() -> dict[str, str]:
    """Case -> text."""
    sections = re.split(r"^=== (.*)\n", GOLDEN.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return dict(zip(sections[::2], sections[1::2], strict=True))


def test_the_golden_file_holds_a_text_for_every_case(here: Path, update_golden: bool) -> None:
    if update_golden:
        texts = (f"=== {case}\n{failure(bad, here)}\n" for case, bad in CASES.items())
        GOLDEN.write_text("".join(texts), encoding="utf-8")
    assert list(golden()) == list(CASES)


@pytest.mark.parametrize("case", CASES)
def test_an_error_says_what_it_is_known_to_say(case: str, here: Path) -> None:
    assert f"{failure(CASES[case], here)}\n" == golden()[case]


@pytest.mark.parametrize("case", CASES)
def test_an_error_points_into_a_line_of_its_file_and_speaks_in_lower_case(case: str, here: Path) -> None:
    for problem in problems(CASES[case], here):
        assert problem.message
        assert not problem.message.endswith(".")
        assert not re.match(r"[A-Z][a-z]", problem.message), problem.message
        if problem.at is not None:
            at = problem.at
            assert at.line >= 1
            assert 1 <= at.column <= len(at.source.line(at.line)) + 1
            assert at.column + at.length <= len(at.source.line(at.line)) + 2
        for line in str(problem).splitlines():
            assert line.replace("\t", "").isprintable()
            assert len(line) < 450


@pytest.mark.parametrize("case", thinned(CASES, 3))
def test_no_error_takes_long_to_find(case: str, here: Path) -> None:
    def seconds() -> float:
        start = time.process_time()
        failure(CASES[case], here)
        return time.process_time() - start

    assert any(seconds() < 1 for _ in range(3))  # a garbage collection may fall into one of them


def test_no_more_is_reported_than_anyone_reads(here: Path) -> None:
    *first, last = problems(row(f"[{', '.join(f'word{i}' for i in range(60))}]"), here)
    assert [problem.message for problem in first] == [f"unknown word `word{i}`" for i in range(50)]
    assert last == Problem("stopped after 50 errors")


def test_errors_stand_in_the_order_of_the_text(here: Path) -> None:
    for bad in CASES.values():
        places = [(p.at.source.label, p.at.line, p.at.column) for p in problems(bad, here) if p.at]
        assert places == sorted(places)


def test_an_excerpt_keeps_its_caret_below_the_word_in_a_long_line(here: Path) -> None:
    [problem] = problems(Bad(f"input: 3x32x32\ntable: {{t: [{'3x3 64, ' * 40}rellu, {'3x3 64, ' * 40}relu]}}\n"), here)
    _, shown, carets, _ = str(problem).splitlines()
    assert shown[carets.index("^") : carets.rindex("^") + 1] == "rellu"
    assert len(shown) < 140


def test_an_excerpt_keeps_its_caret_below_the_word_behind_a_tab(here: Path) -> None:
    [problem] = problems(Bad("input: 3x32x32\ntable:\n  t:\trellu\n"), here)
    _, shown, carets, _ = str(problem).splitlines()
    assert shown.index("rellu") == carets.index("^")
    assert carets.count("\t") == shown.count("\t")


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r", "\x85", "\u2028"], ids=ascii)
def test_lines_are_counted_as_yaml_counts_them(ending: str, here: Path) -> None:
    text = ending.join(["input: 3x32x32", "table:", "  t: 3x3 64", "  u: rellu", ""])
    [problem] = problems(Bad(text), here)
    assert problem.at is not None
    assert (problem.at.line, problem.at.column, problem.at.length) == (4, 6, 5)
    assert "    4 |   u: rellu" in str(problem)


def test_a_byte_order_mark_moves_no_column(here: Path) -> None:
    [problem] = problems(Bad("table: {t: rellu}\ninput: 3x32x32".encode("utf-8-sig")), here)
    assert problem.at is not None
    assert problem.at.column == 12


def test_text_of_several_lines_is_pointed_at_where_it_begins(here: Path) -> None:
    [problem] = problems(Bad("input: 3x32x32\ntable:\n  t: 3x3\n    64 rellu\n"), here)
    assert problem.at is not None
    assert (problem.at.line, problem.at.column) == (3, 6)


@pytest.mark.parametrize(
    ("cell", "separated"),
    [
        ("fc 100 relu dropout 0.5", "fc 100, relu, dropout 0.5"),
        ("3x3 16 /2 relu", "3x3 16 /2, relu"),
        ("global avg fc 10", "global avg, fc 10"),
        ("relu 3x3 max /2", "relu, 3x3 max /2"),
    ],
)
def test_layers_without_commas_are_shown_with_commas_which_work(cell: str, separated: str, here: Path) -> None:
    [problem] = problems(Bad(f"input: 3x32x32\ntable:\n  t: {cell}\n"), here)
    assert problem.hint == f"separate layers by commas: `{separated}`"
    assert len(parse_cell(separated)) == separated.count(",") + 1
