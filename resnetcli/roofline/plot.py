"""The steps of a net under the roof of a device (Williams et al. 2009), as a drawing."""

from __future__ import annotations

import math
from collections.abc import Iterator

from resnetcli.errors import clean
from resnetcli.roofline.analysis import Explanation, Floor, kind
from resnetcli.roofline.tables import SHARES, device_name, flops_a_second, settings_text
from resnetcli.table.numbers import duration, short, size_of
from resnetcli.table.safe import xml

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 900, 560, 110, 70, 60, 30
COLOURS = {"compute": "#2563eb", "memory": "#d97706", "overhead": "#6b7280"}


def roofline_svg(found: Explanation) -> str:
    """The steps under the roof: operations a byte across, operations a second upwards, both by powers of ten.

    A dot is a step with arithmetic, as large as its share of the time; it lies where it was measured, or on the roof
    where it was not.
    """
    floor, ceilings = found.executed, found.ceilings
    peak, bandwidth = ceilings.peak(floor.dtype).best, ceilings.rates[-1].copy
    near = max(entry.read for entry in ceilings.rates)
    dots = list(_dots(found, floor))
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
        f"{xml(clean(found.title, 80))} on {xml(device_name(ceilings))}</text>",
        f'<text x="{LEFT}" y="44" fill="#555">{xml(_under(found))}</text>',
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
        f'<text x="{WIDTH - RIGHT}" y="{py(peak) - 8}" text-anchor="end">{flops_a_second(peak)}, '
        f"{size_of(round(bandwidth))}/s from memory</text>"
    )
    for x, y, radius, bound, label in sorted(dots, key=lambda dot: -dot[2]):
        out.append(
            f'<circle cx="{px(x)}" cy="{py(y)}" r="{radius:.1f}" fill="{COLOURS[bound]}" fill-opacity="0.45" '
            f'stroke="{COLOURS[bound]}"><title>{xml(label)}</title></circle>'
        )
    middle = (LEFT + WIDTH - RIGHT) // 2
    out.append(f'<text x="{middle}" y="{HEIGHT - 28}" text-anchor="middle">FLOPs a byte moved</text>')
    for index, (bound, colour) in enumerate(COLOURS.items()):
        x = LEFT + 190 * index
        out.append(f'<circle cx="{x + 6}" cy="{HEIGHT - 12}" r="6" fill="{colour}"/>')
        out.append(f'<text x="{x + 18}" y="{HEIGHT - 8}">{SHARES.get(bound, bound)}</text>')
    if near > bandwidth:
        out.append(
            f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end" fill="#555">'
            "dashed: from the nearest cache</text>"
        )
    return "\n".join([*out, "</svg>"]) + "\n"


def _dots(found: Explanation, floor: Floor) -> Iterator[tuple[float, float, float, str, str]]:
    """Operations a byte, operations a second, radius, bound, what it is."""
    times = found.split.steps_s if found.split else None
    whole = sum(times) if times else floor.seconds
    for index, step in enumerate(found.plan.steps):
        work = floor.steps[index]
        seconds = times[index] if times else work.floor_s
        if not work.flops or seconds <= 0:
            continue
        radius = 3 + 40 * math.sqrt(seconds / whole) / 2
        label = f"{step.path}: {kind(step)}, {short(work.flops)} FLOPs, {size_of(work.bytes)}, {duration(seconds)}"
        yield work.intensity, work.flops / seconds, radius, work.bound, label


def _power(power: int) -> str:
    """`100 GFLOP/s` for 10^11."""
    prefixes = {0: "", 3: "K", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E"}
    exponent = max(0, min(18, power // 3 * 3))
    return f"{10.0 ** (power - exponent):g} {prefixes[exponent]}FLOP/s"


def _under(found: Explanation) -> str:
    where = "measured" if found.split and found.split.agrees else "at their floors"
    return (
        f"{settings_text(found)}, batch {found.executed.batch}; convolutions and fully connected layers {where}, "
        "as large as their time"
    )


def _decades(low: float, high: float) -> tuple[int, int]:
    low, high = (min(max(value, 1e-300), 1e300) for value in (low, high))  # somebody's file may say what it likes
    bottom = math.floor(math.log10(low))
    return bottom, max(bottom + 1, math.ceil(math.log10(high)))
