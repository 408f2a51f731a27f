from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from resnetcli.bench import environment as ledger
from resnetcli.bench.environment import (
    STARTED_BY,
    Gpu,
    HostState,
    Ledger,
    Noise,
    own_seconds,
    spread,
    take_reading,
    worst_noise,
)


def texts(ledger: Ledger) -> tuple[str, ...]:
    return tuple(noise.text for noise in ledger.noise())


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file system as Linux has it, of a machine with four processors of which two are ours."""
    monkeypatch.setattr(ledger, "own_processors", lambda: frozenset({1, 2}))
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_CLK_TCK": 100}[name])
    files = {
        "proc/loadavg": "0.52 0.48 0.40 2/345 6789",
        "proc/stat": (
            "cpu  9999 9999 9999 9999 9999 9999 9999 9999 0 0\n"
            "cpu0 9000 0 0 0 0 0 0 900 0 0\n"
            "cpu1 1000 100 200 5000 50 10 20 70 3 0\n"
            "cpu2 500 0 100 6000 10 0 0 0 0 0\n"
            "cpu10 7000 0 0 0 0 0 0 0 0 0\n"
            "intr 12345\n"
        ),
        "proc/cpuinfo": "processor\t: 0\ncpu MHz\t\t: 2000.000\nprocessor\t: 1\ncpu MHz\t\t: 3000.500\n",
        "sys/fs/cgroup/cpu.stat": "usage_usec 5\nnr_throttled 4\nthrottled_usec 2500000\n",
        "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "performance\n",
        "sys/devices/system/cpu/cpu2/cpufreq/scaling_governor": "powersave\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
        "sys/class/thermal/thermal_zone0/temp": "41000\n",
        "sys/class/hwmon/hwmon0/temp1_input": "55500\n",
        "sys/class/hwmon/hwmon0/temp2_input": "broken\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_reading_is_of_our_processors_alone(machine: Path) -> None:
    seen = take_reading(root=machine)
    assert seen.processors == 2
    assert seen.busy_s == pytest.approx((1000 + 100 + 200 + 10 + 20 + 70 + 500 + 100) / 100)
    assert seen.stolen_s == pytest.approx(0.7)
    assert seen.load_average == 0.52
    assert seen.throttled_s == 2.5
    assert seen.governor == "performance, powersave"
    assert seen.clock_mhz == 2500.25
    assert seen.temperature_c == 55.5
    assert seen.gpu is None


def test_what_a_machine_does_not_tell_is_none(tmp_path: Path) -> None:
    seen = take_reading(root=tmp_path)
    told = (seen.load_average, seen.busy_s, seen.stolen_s, seen.throttled_s, seen.governor, seen.clock_mhz)
    assert told == (None,) * 6
    assert seen.temperature_c is None
    assert texts(Ledger(seen, replace(seen, at_s=seen.at_s + 5))) == ()


def test_the_first_version_of_control_groups_counts_nanoseconds(machine: Path) -> None:
    (machine / "sys/fs/cgroup/cpu.stat").unlink()
    (machine / "sys/fs/cgroup/cpu").mkdir()
    (machine / "sys/fs/cgroup/cpu/cpu.stat").write_text("nr_periods 1\nthrottled_time 1500000000\n")
    assert take_reading(root=machine).throttled_s == 1.5


@pytest.mark.parametrize(
    ("place", "line", "figure"),
    [("", "0::/user.slice/run.scope", "throttled_usec 1000000"),
     ("cpu", "4:cpu,cpuacct:/user.slice/run.scope", "throttled_time 1000000000"),
     ("cpu,cpuacct", "4:cpu,cpuacct:/user.slice/run.scope", "throttled_time 1000000000")],
)  # fmt: skip
def test_limits_of_our_own_control_group_and_of_those_above_it_count(
    machine: Path, place: str, line: str, figure: str
) -> None:
    groups = machine / "sys/fs/cgroup"
    (groups / "cpu.stat").write_text("usage_usec 5\n")  # as at the root of a machine, where there is no limit
    (machine / "proc/self").mkdir()
    (machine / "proc/self/cgroup").write_text(f"1:name=systemd:/elsewhere\n{line}\n")
    for group in ("user.slice/run.scope", "user.slice", "user.slice/other.scope"):
        (groups / place / group).mkdir(parents=True, exist_ok=True)
        (groups / place / group / "cpu.stat").write_text(f"nr_throttled 4\n{figure}\n")
    assert take_reading(root=machine).throttled_s == 2.0


def test_a_list_of_processors_without_one_of_ours_is_not_relied_upon(machine: Path) -> None:
    (machine / "proc/stat").write_text("cpu1 1 0 0 0 0 0 0 0 0 0\n")
    assert take_reading(root=machine).busy_s is None


def test_this_machine_can_be_read() -> None:
    before = take_reading()
    after = take_reading()
    assert after.at_s >= before.at_s
    assert after.own_s >= before.own_s
    assert after.processors >= 1


def reading(**values: object) -> HostState:
    quiet = HostState(0.0, 0.0, 4, 0.1, 100.0, 1.0, 0.0, None, None, None, None)
    return replace(quiet, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("after", "reasons"),
    [
        ({"own_s": 30.0, "busy_s": 131.0}, ()),  # others 1 of 40 processor seconds
        ({"own_s": 30.0, "busy_s": 140.0}, ("other programs used 25% of the CPU time",)),
        ({"own_s": 30.0, "busy_s": 134.0, "stolen_s": 5.0},
         ("the host gave 10% of the CPU time to other virtual machines",)),
        ({"own_s": 30.0, "busy_s": 130.0, "throttled_s": 0.05}, ()),
        ({"own_s": 30.0, "busy_s": 130.0, "throttled_s": 2.0},
         ("a CPU limit stopped the process for 20% of the time",)),
        ({"own_s": 30.0, "busy_s": 136.0, "stolen_s": 3.0, "throttled_s": 1.0},
         ("other programs used 10% of the CPU time", "the host gave 5% of the CPU time to other virtual machines",
          "a CPU limit stopped the process for 10% of the time")),
    ],
)  # fmt: skip
def test_noise_is_what_others_took_in_between(after: dict[str, float], reasons: tuple[str, ...]) -> None:
    """Ten seconds on four processors: forty processor seconds."""
    rising = Ledger(reading(), reading(at_s=10.0, **after))
    assert texts(rising) == reasons


def test_the_load_average_counts_only_where_nothing_better_is_known() -> None:
    busy = reading(load_average=3.0, busy_s=None)
    assert texts(Ledger(busy, replace(busy, at_s=10.0))) == ("the load average was 3.0 before the measurement",)
    known = reading(load_average=3.0)
    assert texts(Ledger(known, replace(known, at_s=10.0))) == ()


GPU = Gpu(1980.0, 2619.0, 40.0, 120.0, (), 0)


def test_a_gpu_that_others_use_or_that_is_slowed_is_noisy() -> None:
    before, after = reading(gpu=GPU), reading(at_s=10.0, gpu=GPU)
    assert texts(Ledger(before, after)) == ()
    shared, hot = replace(GPU, other_processes=2), replace(GPU, slowed=("too hot",))
    assert texts(Ledger(reading(gpu=shared), reading(at_s=10.0, gpu=hot))) == (
        "other programs were on the GPU",
        "the GPU was slowed down: too hot",
    )
    silent = Gpu(None, None, None, None, None, None)
    assert texts(Ledger(reading(gpu=silent), reading(at_s=10.0, gpu=silent))) == ()


def test_a_gpu_s_state_is_what_its_driver_says(machine: Path) -> None:
    asked: list[Sequence[str]] = []

    def driver(words: Sequence[str]) -> str:
        asked.append(words)
        if any("compute-apps" in word for word in words):
            return f"{os.getpid()}\n4242\n"
        return "1980, 2619, 41, 118.50, 0x0000000000000024\n"

    seen = take_reading("cuda:1", gpu="GPU-abc", root=machine, ask=driver).gpu
    assert seen == Gpu(1980.0, 2619.0, 41.0, 118.5, ("too hot",), 1)
    assert all("--id=GPU-abc" in words for words in asked)
    take_reading("cuda:3", root=machine, ask=driver)
    assert "--id=3" in asked[-1]


@pytest.mark.parametrize(
    ("known", "slowed"), [("clocks_event_reasons", ("too hot",)), ("clocks_throttle_reasons", ("too hot",)), ("", None)]
)
def test_a_driver_is_asked_by_the_names_it_knows(known: str, slowed: tuple[str, ...] | None, machine: Path) -> None:
    def driver(words: Sequence[str]) -> str | None:
        query = next((word for word in words if word.startswith("--query-gpu=")), "")
        if "reasons" not in query:
            return "1980, 2619, 41, 118.50\n" if query else "\n"
        return "1980, 2619, 41, 118.50, 0x20\n" if known and f"{known}.active" in query else None  # it fails as a whole

    seen = take_reading("cuda:0", root=machine, ask=driver).gpu
    assert seen == Gpu(1980.0, 2619.0, 41.0, 118.5, slowed, None)


@pytest.mark.parametrize(
    ("answer", "programs"),
    [
        (None, None),
        ("", ""),
        ("[N/A], [N/A], [N/A], [Not Supported], [N/A]\n", "4242\n"),  # a container: our own process is not listed
        ("1, 2\n", "[Not Found]\n"),
    ],
)
def test_what_a_driver_does_not_say_is_none(machine: Path, answer: str | None, programs: str | None) -> None:
    seen = take_reading(
        "cuda:0", root=machine, ask=lambda words: programs if "--query-compute-apps=pid" in words else answer
    ).gpu
    assert seen == Gpu(None, None, None, None, None, None)


def test_who_waits_for_this_process_is_no_other_program_on_the_gpu(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def driver(words: Sequence[str]) -> str:
        return f"{os.getpid()}\n4242\n77\n" if any("compute-apps" in word for word in words) else ""

    programs = [take_reading("cuda:0", root=machine, ask=driver).gpu]
    monkeypatch.setenv(STARTED_BY, "4242")
    programs.append(take_reading("cuda:0", root=machine, ask=driver).gpu)
    assert [gpu and gpu.other_processes for gpu in programs] == [2, 1]


def test_what_a_process_has_had_done_by_others_is_its_own_time() -> None:
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    before, alone = own_seconds(), time.process_time()
    subprocess.run([sys.executable, "-c", busy], check=True)
    others = (own_seconds() - before) - (time.process_time() - alone)
    assert 0.25 < others < 3.0


def test_a_machine_without_the_driver_s_program_is_asked_in_vain() -> None:
    assert ledger.ask(["nvidia-smi-that-is-not-there"]) is None
    assert ledger.ask(["false"]) is None


def test_an_interval_wider_than_a_tenth_of_its_median_is_noisy() -> None:
    assert spread((0.95, 1.04), 1.0) == ()
    assert [noise.text for noise in spread((0.9, 1.1), 1.0)] == ["the median's 95% CI is 20% wide"]


def test_of_noise_of_one_kind_the_worst_is_kept() -> None:
    noise = [Noise("others", 0.1), Noise("gpu slowed", cause="too hot"), Noise("others", 0.3), Noise("stolen", 0.2)]
    assert worst_noise([*noise, Noise("gpu slowed", cause="power brake")]) == [
        Noise("others", 0.3), Noise("gpu slowed", cause="too hot"), Noise("stolen", 0.2),
        Noise("gpu slowed", cause="power brake"),
    ]  # fmt: skip
