"""Texts of figures: the only place that decides rounding, units and separators."""

from __future__ import annotations

import math
from decimal import Decimal

_PREFIXES = ("", "K", "M", "G", "T", "P", "E")
_TIMES = ((0, "s"), (-3, "ms"), (-6, "us"), (-9, "ns"))
_DIGITS = 4
"""Significant digits of a rounded figure."""


def short(value: int) -> str:
    """Four significant digits: 25557032 -> `25.56M`; below a thousand the number itself."""
    return _prefixed(value, "{}{}")


def exact(value: int) -> str:
    """`25,557,032`."""
    return f"{value:,}"


def size_of(value: int) -> str:
    """Bytes in decimal units: 100228128 -> `100.2 MB`."""
    return _prefixed(value, "{} {}B").replace("KB", "kB")


def duration(seconds: float) -> str:
    """0.0123456 -> `12.35 ms`."""
    if not seconds or not math.isfinite(seconds):
        return f"{seconds or 0:g} s"
    rounded = _rounded(seconds)
    power, unit = next((each for each in _TIMES if rounded.adjusted() >= each[0]), (None, "s"))
    if power is None or rounded.adjusted() > 12:
        return f"{seconds:.3g} s"
    return f"{rounded.scaleb(-power):f} {unit}" if rounded.adjusted() < _DIGITS else f"{seconds:.0f} s"


def rate(per_second: float) -> str:
    """Images per second: `1,234` or `81.23`."""
    if not per_second or not math.isfinite(per_second):
        return f"{per_second or 0:g}"
    rounded = _rounded(per_second)
    if rounded.adjusted() >= _DIGITS - 1:
        return f"{per_second:,.0f}"
    return f"{rounded:f}" if rounded.adjusted() >= -_DIGITS else f"{rounded:.3e}"


def percent(share: float) -> str:
    """`12.3%`."""
    text = f"{100 * share:.1f}%"
    return "0.0%" if text == "-0.0%" else text


def factor(ratio: float, digits: int = 3) -> str:
    """A ratio with some significant digits: `2.67`, `12.3`, `1,230`."""
    if not math.isfinite(ratio) or not ratio:
        return f"{ratio:g}"
    rounded = _rounded(ratio, digits)
    if -4 <= rounded.adjusted() < 9:
        text = f"{rounded:,f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{ratio:.3g}"


def change(value: float, reference: float) -> str:
    """Relative to a reference: `+12.3%`, or a factor from 2 on: `x2.67`."""
    if not reference:
        return ""
    ratio = value / reference
    if ratio == 1:
        return "="
    return signed_percent(ratio - 1) if ratio < 1.9995 else f"x{factor(ratio)}"  # from what rounds to +100.0%


def signed_percent(share: float, decimals: int = 1) -> str:
    """`+12.3%`; one significant digit of a share that would round to zero: `-0.0004%`."""
    text = f"{100 * share:+.{decimals}f}%"
    if share and not text.strip("+-0.%"):
        return f"{_rounded(100 * share, 1):+f}%"
    return text


def _prefixed(value: int, form: str) -> str:
    """Round, then choose the prefix: 999,960 is `1.000M`. Numbers below a thousand are exact."""
    if abs(value) < 1000:
        return form.format(value, "")
    rounded = _rounded(value)
    thousands = rounded.adjusted() // 3
    if thousands >= len(_PREFIXES):
        return form.format(f"{rounded:.{_DIGITS - 1}e}", "")
    return form.format(f"{rounded.scaleb(-3 * thousands):f}", _PREFIXES[thousands])


def _rounded(value: float, digits: int = _DIGITS) -> Decimal:
    """Round to significant digits, with trailing zeros: 999.96 is 1000 and 0.5 is 0.5000."""
    return Decimal(f"{Decimal(value):.{digits - 1}e}")


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
    """Name of a published figure in tables: `top1_error` -> `top-1 error %`."""
    return _FIGURES.get(figure, figure)
