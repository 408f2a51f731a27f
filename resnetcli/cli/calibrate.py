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
    """Measure peak FLOP/s, memory bandwidth and launch overhead of a device (cached for `explain`)."""
    from resnetcli.bench.device import find
    from resnetcli.roofline.peaks_table import (
        bandwidth_sheet,
        compute_sheet,
        launch_line,
        noisy_lines,
        peaks_heading,
        peaks_sheet,
    )
    from resnetcli.roofline.profiles import cache_file, device_profile_record, read_cached, write_profile

    device = find(device)
    cached = read_cached(device)
    if show:
        if cached is None:
            raise UsageError(f"`{device}` has not been calibrated", f"`resnet-cli calibrate --device {device}`")
        peaks = cached
    else:
        from resnetcli.roofline.calibrate import measure_device_peaks

        peaks = measure_device_peaks(device, report=report_step)
        try:
            if peaks.noisy and cached is not None and not cached.noisy:
                complain("warning: not cached: this measurement is noisy, and the cached one is not")
            else:
                write_profile(peaks, cache_file(device))
        except OSError as error:
            complain(f"warning: not cached: {error.strerror or error}")
        except UsageError as error:
            complain(f"warning: not cached: {error.message}; {error.hint}")
    noise = noisy_lines(peaks)
    output = Output(
        lambda: device_profile_record(peaks),
        lambda: [
            Section(compute_sheet(peaks), peaks_heading(peaks)),
            Section(bandwidth_sheet(peaks), after=[launch_line(peaks), *noise]),
        ],
        lambda: [peaks_sheet(peaks)],
        warnings=noise, explain_columns=explain_columns,
    )  # fmt: skip
    print_output(output, format)
