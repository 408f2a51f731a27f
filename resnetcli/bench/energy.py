"""Energy of a model's run: joules per image by the device's own counter, over seconds of steady state."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from resnetcli.bench.sampling import Clock, Timer
from resnetcli.frozen import frozen

Sleep = Callable[[float], object]
SETTLE_S, LEAST_S = 1.0, 3.0
"""Seconds that a device settles before its counter is read, and minimum seconds between its two readings."""


@frozen
class Energy:
    """Of a model at one batch size. On a GPU the whole board, on a CPU all packages, other programs included."""

    source: str
    """The counter: `NVML`, `RAPL`."""
    joules_per_image: float
    above_idle_joules_per_image: float
    """Minus the energy the device would have drawn idle in that time."""
    power_w: float
    """Mean while working."""
    idle_w: float
    """Mean while idle, before."""
    seconds: float
    images: int


@frozen
class Meter:
    """A device's energy counters, which only rise; some restart at 0 when they reach their range."""

    source: str
    read: Callable[[], tuple[float, ...]]
    """Joules since an arbitrary moment, for each counter."""
    ranges: tuple[float, ...]
    """Where each restarts; 0 if it never does."""

    def spent(self, before: tuple[float, ...], after: tuple[float, ...]) -> float:
        """Joules between two readings, summed over the counters, each of which restarted at most once."""
        rises = zip(before, after, self.ranges, strict=True)
        return sum(b - a if b >= a else b - a + around for a, b, around in rises)


def meter(device: str, *, gpu: str | None = None, root: Path = Path("/"), nvml: Any = None) -> Meter | None:
    """The device's meter; None if there is none or it may not be read. `gpu` is a GPU's NVML UUID."""
    return _rapl(root / "sys/class/powercap") if device == "cpu" else _nvml(device, gpu, nvml)


def _nvml(device: str, gpu: str | None, nvml: Any) -> Meter | None:
    """The driver's counter of millijoules since it was loaded."""
    try:
        nvml = nvml or ctypes.CDLL("libnvidia-ml.so.1")
        if nvml.nvmlInit_v2():
            return None
        handle = ctypes.c_void_p()
        if gpu is not None:
            failed = nvml.nvmlDeviceGetHandleByUUID(gpu.encode(), ctypes.byref(handle))
        else:
            number = ctypes.c_uint(int(device.partition(":")[2] or 0))
            failed = nvml.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(handle))
        total = nvml.nvmlDeviceGetTotalEnergyConsumption
    except (OSError, AttributeError):  # no driver, or an old one
        return None

    def read() -> tuple[float, ...]:
        millijoules = ctypes.c_ulonglong()
        if total(handle, ctypes.byref(millijoules)):
            raise OSError("the driver does not report it")
        return (millijoules.value / 1e3,)

    return None if failed else _if_readable(Meter("NVML", read, (0.0,)))


def _rapl(zones: Path) -> Meter | None:
    """Linux's counters of microjoules, one per package."""
    packages = [zone for zone in sorted(zones.glob("intel-rapl:*")) if re.fullmatch(r"intel-rapl:\d+", zone.name)]

    def read() -> tuple[float, ...]:
        return tuple(_microjoules(zone / "energy_uj") for zone in packages)

    with suppress(OSError, ValueError):
        packages = [zone for zone in packages if (zone / "name").read_text().startswith("package")]
        ranges = tuple(_microjoules(zone / "max_energy_range_uj") for zone in packages)
        return _if_readable(Meter("RAPL", read, ranges)) if packages else None
    return None


def _microjoules(file: Path) -> float:
    return int(file.read_text()) / 1e6


def _if_readable(meter: Meter) -> Meter | None:
    """Often only the administrator may read the files, and some GPUs have no counter."""
    with suppress(OSError, ValueError):
        meter.read()
        return meter
    return None


def idle_power(meter: Meter, clock: Clock, sleep: Sleep, *, watch_s: float = LEAST_S) -> float:
    """Watts drawn while this process is idle."""
    sleep(SETTLE_S)
    start, before = clock(), meter.read()
    sleep(watch_s)
    return meter.spent(before, meter.read()) / (clock() - start)


def spend(
    timer: Timer, meter: Meter, clock: Clock, *, batch: int, call_s: float, idle_w: float, least_s: float = LEAST_S
) -> Energy:
    """Energy of calls made back to back for `least_s`, after some to settle; `call_s` is about how long one takes."""
    calls = max(1, round(0.25 / call_s)) if call_s > 0 else 1
    start = clock()
    while clock() - start < SETTLE_S:
        timer(calls)
    made, start, before = 0, clock(), meter.read()
    while clock() - start < least_s:
        timer(calls)
        made += calls
    joules = meter.spent(before, meter.read())
    seconds, images = clock() - start, made * batch
    return Energy(
        meter.source, joules / images, (joules - idle_w * seconds) / images, joules / seconds, idle_w, seconds, images
    )
