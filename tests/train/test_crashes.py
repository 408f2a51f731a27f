"""A run that is killed, or finds the disk full, at each single file operation: nothing that it had begun is lost."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest

from resnetcli.errors import ResourceError, UsageError
from resnetcli.train import group
from resnetcli.train.group import train
from resnetcli.train.job import TrainJob
from resnetcli.train.options import TrainOptions
from resnetcli.train.results import TrainOutcome
from resnetcli.train.session import Session
from tests.support import tiny
from tests.support.faults import MODES, Faults, Killed, installed
from tests.support.thin import thinned


@dataclass
class Trainer(tiny.Fake):
    """A trainer of which a run's end depends on its seed and on each of its steps, once."""

    seed: int = 0

    def step(self) -> None:
        if callable(self.before_step):
            self.before_step(self.iteration)
        self.weight = self.weight * 1.5 + self.iteration + self.seed
        self.iteration += 1


@dataclass
class Scene:
    """One training, in a folder, and its directory as it is after an uninterrupted one."""

    options: Sequence[TrainOptions]
    seeds: int | None = None
    reference: dict[str, bytes] = field(default_factory=dict)
    operations: list[str] = field(default_factory=list)

    def train(self, path: Path) -> TrainOutcome:
        return train(self.options, tiny.Ear(), out=path, seeds=self.seeds)


def content(path: Path) -> dict[str, bytes]:
    """What each file in a directory holds."""
    return {str(file.relative_to(path)): _content(file) for file in path.rglob("*") if file.is_file()}


def _content(file: Path) -> bytes:
    """The bytes; of a checkpoint with its header in one order, as safetensors has it in any."""
    data = file.read_bytes()
    if file.suffix != ".safetensors":
        return data
    end = 8 + int.from_bytes(data[:8], "little")
    return json.dumps(json.loads(data[8:end]), sort_keys=True).encode() + data[end:]


def resume(scene: Scene, path: Path) -> TrainOutcome:
    """As a user would: `--resume`, and if there is nothing to resume, the same command again, as the hint says."""
    try:
        return train([TrainOptions()], tiny.Ear(), resume=path)
    except UsageError as error:
        said = str(error)
    assert "there is no directory" in said or f"whole `train-cifar` command again, with `--out {path}`" in said
    return scene.train(path)


@pytest.fixture
def scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scene]:
    """Makes a scene: one model, several, or several seeds."""
    monkeypatch.chdir(tiny.files(tmp_path))
    (tmp_path / "deep.yaml").write_text(tiny.NET.replace("n: 1", "n: 2").replace("name: tiny", "name: deep"))

    def trainer(job: TrainJob, **_: object) -> Trainer:
        return Trainer(seed=job.config.seed)

    monkeypatch.setattr(group, "build_trainer", trainer)
    monkeypatch.setattr(group, "Session", partial(Session, clock=lambda: 0.0))

    def scene(*models: str, seeds: int | None = None, iterations: int = 6) -> Scene:
        options = TrainOptions(
            recipe="recipe.yaml", data="custom", data_dir=str(tmp_path / "data"), iterations=iterations, threads=1,
            device="cpu", checkpoint_every=2, eval_every=3,
        )  # fmt: skip
        made = Scene([replace(options, model=model) for model in models or ("tiny.yaml",)], seeds)
        with installed(Faults()) as faults:
            made.train(tmp_path / "whole")
        made.reference, made.operations = content(tmp_path / "whole"), faults.operations
        return made

    return scene


def points(scene: Scene, modes: Sequence[str], every: int = 1) -> list[tuple[int, str]]:
    """What goes wrong, and how: half of an operation there is only of writing."""
    return [
        (at, mode) for at, name in enumerate(scene.operations) for mode in modes
        if at % every == 0 and (mode != "half" or name == "write")
    ]  # fmt: skip


def kill_at_each(scene: Scene, folder: Path, modes: Sequence[str], every: int = 1) -> None:
    for at, mode in points(scene, modes, every):
        path = folder / f"{mode}{at}"
        with installed(Faults(at, mode)) as faults, pytest.raises(Killed):
            scene.train(path)
        trained = resume(scene, path)
        what = f"{mode} operation {at}, {faults.operations[-1]}"
        assert (trained.signal, trained.failed) == (0, ()), what
        assert content(path) == scene.reference, what


