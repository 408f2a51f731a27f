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
    from resnetcli.roofline.peaks import cache_file, read_profile, write_profile

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = run("calibrate --show")
    assert result.exit_code == 2
    assert "`cpu` was not calibrated here yet" in result.output
    write_profile(read_profile("v100"), cache_file("cpu"))
    shown = run("calibrate --show --format json")
    assert json.loads(shown.stdout)["name"] == "NVIDIA V100 SXM2"
    assert "900.0 GB/s" in run("calibrate --show").stdout


def test_noisy_ceilings_are_not_kept_in_the_place_of_quiet_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from resnetcli.roofline.peaks import cached, read_profile

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    quiet = replace(read_profile("v100"), source="measured", device="cpu")
    noisy = replace(quiet, launch_s=1e-6, noisy=("other programs took 80% of the processors",))
    for found, kept in ((noisy, noisy), (quiet, quiet), (noisy, quiet)):
        monkeypatch.setattr("resnetcli.roofline.calibrate.calibrate", lambda device, report, found=found: found)
        result = run("calibrate")
        assert result.exit_code == 0
        assert ("not cached: these are noisy" in result.stderr) is (found != kept)
        assert cached("cpu") == kept


def test_a_calibration_as_csv_has_all_of_it_a_figure_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from resnetcli.roofline.peaks import cache_file, read_profile, write_profile

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ceilings = replace(read_profile("v100"), launch_s=3e-6, gap_s=1e-6)
    write_profile(ceilings, cache_file("cpu"))
    rows = list(csv.reader(io.StringIO(run("calibrate --show --format csv").stdout)))
    assert rows[0] == ["kind", "what", "value", "unit"]
    found = {(kind, what): (float(value), unit) for kind, what, value, unit in rows[1:]}
    assert found[("launch", "")] == (3e-6, "s")
    assert found[("gap", "")] == (1e-6, "s")
    for dtype, peak in ceilings.peaks.items():
        assert found[("matmul", dtype)] == (peak.matmul, "FLOP/s")
        assert found[("conv", dtype)] == (peak.conv, "FLOP/s")
    for rate in ceilings.rates:
        assert found[("copy", str(rate.working_set))] == (rate.copy, "B/s")
        assert found[("read", str(rate.working_set))] == (rate.read, "B/s")
    assert len(rows) == len(found) + 1 == 3 + 2 * len(ceilings.peaks) + 2 * len(ceilings.rates)


def test_ceilings_of_a_busy_machine_are_said_by_every_command_in_every_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from resnetcli.roofline.peaks import cache_file, read_profile, write_profile

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    reason = "other programs took 80% of the processors"
    file = tmp_path / "busy.json"
    for path in (cache_file("cpu"), file):
        write_profile(replace(read_profile("v100"), source="measured", device="cpu", noisy=(reason,)), path)
    used = f"the ceilings were measured on a busy machine ({reason}): `resnet-cli calibrate` again when it is quiet"
    profile = ["resnet18", "--device-profile", str(file)]
    for command, line in (
        (["calibrate", "--show"], f"noisy: {reason}; not to be relied upon, calibrate again on a quiet machine"),
        (["explain", *profile], used),
        (["estimate", *profile], used),
    ):
        wide = {"COLUMNS": "200", "TERMINAL_WIDTH": "200"}
        assert run(command, **wide).stdout.splitlines().count(line) == 1
        assert f"{line}  \n" in run([*command, "--format", "md"], **wide).stdout
        table = run([*command, "--format", "csv"], **wide)
        assert (line in table.stdout, f"warning: {line}" in table.stderr) == (False, True)
        record = json.loads(run([*command, "--format", "json"]).stdout)
        assert record.get("ceilings", record)["noisy"] == [reason]


