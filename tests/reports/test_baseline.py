"""Times kept in a file, and later ones held against them; the measurements are made up."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from resnetcli.bench.benchmark import Failure
from resnetcli.bench.environment import Noise
from resnetcli.bench.latency import Measurement
from resnetcli.bench.options import RunOptions
from resnetcli.bench.search import FP32, SettingsSearch, checked
from resnetcli.errors import ResourceError, UsageError
from resnetcli.files import check_writable
from resnetcli.reports.baseline import (
    NamedPlan,
    check_machine,
    check_models,
    check_unique,
    named_plans,
    read_baseline,
)
from resnetcli.reports.comparison import Comparison
from resnetcli.spec.zoo import Zoo
from tests.support.baselines import against, keep, only, run
from tests.support.measured import measured


@pytest.mark.parametrize(
    ("then", "now", "verdict"),
    [
        (0.100, 0.130, "regressed"),
        (0.130, 0.100, "improved"),
        (0.100, 0.100, "same"),
        (0.100, 0.1015, "same"),  # within what days differ by
        (0.100, 0.10301, "same"),  # 3%, but each interval is 3% to either side
    ],
)
def test_a_later_run_is_judged_by_its_interval(then: float, now: float, verdict: str, tmp_path: Path) -> None:
    path = keep(run(measured(then, half=0.03)), tmp_path / "base.json")
    assert only(against(run(measured(now, half=0.03)), path)).verdict == verdict


def test_the_interval_is_of_both_runs(tmp_path: Path) -> None:
    path = keep(run(measured(0.1, half=0.03)), tmp_path / "base.json")
    ratio = only(against(run(measured(0.2, half=0.04)), path)).ratio
    assert ratio.ratio == pytest.approx(2)
    assert ratio.interval == pytest.approx((1.9, 2.1), abs=0.005)  # 3% and 4% make 5%
    assert ratio.text() == "2.00x slower [1.90, 2.10]"


def test_nothing_below_either_run_s_noise_floor_is_a_regression(tmp_path: Path) -> None:
    for then, now in ((0.2, 0.0), (0.0, 0.2)):
        path = keep(run(measured(0.1), floor=then), tmp_path / "base.json")
        assert only(against(run(measured(0.115), floor=now), path)).verdict == "same"
        assert only(against(run(measured(0.130), floor=now), path)).verdict == "regressed"


def test_a_model_s_time_is_compared_with_its_own(tmp_path: Path) -> None:
    path = keep(run(measured(0.1, batch=1), measured(0.4, batch=8)), tmp_path / "base.json")
    found = against(run(measured(0.1, batch=1), measured(0.5, batch=8), measured(1.0, batch=16)), path)
    assert [(change.batch, change.verdict) for change in found.changes] == [(1, "same"), (8, "regressed")]
    assert [change.batch for change in found.regressed] == [8]
    assert found.unsaved == ("resnet18 at batch 16",)
    one = against(run(measured(0.4, batch=8)), path)
    assert one.unmeasured == ("resnet18 at batch 1",)


def test_unmeasured_variants_of_one_model_are_told_apart_by_their_parameters(tmp_path: Path) -> None:
    variants = [run(measured(0.1), classes=classes).profiles[0] for classes in (10, 20)]
    path = keep(Comparison(tuple(variants), timings=run(measured(0.1)).timings), tmp_path / "base.json")
    one = against(run(measured(0.1), classes=20), path)
    assert one.unmeasured == ("resnet18 classes=10 at batch 2",)


def test_parameters_make_another_model(tmp_path: Path) -> None:
    path = keep(run(measured(0.1)), tmp_path / "base.json")
    with pytest.raises(UsageError, match="has none of these models"):
        against(run(measured(0.1), classes=10), path)


def test_a_model_that_was_another_is_reported(tmp_path: Path) -> None:
    path = keep(run(measured(0.1)), tmp_path / "base.json")
    record = json.loads(path.read_text())
    record["results"][0]["macs"] = 7
    record["results"][0]["torch"] = "1.0"
    path.write_text(json.dumps(record))
    assert only(against(run(measured(0.1)), path)).notes == (
        "the model had 11,689,512 parameters and 7 MACs",
        "torch was 1.0",
    )


# --- noise -------------------------------------------------------------------------------------------------------

NOISY = (Noise("others", 0.4),)


def test_a_noisy_run_cannot_become_a_baseline(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="not saved: the run was noisy: other programs used 40%"):
        keep(run(measured(0.1), measured(0.2, batch=8, noisy=NOISY)), tmp_path / "base.json")
    assert list(tmp_path.iterdir()) == []


def test_a_noisy_run_decides_nothing(tmp_path: Path) -> None:
    path = keep(run(measured(0.1)), tmp_path / "base.json")
    for now in (0.1, 0.3):
        found = against(run(measured(now, noisy=NOISY)), path)
        assert [change.verdict for change in found.undecided] == ["undecided"]
        assert found.regressed == ()


def test_a_model_that_was_measured_twice_cannot_become_one(tmp_path: Path) -> None:
    found = run(measured(0.1))
    with pytest.raises(UsageError, match="not saved: two results of `resnet18` at one batch size"):
        keep(dataclasses.replace(found, profiles=found.profiles * 2), tmp_path / "base.json")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_a_file_whose_writing_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        keep(run(measured(0.1)), tmp_path / "base.json")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_measured_less_than_was_asked_cannot_become_one(tmp_path: Path) -> None:
    found = run(measured(0.1))
    profile = dataclasses.replace(found.profiles[0], failures=(Failure("cpu", 64, "it does not fit"),))
    with pytest.raises(ResourceError, match="measurements are missing for resnet18"):
        keep(dataclasses.replace(found, profiles=(profile,)), tmp_path / "base.json")


# --- other machines and settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"device_name": "another CPU"}, "measured on another machine: device name `another CPU`, now `x`"),
        ({"threads": 64}, "with other settings: threads `64`, now `2`"),
        ({"options": RunOptions(dtype="bf16")}, "with other settings: dtype `bf16`, now `fp32`"),
        (
            {"options": RunOptions(channels_last=True)},
            "with other settings: channels last `True`, now `False`",
        ),
        ({"device": "cuda:0"}, "with other settings: device `cuda:0`, now `cpu`"),
        ({"tf32": True}, "with other settings: tf32 `True`, now `False`"),
    ],
)
def test_times_of_another_machine_or_setting_are_refused(other: dict[str, Any], reason: str, tmp_path: Path) -> None:
    path = keep(run(measured(0.1, **other)), tmp_path / "base.json")
    with pytest.raises(UsageError, match=reason):
        against(run(measured(0.1)), path)


def test_another_machine_is_reported_before_anything_is_measured(tmp_path: Path) -> None:
    path = keep(run(measured(0.1, device_name="a machine from long ago")), tmp_path / "base.json")
    with pytest.raises(UsageError, match="was measured on another machine: `a machine from long ago`, not"):
        check_machine(read_baseline(path), "cpu")


FASTEST = RunOptions(dtype="bf16", channels_last=True, fold_bn=True, runtime="inductor")
WAYS: dict[str, Any] = {"options": FASTEST}


def best(*measurements: Measurement) -> Comparison:
    """A comparison of one model that `--best` measured so."""
    found = run(*measurements)
    searches = tuple(SettingsSearch(m.batch, (checked(FP32, m),)) for m in measurements)
    return dataclasses.replace(found, profiles=(dataclasses.replace(found.profiles[0], searches=searches),))


def test_the_best_settings_may_be_others_another_day_which_is_reported(tmp_path: Path) -> None:
    path = keep(best(measured(0.1, **WAYS)), tmp_path / "base.json")
    change = only(against(best(measured(0.2)), path))
    assert change.verdict == "regressed"
    assert change.notes == ("the fastest settings were `bf16 channels_last fold-bn compile`, now `fp32`",)
    assert only(against(best(measured(0.1, **WAYS)), path)).notes == ()


@pytest.mark.parametrize(
    "other",
    [
        {"threads": 64},
        {"device": "cuda:0"},
        {"options": dataclasses.replace(FASTEST, mode="train")},
        {"cudnn_benchmark": True},
    ],
)
def test_what_the_best_settings_are_not_about_must_be_the_same(other: dict[str, Any], tmp_path: Path) -> None:
    path = keep(best(measured(0.1, **(WAYS | other))), tmp_path / "base.json")
    with pytest.raises(UsageError, match="with other settings"):
        against(best(measured(0.1)), path)


def test_settings_that_were_asked_for_are_compared_with_none_that_were_found(tmp_path: Path) -> None:
    file = tmp_path / "base.json"
    for then, now in ((run, best), (best, run)):
        keep(then(measured(0.1, **WAYS)), file)
        with pytest.raises(UsageError, match="was measured with other settings: dtype `bf16`, now `fp32`"):
            against(now(measured(0.1)), file)
        assert only(against(now(measured(0.1, **WAYS)), file)).verdict == "same"
    record = json.loads(file.read_text())
    del record["results"][0]["best"]  # as older files have it
    file.write_text(json.dumps(record))
    assert not read_baseline(file).entries[0].best


# --- files -------------------------------------------------------------------------------------------------------


def test_a_file_says_all_that_a_later_run_needs_and_no_more(tmp_path: Path) -> None:
    path = keep(run(measured(0.1)), tmp_path / "base.json")
    text = path.read_text()
    assert len(text) < 2500
    assert "samples_s" not in text
    (kept,) = read_baseline(path).entries
    assert (kept.model, kept.batch, kept.input) == ("resnet18", 2, (3, 224, 224))
    assert (kept.median_s, kept.interval_s, kept.noise_floor) == (0.1, (0.1 * 0.99, 0.1 * 1.01), 0.005)


def test_saving_replaces_a_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    path.write_text("what was there before")
    keep(run(measured(0.1)), path)
    assert read_baseline(path).entries[0].median_s == 0.1
    assert [each.name for each in tmp_path.iterdir()] == ["base.json"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "is a directory"),
        ("nowhere/base.json", "there is no directory"),
        ("x" * 5000, "not a valid file name"),
        ("a\0b", "not a valid file name"),
    ],
)
def test_a_place_where_nothing_can_be_written_is_refused(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        check_writable(f"{tmp_path}/{name}", "--save")


def test_what_is_no_file_is_not_written_to() -> None:
    with pytest.raises(UsageError, match="is not a regular file"):
        check_writable("/dev/null", "--save")


def whole(tmp_path: Path) -> dict[str, Any]:
    path = keep(run(measured(0.1)), tmp_path / "whole.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("9" * 10_000, "is not JSON"),
        ("[]", "is not a baseline"),
        ('{"schema": "resnet-cli/profile@2"}', "is not a baseline"),
        ('{"schema": "resnet-cli/baseline@1"}', "`results`"),
        ('{"schema": "resnet-cli/baseline@1", "results": []}', "`results`"),
        ('{"schema": "resnet-cli/baseline@1", "results": [1]}', r"`results\[0\]` must be an object"),
    ],
)
def test_a_file_of_something_else_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_baseline(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", None),
        ("model", 5),
        ("parameters", []),
        ("parameters", {"classes": "many"}),
        ("parameters", {"classes": True}),
        ("input", [3, 224]),
        ("input", [3, 224, 10**30]),
        ("batch", 0),
        ("batch", 1.5),
        ("batch", True),
        ("params", -1),
        ("conditions", None),
        ("median_s", 0),
        ("median_s", -0.1),
        ("median_s", float("nan")),
        ("median_s", float("inf")),
        ("median_s", 1e300),
        ("interval_s", [1e-300, 0.2]),  # whose ratio to another time no number can hold
        ("median_s", 10**400),
        ("median_s", "0.1"),
        ("median_s", 0.5),  # outside its interval
        ("interval_s", [0.2, 0.05]),
        ("interval_s", [0.05]),
        ("interval_s", [0.05, float("nan")]),
        ("noise_floor", -1),
        ("noise_floor", float("inf")),
        ("torch", None),
        ("best", "yes"),
        ("best", []),
        ("conditions", {"threads": {}}),
        ("conditions", {"settings": ["fp32"]}),
    ],
)
def test_a_file_with_a_value_that_cannot_be_is_refused(key: str, value: Any, tmp_path: Path) -> None:
    record = whole(tmp_path)
    record["results"][0][key] = value
    path = tmp_path / "base.json"
    path.write_text(json.dumps(record))
    with pytest.raises(UsageError, match=r"is not a valid baseline: `results\[0\]"):
        read_baseline(path)


@pytest.mark.parametrize("key", ["model", "parameters", "input", "batch", "conditions", "median_s", "interval_s"])
def test_a_file_that_lacks_something_is_refused(key: str, tmp_path: Path) -> None:
    record = whole(tmp_path)
    del record["results"][0][key]
    path = tmp_path / "base.json"
    path.write_text(json.dumps(record))
    with pytest.raises(UsageError, match=r"`results\[0\].* is missing"):
        read_baseline(path)


def test_conditions_of_any_kind_are_only_compared(tmp_path: Path) -> None:
    record = whole(tmp_path)
    conditions: Mapping[str, Any] = {"device_name": "\x1b[31m" * 10, "threads": float("nan"), "more": None}
    record["results"][0]["conditions"] = conditions
    path = tmp_path / "base.json"
    path.write_text(json.dumps(record))
    with pytest.raises(UsageError, match="with other settings") as caught:
        against(run(measured(0.1)), path)
    assert "\x1b" not in str(caught.value)
    with pytest.raises(UsageError, match="another machine"):
        check_machine(read_baseline(path), "cpu")


def test_a_file_without_any_of_the_models_is_reported_before_anything_is_measured(tmp_path: Path) -> None:
    file = read_baseline(keep(run(measured(0.1)), tmp_path / "base.json"))  # resnet18 at batch 2
    for asked, size, batches in (
        ([("resnet34", {})], None, (2,)),
        ([("resnet18", {"classes": 10})], None, (2,)),
        ([("resnet18", {})], "3x256x256", (2,)),
        ([("resnet18", {}), ("resnet34", {})], None, (1, 8)),
    ):
        with pytest.raises(UsageError, match="has none of these models at these batch sizes and inputs"):
            check_models(file, nets(*asked, input=size), batches)
    check_models(file, nets(("resnet34", {}), ("resnet18", {})), (1, 2))
    check_models(file, nets(("resnet18", {"classes": 1000})), (2,))


def nets(*asked: tuple[str, Mapping[str, int]], input: str | None = None, **most: int) -> list[NamedPlan]:
    return named_plans(asked, input=input, zoo=Zoo(), most=most)


def test_the_models_that_will_be_measured_are_those_that_cost_no_more_than_they_may(tmp_path: Path) -> None:
    net = tmp_path / "net.py"
    net.write_text("from torch import nn\nNet = lambda: nn.Conv2d(3, 8, 3)\n")
    asked: list[tuple[str, Mapping[str, int]]] = [("resnet18", {}), (f"{net}:Net", {}), ("resnet50", {})]
    assert [model for model, _ in nets(*asked)] == ["resnet18", f"{net}:Net", "resnet50"]
    assert [model for model, _ in nets(*asked, params=20_000_000)] == ["resnet18", f"{net}:Net"]
    assert nets(*asked, params=20_000_000, macs=1) == []


def test_a_model_that_is_named_twice_is_reported_before_anything_is_measured() -> None:
    with pytest.raises(UsageError, match="not saved: two results of `resnet18` at one batch size"):
        check_unique(nets(("resnet18", {}), ("resnet18", {"classes": 1000})))
    check_unique(nets(("resnet18", {}), ("resnet18", {"classes": 10})))


def test_two_results_of_one_model_are_refused(tmp_path: Path) -> None:
    record = whole(tmp_path)
    record["results"] *= 2
    path = tmp_path / "base.json"
    path.write_text(json.dumps(record))
    with pytest.raises(UsageError, match="two results of one model at one batch size"):
        read_baseline(path)


def test_what_cannot_be_read_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_baseline(tmp_path / "nothing.json")
    with pytest.raises(UsageError, match="is a directory"):
        read_baseline(tmp_path)
    with pytest.raises(UsageError, match="is not a regular file"):
        read_baseline("/dev/zero")
    large = tmp_path / "large.json"
    large.write_bytes(b" " * (16 * 2**20 + 1))
    with pytest.raises(UsageError, match="is larger than 16 MiB"):
        read_baseline(large)
