from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from resnetcli.errors import UsageError
from resnetcli.roofline import profiles as module
from resnetcli.roofline.peaks import Bandwidth, DevicePeaks, Peak
from resnetcli.roofline.profiles import (
    MAX_PROFILE,
    cache_file,
    device_profile_record,
    fingerprint,
    from_json,
    read_cached,
    read_profile,
    read_validation,
    shipped,
    write_profile,
)

DEVICE = DevicePeaks(
    "A device", "cpu", "measured", {"fp32": Peak(1e12, 2e12), "bf16": Peak(8e12, 4e12)},
    (Bandwidth(2**20, 80e9, 120e9), Bandwidth(2**24, 40e9, 60e9)), 2e-6, 1e-6, {"threads": "2"},
)  # fmt: skip


def test_bandwidth_is_that_of_the_working_set() -> None:
    assert DEVICE.rates_at(1) == DEVICE.rates_at(2**20) == (80e9, 120e9)
    assert DEVICE.rates_at(2**24) == DEVICE.rates_at(2**40) == (40e9, 60e9)
    assert DEVICE.rates_at(2**22) == (60e9, 90e9)  # half way, by powers of two


def test_written_bytes_are_copied_and_the_others_only_read() -> None:
    large = 2**30
    assert DEVICE.seconds(large, large) == pytest.approx(2 * large / 40e9)
    assert DEVICE.seconds(large, 0) == pytest.approx(large / 60e9)
    assert DEVICE.seconds(3 * large, large) == pytest.approx(2 * large / 40e9 + 2 * large / 60e9)
    assert DEVICE.seconds(0, large) == pytest.approx(large / 40e9)


def test_a_profile_is_written_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.json"
    write_profile(DEVICE, path)
    assert read_profile(str(path)) == DEVICE
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]  # no temporary file is left


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    path = tmp_path / "file.json"
    write_profile(DEVICE, path)
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_profile(replace(DEVICE, name="another"), path)
    monkeypatch.undo()
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.json"]
    assert read_profile(str(path)) == DEVICE


def test_noise_is_kept_and_may_be_missing() -> None:
    noisy = replace(DEVICE, noisy=("other programs used 80% of the CPU time",))
    assert from_json(json.loads(json.dumps(device_profile_record(noisy)))) == noisy
    silent = {key: value for key, value in device_profile_record(noisy).items() if key != "noisy"}
    assert from_json(silent) == DEVICE


def broken(**changes: Any) -> str:
    return json.dumps(device_profile_record(DEVICE) | changes)


def refusal(number: Any) -> str:
    """Why a number is not JSON; empty for any other value."""
    return f"{json.dumps(number)} is not JSON" if number == float("inf") or number != number else ""


RATES: tuple[Any, ...] = (0, 0.5, -1, True, "1", None, [], 1.1e21, 10**400, float("inf"), float("nan"))
SIZES: tuple[Any, ...] = (0, 0.5, 2.5, 1e3, True, "1", None, [], 2**50 + 1, 10**400)
SECONDS: tuple[Any, ...] = (-1.0, 1.5, 10**400, True, "0", None, float("inf"), float("nan"))
SOURCES: tuple[Any, ...] = ("hearsay", [], {}, None, 1)


