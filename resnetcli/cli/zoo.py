"""Commands about what there is: the zoo, its papers, a net's Table 1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from resnetcli.cli.app import (
    Batch,
    Flops,
    Format,
    Formats,
    Input,
    Models,
    app,
    end_failed,
    failed_lines,
    guarded,
    print_lines,
    print_record,
    print_sheet,
)
from resnetcli.cli.arguments import asked_models, complete_model
from resnetcli.errors import UsageError, plural

if TYPE_CHECKING:
    from resnetcli.failures import ModelFailure
    from resnetcli.reports.profile import Profile


@app.command("list")
@guarded
def list_models(
    patterns: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATTERN]...", help="Parts of names, or wildcards such as `resnext*`.",
                       autocompletion=complete_model),
    ] = None,
    format: Formats = Format.table,
) -> None:  # fmt: skip
    """List the nets of the zoo: family, parameters, MACs, input."""
    from resnetcli.reports.listing import listing
    from resnetcli.reports.listing_table import listing_sheet
    from resnetcli.reports.records import list_record

    found = listing(*(patterns or []))
    if format is Format.json:
        print_record(list_record(found), found.failed)
    else:
        number = plural(len(found.profiles), "net")
        notes = [f"{number}; counted for one image"]
        print_sheet(listing_sheet(found), format, notes=notes, failures=found.failed)
    end_failed(found.failed)


@app.command()
@guarded
def info(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A name in the zoo or a path.", autocompletion=complete_model)
    ],
    source: Annotated[bool, typer.Option("--yaml", help="Print its spec, to start a net of your own from.")] = False,
    format: Formats = Format.table,
) -> None:
    """Say what a net is: its paper, what distinguishes it, its relatives, printed figures, known deviations."""
    import resnetcli.reports.info as report
    from resnetcli.reports.info_table import info_sheet
    from resnetcli.reports.profile_table import published_sheet
    from resnetcli.reports.records import info_record
    from resnetcli.table.output import print_json, text_width, write_verbatim

    found = report.info(model)
    if source and format is not Format.table:
        raise UsageError("`--yaml` prints the file itself", "leave `--format` out")
    if source:
        write_verbatim(report.starter(found.source))
    elif format is Format.json:
        print_json(info_record(found))
    else:
        width = text_width() if format is Format.table else None
        print_sheet(info_sheet(found, width, figures=format is Format.csv), format)
        if format is not Format.csv and (published := published_sheet(found.profile)) is not None:
            print_sheet(published, format, below=True)


@app.command()
@guarded
def show(models: Models, input: Input = None, batch: Batch = 1, flops: Flops = False, format: Formats = Format.table,
         ) -> None:  # fmt: skip
    """Show nets side by side as the papers' Table 1."""
    from resnetcli.reports.records import show_record
    from resnetcli.reports.show import table1_pages, table1_sheet
    from resnetcli.table.output import console, print_table, print_texts, write
    from resnetcli.table.sheet import to_markdown

    profiles, failures = _profiles(models, input, batch)
    match format:
        case Format.json:
            print_record(show_record(profiles), failures)
        case Format.csv:
            print_sheet(table1_sheet(profiles, flops=flops), format, failures=failures)
        case Format.md:
            write(to_markdown(table1_sheet(profiles, flops=flops)))
            print_lines(failed_lines(failures, format), format)
        case Format.table:
            for table in table1_pages(profiles, console().width, flops=flops):
                print_table(table)
            per = "one image" if batch == 1 else f"one image; times {batch} for the batch"
            print_texts([f"counted for {per}; papers call MACs FLOPs"], style="dim")
            print_lines(failed_lines(failures, format), format)
    end_failed(failures)


def _profiles(
    words: list[str], input: list[str] | None, batch: int
) -> tuple[tuple[Profile, ...], tuple[ModelFailure, ...]]:
    from resnetcli.failures import for_each
    from resnetcli.reports.profile import profile_model
    from resnetcli.spec.zoo import Zoo

    zoo = Zoo()
    found, failures = for_each(
        asked_models(words, zoo),
        lambda name, given: profile_model(name, given, input=input, batch=batch, zoo=zoo),
    )
    return tuple(found), tuple(failures)


@app.command()
@guarded
def papers(
    table: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TABLE]", help="Such as `resnet table 3`, `1611.05431`, `wrn`; all without it."),
    ] = None,
    only_list: Annotated[bool, typer.Option("--list", help="Only say which tables there are.")] = False,
    format: Formats = Format.table,
) -> None:
    """Reprint the papers' tables, the counted figures beside the printed ones."""
    from resnetcli.reports.papers import paper_tables
    from resnetcli.reports.papers_table import figures_sheet, paper_heading, paper_notes, paper_sheet, tables_sheet
    from resnetcli.reports.records import papers_record
    from resnetcli.table.output import print_json

    if only_list and format is Format.json:
        raise UsageError("`--list` is not for JSON", "without it, the JSON has every table")
    found = paper_tables(*(table or []))
    if format is Format.json:
        print_json(papers_record(found))
    elif only_list:
        print_sheet(tables_sheet(found), format)
    elif format is Format.csv:
        print_sheet(figures_sheet(found), format)
    else:
        for number, each in enumerate(found):
            print_sheet(paper_sheet(each), format, [paper_heading(each)], paper_notes(each), below=number > 0)
