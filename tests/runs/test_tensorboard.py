"""What TensorBoard shows of a run is what its metrics say, however often it was stopped."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from collections import defaultdict
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from resnetcli.errors import UsageError
from resnetcli.files import write_atomic
from resnetcli.runs import tensorboard as board
from resnetcli.runs.directory import Run, create
from resnetcli.runs.lock import discard
from resnetcli.runs.metrics import Metrics, read_metrics
from resnetcli.runs.tensorboard import PACKAGE, EventWriter, event_files, import_package
from resnetcli.train.loop import Trainer
from resnetcli.train.session import Session, SessionOutcome
from tests.support import tiny
from tests.support.cli import run as cli
from tests.support.ranks import run_ranks
from tests.support.tiny import Ear, Fake, config

Shown = dict[str, list[tuple[int, Any]]]
"""The steps and values of each tag."""


pytestmark = pytest.mark.usefixtures("same_threads")


def reader(path: Path) -> EventAccumulator:
    """What TensorBoard reads a directory with."""
    return EventAccumulator(str(path), size_guidance={"scalars": 0}).Reload()


def seen(events: EventAccumulator) -> Shown:
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def shown(path: Path) -> Shown:
    return seen(reader(path))


def metrics(path: Path) -> Shown:
    """What ought to be shown, tag by tag."""
    tags = {
        "epoch": "epoch", "lr": "lr", "images_per_s": "images_per_s",
        "train_loss": "loss/train", "train_error_percent": "error_percent/train",
        "validation_loss": "loss/validation", "validation_error_percent": "error_percent/validation",
        "test_loss": "loss/test", "test_error_percent": "error_percent/test",
    }  # fmt: skip
    found: Shown = defaultdict(list)
    for point in read_metrics(path):
        values = asdict(point)
        for name, tag in tags.items():
            if values[name] is not None:
                found[tag].append((point.iteration, pytest.approx(values[name], rel=1e-6)))
    return found


def make(path: Path, **changes: object) -> Run:
    return create(path, config(**changes), spec="", model="", recipe="")


def train(run: Run, engine: Fake | None = None, ear: Ear | None = None, *, tensorboard: bool = True) -> SessionOutcome:
    return Session(run, engine or Fake(), ear or Ear(), tensorboard=tensorboard).train()


def killed_at(at: int) -> Fake:
    """A trainer that ends with the process before it begins that iteration."""
    engine = Fake()

    def before(iteration: int) -> None:
        if iteration == at:
            raise KeyboardInterrupt

    engine.before_step = before
    return engine


# --- what is written --------------------------------------------------------------------------------------------------


def test_every_reading_is_there_under_its_tags(tmp_path: Path) -> None:
    run = make(tmp_path / "run", validation_images=5)
    train(run)
    found = shown(run.path)
    assert found == metrics(run.path)
    assert [step for step, _ in found["loss/train"]] == [10, 20, 30, 40]
    assert found["error_percent/test"] == [(20, 30.0), (40, 30.0)]
    assert found["error_percent/validation"] == [(20, 20.0), (40, 20.0)]
    assert len(event_files(run.path)) == 1


def test_a_run_that_is_not_asked_for_events_has_none(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    train(run, tensorboard=False)
    assert event_files(run.path) == []


def test_a_reading_can_be_seen_as_soon_as_it_is_made(tmp_path: Path) -> None:
    run, engine = make(tmp_path / "run"), Fake()
    steps: dict[int, list[int]] = {}

    def look(iteration: int) -> None:
        steps[iteration] = [step for step, _ in shown(run.path).get("lr", [])]

    engine.before_step = look
    train(run, engine)
    assert (steps[0], steps[9], steps[10], steps[39]) == ([], [], [10], [10, 20, 30])


def test_the_time_is_that_which_it_was_trained_for(tmp_path: Path) -> None:
    Metrics(tmp_path, 0)
    first = EventWriter(tmp_path, clock=lambda: 5000.0)
    first.write(tiny.point(10), tiny.point(20))
    assert [event.wall_time for event in reader(tmp_path).Scalars("lr")] == [5010.0, 5020.0]
    log = Metrics(tmp_path, 0)
    for point in (tiny.point(10), tiny.point(20)):
        log.append(point)
    later = EventWriter(tmp_path, clock=lambda: 9000.0)  # after a long pause, in which it is not trained
    later.write(tiny.point(30))
    assert [event.wall_time for event in reader(tmp_path).Scalars("lr")] == [8990.0, 9000.0, 9010.0]


def test_numbers_too_large_for_an_event_are_infinite_there(tmp_path: Path) -> None:
    Metrics(tmp_path, 0).append(replace(tiny.point(10), train_loss=1e300))
    EventWriter(tmp_path).write()
    assert shown(tmp_path)["loss/train"] == [(10, float("inf"))]


# --- stopped and gone on with -----------------------------------------------------------------------------------------


def test_what_was_read_after_the_last_checkpoint_is_taken_back_by_a_resume(tmp_path: Path) -> None:
    run = make(tmp_path / "run", checkpoint_every=20, eval_every=10)
    with pytest.raises(KeyboardInterrupt):
        train(run, killed_at(33))
    watching = reader(run.path)
    assert [step for step, _ in seen(watching)["loss/train"]] == [10, 20, 30]

    with pytest.raises(KeyboardInterrupt):  # before there is a reading again
        train(run, killed_at(25))
    assert [step for step, _ in shown(run.path)["loss/train"]] == [10, 20]
    assert seen(watching.Reload()) == shown(run.path)  # in a TensorBoard, too, that was open all the time

    train(run)
    assert shown(run.path) == metrics(run.path)
    assert [step for step, _ in shown(run.path)["loss/train"]] == [10, 20, 30, 40]
    assert seen(watching.Reload()) == shown(run.path)
    assert len(event_files(run.path)) == 2  # not one for each session


def test_a_run_that_was_begun_without_events_has_all_of_them_once_it_is_asked_for_them(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    for at, tensorboard in ((15, False), (22, True), (35, False)):
        with pytest.raises(KeyboardInterrupt):
            train(run, killed_at(at), tensorboard=tensorboard)
    assert [step for step, _ in shown(run.path)["lr"]] == [10, 20]
    train(run)
    assert shown(run.path) == metrics(run.path)
    assert [step for step, _ in shown(run.path)["lr"]] == [10, 20, 30, 40]


def test_files_that_a_clock_set_back_has_left_are_not_shown(tmp_path: Path) -> None:
    Metrics(tmp_path, 0)
    EventWriter(tmp_path, clock=lambda: 9000.0).write(tiny.point(10), tiny.point(99))
    EventWriter(tmp_path, clock=lambda: 8000.0).write(tiny.point(10), tiny.point(20))
    assert [step for step, _ in shown(tmp_path)["lr"]] == [10, 20]


def test_of_a_directory_only_its_own_files_are_taken_away(tmp_path: Path) -> None:
    (tmp_path / "events.out.tfevents.1.elsewhere").touch()
    (tmp_path / ".events.out.tfevents.4.resnet-cli.0a1b2c3d.part").touch()  # of a session that was killed
    (tmp_path / "events.out.tfevents.2.resnet-cli").mkdir()
    (tmp_path / "events.out.tfevents.3.resnet-cli").symlink_to(tmp_path / "events.out.tfevents.1.elsewhere")
    Metrics(tmp_path, 0)
    for second in (1000, 2000, 3000):
        EventWriter(tmp_path, clock=partial(float, second)).write(tiny.point(10))
    assert [path.name for path in sorted(tmp_path.glob("*events*"))] == [
        "events.out.tfevents.1.elsewhere", "events.out.tfevents.2.resnet-cli",
        "events.out.tfevents.2000000000000.resnet-cli", "events.out.tfevents.3000000000000.resnet-cli",
    ]  # fmt: skip


def test_a_file_that_is_taken_away_meanwhile_is_followed_by_another_one(tmp_path: Path) -> None:
    run, engine, ear = make(tmp_path / "run"), Fake(), Ear()

    def remove(iteration: int) -> None:
        if iteration == 25:
            (file,) = event_files(run.path)
            file.unlink()

    engine.before_step = remove
    assert train(run, engine, ear).unsaved == ()
    assert ear.lines == []
    assert [step for step, _ in shown(run.path)["lr"]] == [30, 40]


def test_a_run_in_which_nothing_has_happened_is_taken_away_with_its_events(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(run, killed_at(0))
    assert len(event_files(run.path)) == 1  # by which a resume knows that they are wanted
    discard(run.path)
    assert not run.path.exists()


# --- a full disk ------------------------------------------------------------------------------------------------------


def test_half_a_record_that_a_full_disk_has_left_is_written_over(tmp_path: Path) -> None:
    Metrics(tmp_path, 0)
    events = EventWriter(tmp_path)
    events.write(tiny.point(10))
    (file,) = event_files(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = file.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, hard))
    try:
        for iteration in (20, 30):
            with pytest.raises(OSError, match="too large"):
                events.write(tiny.point(iteration))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.stat().st_size == size + 20
    assert [step for step, _ in shown(tmp_path)["lr"]] == [10]
    events.write(tiny.point(40))
    assert [step for step, _ in shown(tmp_path)["lr"]] == [10, 20, 30, 40]


def test_events_that_cannot_be_written_do_not_end_training_but_are_reported_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, ear = make(tmp_path / "run"), Ear()

    def full(path: Path, *parts: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(board, "write_atomic", full)
    outcome = train(run, ear=ear)
    assert outcome.result is not None
    assert outcome.unsaved == ("TensorBoard events",)
    assert ear.lines == [
        "warning: TensorBoard events could not be written: No space left on device; training continues"
    ]
    assert [point.iteration for point in read_metrics(run.path)] == [10, 20, 30, 40]


def test_a_disk_with_room_again_gets_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, engine, ear = make(tmp_path / "run"), Fake(), Ear()

    def at_first_full(path: Path, *parts: bytes) -> None:
        if engine.iteration < 30:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_atomic(path, *parts)

    monkeypatch.setattr(board, "write_atomic", at_first_full)
    assert train(run, engine, ear).unsaved == ()
    assert len(ear.lines) == 1
    assert shown(run.path) == metrics(run.path)


# --- the package ------------------------------------------------------------------------------------------------------


class Without:
    """Finds no such package."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == PACKAGE:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the package were not installed."""
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Without, *sys.meta_path])


