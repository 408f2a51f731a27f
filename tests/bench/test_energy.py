from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resnetcli.bench import latency
from resnetcli.bench.energy import Energy, Meter, idle_power, meter, spend
from resnetcli.bench.latency import measure
from tests.support.sketch import residual_net


class World:
    """A clock that sleeping and calls move on, and a device that draws more while it works."""

    def __init__(self, idle_w: float, busy_w: float, call_s: float) -> None:
        self.now, self.joules = 0.0, 1000.0
        self.idle_w, self.busy_w, self.call_s = idle_w, busy_w, call_s
        self.meter = Meter("NVML", lambda: (self.joules,), (0.0,))

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.joules += self.idle_w * seconds

    def timer(self, calls: int) -> float:
        self.now += calls * self.call_s
        self.joules += self.busy_w * calls * self.call_s
        return calls * self.call_s


def test_joules_an_image_are_the_counter_s_and_less_what_rest_would_take() -> None:
    world = World(idle_w=70.0, busy_w=470.0, call_s=0.01)
    idle = idle_power(world.meter, world.clock, world.sleep)
    assert idle == pytest.approx(70)
    assert world.now == pytest.approx(4)  # one second to come to rest, three that are watched
    found = spend(world.timer, world.meter, world.clock, batch=8, call_s=0.01, idle_w=idle)
    assert found.seconds >= 3
    assert found.images == pytest.approx(found.seconds / 0.01 * 8)
    assert found.power_w == pytest.approx(470)
    assert found.joules_per_image == pytest.approx(470 * 0.01 / 8)
    assert found.above_idle_joules_per_image == pytest.approx(400 * 0.01 / 8)
    assert (found.source, found.idle_w) == ("NVML", idle)


def test_what_is_run_before_the_counter_is_read_does_not_count() -> None:
    world = World(idle_w=10.0, busy_w=1000.0, call_s=0.5)
    real = world.timer

    def settling(calls: int) -> float:
        world.busy_w = 1000.0 if world.now < 1.0 else 100.0
        return real(calls)

    assert spend(settling, world.meter, world.clock, batch=1, call_s=0.5, idle_w=0.0).power_w == pytest.approx(100)


def test_a_model_whose_call_outlasts_the_time_is_run_once() -> None:
    world = World(idle_w=1.0, busy_w=2.0, call_s=20.0)
    found = spend(world.timer, world.meter, world.clock, batch=4, call_s=20.0, idle_w=1.0)
    assert (found.images, found.seconds) == (4, 20.0)


# --- RAPL --------------------------------------------------------------------------------------------------------


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A machine of two packages, with a part of one and another kind of zone beside them."""
    for zone, name in (
        ("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core"), ("intel-rapl:1", "package-1"),
        ("intel-rapl:2", "psys"), ("dtpm", "dtpm"),
    ):  # fmt: skip
        folder = tmp_path / "sys/class/powercap" / zone
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"{name}\n")
        (folder / "energy_uj").write_text("1000000\n")
        (folder / "max_energy_range_uj").write_text("65000000\n")
    return tmp_path


def test_a_cpu_s_meter_is_the_sum_of_its_packages(packages: Path) -> None:
    found = meter("cpu", root=packages)
    assert found is not None
    assert (found.source, found.read(), found.ranges) == ("RAPL", (1.0, 1.0), (65.0, 65.0))
    assert found.spent((1.0, 1.0), (3.0, 5.0)) == 6.0


def test_a_counter_that_starts_again_has_gone_round_once() -> None:
    found = Meter("RAPL", tuple, (65.0, 65.0))
    assert found.spent((60.0, 1.0), (5.0, 2.0)) == pytest.approx(10.0 + 1.0)


def test_where_nobody_may_read_there_is_no_meter(packages: Path, tmp_path: Path) -> None:
    assert meter("cpu", root=tmp_path / "nothing") is None
    (packages / "sys/class/powercap/intel-rapl:1/energy_uj").unlink()
    assert meter("cpu", root=packages) is None
    (packages / "sys/class/powercap/intel-rapl:1/energy_uj").write_text("nonsense")
    assert meter("cpu", root=packages) is None


# --- NVML --------------------------------------------------------------------------------------------------------


class Nvml:
    """As ctypes shows the driver's library: 0 is success, results are written through pointers."""

    def __init__(self, **failing: int) -> None:
        self.failing, self.asked, self.millijoules = failing, [], 5000

    asked: list[Any]

    def nvmlInit_v2(self) -> int:
        return self.failing.get("init", 0)

    def nvmlDeviceGetHandleByUUID(self, name: bytes, handle: object) -> int:
        self.asked.append(name)
        return self.failing.get("handle", 0)

    def nvmlDeviceGetHandleByIndex_v2(self, number: ctypes.c_uint, handle: object) -> int:
        self.asked.append(number.value)
        return self.failing.get("handle", 0)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: object, result: Any) -> int:
        result._obj.value = self.millijoules
        return self.failing.get("energy", 0)


