"""The command line: arguments in, one library call, a result printed, an exit code. Nothing is decided here."""

from __future__ import annotations

import functools
import io
import os
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec

import typer

from resnetcli import __version__
from resnetcli.cli.arguments import asked_models, complete_model
from resnetcli.errors import ResourceError, SpecError, UsageError

if TYPE_CHECKING:
    from resnetcli.report.profile import Profile
    from resnetcli.view.sheet import Sheet

app = typer.Typer(
    name="resnet-cli",
    no_args_is_help=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

EXAMPLES = """[bold]Examples[/bold]

resnet-cli compare                             ResNet-50 against ResNeXt-50

resnet-cli profile resnext50_32x4d C=8 d=14    with parameters set

resnet-cli profile resnet50 --device cpu       measured as well

resnet-cli show resnet50 resnext50_32x4d       the papers' Table 1

resnet-cli compare "resnext101*" --sort macs   a family

resnet-cli check my_net.yaml                   a table of your own"""


class Format(StrEnum):
    """How a result is written."""

    table = "table"
    md = "md"
    csv = "csv"
    json = "json"


class Parts(StrEnum):
    """What a profile's rows are."""

    row = "row"
    block = "block"
    layer = "layer"


P = ParamSpec("P")


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """The command with every error a user can cause as a message and an exit code: 2 bad input, 3 not finished."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except (SpecError, UsageError) as error:
            _complain(str(error))
            raise typer.Exit(2) from None
        except ResourceError as error:
            _complain(str(error))
            raise typer.Exit(3) from None
        except MemoryError:
            _complain("error: out of memory")
            raise typer.Exit(3) from None
        except BrokenPipeError:  # the reader has seen enough, as in `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except OSError as error:
            _complain(f"error: {error.strerror or error}")
            raise typer.Exit(3) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    return run


def _complain(message: str) -> None:
    sys.stdout.flush()
    print(message, file=sys.stderr)


Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL [NAME=VALUE]...",
        help="Names in the zoo or paths to YAML files; a name=value applies to the model it follows.",
        autocompletion=complete_model,
    ),
]
Input = Annotated[str | None, typer.Option("--input", metavar="CxHxW", help="Input size, for example 3x320x320.")]
Batch = Annotated[int, typer.Option("--batch", help="Images at once; counts stay per image.")]
Flops = Annotated[bool, typer.Option("--flops", help="Print FLOPs (2 x MACs) instead of MACs.")]
Device = Annotated[
    str | None, typer.Option("--device", metavar="cpu|cuda[:N]", help="Build there and measure; without it nothing is.")
]
Formats = Annotated[Format, typer.Option("--format", help="How the result is written.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"resnet-cli {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True, epilog=EXAMPLES)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Explore and profile convnets written as the papers' Table 1: exact counts, measured latency."""
    if context.invoked_subcommand is None:
        print(context.get_help())


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
    from resnetcli.report.listing import listing
    from resnetcli.report.records import list_record
    from resnetcli.view.compare import listing_sheet
    from resnetcli.view.output import print_json

    found = listing(*(patterns or []))
    if format is Format.json:
        print_json(list_record(found))
        return
    number = len(found.profiles)
    _print_sheet(listing_sheet(found), format, after=[f"{number} net{'s' * (number != 1)}; counted for one image"])


@app.command()
@guarded
def info(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A name in the zoo or a path.", autocompletion=complete_model)
    ],
    source: Annotated[bool, typer.Option("--yaml", help="Print its file, to copy and edit.")] = False,
    format: Formats = Format.table,
) -> None:
    """Say what a net is: its paper, what distinguishes it, its relatives, printed figures, known deviations."""
    import resnetcli.report.info as report
    from resnetcli.report.records import info_record
    from resnetcli.view.info import info_sheet
    from resnetcli.view.output import print_json, text_width, write
    from resnetcli.view.profile import published_sheet

    found = report.info(model)
    if source:
        write(found.source.text)
    elif format is Format.json:
        print_json(info_record(found))
    else:
        _print_sheet(info_sheet(found, text_width() if format is Format.table else None), format)
        if format is not Format.csv and (published := published_sheet(found.profile)) is not None:
            _print_sheet(published, format)


