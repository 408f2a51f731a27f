"""Commands about a user's own specs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from resnetcli.cli.app import app, complain, guarded
from resnetcli.errors import Problem, ResourceError, SpecError, UsageError


@app.command()
@guarded
def check(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="YAML files, or names in the zoo.")],
    params: Annotated[
        str | None, typer.Option("--max-params", metavar="N", help="Parameters it may have, for example 26M.")
    ] = None,
    macs: Annotated[
        str | None, typer.Option("--max-macs", metavar="N", help="MACs one image may take, for example 4.2G.")
    ] = None,
    activations: Annotated[
        str | None, typer.Option("--max-activations", metavar="N", help="Outputs of convolutions and fc likewise.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option("--max-memory", metavar="SIZE", help="Peak memory of one image, weights included.")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="OLD.json", help="A saved `profile --format json`: no more.")
    ] = None,
) -> None:
    """Check specs: exit 0 if they hold together, 1 if `expect:` or a limit does not hold, 2 if one is invalid."""
    import resnetcli.reports.check as report
    from resnetcli.reports.gate import limits
    from resnetcli.spec.zoo import Zoo
    from resnetcli.table.numbers import short
    from resnetcli.table.output import print_whole

    if against is not None and len(files) > 1:
        raise UsageError("`--against` is of one net, and several are to be checked")
    try:
        most = limits(params=params, macs=macs, activations=activations, memory=memory, against=against)
    except UsageError as error:
        _annotate(Problem(error.message, hint=error.hint))
        raise
    zoo, worst = Zoo(), 0
    for file in files:
        try:
            outcome = report.check(file, zoo, most)
        except (UsageError, ResourceError) as error:
            complain(str(error))
            _annotate(Problem(error.message, hint=error.hint))
            worst = _worse(worst, 3 if isinstance(error, ResourceError) else 2)
            continue
        worst = _worse(worst, outcome.exit_code)
        for problem in (*outcome.errors, *outcome.unmet, *outcome.exceeded, *outcome.warnings):
            complain(str(problem))
            _annotate(problem)
        if outcome.profile and not outcome.exit_code:
            counts = outcome.profile.counts
            figures = f"{short(counts.params)} parameters, {short(counts.macs)} MACs, depth {counts.depth}"
            print_whole(f"{file}: ok, {figures}")
    if worst:
        raise typer.Exit(worst)


def _worse(a: int, b: int) -> int:
    """The more severe of two exit codes: bad input, then lack of resources, then a failed check."""
    return max(a, b, key=(0, 1, 3, 2).index)


def _annotate(problem: Problem) -> None:
    """Has GitHub show a problem beside its line, in a workflow of GitHub's."""
    if os.environ.get("GITHUB_ACTIONS") == "true":
        from resnetcli.reports.annotation import annotation

        print(annotation(problem))


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
            complain(str(error))
            worst = 2
            continue
        except OSError as error:  # a file that cannot be replaced leaves the others to be formatted
            complain(f"error: `{file}` cannot be written: {error.strerror or error}")
            worst = _worse(worst, 3)
            continue
        if outcome is Outcome.changed:
            complain(f"{file}: {'not in canonical form' if check_only else 'formatted'}")
            worst = _worse(worst, 1 if check_only else 0)
    if worst:
        raise typer.Exit(worst)
