"""Validate specs and enforce limits."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from resnetcli.cli.app import complain, examples, guarded, worse
from resnetcli.cli.arguments import command_line, expand_globs
from resnetcli.errors import Problem, ResourceError, UsageError

app = typer.Typer(add_completion=False)


@app.command(
    "check",
    epilog=examples(
        "check my_model.yaml",
        "check specs/*.yaml --max-params 26M --max-memory 512MB",
        "check my_model.yaml --against main.json",
    ),
)
@guarded
def check(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="YAML files; zoo names or globs of them.")],
    params: Annotated[
        str | None, typer.Option("--max-params", metavar="N", help="Fail if parameters exceed N, e.g. 26M.")
    ] = None,
    macs: Annotated[
        str | None, typer.Option("--max-macs", metavar="N", help="Fail if MACs exceed N, e.g. 4.2G.")
    ] = None,
    activations: Annotated[
        str | None, typer.Option("--max-activations", metavar="N", help="Fail if activations exceed N.")
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option("--max-memory", metavar="SIZE", help="Fail if peak inference memory (batch size 1) exceeds SIZE."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="OLD.json",
            help="Fail if any figure is larger than in this saved `profile --format json`.",
        ),
    ] = None,
) -> None:
    """Validate specs and enforce limits (exit codes: 0 ok, 1 expectation or limit not met, 2 invalid)."""
    import resnetcli.reports.check as report
    from resnetcli.reports.limits import limits
    from resnetcli.spec.zoo import Zoo
    from resnetcli.table.numbers import short
    from resnetcli.table.output import print_whole

    zoo, worst = Zoo(), 0
    files = expand_globs(files, zoo)
    if against is not None and len(files) > 1:
        one = command_line("check", [files[0], "--against", against])
        raise UsageError(f"`--against` takes one model, not {len(files)}", f"check one at a time: `{one}`")
    try:
        most = limits(params=params, macs=macs, activations=activations, memory=memory, against=against)
    except UsageError as error:
        _annotate(Problem(error.message, hint=error.hint))
        raise
    for file in files:
        try:
            outcome = report.check(file, zoo, most)
        except (UsageError, ResourceError) as error:
            complain(str(error))
            _annotate(Problem(error.message, hint=error.hint))
            worst = worse(worst, 3 if isinstance(error, ResourceError) else 2)
            continue
        worst = worse(worst, outcome.exit_code)
        for problem in (*outcome.errors, *outcome.unmet, *outcome.exceeded, *outcome.warnings):
            complain(str(problem))
            _annotate(problem)
        if outcome.profile and not outcome.exit_code:
            counts = outcome.profile.counts
            figures = f"{short(counts.params)} parameters, {short(counts.macs)} MACs, depth {counts.depth}"
            print_whole(f"{file}: ok, {figures}")
    if worst:
        raise typer.Exit(worst)


def _annotate(problem: Problem) -> None:
    """Has GitHub show a problem beside its line, in a workflow of GitHub's."""
    if os.environ.get("GITHUB_ACTIONS") == "true":
        from resnetcli.reports.annotation import annotation

        print(annotation(problem))