@app.command()
@guarded
def show(models: Models, input: Input = None, batch: Batch = 1, flops: Flops = False, format: Formats = Format.table,
         ) -> None:  # fmt: skip
    """Show nets side by side as the papers' Table 1."""
    from resnetcli.report.records import show_record
    from resnetcli.view.output import console, natural_width, print_json, write
    from resnetcli.view.sheet import to_csv, to_markdown
    from resnetcli.view.table1 import table1_rich, table1_sheet

    profiles = tuple(_profiles(models, input, batch))
    match format:
        case Format.json:
            print_json(show_record(profiles))
        case Format.csv:
            write(to_csv(table1_sheet(profiles, flops=flops)))
        case Format.md:
            write(to_markdown(table1_sheet(profiles, flops=flops)))
        case Format.table:
            screen, start = console(), 0
            while start < len(profiles):  # as many nets beside each other as the terminal has room for
                end = start + 1
                table = table1_rich(table1_sheet(profiles[start:end], flops=flops))
                while end < len(profiles):
                    wider = table1_rich(table1_sheet(profiles[start : end + 1], flops=flops))
                    if natural_width(wider) > screen.width:
                        break
                    table, end = wider, end + 1
                screen.print(table)
                start = end
            per = "one image" if batch == 1 else f"one image; times {batch} for the batch"
            screen.print(f"counted for {per}; papers call MACs FLOPs", style="dim")


def _profiles(words: list[str], input: str | None, batch: int) -> list[Profile]:
    from resnetcli.report.profile import profile_model
    from resnetcli.spec.zoo import Zoo

    zoo = Zoo()
    return [profile_model(name, given, input=input, batch=batch, zoo=zoo) for name, given in asked_models(words, zoo)]


@app.command()
@guarded
def profile(
    models: Models,
    by: Annotated[Parts, typer.Option("--by", help="What a row of the table is.")] = Parts.row,
    input: Input = None,
    batch: Batch = 1,
    flops: Flops = False,
    aux: Annotated[bool, typer.Option("--aux", help="Count auxiliary training heads too.")] = False,
    device: Device = None,
    format: Formats = Format.table,
) -> None:
    """Profile one net: what each row costs, the printed figures beside the counted ones, latency on a device."""
    from resnetcli.report.profile import profile_model
    from resnetcli.report.records import profile_record
    from resnetcli.spec.zoo import Zoo
    from resnetcli.view.output import bar_width, print_json
    from resnetcli.view.profile import (
        conditions,
        cost_sheet,
        heading,
        measured_sheet,
        published_sheet,
        totals,
        unjudged,
    )

    zoo = Zoo()
    asked = asked_models(models, zoo)
    if len(asked) != 1:
        names = " ".join(name for name, _ in asked)
        raise UsageError(f"`profile` takes one model, not {len(asked)}", f"for several: `resnet-cli compare {names}`")
    ((name, given),) = asked
    _announce(device, name)
    found = profile_model(name, given, input=input, aux=aux, batch=batch, device=device, zoo=zoo)
    if format is Format.json:
        print_json(profile_record(found))
        return
    sheet = cost_sheet(found, by.value, flops=flops, width=bar_width())
    if format is Format.csv:
        _print_sheet(sheet, format)
        return
    note = unjudged(found)
    _print_sheet(sheet, format, heading(found), totals(found, flops=flops))
    if (published := published_sheet(found)) is not None:
        _print_sheet(published, format)
    if found.measurements:
        _print_sheet(measured_sheet(found.measurements), format, after=conditions(found.measurements))
    if note:
        _print_lines([note], format)


@app.command()
@guarded
def compare(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL [NAME=VALUE]...]...",
            help="Names, wildcards or paths; without any, ResNet-50 and ResNeXt-50 of ResNeXt's Table 1.",
            autocompletion=complete_model,
        ),
    ] = None,
    all_models: Annotated[bool, typer.Option("--all", help="Every net of the zoo.")] = False,
    sort: Annotated[
        str | None, typer.Option("--sort", metavar="FIGURE", help="params, macs, depth, ...; -macs: largest first.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option("--baseline", metavar="MODEL", help="Add columns relative to this one.")
    ] = None,
    accuracy: Annotated[
        bool, typer.Option("--accuracy", help="Add the accuracies papers print under one evaluation protocol.")
    ] = False,
    protocol: Annotated[
        str | None, typer.Option("--protocol", metavar="NAME", help="That protocol, for example single-crop-224.")
    ] = None,
    input: Input = None,
    batch: Batch = 1,
    flops: Flops = False,
    device: Device = None,
    format: Formats = Format.table,
) -> None:
    """Compare nets: parameters, MACs, activations and depth, printed figures beside them; measured on a device."""
    import resnetcli.report.compare as report
    from resnetcli.report.records import compare_record
    from resnetcli.spec.zoo import Zoo
    from resnetcli.view.compare import caption, comparison_sheet
    from resnetcli.view.output import print_json
    from resnetcli.view.profile import conditions

    zoo = Zoo()
    if all_models and models:
        raise UsageError("`--all` and models exclude each other")
    asked = asked_models(list(zoo.files) if all_models else models or list(report.HEADLINE), zoo)
    _announce(device, " ".join(name for name, _ in asked))
    found = report.compare(
        *asked, input=input, batch=batch, device=device, sort=sort, baseline=baseline,
        accuracy=accuracy, protocol=protocol, zoo=zoo,
    )  # fmt: skip
    if format is Format.json:
        print_json(compare_record(found))
        return
    after = caption(found, flops=flops)
    if found.profiles[0].measurements:
        after += conditions([p.measurements[0] for p in found.profiles])
    _print_sheet(comparison_sheet(found, flops=flops), format, after=after)