FP32 = {"matmul_flop_s": 1.0, "conv_flop_s": 1.0}
BAD = {
    "": "is not a device profile: Expecting value",
    "{": "is not a device profile: Expecting property name",
    "[]": "`schema` must be `resnet-cli/device-profile@1`",
    '{"schema": "resnet-cli/device-profile@2"}': "`schema` must be `resnet-cli/device-profile@1`",
    '{"schema": "resnet-cli/device-profile@1"}': "`source` is missing",
    broken(peaks={}): "`peaks` must have a length of at least 1",
    broken(bandwidth=[]): "`bandwidth` must have a length of at least 1",
    broken(peaks=7): "`peaks` must be an object, not 7",
    broken(peaks={"fp8": FP32}): "`peaks` must be by dtype: fp32, tf32, bf16, fp16",
    json.dumps(device_profile_record(DEVICE)).replace('"bf16"', '"fp32"'): "`fp32` is given twice",
    **{
        broken(peaks={"fp32": FP32 | {"matmul_flop_s": rate}}): refusal(rate) or "`peaks.fp32.matmul_flop_s` must be"
        for rate in RATES
    },
    **{
        broken(bandwidth=[{"working_set_bytes": size, "copy_bytes_s": 2.0, "read_bytes_s": 2.0}]):
        "`bandwidth[0].working_set_bytes` must be"
        for size in SIZES
    },
    broken(bandwidth=device_profile_record(DEVICE)["bandwidth"][::-1]): "must be sorted by working_set_bytes",
    broken(bandwidth=[{"working_set_bytes": 1, "copy_bytes_s": 2.0, "read_bytes_s": 1.0}]): "is at least copy_bytes_s",
    **{broken(gap_s=seconds): refusal(seconds) or "`gap_s` must be" for seconds in SECONDS},
    **{broken(source=source): "`source` must be one of measured, datasheet" for source in SOURCES},
    broken(name=[]): "`name` must be text",
    broken(name=1): "`name` must be text",
    broken(device={}): "`device` must be text",
    broken(conditions={"threads": 2}): "`conditions.threads` must be text",
    broken(conditions=[1]): "`conditions` must be an object",
    broken(conditions=None): "`conditions` must be an object",
    **{broken(noisy=reasons): "`noisy` must be a list" for reasons in (None, "busy", {"busy": 1})},
    **{broken(noisy=reasons): "`noisy[0]` must be text" for reasons in ([1], [None])},
    "[" * 100_000: "nested too deeply",
    broken(name="x" * MAX_PROFILE): "is larger than 1 MiB",
}  # fmt: skip


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_an_invalid_profile_is_refused_with_a_reason_and_ignored_in_the_cache(
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
    assert read_cached("cpu") is None
    kept.write_bytes(b"\xff\xfe\x00")
    assert read_cached("cpu") is None


def test_a_pipe_is_neither_a_profile_nor_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    pipe = cache_file("cpu")
    pipe.parent.mkdir(parents=True)
    os.mkfifo(pipe)
    for file in (str(pipe), "/dev/zero"):
        with pytest.raises(UsageError, match="is not a regular file"):
            read_profile(file)
    assert read_cached("cpu") is None


def test_a_profile_at_its_limits_has_a_rate_for_every_working_set() -> None:
    """Working sets whose ratio is hardly more than 1 differ."""
    near = [
        {"working_set_bytes": size, "copy_bytes_s": rate, "read_bytes_s": rate}
        for size, rate in ((1, 1), (2**50 - 1, 1e21), (2**50, 1e21))
    ]
    found = from_json(device_profile_record(DEVICE) | {"bandwidth": near, "launch_s": 1, "gap_s": 0})
    for size in (1, 2, 2**49, 2**50 - 1, 2**50, 10**40):
        copy, read = found.rates_at(size)
        assert 1 <= copy == read <= 1e21


def test_an_unknown_profile_is_refused_with_suggestions(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean `rtx4090`"):
        read_profile("rtx-4090")
    with pytest.raises(UsageError, match="is a directory"):
        read_profile(str(tmp_path))
    for name in ("x" * 5000, "a\0b"):
        with pytest.raises(UsageError, match="no device profile"):
            read_profile(name)


def test_the_cache_depends_on_the_machine_and_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert read_cached("cpu") is None
    write_profile(DEVICE, cache_file("cpu"))
    assert read_cached("cpu") == DEVICE
    before = fingerprint("cpu")
    monkeypatch.setattr(module, "cpu_name", lambda path: "another machine")
    assert fingerprint("cpu") != before
    assert read_cached("cpu") is None
    monkeypatch.undo()
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert fingerprint("cpu") != before


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_profile_is_from_a_datasheet(name: str) -> None:
    found = read_profile(name)
    assert (found.source, found.launch_s) == ("datasheet", 0)
    assert found.name.startswith("NVIDIA ")
    assert "datasheet" in found.conditions
    assert found.peaks["fp16"].matmul_flop_s >= found.peaks["fp32"].matmul_flop_s


def test_only_a_shipped_profile_has_a_validation(tmp_path: Path) -> None:
    copy = tmp_path / "rtx4090.json"
    write_profile(read_profile("rtx4090"), copy)
    assert read_validation("rtx4090") is not None
    assert read_validation("v100") is None
    assert read_validation(str(copy)) is None


def test_help_names_every_shipped_profile() -> None:
    from resnetcli.cli.app import DeviceProfile

    names = DeviceProfile.help.partition("(")[2].partition(")")[0]
    assert sorted(names.split(", ")) == list(shipped())
