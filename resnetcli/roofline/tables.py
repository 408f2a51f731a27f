"""Why a net takes its time, as a person reads it: one sentence, the shares, rows and layers."""

from __future__ import annotations

from collections.abc import Sequence

from resnetcli.errors import clean, plural
from resnetcli.reports.measured import worst_reasons
from resnetcli.roofline.analysis import (
    Difference,
    Explanation,
    Floor,
    Part,
    Prediction,
    Suggestion,
    Tested,
    bounds_of,
)
from resnetcli.roofline.peaks import Ceilings
from resnetcli.table.numbers import change, duration, factor, percent, rate, short, size_of
from resnetcli.table.sheet import Cell, Column, Sheet, cell

BOUND_WORDS = {
    "compute": "arithmetic",
    "memory": "moving activations and weights",
    "overhead": "starting operations one by one",
    "unexplained": "something that neither bytes nor arithmetic explain",
}
SHARES = {"compute": "compute-bound", "memory": "memory-bound", "overhead": "overhead-bound"}


# --- ceilings ----------------------------------------------------------------------------------------------------


def ceilings_heading(ceilings: Ceilings) -> list[str]:
    """Whose they are, and where they are from."""
    told = "   ".join(_condition(key, value) for key, value in ceilings.conditions.items() if key != "measured")
    return [f"{device_name(ceilings)}   ceilings {origin(ceilings)}", *([told] if told else [])]


def device_name(ceilings: Ceilings) -> str:
    """As a terminal and a drawing can show it: a profile is somebody's file."""
    return clean(ceilings.name, 80)


def _condition(key: str, value: str) -> str:
    key, value = clean(key, 80), clean(value, 200)
    if key == "last_cache_bytes" and value.isdecimal():
        return f"last cache {size_of(int(value))}"
    if value == "1" and key.endswith("s"):  # `1 thread`
        key = key.removesuffix("s")
    return value if key == "printed" else f"{value} {key}" if value.isdecimal() else f"{key} {value}"


def origin(ceilings: Ceilings) -> str:
    """`measured 2026-11-21 06:29 UTC`, or `as its datasheet has them`."""
    if ceilings.source == "datasheet":
        return "from its datasheet, not measured"
    return f"measured {clean(ceilings.conditions.get('measured', ''), 80)}".rstrip()


def ceilings_noise(ceilings: Ceilings) -> list[str]:
    """Why they are not to be relied upon, if they are not, where they are shown."""
    if not ceilings.noisy:
        return []
    return [f"noisy: {_reasons(ceilings)}; not to be relied upon, calibrate again on a quiet machine"]


def ceilings_warning(ceilings: Ceilings) -> list[str]:
    """The same where they are used."""
    if not ceilings.noisy:
        return []
    command = f"resnet-cli calibrate{'' if ceilings.device == 'cpu' else ' --device cuda'}"
    return [f"the ceilings were measured on a busy machine ({_reasons(ceilings)}): `{command}` again when it is quiet"]


def _reasons(ceilings: Ceilings) -> str:
    return clean("; ".join(ceilings.noisy), 200)


def peaks_sheet(ceilings: Ceilings) -> Sheet:
    """What it computes at most."""
    columns = (
        Column("arithmetic", "dtype", "left", "bold"),
        Column("matrix products", "matmul_flop_s"),
        Column("3x3 convolutions", "conv_flop_s"),
    )
    rows = tuple(
        (cell(dtype), cell(peak.matmul, flops_a_second(peak.matmul)), cell(peak.conv, flops_a_second(peak.conv)))
        for dtype, peak in ceilings.peaks.items()
    )
    return Sheet(columns, rows)


def rates_sheet(ceilings: Ceilings) -> Sheet:
    """What it moves at most."""
    columns = (
        Column("memory, working set", "working_set_bytes", "left", "bold"),
        Column("copied", "copy_bytes_s"),
        Column("only read", "read_bytes_s"),
    )
    rows = tuple(
        (
            cell(entry.working_set, size_of(entry.working_set)),
            cell(entry.copy, f"{size_of(round(entry.copy))}/s"),
            cell(entry.read, f"{size_of(round(entry.read))}/s"),
        )
        for entry in ceilings.rates
    )
    return Sheet(columns, rows)


