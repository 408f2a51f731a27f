from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from resnetcli.errors import ResourceError, UsageError
from resnetcli.roofline import calibrate as calibration
from resnetcli.roofline import peaks as module
from resnetcli.roofline.calibrate import calibrate, last_cache, working_sets
from resnetcli.roofline.peaks import (
    MAX_PROFILE,
    Ceilings,
    Peak,
    Rate,
    cache_file,
    cached,
    fingerprint,
    from_json,
    read_profile,
    shipped,
    to_json,
    write_profile,
)
from tests.support.measured import QUIET

MADE = Ceilings(
    "A device", "cpu", "measured", {"fp32": Peak(1e12, 2e12), "bf16": Peak(8e12, 4e12)},
    (Rate(2**20, 80e9, 120e9), Rate(2**24, 40e9, 60e9)), 2e-6, 1e-6, {"threads": "2"},
)  # fmt: skip


def test_bandwidth_is_that_of_the_working_set() -> None:
    assert MADE.rates_at(1) == MADE.rates_at(2**20) == (80e9, 120e9)
    assert MADE.rates_at(2**24) == MADE.rates_at(2**40) == (40e9, 60e9)
    assert MADE.rates_at(2**22) == (60e9, 90e9)  # half way, by powers of two


def test_what_is_written_is_copied_and_the_rest_only_read() -> None:
    large = 2**30
    assert MADE.seconds(large, large) == pytest.approx(2 * large / 40e9)
    assert MADE.seconds(large, 0) == pytest.approx(large / 60e9)
    assert MADE.seconds(3 * large, large) == pytest.approx(2 * large / 40e9 + 2 * large / 60e9)
    assert MADE.seconds(0, large) == pytest.approx(large / 40e9)


def test_ceilings_go_into_a_file_and_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.json"
    write_profile(MADE, path)
    assert read_profile(str(path)) == MADE
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]  # nothing half-written beside it


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    path = tmp_path / "file.json"
    write_profile(MADE, path)
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_profile(replace(MADE, name="another"), path)
    monkeypatch.undo()
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.json"]
    assert read_profile(str(path)) == MADE


def test_why_ceilings_are_noisy_is_kept_and_an_older_file_that_says_nothing_of_it_is_read() -> None:
    noisy = replace(MADE, noisy=("other programs took 80% of the processors",))
    assert from_json(json.loads(json.dumps(to_json(noisy)))) == noisy
    older = {key: value for key, value in to_json(noisy).items() if key != "noisy"}
    assert from_json(older) == MADE


def spoilt(**changes: Any) -> str:
    return json.dumps(to_json(MADE) | changes)


RATES: tuple[Any, ...] = (0, 0.5, -1, True, "1", None, [], 1.1e21, 10**400, float("inf"), float("nan"))
SIZES: tuple[Any, ...] = (0, 0.5, 2.5, 1e3, True, "1", None, [], 2**50 + 1, 10**400)
SECONDS: tuple[Any, ...] = (-1.0, 1.5, 10**400, True, "0", None, float("inf"), float("nan"))
SOURCES: tuple[Any, ...] = ("hearsay", [], {}, None, 1)


