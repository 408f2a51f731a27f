"""The state of the machine, read before and after a measurement, and whether it makes the figures unreliable."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from resnetcli.cgroup import own_folders
from resnetcli.frozen import frozen

Ask = Callable[[Sequence[str]], str | None]
"""Runs a command and returns its stdout; None if it fails."""

OTHERS, STOLEN, THROTTLED, WIDE = 0.05, 0.01, 0.01, 0.1
"""Above these a measurement is noisy: the shares of CPU time that other programs used and that the host gave to other
machines, the share of the time for which CPU limits stopped the process, and the relative width of the median's 95% CI.
"""
STARTED_BY = "RESNETCLI_STARTED_BY"
"""Environment variable with the parent process: it may have a context on the GPU, and is idle."""
_SLOWED = {0x08: "hardware slowdown", 0x20: "too hot", 0x40: "too hot", 0x80: "power brake"}
"""Bits of NVML's clock throttle reasons other than ordinary power management."""
_REASONS = (("clocks_event_reasons.active",), ("clocks_throttle_reasons.active",), ())
"""Their names in drivers since 535 and in older ones, and a query without them."""


_REASON = {
    "others": "other programs used {share:.0%} of the CPU time",
    "load": "the load average was {share:.1f} before the measurement",
    "stolen": "the host gave {share:.0%} of the CPU time to other virtual machines",
    "throttled": "a CPU limit stopped the process for {share:.0%} of the time",
    "gpu shared": "other programs were on the GPU",
    "gpu slowed": "the GPU was slowed down: {cause}",
    "interval": "the median's 95% CI is {share:.0%} wide",
    "phases": "the phases add up to {share:.0%} of the step time",
}


class Noise(NamedTuple):
    """One reason why figures are unreliable."""

    kind: str
    share: float | None = None
    """How much, in the kind's own unit; None if it has none."""
    cause: str = ""

    @property
    def text(self) -> str:
        """In a few words: `other programs used 12% of the CPU time`."""
        return _REASON[self.kind].format(share=self.share, cause=self.cause)


def worst_noise(noise: Iterable[Noise]) -> list[Noise]:
    """Each kind and cause once, with the largest share."""
    worst: dict[tuple[str, str], Noise] = {}
    for reason in noise:
        key = reason.kind, reason.cause
        worst[key] = max(worst.get(key, reason), reason, key=lambda each: each.share or 0.0)
    return list(worst.values())


@frozen
class Gpu:
    """One reading of a GPU; None if the driver does not report a value."""

    clock_mhz: float | None
    memory_clock_mhz: float | None
    temperature_c: float | None
    power_w: float | None
    slowed: tuple[str, ...] | None
    """Why it runs below its clocks, other than ordinary power management."""
    other_processes: int | None
    """Programs on it besides this process and its parent; None also if this process is not listed, as is usual in
    containers."""


@frozen
class HostState:
    """The machine at one moment; None if it does not report a value. Sums are over our processors."""

    at_s: float
    """Monotonic time in seconds."""
    own_s: float
    """CPU seconds of this process since its start, and of its finished children: its compilers."""
    processors: int
    load_average: float | None
    """Running and waiting processes, a mean over about the last minute, this one included."""
    busy_s: float | None
    """CPU seconds of all programs since boot, stolen time included."""
    stolen_s: float | None
    """The part of them that the host gave to other machines."""
    throttled_s: float | None
    """Seconds for which the control group's limits have stopped its processes."""
    governor: str | None
    """The frequency governor: `performance`, `powersave`."""
    clock_mhz: float | None
    """Of the processors, the mean."""
    temperature_c: float | None
    """The hottest sensor."""
    gpu: Gpu | None
    """None unless a GPU is measured."""


@frozen
class Ledger:
    """Readings before and after a measurement."""

    before: HostState
    after: HostState

    @property
    def elapsed_s(self) -> float:
        """Between the two."""
        return self.after.at_s - self.before.at_s

    @property
    def others(self) -> float | None:
        """The share of CPU time in between that other programs used, stolen time excluded."""
        busy, stolen = self._rise("busy_s"), self._rise("stolen_s")
        if busy is None or self.elapsed_s <= 0:
            return None
        own = self.after.own_s - self.before.own_s
        return max(0.0, busy - (stolen or 0.0) - own) / (self.elapsed_s * self.after.processors)

    @property
    def stolen(self) -> float | None:
        """The share of CPU time that the host gave to other machines."""
        rise = self._rise("stolen_s")
        return None if rise is None or self.elapsed_s <= 0 else rise / (self.elapsed_s * self.after.processors)

    @property
    def throttled(self) -> float | None:
        """The share of the time in between for which limits stopped the process."""
        rise = self._rise("throttled_s")
        return None if rise is None or self.elapsed_s <= 0 else rise / self.elapsed_s

    def _rise(self, figure: str) -> float | None:
        before, after = getattr(self.before, figure), getattr(self.after, figure)
        return None if before is None or after is None else max(0.0, after - before)

    def noise(self) -> tuple[Noise, ...]:
        """Why figures measured in between are unreliable; nothing if they are not."""
        reasons = []
        if self.others is not None and self.others > OTHERS:
            reasons.append(Noise("others", self.others))
        elif self.others is None and (self.before.load_average or 0) > self.before.processors / 2:
            reasons.append(Noise("load", self.before.load_average))
        if self.stolen is not None and self.stolen > STOLEN:
            reasons.append(Noise("stolen", self.stolen))
        if self.throttled is not None and self.throttled > THROTTLED:
            reasons.append(Noise("throttled", self.throttled))
        for gpu in (self.before.gpu, self.after.gpu):
            if gpu is not None and gpu.other_processes:
                reasons.append(Noise("gpu shared"))
            if gpu is not None and gpu.slowed:
                reasons.append(Noise("gpu slowed", cause=", ".join(gpu.slowed)))
        return tuple(dict.fromkeys(reasons))


def spread(interval: tuple[float, float], middle: float) -> tuple[Noise, ...]:
    """The noise of a CI that is too wide."""
    width = (interval[1] - interval[0]) / middle
    return (Noise("interval", width),) if width > WIDE else ()


def ask(words: Sequence[str]) -> str | None:
    """The stdout of a program that ends within five seconds."""
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(words, capture_output=True, text=True, timeout=5, check=True).stdout
    return None


def take_reading(device: str = "cpu", *, gpu: str | None = None, root: Path = Path("/"), ask: Ask = ask) -> HostState:
    """The machine now, with the GPU's state for a device `cuda:n`; `gpu` is its UUID or number in the driver.

    Nothing is changed and nothing raises: what cannot be read is None.
    """
    ours = own_processors()
    busy_s, stolen_s = _times(root / "proc/stat", ours)
    return HostState(
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
    """CPU seconds of this process and of its finished children."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def own_processors() -> frozenset[int]:
    """Processors on which this process may run."""
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
    """Busy and stolen CPU seconds, from /proc/stat's lines `cpuN user nice system idle iowait ...`."""
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
    """Seconds that the limits of our control group and those above it have stopped us.

    cgroup v2's `throttled_usec`, or v1's `throttled_time` in nanoseconds.
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