def ceilings_sheet(ceilings: Ceilings) -> Sheet:
    """All of them in one table, a figure a row, for programs."""
    found: list[tuple[str, str, float, str]] = []
    for dtype, peak in ceilings.peaks.items():
        found += [("matmul", dtype, peak.matmul, "FLOP/s"), ("conv", dtype, peak.conv, "FLOP/s")]
    for entry in ceilings.rates:
        size = str(entry.working_set)
        found += [("copy", size, entry.copy, "B/s"), ("read", size, entry.read, "B/s")]
    found += [("launch", "", ceilings.launch_s, "s"), ("gap", "", ceilings.gap_s, "s")]
    columns = (Column("kind", "kind", "left", "bold"), Column("what", "what", "left"), Column("value", "value"),
               Column("unit", "unit", "left"))  # fmt: skip
    return Sheet(columns, tuple(tuple(cell(value) for value in row) for row in found))


def _launches(ceilings: Ceilings) -> str:
    return f"{duration(ceilings.launch_s)} a launch" if ceilings.launch_s else "launches not known"


def launch_line(ceilings: Ceilings) -> str:
    """What it takes to start an operation."""
    if not ceilings.launch_s:
        return "launches: no figure, so what they take is not in any floor"
    gap = "" if ceilings.gap_s == ceilings.launch_s else f"; {duration(ceilings.gap_s)} where the queue is full"
    return f"launches: {duration(ceilings.launch_s)} an operation{gap}"


def flops_a_second(value: float) -> str:
    """`95.10 GFLOP/s`."""
    text = short(round(value))
    return f"{text[:-1]} {text[-1]}FLOP/s" if text[-1].isalpha() else f"{text} FLOP/s"


# --- one net -----------------------------------------------------------------------------------------------------


def summary(found: Explanation, difference: Difference | None = None) -> str:
    """The answer in one sentence, which says so if it rests on a noisy run."""
    said = _against(difference) if difference else _alone(found)
    nets = (difference.net, difference.other) if difference else (found,)
    noisy = any(net.measurement is not None and net.measurement.noisy for net in nets)
    return f"On a noisy run, {said}" if noisy else said


def _alone(found: Explanation) -> str:
    shares = found.shares
    most = max(shares, key=lambda share: shares[share])
    part = percent(shares[most])
    if found.measurement is None:
        return (
            f"{found.title} cannot take less than {duration(found.time_s)} here as executed, "
            f"{part} of it for {BOUND_WORDS[most]}."
        )
    lead = f"{found.title} takes {duration(found.time_s)}, where {duration(found.executed.seconds)} would be possible"
    if found.unexplained_s < 0:
        return f"{lead}: the ceilings are too low, so calibrate again on a quiet machine."
    if found.launch_bound and most in {"unexplained", "overhead"}:
        return f"{lead} as executed: it is launch-bound, {host_words(found)}."
    return f"{lead} as executed: {part} of its time goes into {BOUND_WORDS[most]}."


def host_words(found: Explanation) -> str:
    """`the CPU takes 3.1 ms to start 174 kernels`."""
    host_s = found.measurement.host_s if found.measurement else None
    return f"the CPU takes {duration(host_s or 0.0)} to start {plural(found.executed.total.kernels, 'kernel')}"


def _against(difference: Difference) -> str:
    net, other, ratio = difference.net, difference.other, difference.time_ratio
    work = f"with {_more(difference.ratio('macs'), 'MACs')} and {_more(difference.ratio('bytes'), 'bytes moved')}"
    if net.measurement and other.measurement:
        lead = f"{net.title} takes {_longer(ratio)} {other.title}, {work}"
        if difference.paired is not None and difference.paired.outcome == "same":
            told = percent(difference.paired.resolution)
            return f"{net.title} and {other.title} cannot be told apart here (resolution {told}), {work}."
    else:
        lead = f"{net.title} has {_higher(ratio)} {other.title}, {work}"
    seconds, gap = difference.seconds, net.time_s - other.time_s
    if abs(ratio - 1) < 0.02:
        return f"{lead}."
    most = max(seconds, key=lambda name: seconds[name] * (1 if gap > 0 else -1))
    causes = {"compute": "arithmetic explains", "memory": "the bytes explain", "overhead": "launches explain"}
    part = seconds[most] / gap
    share = "all of it" if part > 0.95 else f"{percent(part)} of it"
    slower = net if gap > 0 else other
    if slower.launch_bound and most in {"unexplained", "overhead"}:
        return f"{lead}: {slower.title} is launch-bound, {host_words(slower)}."
    if most == "unexplained":
        return f"{lead}: bytes and arithmetic leave {share} unexplained{_culprit(difference)}."
    return f"{lead}: {causes[most]} {share}."