def test_a_net_is_explained_against_a_file_whose_name_has_spaces_and_against_itself(tmp_path: Path) -> None:
    spec = tmp_path / "a net.yaml"
    spec.write_text("input: 3x8x8\nlet: {k: 2}\ntable:\n  conv: [3x3 8*k]\n")
    result = run(["explain", "resnet18", "--device-profile", "v100", "--vs", f"{spec} k=3"])
    assert result.exit_code == 0, result.output
    assert "has a floor" in result.stdout
    same = run("explain resnet18 --device-profile v100 --vs resnet18")
    assert "ResNet-18 has the floor of ResNet-18" in same.stdout
    assert "difference" not in same.stdout  # there is none to be shown
    for other, message in (("", "unknown model ``"), ("resnet18 classes=many", "`many` is not a whole number")):
        result = run(["explain", "resnet18", "--device-profile", "v100", "--vs", other])
        assert result.exit_code == 2
        assert message in result.stderr


def test_only_a_datasheet_that_was_tested_says_so(tmp_path: Path) -> None:
    from resnetcli.roofline.peaks import read_profile, to_json

    own = tmp_path / "own.json"
    own.write_text(json.dumps(to_json(read_profile("rtx4090"))))
    tested = "estimate resnet18 --device-profile rtx4090 --dtype fp16 --batch-size 512"
    assert "\ntested: floors in fp16 at batch 512 were 80% to 98% of" in run(tested).stdout
    assert "never tested" in run(["estimate", "resnet18", "--device-profile", str(own)]).stdout


@pytest.mark.parametrize(("dtype", "batch"), [("fp32", 1), ("fp16", 1), ("bf16", 512)])
def test_a_prediction_for_another_case_than_was_tested_says_so(dtype: str, batch: int) -> None:
    shown = run(
        f"estimate resnet18 --device-profile rtx4090 --dtype {dtype} --batch-size {batch}", COLUMNS="200"
    ).stdout
    assert f"\nnot tested in {dtype} at batch {batch}, which is another case: floors in fp16 at batch 512 were" in shown
    assert "\ntested:" not in shown


def test_a_net_is_explained_by_measuring_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from resnetcli.roofline.peaks import cache_file, read_profile, write_profile

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    write_profile(read_profile("rtx4090"), cache_file("cpu"))
    drawing = tmp_path / "roof.svg"
    command = "explain cifar_resnet20 --vs cifar_resnet32 --device cpu --time-budget 50ms --format json"
    result = run([*command.split(), "--channels-last", "--keep-memory", "--roofline", str(drawing)])
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["net"]["settings"] == "fp32 channels_last keep-memory"
    assert 0 < record["net"]["floor"]["floor_s"] < record["net"]["measured_s"]
    assert sum(record["net"]["shares"].values()) == pytest.approx(1)
    assert record["vs"]["net"]["model"] == "cifar_resnet32"
    assert f"drawn: {drawing}" in result.stderr
    assert drawing.read_text().startswith("<svg")


def test_what_is_not_to_be_relied_upon_is_said_beside_a_csv_of_times_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from resnetcli.bench.environment import Noise
    from resnetcli.plan.plan import Plan
    from resnetcli.roofline.analysis import explain
    from resnetcli.roofline.peaks import Ceilings, read_profile
    from tests.support.measured import MEASURED

    def busy(nets: list[tuple[str, str, Plan]], ceilings: Ceilings, **others: object) -> object:
        ((model, title, plan),) = nets
        noisy = replace(MEASURED, noisy=(Noise("others", 0.5),))
        return (explain(model, plan, title, ceilings, measurement=noisy),), None

    monkeypatch.setattr("resnetcli.roofline.analysis.ceilings_of", lambda *arguments: read_profile("v100"))
    monkeypatch.setattr("resnetcli.roofline.analysis.explain_measured", busy)
    shown = run("explain resnet18 --device cpu --format csv")
    assert shown.exit_code == 0
    assert "warning: noisy: resnet18: other programs took 50% of the processors; not to be relied upon" in shown.stderr
