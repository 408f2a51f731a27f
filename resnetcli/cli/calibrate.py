"""Measure a device's peaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from resnetcli.cli.app import (
    Format,
    Formats,
    complain,
    examples,
    guarded,
    print_sheet,
    report_step,
    warn,
)
from resnetcli.errors import UsageError

if TYPE_CHECKING:
    pass


app = typer.Typer(add_completion=False)


@app.command(
    "calibrate",
    epilog=examples("calibrate --device cuda", "calibrate --show", "calibrate --format json > my_machine.json"),
)
@guarded
def calibrate(
    device: Annotated[str, typer.Option("--device", metavar="cpu|cuda[:N]", help="Device to calibrate.")] = "cpu",
    show: Annotated[bool, typer.Option("--show", help="Show cached results without measuring.")] = False,
    format: Formats = Format.table,
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
    from resnetcli.table.output import print_json

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
    if format is Format.json:
        print_json(ceilings_record(found))
    elif format is Format.csv:
        print_sheet(ceilings_sheet(found), format)
        warn(ceilings_noise(found))
    else:
        print_sheet(peaks_sheet(found), format, ceilings_heading(found))
        print_sheet(rates_sheet(found), format, after=[launch_line(found), *ceilings_noise(found)], below=True)
