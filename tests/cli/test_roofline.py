"""`calibrate`, `explain` and `estimate`."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.cli import run


def test_a_calibration_is_shown_once_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from resnetcli.roofline.profiles import cache_file, read_profile, write_profile

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = run("calibrate --show")
    assert result.exit_code == 2
    assert "`cpu` has not been calibrated" in result.output
    write_profile(read_profile("v100"), cache_file("cpu"))
    shown = run("calibrate --show --format json")
    assert json.loads(shown.stdout)["name"] == "NVIDIA V100 SXM2"
    assert "900.0 GB/s" in run("calibrate --show").stdout


def test_noisy_peaks_do_not_replace_quiet_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from resnetcli.roofline.profiles import read_cached, read_profile

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    quiet = replace(read_profile("v100"), source="measured", device="cpu")
    noisy = replace(quiet, launch_s=1e-6, noisy=("other programs used 80% of the CPU time",))
    for peaks, kept in ((noisy, noisy), (quiet, quiet), (noisy, quiet)):
        monkeypatch.setattr(
            "resnetcli.roofline.calibrate.measure_device_peaks", lambda device, report, peaks=peaks: peaks
        )
        result = run("calibrate")
        assert result.exit_code == 0
        assert ("not cached: this measurement is noisy" in result.stderr) is (peaks != kept)
        assert read_cached("cpu") == kept


def test_the_csv_of_a_calibration_has_one_figure_per_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from resnetcli.roofline.profiles import cache_file, read_profile, write_profile

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    peaks = replace(read_profile("v100"), launch_s=3e-6, gap_s=1e-6)
    write_profile(peaks, cache_file("cpu"))
    rows = list(csv.reader(io.StringIO(run("calibrate --show --format csv").stdout)))
    assert rows[0] == ["kind", "what", "value", "unit"]
    found = {(kind, what): (float(value), unit) for kind, what, value, unit in rows[1:]}
    assert found[("launch", "")] == (3e-6, "s")
    assert found[("gap", "")] == (1e-6, "s")
    for dtype, peak in peaks.peaks.items():
        assert found[("matmul", dtype)] == (peak.matmul_flop_s, "FLOP/s")
        assert found[("conv", dtype)] == (peak.conv_flop_s, "FLOP/s")
    for rate in peaks.bandwidth:
        assert found[("copy", str(rate.working_set_bytes))] == (rate.copy_bytes_s, "B/s")
        assert found[("read", str(rate.working_set_bytes))] == (rate.read_bytes_s, "B/s")
    assert len(rows) == len(found) + 1 == 3 + 2 * len(peaks.peaks) + 2 * len(peaks.bandwidth)


def test_peaks_of_a_busy_machine_are_reported_by_every_command_in_every_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from resnetcli.roofline.profiles import cache_file, read_profile, write_profile

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    reason = "other programs used 80% of the CPU time"
    file = tmp_path / "busy.json"
    for path in (cache_file("cpu"), file):
        write_profile(replace(read_profile("v100"), source="measured", device="cpu", noisy=(reason,)), path)
    used = f"the device peaks were measured on a busy machine ({reason}); run `resnet-cli calibrate` when it is quiet"
    profile = ["resnet18", "--device-profile", str(file)]
    for command, line in (
        (["calibrate", "--show"], f"noisy, calibrate again on a quiet machine: {reason}"),
        (["explain", *profile], used),
        (["estimate", *profile], used),
    ):
        wide = {"COLUMNS": "200", "TERMINAL_WIDTH": "200"}
        assert run(command, **wide).stdout.splitlines().count(line) == 1
        assert f"{line}  \n" in run([*command, "--format", "md"], **wide).stdout
        table = run([*command, "--format", "csv"], **wide)
        assert (line in table.stdout, f"warning: {line}" in table.stderr) == (False, True)
        record = json.loads(run([*command, "--format", "json"]).stdout)
        assert record.get("device_profile", record)["noisy"] == [reason]


def test_a_model_is_explained_against_a_file_whose_name_has_spaces_and_against_itself(tmp_path: Path) -> None:
    spec = tmp_path / "a net.yaml"
    spec.write_text("input: 3x8x8\nlet: {k: 2}\ntable:\n  conv: [3x3 8*k]\n")
    result = run(["explain", "resnet18", "--device-profile", "v100", "--vs", f"{spec} k=3"])
    assert result.exit_code == 0, result.output
    assert "has a lower bound" in result.stdout
    same = run("explain resnet18 --device-profile v100 --vs resnet18")
    assert "ResNet-18 has the lower bound of ResNet-18" in same.stdout
    assert "difference" not in same.stdout  # there is none to be shown
    for other, message in (("", "unknown model ``"), ("resnet18 classes=many", "`many` is not a whole number")):
        result = run(["explain", "resnet18", "--device-profile", "v100", "--vs", other])
        assert result.exit_code == 2
        assert message in result.stderr


def test_settings_of_one_model_are_told_apart_by_their_parameters() -> None:
    estimated = run("estimate resnet18 resnet18 classes=10 --device-profile v100 --format csv")
    names = [line.split(",")[0] for line in estimated.stdout.splitlines()]
    assert names == ["model", "resnet18", "resnet18 classes=10"]
    explained = run(["explain", "resnet18", "classes=10", "--vs", "resnet18", "--device-profile", "v100"]).stdout
    assert explained.startswith("ResNet-18 classes=10 has a lower bound")
    assert "that of ResNet-18, with" in explained
    assert "lower bound resnet18 classes=10" in " ".join(explained.split())
    assert "(first)" not in explained


def test_the_csv_of_explain_has_both_models_and_those_that_failed() -> None:
    both = run(["explain", "resnet18", "--vs", "resnet34", "--device-profile", "v100", "--format", "csv"])
    rows = list(csv.DictReader(both.stdout.splitlines()))
    assert [row["model"] for row in rows] == ["resnet18"] * 6 + ["resnet34"] * 6
    failed = run(["explain", "resnet18", "--vs", "none.yaml", "--device-profile", "v100", "--format", "csv"])
    assert failed.exit_code == 2
    last = list(csv.DictReader(failed.stdout.splitlines()))[-1]
    assert (last["model"], last["name"], last["error"]) == ("none.yaml", "", "no such file: `none.yaml`")


def test_only_a_shipped_profile_is_validated(tmp_path: Path) -> None:
    from resnetcli.roofline.profiles import device_profile_record, read_profile

    own = tmp_path / "own.json"
    own.write_text(json.dumps(device_profile_record(read_profile("rtx4090"))))
    validated = "estimate resnet18 --device-profile rtx4090 --dtype fp16 --batch-size 512"
    assert "\nvalidated: at fp16, batch 512, lower bounds are 80% to 98% (median 93%) of" in run(validated).stdout
    assert "\nnot validated: no published" in run(["estimate", "resnet18", "--device-profile", str(own)]).stdout


@pytest.mark.parametrize(("dtype", "batch"), [("fp32", 1), ("fp16", 1), ("bf16", 512)])
def test_an_estimate_that_was_not_validated_says_so(dtype: str, batch: int) -> None:
    shown = run(
        f"estimate resnet18 --device-profile rtx4090 --dtype {dtype} --batch-size {batch}", COLUMNS="200"
    ).stdout
    assert f"\nnot validated at {dtype}, batch {batch}; at fp16, batch 512, lower bounds are" in shown
    assert "\nvalidated:" not in shown


def test_a_model_is_measured_and_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from resnetcli.roofline.profiles import cache_file, read_profile, write_profile

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    write_profile(read_profile("rtx4090"), cache_file("cpu"))
    plot = tmp_path / "roof.svg"
    command = "explain cifar_resnet20 --vs cifar_resnet32 --device cpu --time-budget 50ms --format json"
    result = run([*command.split(), "--channels-last", "--keep-memory", "--roofline", str(plot)])
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["settings"] == "fp32 channels_last keep-memory"
    assert 0 < record["eager"]["lower_bound_s"] < record["measured_s"]
    assert sum(record["shares"].values()) == pytest.approx(1)
    assert record["vs"]["model"] == "cifar_resnet32"
    assert f"wrote {plot}" in result.stderr
    assert plot.read_text().startswith("<svg")


def test_noise_is_reported_on_stderr_beside_csv(monkeypatch: pytest.MonkeyPatch) -> None:
    from resnetcli.bench.environment import Noise
    from resnetcli.plan.plan import Plan
    from resnetcli.roofline.analysis import explain
    from resnetcli.roofline.peaks import DevicePeaks
    from resnetcli.roofline.profiles import read_profile
    from tests.support.measured import MEASURED

    def busy(models: list[tuple[str, str, Plan]], peaks: DevicePeaks, **others: object) -> object:
        ((model, title, plan),) = models
        return (explain(model, plan, title, peaks, measurement=replace(MEASURED, noisy=(Noise("others", 0.5),))),), None

    monkeypatch.setattr("resnetcli.roofline.measure.get_device_peaks", lambda device, **others: read_profile("v100"))
    monkeypatch.setattr("resnetcli.roofline.measure.explain_measured", busy)
    shown = run("explain resnet18 --device cpu --format csv")
    assert shown.exit_code == 0
    assert (
        "warning: noisy, measure resnet18 again on a quiet machine: other programs used 50% of the CPU time"
        in shown.stderr
    )


def test_explain_says_that_it_calibrates_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from resnetcli.roofline.profiles import read_profile

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    peaks = replace(read_profile("v100"), device="cpu", source="measured")
    monkeypatch.setattr("resnetcli.roofline.calibrate.measure_device_peaks", lambda device, report: peaks)
    line = "`cpu` has not been calibrated: measuring its peaks"
    command = "explain cifar_resnet20 --device cpu --time-budget 50ms"
    assert [line in run(command).stderr for _ in range(2)] == [True, False]
