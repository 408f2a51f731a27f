"""How figures are written: rounding, units and separators are decided here alone."""

from __future__ import annotations

import math

_PREFIXES = ((10**15, "P"), (10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "K"))
_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))


def short(value: int) -> str:
    """Four significant digits: 25557032 -> `25.56M`; below a thousand the number itself."""
    for size, prefix in _PREFIXES:
        if abs(value) >= size:
            return f"{_significant(value / size)}{prefix}"
    return str(value)


def exact(value: int) -> str:
    """`25,557,032`."""
    return f"{value:,}"


def size_of(value: int) -> str:
    """Bytes in decimal units: 100228128 -> `100.2 MB`."""
    for size, prefix in _PREFIXES:
        if abs(value) >= size:
            return f"{_significant(value / size)} {'k' if prefix == 'K' else prefix}B"
    return f"{value} B"


def duration(seconds: float) -> str:
    """0.0123456 -> `12.35 ms`."""
    for size, unit in _TIMES:
        if seconds >= size:
            return f"{_significant(seconds / size)} {unit}"
    return "0 s" if seconds == 0 else f"{seconds:.3g} s"


def rate(per_second: float) -> str:
    """Images per second: `1,234` or `81.23`."""
    return f"{per_second:,.0f}" if per_second >= 1000 else _significant(per_second)


def percent(share: float) -> str:
    """`12.3%`."""
    return f"{100 * share:.1f}%"


def change(value: float, reference: float) -> str:
    """Relative to a reference: `+12.3%`, or a factor from 2 on: `x2.67`."""
    if not reference:
        return ""
    ratio = value / reference
    if ratio == 1:
        return "="
    return f"x{ratio:.3g}" if ratio >= 2 else f"{100 * (ratio - 1):+.1f}%"


def _significant(value: float, digits: int = 4) -> str:
    whole = len(str(math.floor(abs(value)))) if value else 1
    return f"{value:.{max(0, digits - whole)}f}"


def bar(share: float, width: int) -> str:
    """A horizontal bar of `share` (0 to 1) of `width` characters, in eighths."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    return "█" * full + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[rest]


_FIGURES = {
    "macs": "MACs",
    "flops": "FLOPs",
    "top1_error": "top-1 error %",
    "top5_error": "top-5 error %",
    "top1_error_mean5": "top-1 error %, mean of 5",
    "top1_accuracy": "top-1 accuracy %",
    "top5_accuracy": "top-5 accuracy %",
    "time_per_minibatch16": "time for 16 images",
    "bottleneck_width_d": "width d",
    "group_conv_width": "group conv width",
}


def figure_name(figure: str) -> str:
    """What people call a published figure: `top1_error` -> `top-1 error %`."""
    return _FIGURES.get(figure, figure)


def spoken(condition: str) -> str:
    """A protocol or dataset as people write it: `single-crop-224` -> `single crop 224`."""
    return condition if " " in condition else condition.replace("-", " ")
