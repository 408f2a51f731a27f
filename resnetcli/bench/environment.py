"""What else went on while one measured: read before and after, and whether that spoils the figures."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from resnetcli.cgroup import own_folders

Ask = Callable[[Sequence[str]], str | None]
"""Runs a command and returns what it prints; None if that fails."""

OTHERS, STOLEN, THROTTLED, WIDE = 0.05, 0.01, 0.01, 0.1
"""Above these a measurement is noisy: the share of the processors' time that other programs took and that the host
gave to other machines, the share of the time its own limits held the process up, and the width of the median's 95%
interval relative to the median."""
STARTED_BY = "RESNETCLI_STARTED_BY"
"""The variable with the process that has this one measure for it: on a GPU it may have a context, and does nothing."""
_SLOWED = {0x08: "hardware slowdown", 0x20: "too hot", 0x40: "too hot", 0x80: "power brake"}
"""Bits of NVML's clock throttle reasons that are no ordinary power management."""
_REASONS = (("clocks_event_reasons.active",), ("clocks_throttle_reasons.active",), ())
"""What drivers call them since 535 and before that, and a query without them."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One reading of a GPU; None is what its driver does not tell."""

    clock_mhz: float | None
    memory_clock_mhz: float | None
    temperature_c: float | None
    power_w: float | None
    slowed: tuple[str, ...] | None
    """Why it runs below its clocks, where that is no ordinary power management."""
    other_processes: int | None
    """Programs on it besides this one and who waits for it; None also where this one is not listed, as is usual in
    containers."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The machine at one moment; None is what it does not tell. Sums are over the processors this process may use."""

    at_s: float
    """Seconds since some moment."""
    own_s: float
    """Processor seconds of this process since it began, and of those it had started that are over: its compilers."""
    processors: int
    load_average: float | None
    """Processes that ran or waited to, a mean over about the last minute, this one among them."""
    busy_s: float | None
    """Processor seconds of all programs since the machine began, with those stolen."""
    stolen_s: float | None
    """Of them those that the host gave to other machines."""
    throttled_s: float | None
    """Seconds for which the control group's limits have held its processes up."""
    governor: str | None
    """What sets the processors' clocks: `performance`, `powersave`."""
    clock_mhz: float | None
    """Of the processors, the mean."""
    temperature_c: float | None
    """Of the hottest sensor there is."""
    gpu: Gpu | None
    """None if nothing is measured on one."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """Readings before and after a measurement."""

    before: Reading
    after: Reading

    @property
    def elapsed_s(self) -> float:
        """Between the two."""
        return self.after.at_s - self.before.at_s

    @property
    def others(self) -> float | None:
        """The share of the processors' time in between that other programs took, stolen time not among it."""
        busy, stolen = self._rise("busy_s"), self._rise("stolen_s")
        if busy is None or self.elapsed_s <= 0:
            return None
        own = self.after.own_s - self.before.own_s
        return max(0.0, busy - (stolen or 0.0) - own) / (self.elapsed_s * self.after.processors)

    @property
    def stolen(self) -> float | None:
        """The share of it that the host gave to other machines."""
        rise = self._rise("stolen_s")
        return None if rise is None or self.elapsed_s <= 0 else rise / (self.elapsed_s * self.after.processors)

    @property
    def throttled(self) -> float | None:
        """The share of the time in between for which limits held the process up."""
        rise = self._rise("throttled_s")
        return None if rise is None or self.elapsed_s <= 0 else rise / self.elapsed_s

    def _rise(self, figure: str) -> float | None:
        before, after = getattr(self.before, figure), getattr(self.after, figure)
        return None if before is None or after is None else max(0.0, after - before)

    def noisy(self) -> tuple[str, ...]:
        """Why figures measured in between are not to be relied upon, a few words each; nothing if they are."""
        found = []
        if self.others is not None and self.others > OTHERS:
            found.append(f"other programs took {100 * self.others:.0f}% of the processors")
        elif self.others is None and (self.before.load_average or 0) > self.before.processors / 2:
            found.append(f"the load average was {self.before.load_average:.1f} before it began")
        if self.stolen is not None and self.stolen > STOLEN:
            found.append(f"the host took {100 * self.stolen:.0f}% of the processors away")
        if self.throttled is not None and self.throttled > THROTTLED:
            found.append(f"a limit on processor time held it up for {100 * self.throttled:.0f}% of the time")
        for gpu in (self.before.gpu, self.after.gpu):
            if gpu is not None and gpu.other_processes:
                found.append("other programs were on the GPU")
            if gpu is not None and gpu.slowed:
                found.append(f"the GPU was slowed down: {', '.join(gpu.slowed)}")
        return tuple(dict.fromkeys(found))


def spread(interval: tuple[float, float], middle: float) -> tuple[str, ...]:
    """That an interval is too wide to be relied upon, if it is."""
    width = (interval[1] - interval[0]) / middle
    return (f"the median's interval is {100 * width:.0f}% wide",) if width > WIDE else ()


def ask(words: Sequence[str]) -> str | None:
    """What a program prints within five seconds."""
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(words, capture_output=True, text=True, timeout=5, check=True).stdout
    return None