def _culprit(difference: Difference) -> str:
    """The kind of step whose time above its floor differs most, the way the nets' do, if the layers were timed."""
    if not difference.timed:
        return ""
    unexplained = difference.seconds["unexplained"]
    sign = 1 if unexplained > 0 else -1
    kinds = [(sign * (_beyond(net) - _beyond(other)), name, other, net) for name, other, net in difference.kinds]
    beyond, name, other, net = max(kinds, key=lambda each: each[0], default=(0.0, "", None, None))
    if beyond <= 0:
        return ""
    found = f", {'most' if beyond > abs(unexplained) / 2 else 'the largest part'} of it in {name}"
    part, slower = (net, difference.net) if sign > 0 else (other, difference.other)
    if part is not None and part.attained is not None:
        found += f", which reaches {percent(part.attained)} of its ceiling in {slower.title}"
    return found


def _beyond(part: Part | None) -> float:
    return 0.0 if part is None or part.measured_s is None else part.measured_s - part.work.floor_s


def _longer(ratio: float) -> str:
    if abs(ratio - 1) < 0.005:
        return "as long as"
    if ratio >= 2:
        return f"{factor(ratio)} x as long as"
    return f"{percent(abs(ratio - 1))} {'longer' if ratio > 1 else 'less time'} than"


def _higher(ratio: float) -> str:
    if abs(ratio - 1) < 0.005:
        return "the floor of"
    if ratio >= 2:
        return f"a floor {factor(ratio)} x that of"
    return f"a floor {percent(abs(ratio - 1))} {'above' if ratio > 1 else 'below'} that of"


def _more(ratio: float | None, what: str) -> str:
    if ratio is None:
        return f"{what} where it has none"
    if abs(ratio - 1) < 0.005:
        return f"the same {what}"
    if ratio >= 2:
        return f"{factor(ratio)} x the {what}"
    return f"{percent(abs(ratio - 1))} {'more' if ratio > 1 else 'fewer'} {what}"


def heading(found: Explanation) -> list[str]:
    """The net, the device and its ceilings at this dtype; the times; where they go."""
    floor, ceilings = found.executed, found.ceilings
    peak = ceilings.peak(floor.dtype)
    largest = ceilings.rates[-1]
    ceiling = f"{flops_a_second(peak.best)}, {size_of(round(largest.copy))}/s from memory"
    lines = [
        f"{found.title}   {found.model}   {settings_text(found)}, batch {floor.batch}, eager   "
        f"on {device_name(ceilings)}",
        f"ceilings {origin(ceilings)}: {ceiling}, {_launches(ceilings)}",
    ]
    told = []
    if m := found.measurement:
        low, high = m.interval_s
        told.append(f"measured {duration(m.median_s)} [{duration(low)}, {duration(high)}] (median, 95%, n={m.n})")
    attained = f" ({percent(found.attained)})" if found.attained is not None else ""
    told.append(f"floor as executed {duration(found.executed.seconds)}{attained}")
    told.append(f"floor if fused {duration(found.fused.seconds)}")
    host = [host_words(found)] if found.measurement and found.measurement.host_s is not None else []
    return [*lines, "   ".join(told), shares_line(found), *host, *doubts(found)]


def doubts(found: Explanation) -> list[str]:
    """Why the ceilings and the measured time are not to be relied upon, if they are not."""
    return [*ceilings_warning(found.ceilings), *_noise(found)]


def settings_text(found: Explanation) -> str:
    """How the net was run, `bf16 channels_last`; what is bounded only is of a dtype and no more."""
    m, dtype = found.measurement, found.executed.dtype
    return dtype if m is None else m.settings.replace(m.dtype, dtype, 1)  # which may have been TF32 all the same


def _noise(found: Explanation) -> list[str]:
    """Why the measured time is not to be relied upon, if it is not."""
    if found.measurement is None or not found.measurement.noisy:
        return []
    reasons = "; ".join(worst_reasons([found.measurement]))
    return [f"noisy: {found.model}: {reasons}; not to be relied upon, measure again on a quiet machine"]