@app.command()
@guarded
def check(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="YAML files, or names in the zoo.")],
) -> None:
    """Check specs: exit 0 if they hold together, 1 if `expect:` does not hold, 2 if one is invalid."""
    import resnetcli.report.check as report
    from resnetcli.spec.zoo import Zoo
    from resnetcli.view.numbers import short

    zoo, worst = Zoo(), 0
    for file in files:
        try:
            outcome = report.check(file, zoo)
        except UsageError as error:
            _complain(str(error))
            worst = 2
            continue
        worst = max(worst, outcome.exit_code)
        for problem in (*outcome.errors, *outcome.unmet, *outcome.warnings):
            _complain(str(problem))
        if outcome.profile and not outcome.exit_code:
            counts = outcome.profile.counts
            print(f"{file}: ok, {short(counts.params)} parameters, {short(counts.macs)} MACs, depth {counts.depth}")
    if worst:
        raise typer.Exit(worst)


@app.command()
@guarded
def verify(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="Names, wildcards or paths; without any, the whole zoo.",
                       autocompletion=complete_model),
    ] = None,
    format: Formats = Format.table,
) -> None:  # fmt: skip
    """Hold every printed figure to the count: exit 1 if one differs without a note saying why."""
    import resnetcli.report.verify as report
    from resnetcli.report.records import verify_record
    from resnetcli.spec.zoo import Zoo
    from resnetcli.view.output import print_json
    from resnetcli.view.papers import verification_lines, verification_sheet

    zoo = Zoo()
    asked = asked_models(models or [], zoo)
    for name, settings in asked:
        if settings:
            raise UsageError(f"printed figures are of `{name}` as the paper has it", "leave the settings out")
    found = report.verify(*(name for name, _ in asked), zoo=zoo)
    if format is Format.json:
        print_json(verify_record(found))
    else:
        _print_sheet(verification_sheet(found), format, after=verification_lines(found))
    for fault in found.faults:
        _complain(fault)
    if found.faults:
        raise typer.Exit(1)


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
    from resnetcli.report.papers import paper_tables
    from resnetcli.report.records import papers_record
    from resnetcli.view.output import print_json
    from resnetcli.view.papers import figures_sheet, paper_heading, paper_notes, paper_sheet, tables_sheet

    found = paper_tables(*(table or []))
    if format is Format.json:
        print_json(papers_record(found))
    elif only_list:
        _print_sheet(tables_sheet(found), format)
    elif format is Format.csv:
        _print_sheet(figures_sheet(found), format)
    else:
        for each in found:
            _print_sheet(paper_sheet(each), format, [paper_heading(each)], paper_notes(each))
            _print_lines([""], format)


@app.command()
@guarded
def fmt(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="YAML files; - reads stdin, writes stdout.")],
    check_only: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 if a file is not in canonical form.")
    ] = False,
) -> None:
    """Write specs in canonical form, comments and layout kept."""
    from resnetcli.cli.format import Outcome, format_file

    worst = 0
    for file in files:
        try:
            outcome = format_file(file, write=not check_only)
        except (SpecError, UsageError) as error:
            _complain(str(error))
            worst = 2
            continue
        if outcome is Outcome.changed:
            _complain(f"{file}: {'not in canonical form' if check_only else 'formatted'}")
            worst = max(worst, 1 if check_only else 0)
    if worst:
        raise typer.Exit(worst)


def _announce(device: str | None, names: str) -> None:
    """Says on a terminal that it will take a moment."""
    if device is not None and sys.stderr.isatty():
        print(f"measuring {names} on {device}: some seconds each", file=sys.stderr)


def _print_sheet(sheet: Sheet, format: Format, before: list[str] | None = None, after: list[str] | None = None) -> None:
    from resnetcli.view.output import print_sheet, write
    from resnetcli.view.sheet import to_csv, to_markdown

    if format is Format.csv:
        write(to_csv(sheet))
        return
    _print_lines(before or [], format)
    if format is Format.md:
        write(to_markdown(sheet) + "\n")
    else:
        print_sheet(sheet)
    _print_lines(after or [], format)


def _print_lines(lines: list[str], format: Format) -> None:
    from resnetcli.view.output import console, write

    if format is Format.md:
        write("".join(f"{line}  \n" for line in lines) + ("\n" if lines else ""))
        return
    for line in lines:
        console().print(line)


def main() -> None:
    """The console script."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - for as long as the process lives
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without × still gets its table
    try:
        app(prog_name="resnet-cli")
    except OSError as error:  # help on a full disk: whatever is printed outside a command
        _complain(f"error: {error.strerror or error}")
        sys.exit(3)