def test_a_gpu_s_meter_is_its_driver_s_count() -> None:
    nvml = Nvml()
    found = meter("cuda:1", gpu="GPU-12", nvml=nvml)
    assert found is not None
    before = found.read()
    nvml.millijoules += 2500
    assert found.spent(before, found.read()) == pytest.approx(2.5)
    assert nvml.asked == [b"GPU-12"]
    assert meter("cuda:1", nvml=nvml) is not None
    assert nvml.asked == [b"GPU-12", 1]


@pytest.mark.parametrize("what", ["init", "handle", "energy"])
def test_a_driver_that_refuses_is_no_meter(what: str) -> None:
    assert meter("cuda:0", gpu="GPU-12", nvml=Nvml(**{what: 3})) is None


def test_an_old_driver_is_no_meter() -> None:
    assert meter("cuda:0", nvml=object()) is None


# --- measured ----------------------------------------------------------------------------------------------------


def ticks() -> Iterator[float]:
    now = 0.0
    while True:
        now += 1 / 64
        yield now


def test_energy_is_measured_where_it_is_asked_for_and_there_is_a_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    joules, time = ticks(), ticks()
    slept: list[float] = []
    monkeypatch.setattr(latency, "meter", lambda *names, gpu: Meter("RAPL", lambda: (next(joules),), (0.0,)))
    clock = lambda: next(time)  # noqa: E731
    m = measure(residual_net(), batch_size=2, time_budget_s=0.1, energy=True, clock=clock, sleep=slept.append)
    assert isinstance(m.energy, Energy)
    assert slept == [1.0, 3.0]
    assert m.energy.seconds >= 3
    assert m.energy.joules_per_image * m.energy.images == pytest.approx(1 / 64)
    slept.clear()
    assert measure(residual_net(), time_budget_s=0.1, clock=clock, sleep=slept.append).energy is None
    monkeypatch.setattr(latency, "meter", lambda *names, gpu: None)
    assert measure(residual_net(), time_budget_s=0.1, energy=True, clock=clock, sleep=slept.append).energy is None
    assert slept == []  # nothing is waited for in vain


@pytest.mark.parametrize("readings", [0, 1, 2, 3])
def test_a_meter_that_falls_silent_costs_the_energy_and_no_more(readings: int, monkeypatch: pytest.MonkeyPatch) -> None:
    left, time = [0.0] * readings, ticks()

    def read() -> tuple[float, ...]:
        if not left:
            raise OSError("the driver does not tell")
        return (left.pop(),)

    monkeypatch.setattr(latency, "meter", lambda *names, gpu: Meter("NVML", read, (0.0,)))
    clock = lambda: next(time)  # noqa: E731
    m = measure(residual_net(), time_budget_s=0.1, energy=True, clock=clock, sleep=lambda seconds: None)
    assert m.energy is None
    assert m.median_s > 0
