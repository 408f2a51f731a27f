"""Roofline plot: the steps of a model below a device's peaks (Williams et al. 2009)."""

from __future__ import annotations

import math
from collections.abc import Iterator

from resnetcli.errors import clean
from resnetcli.roofline.analysis import Explanation
from resnetcli.roofline.bounds import Bound
from resnetcli.roofline.explain_table import CAUSES, execution_text
from resnetcli.roofline.peaks_table import device_name, flops_per_second
from resnetcli.table.numbers import duration, short, size_of
from resnetcli.table.safe import xml

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 900, 560, 110, 70, 60, 30
COLOURS: dict[Bound, str] = {"compute": "#2563eb", "memory": "#d97706", "overhead": "#6b7280"}


def roofline_svg(explanation: Explanation) -> str:
    """FLOP/s over arithmetic intensity (FLOPs/byte), both logarithmic.

    A dot is a step with FLOPs, its area the share of the time; without measured layers it lies on the roofline.
    """
    device_peaks = explanation.device_peaks
    peak, bandwidth = device_peaks.peak(explanation.eager.dtype).best, device_peaks.bandwidth[-1].copy_bytes_s
    near = max(entry.read_bytes_s for entry in device_peaks.bandwidth)
    dots = list(_dots(explanation))
    xs = [x for x, *_ in dots] or [1.0]
    ys = [y for _, y, *_ in dots] or [peak]
    x0, x1 = _decades(min(*xs, peak / near, 1), max(*xs, peak / bandwidth) * 2)
    y0, y1 = _decades(min(min(ys), peak / 100), peak * 2)

    def px(x: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (math.log10(x) - x0) / (x1 - x0), 1)

    def py(y: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (math.log10(max(y, 10**y0)) - y0) / (y1 - y0), 1)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="24" font-size="16" font-weight="bold">'
        f"{xml(clean(explanation.full_title, 80))} on {xml(device_name(device_peaks))}</text>",
        f'<text x="{LEFT}" y="44" fill="#555">{xml(_subtitle(explanation))}</text>',
    ]
    for power in range(x0, x1 + 1):
        x = px(10.0**power)
        out.append(f'<line x1="{x}" y1="{TOP}" x2="{x}" y2="{HEIGHT - BOTTOM}" stroke="#e5e7eb"/>')
        out.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{10.0**power:g}</text>')
    for power in range(y0, y1 + 1):
        y = py(10.0**power)
        out.append(f'<line x1="{LEFT}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}" stroke="#e5e7eb"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{_power(power)}</text>')
    left, right = 10.0**x0, 10.0**x1
    roofs = [(bandwidth, ""), (near, ' stroke-dasharray="5 4"')]
    for roof, dash in roofs if near > bandwidth else roofs[:1]:
        start = max(left, 10.0**y0 / roof)
        ridge = min(peak / roof, right)
        points = (
            f"{px(start)},{py(start * roof)} {px(ridge)},{py(ridge * roof)} {px(right)},{py(min(peak, right * roof))}"
        )
        out.append(f'<polyline points="{points}" fill="none" stroke="#111827" stroke-width="2"{dash}/>')
    out.append(
        f'<text x="{WIDTH - RIGHT}" y="{py(peak) - 8}" text-anchor="end">{flops_per_second(peak)}, '
        f"{size_of(round(bandwidth))}/s memory bandwidth</text>"
    )
    for x, y, radius, bound, label in sorted(dots, key=lambda dot: -dot[2]):
        out.append(
            f'<circle cx="{px(x)}" cy="{py(y)}" r="{radius:.1f}" fill="{COLOURS[bound]}" fill-opacity="0.45" '
            f'stroke="{COLOURS[bound]}"><title>{xml(label)}</title></circle>'
        )
    middle = (LEFT + WIDTH - RIGHT) // 2
    out.append(f'<text x="{middle}" y="{HEIGHT - 28}" text-anchor="middle">FLOPs per byte</text>')
    for index, (bound, colour) in enumerate(COLOURS.items()):
        x = LEFT + 190 * index
        out.append(f'<circle cx="{x + 6}" cy="{HEIGHT - 12}" r="6" fill="{colour}"/>')
        out.append(f'<text x="{x + 18}" y="{HEIGHT - 8}">{CAUSES[bound]}</text>')
    if near > bandwidth:
        out.append(
            f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end" fill="#555">dashed: cache bandwidth</text>'
        )
    return "\n".join([*out, "</svg>"]) + "\n"


def _dots(explanation: Explanation) -> Iterator[tuple[float, float, float, Bound, str]]:
    """Intensity, FLOP/s, radius, bound and label of each step."""
    times = explanation.layer_times.reliable_s if explanation.layer_times else None
    whole = sum(times) if times else explanation.eager.seconds
    for index, (step, cost) in enumerate(zip(explanation.plan.steps, explanation.eager.steps, strict=True)):
        seconds = times[index] if times else cost.lower_bound_s
        if not cost.flops or not cost.bound or seconds <= 0:
            continue
        radius = 3 + 40 * math.sqrt(seconds / whole) / 2
        label = f"{step.path}: {step.op.label}, {short(cost.flops)} FLOPs, {size_of(cost.bytes)}, {duration(seconds)}"
        yield cost.intensity, cost.flops / seconds, radius, cost.bound, label


def _power(power: int) -> str:
    """`100 GFLOP/s` for 10^11."""
    prefixes = {0: "", 3: "K", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E"}
    exponent = max(0, min(18, power // 3 * 3))
    return f"{10.0 ** (power - exponent):g} {prefixes[exponent]}FLOP/s"


def _subtitle(explanation: Explanation) -> str:
    times = explanation.layer_times
    where = "measured" if times and times.agrees else "at their lower bounds"
    return (
        f"{execution_text(explanation)}, batch {explanation.eager.batch_size}; convolutions and fully connected layers "
        f"{where}, sized by time"
    )


def _decades(low: float, high: float) -> tuple[int, int]:
    low, high = (min(max(value, 1e-300), 1e300) for value in (low, high))  # a user's profile may have any
    bottom = math.floor(math.log10(low))
    return bottom, max(bottom + 1, math.ceil(math.log10(high)))
