"""Measure a device's peaks."""

from __future__ import annotations

from typing import Annotated

import typer

from resnetcli.cli.app import (
    ExplainColumns,
    Formats,
    complain,
    examples,
    guarded,
    print_output,
    report_step,
)
from resnetcli.errors import UsageError
from resnetcli.table.formats import TABLE, Output, Section

app = typer.Typer(add_completion=False)


@app.command(
    "calibrate",
    epilog=examples("calibrate --device cuda", "calibrate --show", "calibrate --format json > my_machine.json"),
)
@guarded
def calibrate(
    device: Annotated[str, typer.Option("--device", metavar="cpu|cuda[:N]", help="Device to calibrate.")] = "cpu",
    show: Annotated[bool, typer.Option("--show", help="Show cached results without measuring.")] = False,
    format: Formats = TABLE,
    explain_columns: ExplainColumns = False,
) -> None:
    """Measure peak FLOP/s, memory bandwidth and launch overhead of a device (cached for `explain` and `estimate`)."""
    from resnetcli.bench.device import find
    from resnetcli.roofline.peaks import cache_file, cached, write_profile
    from resnetcli.roofline.record import ceilings_record
    from resnetcli.roofline.tables import (
        ceilings_heading,
        ceilings_noise,
        ceilings_sheet,
        launch_line,
        peaks_sheet,
        rates_sheet,
    )

    device = find(device)
    if show:
        kept = cached(device)
        if kept is None:
            raise UsageError(f"`{device}` was not calibrated here yet", f"`resnet-cli calibrate --device {device}`")
        found = kept
    else:
        from resnetcli.roofline.calibrate import calibrate as measure

        found, kept = measure(device, report=report_step), cached(device)
        try:
            if found.noisy and kept is not None and not kept.noisy:
                complain("warning: not cached: these are noisy, and those from earlier are not")
            else:
                write_profile(found, cache_file(device))
        except OSError as error:
            complain(f"warning: not cached: {error.strerror or error}")
        except UsageError as error:
            complain(f"warning: not cached: {error.message}; {error.hint}")
    noise = ceilings_noise(found)
    output = Output(
        lambda: ceilings_record(found),
        lambda: [
            Section(peaks_sheet(found), ceilings_heading(found)),
            Section(rates_sheet(found), after=[launch_line(found), *noise]),
        ],
        lambda: [ceilings_sheet(found)],
        warnings=noise, explain_columns=explain_columns,
    )  # fmt: skip
    print_output(output, format)