def shares_line(found: Explanation) -> str:
    """Where the time goes."""
    words = [f"{word} {percent(found.shares[name])}" for name, word in SHARES.items()]
    if found.measurement is not None:
        words.append(f"unexplained {percent(found.shares['unexplained'])}")
    return f"{'where the time goes' if found.measurement else 'what the floor is'}   {'   '.join(words)}"


def parts_sheet(head: str, parts: Sequence[Part], *, legend: bool = True) -> Sheet:
    """One row per part of the model: its work, floor and measured time; with legends."""
    moved, floor = (
        ("moved: bytes read and written for the batch", "floor: max(FLOPs / peak, bytes / bandwidth) + launches")
        if legend
        else ("", "")
    )
    timed = any(part.measured_s is not None for part in parts)
    columns = (
        Column(head, head, "left", "bold"),
        Column("MACs", "macs", spare=3),
        Column("acts", "activations", spare=4),
        Column("moved", "bytes", legend=moved),
        Column("FLOPs/B", "intensity", spare=2),
        Column("kernels", "kernels", spare=1),
        Column("bound", "bound", "left"),
        Column("floor", "floor_s", legend=floor),
        Column("if fused", "fused_s", spare=5),
        *((Column("measured", "measured_s"), Column("attained", "attained")) if timed else ()),
    )
    return Sheet(columns, tuple(_line(part, timed) for part in parts))


def _line(part: Part, timed: bool) -> tuple[Cell, ...]:
    work = part.work
    cells = [
        cell(part.name),
        cell(part.macs, short(part.macs)),
        cell(part.activations, short(part.activations)),
        cell(work.bytes, size_of(work.bytes)),
        cell(work.intensity, f"{work.intensity:.1f}"),
        cell(work.kernels),
        cell(work.bound if work.kernels else None),
        cell(work.floor_s, duration(work.floor_s)),
        cell(part.fused.floor_s, duration(part.fused.floor_s)),
    ]
    if timed:
        seconds, attained = part.measured_s, part.attained
        cells.append(cell(seconds, "-" if seconds is None else duration(seconds)))
        cells.append(cell(attained, "-" if attained is None else percent(attained)))
    return tuple(cells)


def split_line(found: Explanation) -> str:
    """Whether the layers' times add up; empty if they were not taken."""
    split = found.split
    if split is None:
        return ""
    whole = (
        f"{percent(split.ratio)} of {duration(split.total_s)}, the time of passes in turn without looking (n={split.n})"
    )
    if split.agrees:
        return f"measured by row: a separate pass that looks at the clock after each step; the sum is {whole}"
    return f"times by row are not shown: their sum is {whole}, and beyond 10% they are not to be trusted"


def suggestions_sheet(found: Explanation, tried: Sequence[Suggestion]) -> Sheet:
    """Settings worth trying, with the floor each would give, and the measured times where they were taken."""
    timed = any(each.measurement or each.problem for each in tried)
    columns = (
        Column("worth trying", "setting", "left", "bold"),
        Column("floor", "floor_s"),
        Column("speed", "ratio"),
        *((Column("measured", "measured_s"), Column("noisy", "noisy", "left", "yellow")) if timed else ()),
        Column("why", "why", "left", "dim", wrap=True, spare=1),
    )
    now = found.executed.seconds
    rows = tuple(
        (cell(each.setting), cell(each.seconds, duration(each.seconds)),
         cell(each.seconds / now, f"{factor(now / each.seconds, 2)}x"), *(_timed(each) if timed else ()),
         cell(each.problem or each.why))
        for each in tried
    )  # fmt: skip
    return Sheet(columns, rows)


def _timed(each: Suggestion) -> tuple[Cell, ...]:
    m = each.measurement
    return cell(m.median_s if m else None, duration(m.median_s) if m else "-"), cell("noisy" if m and m.noisy else "")


# --- two nets ----------------------------------------------------------------------------------------------------


