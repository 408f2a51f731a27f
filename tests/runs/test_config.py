"""A run's configuration and result as they are read back: wrong values, other files, differences."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from resnetcli.errors import UsageError
from resnetcli.runs import directory as runs
from resnetcli.runs.config import Config, differences
from resnetcli.runs.directory import create, open_run
from tests.support.tiny import CONFIG, config

RESULT = {
    "schema": "resnet-cli/train@2", "model": "cifar_resnet20", "parameters": {}, "params": 269722, "recipe": "resnet",
    "seed": 0, "data": "CIFAR-10 (verified)", "iterations": 40, "batch_size": 4, "final_test_error_percent": 8.75,
    "final_test_loss": None, "test_images": 10, "final_train_error_percent": 0.0, "final_train_loss": 0.1,
    "train_images": 20, "images_per_s": None, "wall_s": 1.5, "deviations": ["one"],
    "published": [asdict(entry) for entry in CONFIG.published],
}  # fmt: skip


def make(path: Path, made: Config = CONFIG) -> runs.Run:
    return create(path, made, spec="a: 1\n", model="b: 2\n", recipe="c: 3\n")


WRONG = [
    *((name, {"wrong": []} if name not in ("parameters", "recipe", "versions") else ["wrong"])
      for name in CONFIG.__dataclass_fields__),
    ("iterations", 0), ("batch_size", 10**10), ("seed", -1), ("seed", True), ("compile", 1), ("validation_images", -1),
    ("input", [3, 32]), ("input", [3, 32, 0]), ("recipe", {}), ("published", [{}]), ("deviations", [1]),
    ("parameters", {"n": "1"}), ("versions", {"torch": 2}),
    ("recipe", {"name": "deep", "schedule": {"at": {"at": {"at": []}}}}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_configuration_with_a_wrong_value_is_refused(tmp_path: Path, name: str, value: object) -> None:
    path = make(tmp_path / "run").path / "config.json"
    record = json.loads(path.read_text())
    for changed in ({**record, name: value}, {key: kept for key, kept in record.items() if key != name}):
        path.write_text(json.dumps(changed))
        with pytest.raises(UsageError, match=f"`{name}"):
            open_run(path.parent)


@pytest.mark.parametrize("value", [[], ["x"], {"x": []}, "x", -1, float("nan"), 10**400, True])
def test_a_result_with_a_wrong_value_is_refused(tmp_path: Path, value: object) -> None:
    run = make(tmp_path / "run")
    good: dict[str, list[object]] = {
        "model": ["x"], "recipe": ["x"], "data": ["x"], "deviations": [[], ["x"]], "published": [[]]
    }  # fmt: skip
    for name in RESULT.keys() - {"schema"}:
        if value in good.get(name, []):
            continue
        run.finish({**RESULT, name: value})
        with pytest.raises(UsageError, match=f"`{name}"):
            _ = run.result
        run.finish({key: kept for key, kept in RESULT.items() if key != name})
        if name not in ("final_test_loss", "final_train_loss", "images_per_s"):
            with pytest.raises(UsageError, match=f"`{name}"):
                _ = run.result


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "resnet-cli/run@1"}', "[" * 50_000, "\0", "1" * 5000])
def test_another_file_is_no_configuration(tmp_path: Path, text: str) -> None:
    path = make(tmp_path / "run").path
    (path / "config.json").write_text(text)
    with pytest.raises(UsageError):
        open_run(path)


def test_two_configurations_are_one_run_unless_the_weights_would_differ() -> None:
    same = replace(CONFIG, device="cuda:0", threads=9, checkpoint_every=3, data_folder="/elsewhere", model="./net.yaml")
    assert differences(CONFIG.bound, same.bound) == []
    other = config(seed=1, recipe={**CONFIG.recipe, "schedule": {"lr": 0.2}})
    assert differences(CONFIG.bound, other.bound) == ["recipe.schedule.lr 0.1 -> 0.2", "seed 0 -> 1"]
    assert differences({}, {"seed": 1}) == ["seed unset -> 1"]


def test_bound_values_are_as_json_gives_them_back() -> None:
    made = config(recipe={"name": "r", "schedule": {"at": [1, 2]}})
    assert json.loads(json.dumps(made.bound)) == made.bound