def read(device: str = "cpu", *, gpu: str | None = None, root: Path = Path("/"), ask: Ask = ask) -> Reading:
    """The machine now; with a GPU's own state for a device `cuda:n`, called `gpu` by its driver (a UUID or number).

    Nothing is set and nothing raises: what cannot be read is None.
    """
    ours = _ours()
    busy_s, stolen_s = _times(root / "proc/stat", ours)
    return Reading(
        at_s=time.monotonic(),
        own_s=own_seconds(),
        processors=len(ours),
        load_average=_number(_text(root / "proc/loadavg").split(" ")[0]),
        busy_s=busy_s,
        stolen_s=stolen_s,
        throttled_s=_throttled(root),
        governor=_governor(root / "sys/devices/system/cpu", ours),
        clock_mhz=_clock(root / "proc/cpuinfo"),
        temperature_c=_temperature(root / "sys/class"),
        gpu=_gpu(gpu or device.partition(":")[2] or "0", ask) if device.startswith("cuda") else None,
    )


def own_seconds() -> float:
    """Processor seconds of this process, and of those that it has started and that are over."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def _ours() -> frozenset[int]:
    """The processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # "[N/A]", "[Not Supported]", nothing
        return None


def _times(stat: Path, ours: frozenset[int]) -> tuple[float | None, float | None]:
    """Processor seconds that were busy and stolen, of /proc/stat's lines `cpuN user nice system idle iowait ...`."""
    busy, stolen, seen, tick = 0.0, 0.0, 0, os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
    for line in _text(stat).splitlines():
        name, *fields = line.split()
        if not (name[:3] == "cpu" and name[3:].isdigit() and int(name[3:]) in ours):
            continue
        user, nice, system, _, _, irq, softirq, steal = [float(field) for field in fields[:8]]
        busy += (user + nice + system + irq + softirq + steal) / tick
        stolen += steal / tick
        seen += 1
    return (busy, stolen) if seen == len(ours) else (None, None)


def _throttled(root: Path) -> float | None:
    """Of our control group and those above it.

    The second version's `throttled_usec`, or the first's `throttled_time` in nanoseconds.
    """
    for mount, key, unit in (
        ("", "throttled_usec", 1e6), ("cpu", "throttled_time", 1e9), ("cpu,cpuacct", "throttled_time", 1e9)
    ):  # fmt: skip
        files = [folder / "cpu.stat" for folder in own_folders(mount, "cpu" if mount else "", root)]
        fields = [line.partition(" ") for file in files for line in _text(file).splitlines()]
        found = [number for name, _, value in fields if name == key and (number := _number(value)) is not None]
        if found:
            return sum(found) / unit
    return None


def _governor(processors: Path, ours: frozenset[int]) -> str | None:
    found = {_text(processors / f"cpu{n}/cpufreq/scaling_governor") for n in sorted(ours)} - {""}
    return ", ".join(sorted(found)) or None


def _clock(cpuinfo: Path) -> float | None:
    lines = [line.partition(":") for line in _text(cpuinfo).splitlines() if line.startswith("cpu MHz")]
    clocks = [number for _, _, value in lines if (number := _number(value)) is not None]
    return sum(clocks) / len(clocks) if clocks else None


def _temperature(classes: Path) -> float | None:
    """Sensors give thousandths of a degree."""
    paths = [*classes.glob("thermal/thermal_zone*/temp"), *classes.glob("hwmon/hwmon*/temp*_input")]
    found = [number / 1000 for path in paths if (number := _number(_text(path))) is not None]
    return max(found, default=None)


def _gpu(name: str, ask: Ask) -> Gpu:
    asked = ["nvidia-smi", f"--id={name}", "--format=csv,noheader,nounits"]
    values: list[str] = []
    for reasons in _REASONS:  # one unknown field makes the whole query fail
        fields = ["clocks.sm", "clocks.mem", "temperature.gpu", "power.draw", *reasons]
        line = (ask([*asked, f"--query-gpu={','.join(fields)}"]) or "").strip().splitlines()
        values = [value.strip() for value in line[0].split(",")] if len(line) == 1 else []
        if len(values) == len(fields):
            break
    clock, memory_clock, temperature, power, slowed = (
        (*values, "")[:5] if len(values) in {4, 5} else ("", "", "", "", "")
    )
    listed = ask([*asked, "--query-compute-apps=pid"])
    programs = {pid.strip() for pid in listed.splitlines()} if listed is not None else set()
    own = str(os.getpid())
    ours = {own, os.environ.get(STARTED_BY, ""), ""}
    return Gpu(
        _number(clock), _number(memory_clock), _number(temperature), _number(power), _slowed(slowed),
        len(programs - ours) if own in programs else None,
    )  # fmt: skip


def _slowed(reasons: str) -> tuple[str, ...] | None:
    """The words for a bit mask such as `0x0000000000000004`."""
    try:
        bits = int(reasons, 16)
    except ValueError:
        return None
    return tuple(dict.fromkeys(word for bit, word in _SLOWED.items() if bits & bit))
