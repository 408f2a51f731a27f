"""A device's peaks as text and tables: the output of `calibrate`."""

from __future__ import annotations

from typing import NamedTuple

from resnetcli.errors import clean
from resnetcli.roofline.peaks import Bandwidth, DevicePeaks, Peak
from resnetcli.table.fields import Field
from resnetcli.table.numbers import duration, short, size_of
from resnetcli.table.sheet import Sheet


def peaks_heading(peaks: DevicePeaks) -> list[str]:
    """The device, where its peaks are from, and the conditions of the measurement."""
    conditions = "   ".join(_condition(key, value) for key, value in peaks.conditions.items() if key != "measured")
    return [f"{device_name(peaks)}   peaks {origin(peaks)}", *([conditions] if conditions else [])]


def device_name(peaks: DevicePeaks) -> str:
    """The name, safe for a terminal and a plot: a profile may be anyone's file."""
    return clean(peaks.name, 80)


def _condition(key: str, value: str) -> str:
    key, value = clean(key, 80), clean(value, 200)
    if key == "last_cache_bytes" and value.isdecimal():
        return f"last cache {size_of(int(value))}"
    if value == "1" and key.endswith("s"):  # `1 thread`
        key = key.removesuffix("s")
    return value if key == "datasheet" else f"{value} {key}" if value.isdecimal() else f"{key} {value}"


def origin(peaks: DevicePeaks) -> str:
    """`measured 2026-11-21 06:29 UTC`, or `from its datasheet, not measured`."""
    if peaks.source == "datasheet":
        return "from its datasheet, not measured"
    return f"measured {clean(peaks.conditions.get('measured', ''), 80)}".rstrip()


def noisy_lines(peaks: DevicePeaks) -> list[str]:
    """Why the peaks are unreliable, for `calibrate`."""
    return [f"noisy, calibrate again on a quiet machine: {_reasons(peaks)}"] if peaks.noisy else []


def noisy_warning(peaks: DevicePeaks) -> list[str]:
    """Why the peaks are unreliable, for commands that use them."""
    if not peaks.noisy:
        return []
    command = f"resnet-cli calibrate{'' if peaks.device == 'cpu' else ' --device cuda'}"
    return [f"the device peaks were measured on a busy machine ({_reasons(peaks)}); run `{command}` when it is quiet"]


def _reasons(peaks: DevicePeaks) -> str:
    return clean("; ".join(peaks.noisy), 200)


def flops_per_second(value: float) -> str:
    """`95.10 GFLOP/s`."""
    text = short(round(value))
    return f"{text[:-1]} {text[-1]}FLOP/s" if text[-1].isalpha() else f"{text} FLOP/s"


def bytes_per_second(value: float) -> str:
    """`900.0 GB/s`."""
    return f"{size_of(round(value))}/s"


COMPUTE: list[Field[tuple[str, Peak]]] = [
    Field("dtype", "compute", lambda row: row[0], align="left", style="bold", help="compute precision"),
    Field("matmul_flop_s", "matrix multiplication", lambda row: row[1].matmul_flop_s, flops_per_second,
          help="peak FLOP/s of matrix products"),
    Field("conv_flop_s", "3x3 convolution", lambda row: row[1].conv_flop_s, flops_per_second,
          help="peak FLOP/s of dense 3x3 convolutions"),
]  # fmt: skip
MEMORY: list[Field[Bandwidth]] = [
    Field("working_set_bytes", "memory, working set", text=size_of, align="left", style="bold",
          help="bytes read and written, together"),
    Field("copy_bytes_s", "copy", text=bytes_per_second, help="bytes read and written per second when copying"),
    Field("read_bytes_s", "read", text=bytes_per_second, help="bytes read per second when only reading"),
]  # fmt: skip


def compute_sheet(peaks: DevicePeaks) -> Sheet:
    """Peak FLOP/s per dtype."""
    return Sheet.of(COMPUTE, tuple(peaks.peaks.items()))


def bandwidth_sheet(peaks: DevicePeaks) -> Sheet:
    """Peak bandwidth per working set."""
    return Sheet.of(MEMORY, peaks.bandwidth)


class PeakFigure(NamedTuple):
    """One figure of a device, for CSV."""

    kind: str
    what: str
    """The dtype, or the working set in bytes."""
    value: float
    unit: str


FIGURES = {
    "kind": "matmul, conv, copy, read, launch or gap",
    "what": "dtype, or working set in bytes",
    "value": "the figure",
    "unit": "its unit",
}


def peaks_sheet(peaks: DevicePeaks) -> Sheet:
    """All peaks in one table, one figure per row, for CSV."""
    figures: list[PeakFigure] = []
    for dtype, peak in peaks.peaks.items():
        figures += [PeakFigure("matmul", dtype, peak.matmul_flop_s, "FLOP/s"),
                    PeakFigure("conv", dtype, peak.conv_flop_s, "FLOP/s")]  # fmt: skip
    for entry in peaks.bandwidth:
        size = str(entry.working_set_bytes)
        figures += [PeakFigure("copy", size, entry.copy_bytes_s, "B/s"),
                    PeakFigure("read", size, entry.read_bytes_s, "B/s")]  # fmt: skip
    figures += [PeakFigure("launch", "", peaks.launch_s, "s"), PeakFigure("gap", "", peaks.gap_s, "s")]
    return Sheet.of([Field(name, name, help=text) for name, text in FIGURES.items()], figures)


def launch_text(peaks: DevicePeaks) -> str:
    """`3.000 us per launch`."""
    return f"{duration(peaks.launch_s)} per launch" if peaks.launch_s else "launch overhead unknown"


def launch_line(peaks: DevicePeaks) -> str:
    """The cost of a kernel launch."""
    if not peaks.launch_s:
        return "kernel launch: unknown, so lower bounds exclude launch overhead"
    gap = "" if peaks.gap_s == peaks.launch_s else f"; {duration(peaks.gap_s)} between queued kernels"
    return f"kernel launch: {duration(peaks.launch_s)}{gap}"