BAD = {
    "": "is not JSON",
    "{": "is not JSON",
    "[]": "it is no `resnet-cli/ceilings@1`",
    '{"schema": "resnet-cli/ceilings@2"}': "it is no `resnet-cli/ceilings@1`",
    '{"schema": "resnet-cli/ceilings@1"}': "`source` is missing",
    spoilt(peaks=[]): "may not be empty",
    spoilt(peaks=7): "a value is of the wrong kind",
    spoilt(peaks=[{"dtype": "fp8", "matmul_flop_s": 1.0, "conv_flop_s": 1.0}]): "a dtype is one of",
    spoilt(peaks=to_json(MADE)["peaks"] * 2): "a dtype twice",
    **{
        spoilt(peaks=[{"dtype": "fp32", "matmul_flop_s": rate, "conv_flop_s": 1.0}]): "rates are numbers from 1 to"
        for rate in RATES
    },
    **{
        spoilt(bandwidth=[{"working_set_bytes": size, "copy_bytes_s": 2.0, "read_bytes_s": 2.0}]): "is a whole number"
        for size in SIZES
    },
    spoilt(bandwidth=to_json(MADE)["bandwidth"][::-1]): "rising",
    spoilt(bandwidth=[{"working_set_bytes": 1, "copy_bytes_s": 2.0, "read_bytes_s": 1.0}]): "no less than",
    **{spoilt(gap_s=seconds): "numbers of seconds, from 0 to 1" for seconds in SECONDS},
    **{spoilt(source=source): "`source` is" for source in SOURCES},
    spoilt(name=[]): "are text",
    spoilt(name=1): "are text",
    spoilt(device={}): "are text",
    spoilt(conditions=[{"name": "threads", "value": 2}]): "are text",
    spoilt(conditions=[1]): "a value is of the wrong kind",
    spoilt(conditions=None): "a value is of the wrong kind",
    **{spoilt(noisy=reasons): "`noisy` is a list of text" for reasons in (None, "busy", {"busy": 1}, [1], [None])},
    "[" * 100_000: "is not JSON",
    spoilt(name="x" * MAX_PROFILE): "is larger than 1 MiB",
}


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_garbage_is_refused_with_a_reason_and_a_cache_of_it_is_none(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_profile(str(path))
    assert BAD[text] in str(caught.value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept = cache_file("cpu")
    kept.parent.mkdir(parents=True)
    kept.write_text(text)
    assert cached("cpu") is None
    kept.write_bytes(b"\xff\xfe\x00")
    assert cached("cpu") is None


def test_what_never_ends_is_neither_a_profile_nor_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    pipe = cache_file("cpu")
    pipe.parent.mkdir(parents=True)
    os.mkfifo(pipe)
    for file in (str(pipe), "/dev/zero"):
        with pytest.raises(UsageError, match="is not a regular file"):
            read_profile(file)
    assert cached("cpu") is None


def test_a_profile_at_its_limits_has_a_rate_for_every_working_set() -> None:
    """Sizes whose ratio is hardly more than 1 are told apart."""
    near = [
        {"working_set_bytes": size, "copy_bytes_s": rate, "read_bytes_s": rate}
        for size, rate in ((1, 1), (2**50 - 1, 1e21), (2**50, 1e21))
    ]
    found = from_json(to_json(MADE) | {"bandwidth": near, "launch_s": 1, "gap_s": 0})
    for size in (1, 2, 2**49, 2**50 - 1, 2**50, 10**40):
        copy, read = found.rates_at(size)
        assert 1 <= copy == read <= 1e21


def test_a_profile_that_is_not_there_is_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean `rtx4090`"):
        read_profile("rtx-4090")
    with pytest.raises(UsageError, match="is a directory"):
        read_profile(str(tmp_path))
    for name in ("x" * 5000, "a\0b"):
        with pytest.raises(UsageError, match="no device profile"):
            read_profile(name)


def test_the_cache_is_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cached("cpu") is None
    write_profile(MADE, cache_file("cpu"))
    assert cached("cpu") == MADE
    before = fingerprint("cpu")
    monkeypatch.setattr(module, "cpu_name", lambda path: "another machine")
    assert fingerprint("cpu") != before
    assert cached("cpu") is None
    monkeypatch.undo()
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert fingerprint("cpu") != before


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_profile_is_a_datasheet_s(name: str) -> None:
    found = read_profile(name)
    assert (found.source, found.launch_s) == ("datasheet", 0)
    assert found.name.startswith("NVIDIA ")
    assert "printed" in found.conditions
    assert found.peaks["fp16"].matmul >= found.peaks["fp32"].matmul


# --- measuring ---------------------------------------------------------------------------------------------------


@pytest.fixture
def ticking() -> Callable[[], float]:
    """A clock that moves on by 1/64 s whenever it is asked."""
    ticks = count()
    return lambda: next(ticks) / 64


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "SIZES", (4, 8))
    monkeypatch.setattr(calibration, "CONVOLUTIONS", ((1, 2, 3),))
    monkeypatch.setattr(calibration, "CHAIN", 16)
    monkeypatch.setattr(calibration, "last_cache", lambda place: 2**18)


@pytest.mark.usefixtures("_small")
def test_ceilings_by_a_clock_that_ticks_are_known_exactly(ticking: Callable[[], float]) -> None:
    told: list[str] = []
    found = calibrate(clock=ticking, budget_s=0.01, report=told.append)
    tick = 1 / 64  # what every sample seems to take, which is of one call then
    assert found.launch_s == found.gap_s == tick / 16
    assert set(found.peaks) == {"fp32", "bf16"}
    # each size takes a tick, so the largest is the quickest that was tried; one of two sizes fits into the time
    assert found.peaks["fp32"].matmul in {2 * 4**3 / tick, 2 * 8**3 / tick}
    assert found.peaks["fp32"].conv == 2 * 9 * 2 * 2 * 9 / tick
    sizes = [2**18, 2**20]
    assert [rate.working_set for rate in found.rates] == sizes
    assert {rate.copy for rate in found.rates} == {2**20 / (tick - tick / 16)}  # no smaller set is slower
    assert found.conditions["threads"] == str(torch.get_num_threads())
    assert any("fp32" in what for what in told)


@pytest.mark.usefixtures("_small")
def test_ceilings_measured_on_a_busy_machine_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two processors' ten seconds other programs take sixteen, or none."""
    for busy_s, noisy in ((16.0, ("other programs took 80% of the processors",)), (0.0, ())):
        after = replace(QUIET, at_s=10.0, own_s=4.0, busy_s=(QUIET.busy_s or 0.0) + 4.0 + busy_s)
        readings = iter([QUIET, after])
        monkeypatch.setattr(calibration, "read_environment", lambda place, readings=readings: next(readings))
        assert calibrate(budget_s=0.01).noisy == noisy
        assert next(readings, None) is None


def test_working_sets_end_at_four_times_the_last_cache_or_a_gibibyte() -> None:
    assert working_sets(2**25) == [2**18, 2**20, 2**22, 2**24, 2**26, 2**27]
    assert working_sets(2**40)[-1] == 2**30
    assert working_sets(1) == [2**18, 2**20]
    assert last_cache(torch.device("cpu")) >= 2**15


@pytest.mark.usefixtures("_small")
def test_a_dtype_that_a_device_does_not_know_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.mm

    def mm(a: torch.Tensor, b: torch.Tensor, **more: Any) -> torch.Tensor:
        if a.dtype == torch.bfloat16:
            raise RuntimeError("not implemented for 'BFloat16'")
        return real(a, b, **more)

    monkeypatch.setattr(torch, "mm", mm)
    assert set(calibrate(budget_s=0.01).peaks) == {"fp32"}


@pytest.mark.usefixtures("_small")
def test_measured_ceilings_go_into_json_and_back() -> None:
    found = calibrate(budget_s=0.01)
    assert from_json(json.loads(json.dumps(to_json(found)))) == found


@pytest.mark.parametrize(
    ("each", "seconds", "reached"),
    [("each_product", 1e-5, 5), ("each_convolution", 1e-5, 12), ("each_product", 100.0, 1)],
)
def test_every_size_is_measured_where_a_call_is_fast_and_none_after_one_that_takes_long(
    each: str, seconds: float, reached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, called = 0.0, set()
    bench = calibration._Bench(torch.device("cpu"), lambda: now, 20.0, lambda _: None)

    def timed(call: Callable[[], object], calls: int) -> float:
        nonlocal now
        now += calls * seconds
        return calls * seconds

    def some() -> Iterator[tuple[int, Callable[[], object]]]:
        number = len(calibration.SIZES) if each == "each_product" else 2 * len(calibration.CONVOLUTIONS)
        for at in range(number):
            yield 8**at, lambda at=at: called.add(at)  # type: ignore[misc]

    monkeypatch.setattr(bench, "time", timed)
    bench.quickest("bf16", "products", some())
    assert called == set(range(reached))
    assert now < 20 or reached == 1


def test_a_gpu_s_working_sets_go_beyond_its_caches() -> None:
    assert working_sets(2**22, least=2**28)[-1] == 2**28
    assert working_sets(2**27, least=2**28)[-1] == 2**29


def test_a_gpu_that_is_lost_ends_the_calibration_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*arguments: Any, **more: Any) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be reported later")

    monkeypatch.setattr(torch, "mm", lost)
    with pytest.raises(ResourceError, match=r"^error: calibration could not be run on `cpu`: CUDA error: unspecified"):
        calibrate(budget_s=0.01)


def test_numbers_that_are_repeated_are_never_zeros() -> None:
    bench = calibration._Bench(torch.device("cpu"), lambda: 0.0, 1.0, lambda _: None)
    x = bench.random_tensor(3, 2**18 - 5, dtype=torch.float32)
    assert x.shape == (3, 2**18 - 5)
    assert x.count_nonzero() == x.numel()
    assert 0.9 < float(x.std()) < 1.1
