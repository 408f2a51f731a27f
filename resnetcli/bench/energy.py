"""What a net's run draws: joules an image by the device's own counter, over seconds of steady state."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnetcli.bench.sampling import Clock, Timer

Sleep = Callable[[float], object]
SETTLE_S, LEAST_S = 1.0, 3.0
"""How long a device comes to rest, or into step, before its counter is read; and how long it is then watched."""


@dataclass(frozen=True, slots=True)
class Energy:
    """Of a net at one batch. Of a GPU the whole board, of a CPU all its packages, whoever else uses them."""

    source: str
    """Whose counter: `NVML`, `RAPL`."""
    joules_per_image: float
    above_idle_joules_per_image: float
    """Less what the device would have drawn in that time without any work."""
    power_w: float
    """The mean while it worked."""
    idle_w: float
    """The mean before, with nothing to do."""
    seconds: float
    images: int


@dataclass(frozen=True, slots=True)
class Meter:
    """A device's counters of energy, which only rise; some start again at 0 when they reach their range."""

    source: str
    read: Callable[[], tuple[float, ...]]
    """Joules since some moment, counter by counter."""
    ranges: tuple[float, ...]
    """Where each starts again; 0 where it never does."""

    def spent(self, before: tuple[float, ...], after: tuple[float, ...]) -> float:
        """Joules between two readings, the counters summed, each of which started again at most once."""
        rises = zip(before, after, self.ranges, strict=True)
        return sum(b - a if b >= a else b - a + around for a, b, around in rises)


def meter(device: str, *, gpu: str | None = None, root: Path = Path("/"), nvml: Any = None) -> Meter | None:
    """The device's meter; None where there is none or nobody may read it. `gpu` is what its driver calls a GPU."""
    return _rapl(root / "sys/class/powercap") if device == "cpu" else _nvml(device, gpu, nvml)


def _nvml(device: str, gpu: str | None, nvml: Any) -> Meter | None:
    """The driver's count of millijoules since it was loaded."""
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
        found = ctypes.c_ulonglong()
        if total(handle, ctypes.byref(found)):
            raise OSError("the driver does not tell")
        return (found.value / 1e3,)

    return None if failed else _if_it_reads(Meter("NVML", read, (0.0,)))


def _rapl(zones: Path) -> Meter | None:
    """Linux's count of microjoules of each package."""
    packages = [zone for zone in sorted(zones.glob("intel-rapl:*")) if re.fullmatch(r"intel-rapl:\d+", zone.name)]

    def read() -> tuple[float, ...]:
        return tuple(_microjoules(zone / "energy_uj") for zone in packages)

    with suppress(OSError, ValueError):
        packages = [zone for zone in packages if (zone / "name").read_text().startswith("package")]
        ranges = tuple(_microjoules(zone / "max_energy_range_uj") for zone in packages)
        return _if_it_reads(Meter("RAPL", read, ranges)) if packages else None
    return None


def _microjoules(file: Path) -> float:
    return int(file.read_text()) / 1e6


def _if_it_reads(found: Meter) -> Meter | None:
    """Often the files are the administrator's, and some GPUs have no counter."""
    with suppress(OSError, ValueError):
        found.read()
        return found
    return None


def idle_power(meter: Meter, clock: Clock, sleep: Sleep, *, watch_s: float = LEAST_S) -> float:
    """Watts drawn while this process does nothing."""
    sleep(SETTLE_S)
    start, before = clock(), meter.read()
    sleep(watch_s)
    return meter.spent(before, meter.read()) / (clock() - start)


def spend(
    timer: Timer, meter: Meter, clock: Clock, *, batch: int, call_s: float, idle_w: float, least_s: float = LEAST_S
) -> Energy:
    """Calls back to back for `least_s`, after some that do not count; `call_s` is about how long one takes."""
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