def test_a_package_that_is_not_installed_is_reported_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch)
    with pytest.raises(UsageError, match="the package `tensorboard` is not installed") as told:
        import_package()
    assert told.value.hint == "`pip install 'resnet-cli[tensorboard]'`, or omit `--tensorboard`"


def test_a_package_that_cannot_be_imported_is_reported_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text("raise TypeError('Descriptors cannot be created directly.')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(board, "import_module", lambda name: __import__("broken"))
    with pytest.raises(UsageError, match=r"cannot be imported: TypeError: Descriptors cannot be created directly\."):
        import_package()


def test_importing_the_package_says_nothing() -> None:
    code = "from resnetcli.runs.tensorboard import import_package; import_package()"
    answer = subprocess.run(
        [sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert (answer.stdout, answer.stderr) == ("", "")


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tiny.files(tmp_path)


def stops(monkeypatch: pytest.MonkeyPatch, at: int, seed: int = 0) -> None:
    """Has a signal come in that step."""
    step = Trainer.step

    def interrupted(self: Trainer) -> None:
        if (self.seed, self.iteration) == (seed, at):
            os.kill(os.getpid(), signal.SIGINT)
        step(self)

    monkeypatch.setattr(Trainer, "step", interrupted)


def test_train_cifar_writes_events_and_continues_with_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        stops(patched, 17)
        result = cli([*tiny.words(folder), "--tensorboard"])
    assert result.exit_code == 130, result.output
    assert f"for TensorBoard: `tensorboard --logdir {folder / 'run'}`\n" in result.stderr
    assert shown(folder / "run") == metrics(folder / "run")
    result = cli("train-cifar --resume run")  # as the last line of it has said
    assert result.exit_code == 0, result.output
    assert "for TensorBoard: `tensorboard --logdir run`\n" in result.stderr
    assert shown(folder / "run") == metrics(folder / "run")
    assert [step for step, _ in shown(folder / "run")["lr"]] == [4, 8, 12, 16, 18, *range(20, 41, 4)]


def test_a_finished_run_gets_its_events_when_it_is_asked_for_them(folder: Path) -> None:
    assert cli(tiny.words(folder)).exit_code == 0
    assert event_files(folder / "run") == []
    assert cli("train-cifar --resume run").exit_code == 0
    assert event_files(folder / "run") == []
    result = cli("train-cifar --resume run --tensorboard")
    assert (result.exit_code, result.stderr) == (
        0, "`run` has finished its 40 iterations\nfor TensorBoard: `tensorboard --logdir run`\n"
    )  # fmt: skip
    assert shown(folder / "run") == metrics(folder / "run")


def test_each_seed_has_events_of_its_own_also_one_that_is_begun_by_a_resume(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        stops(patched, 21, seed=1)
        assert cli([*tiny.words(folder, "all"), "--seeds", "3", "--tensorboard"]).exit_code == 130
    assert event_files(folder / "all" / "seed2") == []
    assert cli("train-cifar --resume all").exit_code == 0
    for seed in range(3):
        assert len(shown(folder / "all" / f"seed{seed}")["lr"]) >= 10
        assert shown(folder / "all" / f"seed{seed}") == metrics(folder / "all" / f"seed{seed}")
    assert event_files(folder / "all") == []


def test_without_the_package_nothing_is_begun(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch)
    before = sorted(folder.rglob("*"))
    for more in ([], ["--seeds", "2"]):
        result = cli([*tiny.words(folder), "--tensorboard", *more])
        assert (result.exit_code, result.stderr) == (
            2, "error: the package `tensorboard` is not installed\n"
               "hint: `pip install 'resnet-cli[tensorboard]'`, or omit `--tensorboard`\n"
        )  # fmt: skip
        assert sorted(folder.rglob("*")) == before
    assert cli(tiny.words(folder)).exit_code == 0
    assert cli("train-cifar --resume run --tensorboard").exit_code == 2


def test_a_run_with_events_continues_without_the_package_and_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        stops(patched, 17)
        assert cli([*tiny.words(folder), "--tensorboard"]).exit_code == 130
    with monkeypatch.context() as patched:
        missing(patched)
        refused = cli("train-cifar --resume run --tensorboard")
        assert (refused.exit_code, refused.stderr.splitlines()[0]) == (
            2, "error: the package `tensorboard` is not installed"
        )  # fmt: skip
        result = cli("train-cifar --resume run")
        assert result.exit_code == 0, result.output
        assert "warning: no further TensorBoard events: the package `tensorboard` is not installed\n" in result.stderr
        tested = cli("eval run")
        assert (tested.exit_code, tested.stderr) == (0, "")
    assert cli("train-cifar --resume run --tensorboard").exit_code == 0
    assert shown(folder / "run") == metrics(folder / "run")


@pytest.mark.slow
def test_of_several_processes_only_the_first_writes_events(folder: Path) -> None:
    net = folder / "tiny.yaml"
    net.write_text(net.read_text().replace("dropout 0.2, ", ""))
    ended = run_ranks([*tiny.words(folder), "--tensorboard"], folder)
    assert ended.codes == [0, 0], ended.outputs
    assert "Traceback" not in "".join(ended.outputs)
    assert len(event_files(folder / "run")) == 1
    assert shown(folder / "run") == metrics(folder / "run")
