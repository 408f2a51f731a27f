"""Commands about a user's own specs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resnetcli.cli.app import app, complain, guarded
from resnetcli.errors import SpecError, UsageError


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
            complain(str(error))
            worst = 2
            continue
        worst = max(worst, outcome.exit_code)
        for problem in (*outcome.errors, *outcome.unmet, *outcome.warnings):
            complain(str(problem))
        if outcome.profile and not outcome.exit_code:
            counts = outcome.profile.counts
            print(f"{file}: ok, {short(counts.params)} parameters, {short(counts.macs)} MACs, depth {counts.depth}")
    if worst:
        raise typer.Exit(worst)


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
        if outcome is Outcome.changed:
            complain(f"{file}: {'not in canonical form' if check_only else 'formatted'}")
            worst = max(worst, 1 if check_only else 0)
    if worst:
        raise typer.Exit(worst)