def fill_at_each(scene: Scene, folder: Path, error: int = errno.ENOSPC, every: int = 1) -> None:
    """The disk is full for one operation: either the end is as if it had not been, or it is reported and mended."""
    for at, mode in points(scene, ("full",), every):
        path = folder / f"{mode}{error}-{at}"
        with installed(Faults(at, mode, error)) as faults:
            try:
                trained = scene.train(path)
            except ResourceError as reason:
                reported = os.strerror(error) in reason.message
            else:
                unsaved = [what for each in trained.models for what in each.unsaved]
                reported = bool(unsaved or trained.failed)
        if reported:
            resume(scene, path)
        what = (at, faults.operations[at], reported)
        assert last_of(content(path)) == last_of(scene.reference), what


def last_of(found: dict[str, bytes]) -> dict[str, bytes]:
    """Without all checkpoints of a run but its last: one that could not be written is not written again later."""
    last = {Path(name).parent: name for name in sorted(found) if "checkpoint-" in name}
    return {name: data for name, data in found.items() if "checkpoint-" not in name or name in last.values()}


def test_a_run_killed_at_every_other_file_operation_ends_as_if_it_had_not_been(
    scenes: Callable[..., Scene], tmp_path: Path
) -> None:
    scene = scenes(iterations=3)
    assert len(scene.operations) > 70
    kill_at_each(scene, tmp_path, ("before", "half"), every=2)


def test_a_disk_full_for_one_file_operation_costs_nothing_or_is_reported(
    scenes: Callable[..., Scene], tmp_path: Path
) -> None:
    fill_at_each(scenes(iterations=3), tmp_path, every=3)


@pytest.mark.parametrize("form", thinned(["models", "seeds"], 2))
def test_several_runs_killed_at_some_file_operations_all_come_to_their_end(
    scenes: Callable[..., Scene], tmp_path: Path, form: str
) -> None:
    scene = scenes(seeds=2, iterations=2) if form == "seeds" else scenes("tiny.yaml", "deep.yaml", iterations=2)
    kill_at_each(scene, tmp_path, ("before",), every=11)
    fill_at_each(scene, tmp_path, every=17)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["one", "models", "seeds", "models and seeds"])
def test_training_killed_or_refused_in_every_way_at_each_file_operation(
    scenes: Callable[..., Scene], tmp_path: Path, form: str
) -> None:
    models = ("tiny.yaml", "deep.yaml") if "models" in form else ("tiny.yaml",)
    every = {"one": 1, "models": 3, "seeds": 3, "models and seeds": 11}[form]
    scene = scenes(*models, seeds=2 if "seeds" in form else None, iterations=6 if form == "one" else 2)
    kill_at_each(scene, tmp_path, MODES[:3], every)
    fill_at_each(scene, tmp_path, every=every)
    fill_at_each(scene, tmp_path, errno.EIO, every=every)


@pytest.mark.slow
def test_a_resume_that_is_killed_at_each_of_its_file_operations_is_resumed(
    scenes: Callable[..., Scene], tmp_path: Path
) -> None:
    scene = scenes(iterations=6)
    half = len(scene.operations) * 2 // 3
    at = 0
    while True:
        path = tmp_path / f"again{at}"
        with installed(Faults(half)), pytest.raises(Killed):
            scene.train(path)
        with installed(Faults(at)) as faults, suppress(Killed):
            train([TrainOptions()], tiny.Ear(), resume=path)
        if at >= len(faults.operations):
            break
        resume(scene, path)
        assert content(path) == scene.reference, (at, faults.operations[-1])
        at += 1
    assert at > 30


def test_two_models_of_which_the_disk_keeps_the_second_from_its_end_end_alike_after_a_resume(
    scenes: Callable[..., Scene], tmp_path: Path
) -> None:
    scene = scenes("tiny.yaml", "deep.yaml", iterations=2)
    first = next(at for at in range(len(scene.operations) - 1, 0, -1) if scene.operations[at] == "fsync")
    with installed(Faults(first - 3, "full")):
        trained = scene.train(tmp_path / "run")
    assert [what for each in trained.models for what in each.unsaved] == ["the result"]
    resume(scene, tmp_path / "run")
    assert content(tmp_path / "run") == scene.reference