def difference_lines(difference: Difference) -> list[str]:
    """The times, and what of the difference which class explains."""
    net, other = difference.net, difference.other
    seconds, gap = difference.seconds, net.time_s - other.time_s
    what = "measured" if net.measurement and other.measurement else "floors"
    parts = [f"{word} {_signed(seconds[name])}" for name, word in SHARES.items() if seconds[name]]
    if what == "measured":
        parts.append(f"unexplained {_signed(seconds['unexplained'])}")
    figures = ", ".join(
        f"{word} {change(new, old) or 'where it has none'}"
        for (name, word) in (("macs", "MACs"), ("activations", "activations"), ("bytes", "bytes moved"),
                             ("kernels", "kernels"))
        for old, new in [difference.figures[name]]
    )  # fmt: skip
    return [
        f"against {other.model}: {what} {duration(other.time_s)} -> {duration(net.time_s)} "
        f"({difference.paired.text() if difference.paired else change(net.time_s, other.time_s)}): "
        f"{_signed(gap)} = {'   '.join(parts)}",
        f"asked for: {figures}",
        *_noise(other),
    ]


def _signed(seconds: float) -> str:
    return ("-" if seconds < 0 else "+") + duration(abs(seconds))


def difference_sheet(difference: Difference, most: int = 8) -> Sheet:
    """The kinds of step that differ."""
    found = difference.kinds[:most]
    timed = difference.timed
    names = [difference.other.model, difference.net.model]
    if names[0] == names[1]:
        names[1] += " (first)"  # as it is asked for: the other one comes with `--vs`
    columns = [Column("steps", "kind", "left", "bold")]
    for name, side in zip(names, ("other", "net"), strict=True):
        columns += [
            Column(f"floor {name}", f"{side}_floor_s", wrap=True),
            *([Column(f"measured {name}", f"{side}_measured_s", wrap=True)] if timed else []),
        ]
    columns.append(Column("difference", "difference_s"))
    rows = []
    for name, old, new in found:
        cells = [cell(name)]
        for part in (old, new):
            cells.append(cell(part.work.floor_s if part else None, duration(part.work.floor_s) if part else "-"))
            if timed:
                seconds = part.measured_s if part else None
                cells.append(cell(seconds, "-" if seconds is None else duration(seconds)))
        before, after = difference.time_of(old), difference.time_of(new)
        cells.append(cell(after - before, _signed(after - before)))
        rows.append(tuple(cells))
    return Sheet(tuple(columns), tuple(rows))


# --- elsewhere ---------------------------------------------------------------------------------------------------


def prediction_sheet(found: Prediction) -> Sheet:
    """A row a net: the least time there."""
    columns = (
        Column("model", "model", "left", "bold"),
        Column("floor as executed", "floor_s", wrap=True),
        Column("images/s at most", "images_s", wrap=True),
        Column("floor if fused", "fused_s", wrap=True),
        *(
            Column(name, name, spare=spare, legend="shares: of the floor as executed")
            for name, spare in (("compute", 2), ("memory", 2), ("overhead", 3))
        ),
        Column("FLOPs/B", "intensity", spare=1),
    )
    return Sheet(columns, tuple(map(_prediction_line, found.nets)))


def _prediction_line(net: Explanation) -> tuple[Cell, ...]:
    seconds, fused = net.executed.seconds, net.fused.seconds
    shares: dict[str, float] = dict(bounds_of(net.executed))
    at_most = net.executed.batch / seconds
    return (
        cell(net.model),
        cell(seconds, duration(seconds)),
        cell(at_most, rate(at_most)),
        cell(fused, duration(fused)),
        *(cell(round(shares[name], 6), percent(shares[name])) for name in SHARES),
        cell(net.executed.total.intensity, f"{net.executed.total.intensity:.1f}"),
    )


def prediction_notes(found: Prediction, tested: Tested | None) -> list[str]:
    """The meaning of the floor, and the distance of measured models from it."""
    floor = found.nets[0].executed
    lines = [
        f"predicted, not measured: {floor.dtype}, batch {floor.batch}; the floor is a lower bound, not an expected "
        "latency",
    ]
    if not found.ceilings.launch_s:
        lines[0] += "; it excludes launch overhead, which dominates small batches on a large GPU"
    if floor.dtype == "fp32" and "tf32" in found.ceilings.peaks:
        lines[0] += "; fp32 excludes TF32, PyTorch's default for convolutions there (`--dtype tf32`)"
    return [*lines, _tested_line(floor, tested)]


def _tested_line(floor: Floor, tested: Tested | None) -> str:
    if tested is None:
        return "never tested against times of this device"
    seen = f"in {tested.dtype} at batch {tested.batch} were {tested.found}"
    if tested.covers(floor):
        return f"tested: floors {seen}"
    return f"not tested in {floor.dtype} at batch {floor.batch}, which is another case: floors {seen}"
