"""Two processes on this machine train as one does; whatever happens to one of them, all of them end, and soon."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from resnetcli.data.dataset import make_dataset
from resnetcli.data.write import write_custom
from resnetcli.errors import ResourceError, UsageError
from resnetcli.ops import Conv
from resnetcli.parallel import team as distributed
from resnetcli.parallel.launch import AGAIN_S, PARENT, again, launch, surroundings
from resnetcli.parallel.team import AgreedStop, Lost, _code, _has_loose, _reason, require_possible, split_batch
from resnetcli.plan.lower import lower
from resnetcli.plan.plan import Where
from resnetcli.recipes.deviations import deviations
from resnetcli.recipes.text import read_recipe
from resnetcli.runs.checkpoint import files as checkpoints
from resnetcli.runs.directory import open_run
from resnetcli.runs.metrics import read_metrics
from resnetcli.spec.read import read
from resnetcli.spec.zoo import Zoo
from resnetcli.train.evaluate import share
from resnetcli.train.job import TrainJob
from resnetcli.train.loop import Trainer
from resnetcli.train.options import TrainOptions
from tests.support.cli import run
from tests.train import tiny

PATCHED = """
import os, signal, sys, time
from resnetcli.train import loop
step = loop.Trainer.step
def patched(self):
    if self.iteration == {at} and os.environ.get("RANK") == "{rank}":
        {what}
    step(self)
loop.Trainer.step = patched
from resnetcli.cli.main import main
main()
"""
"""`resnet-cli` in which something happens to one rank before it begins a step."""
RECIPE = tiny.RECIPE.replace("iterations: 40", "iterations: 40\nweight_decay: 1e-3")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tiny.files(tmp_path, RECIPE)
    net = tmp_path / "tiny.yaml"
    net.write_text(net.read_text().replace("dropout 0.2, ", ""))  # whose masks are each process's own
    return tmp_path


@dataclass
class Ended:
    """What became of processes that were started together."""

    codes: list[int]
    said: list[str]
    """Of each, both streams."""


class Team:
    """Processes of one job, as `torchrun` starts them."""

    def __init__(self, command: list[str], folder: Path, world: int = 2, first: int = 0) -> None:
        """`first`: the lowest rank that is started."""
        self.world = world
        self.store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.logs = [folder / f"said{rank}.txt" for rank in range(world)]
        self.processes = []
        for rank, log in enumerate(self.logs[first:], first):
            environment = {**os.environ, **surroundings(rank, world, self.store.port), "OMP_NUM_THREADS": "1"}
            with log.open("w") as said:
                self.processes.append(
                    subprocess.Popen(command, env=environment, stdout=said, stderr=said, stdin=subprocess.DEVNULL)
                )

    def end(self, timeout: float = 120) -> Ended:
        try:
            codes = [process.wait(timeout) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
                process.wait()
        return Ended(codes, [log.read_text() for log in self.logs if log.exists()])


def together(words: list[str], folder: Path, world: int = 2) -> Ended:
    return Team(again(words), folder, world).end()


def when(at: int, what: str, words: list[str], rank: int = 1) -> list[str]:
    return [sys.executable, "-c", PATCHED.format(at=at, what=what, rank=rank), *words]


def state(path: Path) -> dict[str, Tensor]:
    return load_file(checkpoints(path)[0][1])


def same(one: Path, other: Path) -> bool:
    """Whether two runs ended in the same state, to the bit."""
    a, b = state(one), state(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def assert_close(one: Path, other: Path) -> None:
    """Two runs ended in the same state, to what rounding otherwise has made of it."""
    a, b = state(one), state(other)
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-5, msg=f"{name}: {a[name]}, {b[name]}")


@pytest.mark.slow
def test_two_processes_train_as_one_does_whose_batch_norm_is_over_half_the_batch(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*tiny.words(folder, "two"), "--train-split", "28", "--format", "json"]
    other = Team(again(words), folder, first=1)
    alone = run([*tiny.words(folder, "one"), "--train-split", "28", "--bn-batch", "4", "--format", "json"])
    assert alone.exit_code == 0, alone.output
    for name, value in surroundings(0, 2, other.store.port).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(PARENT, "")
    first = run(words)  # here, as importing torch twice takes longer than the whole test
    ended = other.end()
    assert (first.exit_code, ended.codes) == (0, [0]), (first.output, ended.said)
    assert_close(folder / "one", folder / "two")
    one, two = (open_run(folder / name) for name in ("one", "two"))
    assert one.config.bound == two.config.bound
    assert (one.config.processes, two.config.processes) == (1, 2)
    assert one.result is not None
    assert two.result is not None
    for name in ("final_test_error_percent", "final_train_error_percent", "test_images", "train_images"):
        assert one.result[name] == two.result[name]
    assert two.result["final_test_loss"] == pytest.approx(one.result["final_test_loss"], rel=1e-4)
    assert two.result["processes"] == 2
    # Every reading is of all processes' images, not of the first one's.
    for mine, its in zip(read_metrics(one.path), read_metrics(two.path), strict=True):
        assert (mine.iteration, mine.lr, mine.test_error_percent) == (its.iteration, its.lr, its.test_error_percent)
        assert its.train_loss == pytest.approx(mine.train_loss, rel=1e-3)
        assert its.train_error_percent == pytest.approx(mine.train_error_percent)
        assert its.validation_error_percent == mine.validation_error_percent
    assert "2 processes, each on " in first.stderr
    assert json.loads(first.stdout) == two.result
    assert ended.said == [""]  # only the first one prints


# --- what is decided before ----------------------------------------------------------------------------------------


def test_batch_norm_is_over_a_processes_own_images_and_stays_so() -> None:
    recipe = read_recipe("resnet")
    begun = split_batch(recipe, 2, new=True)
    assert begun == replace(recipe, bn_batch=64)
    assert split_batch(begun, 1, new=False) == split_batch(begun, 2, new=False) == begun
    assert split_batch(replace(recipe, bn_batch=16), 2, new=True).bn_batch == 16
    assert "BN over" not in " ".join(deviations(begun))  # it is what the paper has


@pytest.mark.parametrize(
    ("bn_batch", "world", "new", "said", "hint"),
    [(None, 3, True, "a batch of 128 does not split over 3 processes", "`--batch-size 126`, or another number"),
     (None, 256, True, "a batch of 128 does not split over 256", "`--batch-size 256`, or another number"),
     (64, 4, True, "BatchNorm is over 64 images, and each of 4 processes has 32", "`--bn-batch 32`, or fewer"),
     (64, 4, False, "BatchNorm is over 64 images, and each of 4 processes has 32", "at most 2 can go on"),
     (None, 2, False, "BatchNorm is over 128 images, and each of 2 processes has 64", "at most 1 can go on")],
)  # fmt: skip
def test_a_batch_that_cannot_be_shared_out_is_refused(
    bn_batch: int | None, world: int, new: bool, said: str, hint: str
) -> None:
    with pytest.raises(UsageError, match=said) as found:
        split_batch(replace(read_recipe("resnet"), bn_batch=bn_batch), world, new=new)
    assert found.value.hint.startswith(hint)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (TrainOptions(cuda_graph=True), "records the step of one process"),
        (TrainOptions(device="cuda:1"), "each has a GPU of its own"),
    ],
)
def test_what_several_processes_cannot_do_is_refused(asked: TrainOptions, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        require_possible(asked, 2)
    require_possible(TrainOptions(device="cuda"), 2)
    require_possible(TrainOptions(device="cpu"), 2)


@pytest.mark.parametrize("n", [1, 499, 500, 501, 1700, 10_000])
@pytest.mark.parametrize("parts", [1, 2, 3, 8])
def test_the_shares_of_an_evaluation_are_the_whole_once_in_whole_batches(n: int, parts: int) -> None:
    whole = torch.arange(n)
    shares = [share(whole, index, parts) for index in range(parts)]
    assert torch.equal(torch.cat(shares), whole)
    assert all(int(share[0]) % 500 == 0 for share in shares if len(share))


def test_the_shares_of_an_evaluation_add_up_even_where_one_is_empty(folder: Path) -> None:
    data = make_dataset("custom", tiny.split(30, 1), tiny.split(20, 2), ("a", "b", "c", "d"))
    trainer = Trainer(lower(read(str(folder / "tiny.yaml"), zoo=Zoo())), read_recipe(str(folder / "recipe.yaml")), data)
    whole = trainer.evaluate()
    first, second = (trainer.evaluate("test", part=(index, 2)) for index in range(2))
    assert (first.n, second.n) == (0, 20)
    assert first.wrong + second.wrong == whole.wrong
    assert second.loss == whole.loss


def test_a_step_that_leads_nowhere_is_found(folder: Path) -> None:
    plan = lower(read(str(folder / "tiny.yaml"), zoo=Zoo()))
    assert not _has_loose(plan)
    conv = next(index for index, step in enumerate(plan.steps) if isinstance(step.op, Conv))
    more = replace(plan, steps=(*plan.steps, replace(plan.steps[conv], where=Where("aside"))))
    assert _has_loose(more)


def test_a_signal_counts_once_however_often_it_comes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [5.0]
    ended: list[int] = []
    stop = AgreedStop(lambda: now[0])
    with stop:
        signal.raise_signal(signal.SIGTERM)
        now[0] += AGAIN_S / 2
        signal.raise_signal(signal.SIGINT)
        assert (stop.noted, stop.signal) == (signal.SIGTERM, 0)  # the others do not know of it yet
        now[0] += AGAIN_S
        with monkeypatch.context() as patched:
            patched.setattr("signal.raise_signal", ended.append)
            os.kill(os.getpid(), signal.SIGINT)
            while not ended:
                time.sleep(0.01)
        assert ended == [signal.SIGINT]
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL


@pytest.mark.parametrize(
    ("error", "code"),
    [(UsageError("x"), 2), (ResourceError("x"), 3), (Lost("x"), 3), (MemoryError(), 3), (KeyboardInterrupt(), 130),
     (SystemExit(141), 141), (ValueError("x"), 1)],
)  # fmt: skip
def test_the_others_end_with_the_first_ones_exit_code(error: BaseException, code: int) -> None:
    assert _code(error) == code


def test_the_source_line_of_a_library_is_no_reason() -> None:
    where = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547]"
    text = f"{where} Connection closed by peer [127.0.0.1]:7. This is typically.\nmore"
    assert _reason(RuntimeError(text)) == "Connection closed by peer [127.0.0.1]:7"
    assert _reason(RuntimeError("")) == "RuntimeError"


def test_each_process_has_the_gpu_of_its_number(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[tuple[str, int, int]] = []

    def built(job: TrainJob, rank: int, world: int) -> None:
        devices.append((job.config.device, rank, world))

    monkeypatch.setattr("resnetcli.parallel.team.find", lambda text: f"found {text}")
    monkeypatch.setattr("resnetcli.parallel.team.build_trainer", built)
    team = distributed.Team.__new__(distributed.Team)  # as if it had met
    team.rank, team.world, team.local_rank = 11, 16, 3
    plan, recipe = lower(read("cifar_resnet20", zoo=Zoo())), read_recipe("resnet")
    data = make_dataset("custom", tiny.split(30, 1), tiny.split(20, 2), ("a", "b", "c", "d"))
    for device in ("cuda:0", "cpu"):
        team._trainer(TrainJob(tiny.config(device=device), plan, recipe, data, "", ""))
    assert devices == [("found cuda:3", 11, 16), ("cpu", 11, 16)]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("noted", [None, 137])
def test_no_order_goes_beyond_what_the_session_looks_at_nor_beyond_a_signal(device: str, noted: int | None) -> None:
    """Of 250 steps with looks at every 35th, 100th and 120th; a signal after `noted` comes with the next order."""
    ordered, arrived = list[int](), list[int]()

    class Crew:
        def __init__(self) -> None:
            self.stop = AgreedStop()

        def order(self, order: distributed.Order, number: int = 0) -> None:
            if order is distributed.Order.READ:
                assert sum(ordered) == fake.iteration
                arrived.append(fake.iteration)
                return
            assert order is distributed.Order.STEP
            if noted is not None and fake.iteration >= noted:
                self.stop.signal = signal.SIGTERM
            ordered.append(1 if self.stop.signal else number)

        @contextlib.contextmanager
        def together(self) -> Iterator[None]:
            yield

    fake, crew = tiny.Fake(), Crew()
    fake.device = torch.device(device)
    config = tiny.config(iterations=250, eval_every=35, checkpoint_every=120)
    leader = distributed.Leader(crew, fake, config)  # type: ignore[arg-type]
    while fake.iteration < 250 and not crew.stop.signal:
        leader.step()
        at = fake.iteration
        if any(at % every == 0 for every in (35, 100, 120)) or ordered[-1] == 1 or at == 250:
            assert sum(ordered) == fake.iteration  # nobody is on the way to a step that this process will not make
    assert max(ordered) == distributed.STEPS[device]
    leader.read()
    assert arrived == [fake.iteration]  # all have, before what only a process that has not ended can bring about
    if noted is not None:
        assert noted < fake.iteration <= noted + distributed.STEPS[device]


# --- what happens to a job -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "said"),
    [(["--batch-size", "9"], "error: a batch of 9 does not split over 2 processes\nhint: `--batch-size 8`"),
     (["--bn-batch", "8"], "error: BatchNorm is over 8 images, and each of 2 processes has 4 of a batch"),
     (["--recipe", "resmet"], "error: unknown recipe `resmet`\nhint: did you mean"),
     (["--depth", "57"], "error: He et al. have no CIFAR ResNet with 57 layers")],
)  # fmt: skip
def test_bad_input_is_told_once_and_ends_all(folder: Path, more: list[str], said: str) -> None:
    ended = together([*tiny.words(folder), *more], folder)
    assert ended.codes == [2, 2]
    assert ended.said[0].startswith(said)
    assert ended.said[1] == ""
    assert not (folder / "run").exists()


@pytest.mark.slow
def test_a_data_set_that_one_of_them_does_not_have_is_told_by_the_first(folder: Path) -> None:
    (folder / "other").mkdir()
    write_custom(folder / "other", tiny.split(30, 9), tiny.split(20, 2), ["a", "b", "c", "d"])
    patch = f"""
import os
from pathlib import Path
from resnetcli.parallel import team as distributed
load = distributed.load
distributed.load = lambda name, path, **more: load(name, Path({str(folder / "other")!r}), **more)
from resnetcli.cli.main import main
main()
"""
    ended = Team([sys.executable, "-c", patch, *tiny.words(folder)], folder).end()
    assert ended.codes == [2, 2]
    assert re.match(r"error: rank 1, on \S+: the data set here is another one\nhint: the same has to", ended.said[0])
    assert ended.said[1] == ""
    assert not (folder / "run").exists()


@pytest.mark.slow
def test_a_run_is_gone_on_with_by_another_number_of_processes(folder: Path) -> None:
    """2 processes, then 1, then 2 again, against one from beginning to end; and 2 all the way, to the bit."""
    kill = "os.kill(os.getpid(), signal.SIGTERM)"
    assert together(tiny.words(folder, "two"), folder).codes == [0, 0]
    assert run([*tiny.words(folder, "one"), "--bn-batch", "4"]).exit_code == 0

    first = Team(when(11, kill, tiny.words(folder, "mixed")), folder).end()
    assert first.codes == [143, 143], first.said
    assert "stopped by SIGTERM; to continue: `resnet-cli train-cifar --resume" in first.said[0]
    at = checkpoints(folder / "mixed")[0][0]
    assert 11 <= at <= 13  # the others hear of it with the next order
    resumed = subprocess.run(when(23, kill, ["train-cifar", "--resume", "mixed"], rank=0),
                             env={**os.environ, "RANK": "0"}, capture_output=True, text=True, check=False)  # fmt: skip
    assert resumed.returncode == 143, resumed.stderr
    assert f"resuming at iteration {at}/40" in resumed.stderr
    assert "different number of processes than before: the last digits of the weights may differ" in resumed.stderr
    assert checkpoints(folder / "mixed")[0][0] == 24
    last = together(["train-cifar", "--resume", "mixed"], folder)
    assert last.codes == [0, 0], last.said
    assert "resuming at iteration 24/40" in last.said[0]
    assert_close(folder / "one", folder / "mixed")
    assert_close(folder / "two", folder / "mixed")

    assert Team(when(17, kill, tiny.words(folder, "stopped")), folder).end().codes == [143, 143]
    assert together(["train-cifar", "--resume", "stopped"], folder).codes == [0, 0]
    assert same(folder / "two", folder / "stopped")


@pytest.mark.slow
def test_a_run_of_one_process_is_not_gone_on_with_by_two_over_whose_images_it_normalised(folder: Path) -> None:
    stopped = subprocess.run(when(17, "os.kill(os.getpid(), signal.SIGINT)", tiny.words(folder), rank=0),
                             env={**os.environ, "RANK": "0"}, capture_output=True, check=False)  # fmt: skip
    assert stopped.returncode == 130
    ended = together(["train-cifar", "--resume", "run"], folder)
    assert ended.codes == [2, 2]
    assert ended.said[0].startswith("error: BatchNorm is over 8 images, and each of 2 processes has 4 of a batch\n"
                                    "hint: at most 1 can go on with it")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_ends_the_others_and_the_run_can_be_gone_on_with(folder: Path, rank: int) -> None:
    words = [*tiny.words(folder), "--checkpoint-every", "10"]
    begun = time.monotonic()
    ended = Team(when(27, "os.kill(os.getpid(), signal.SIGKILL)", words, rank), folder).end()
    assert time.monotonic() - begun < 60
    assert ended.codes[rank] == -signal.SIGKILL
    assert ended.codes[1 - rank] == 3
    said = ended.said[1 - rank]
    assert "another of the 2 processes has ended, or does not answer" in said
    assert "Traceback" not in said
    assert [at for at, _ in checkpoints(folder / "run")] == [20, 10]
    assert together(tiny.words(folder, "whole"), folder).codes == [0, 0]
    assert together(["train-cifar", "--resume", "run"], folder).codes == [0, 0]
    assert same(folder / "run", folder / "whole")


@pytest.mark.slow
def test_a_process_that_does_not_answer_is_waited_for_only_so_long(folder: Path) -> None:
    patch = f"""
from resnetcli.parallel import team as distributed
joined = distributed.joined
distributed.joined = lambda place, download: joined(place, download=download, patience_s=6)
{PATCHED.format(at=5, what="os.kill(os.getpid(), signal.SIGSTOP)", rank=1)}
"""
    team = Team([sys.executable, "-c", patch, *tiny.words(folder)], folder)
    try:
        assert team.processes[0].wait(90) == 3
    finally:
        team.processes[1].kill()
    said = team.end().said[0]
    assert "another of the 2 processes has ended, or does not answer" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_loss_that_is_not_finite_in_one_of_them_stops_all_before_the_update(folder: Path) -> None:
    words = [*tiny.words(folder), "--checkpoint-every", "10"]
    nan = "f = loop.F.cross_entropy; loop.F.cross_entropy = lambda *a, **k: f(*a, **k) * float('nan')"
    ended = Team(when(25, nan, words), folder).end()
    assert ended.codes == [3, 3], ended.said
    assert "the loss or a gradient of iteration 26 is not finite" in ended.said[0]
    assert ended.said[1] == ""
    assert [at for at, _ in checkpoints(folder / "run")] == [20, 10]


@pytest.mark.slow
def test_several_seeds_are_trained_one_after_the_other_by_the_same_processes(folder: Path) -> None:
    ended = together([*tiny.words(folder, "seeds"), "--seeds", "2", "--format", "json"], folder)
    assert ended.codes == [0, 0], ended.said
    record = json.loads((folder / "seeds" / "summary.json").read_text())
    assert record["finished"] == [0, 1]
    assert run([*tiny.words(folder, "one"), "--seed", "1", "--bn-batch", "4"]).exit_code == 0
    assert_close(folder / "one", folder / "seeds" / "seed1")


@pytest.mark.slow
@pytest.mark.parametrize("more", [["--dtype", "bf16", "--channels-last"], ["--channels-last"]])
def test_a_run_in_another_layout_and_precision_is_shared_too(folder: Path, more: list[str]) -> None:
    ended = together([*tiny.words(folder), *more], folder)
    assert ended.codes == [0, 0], ended.said
    assert "Warning" not in ended.said[0]
    assert ended.said[1] == ""


@pytest.mark.slow
def test_a_signal_to_what_started_them_stops_them_all_with_a_checkpoint(folder: Path) -> None:
    said: list[str] = []
    stop = when(11, "os.kill(os.getppid(), signal.SIGINT)", tiny.words(folder))
    assert launch(stop, 2, said.append) == 130
    assert said == []
    ((at, _),) = checkpoints(folder / "run")
    assert 11 <= at < 40
    assert launch(again(["train-cifar", "--resume", "run"]), 2, said.append) == 0
    assert together(tiny.words(folder, "whole"), folder).codes == [0, 0]
    assert same(folder / "run", folder / "whole")


@pytest.mark.slow
def test_what_started_them_may_be_killed_and_they_end_with_a_checkpoint(folder: Path) -> None:
    words = when(11, "os.kill(os.getppid(), signal.SIGKILL)", [*tiny.words(folder), "--iterations", "100000"])
    starter = [sys.executable, "-c", f"from resnetcli.parallel.launch import launch\nlaunch({words!r}, 2, print)"]
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        starter, env={**os.environ, "PYTHONPATH": root}, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert checkpoints(folder / "run")  # they hold its output open, so that it is read to their end


@pytest.mark.slow
def test_torchrun_itself_starts_it(folder: Path) -> None:
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "resnetcli",
    ]
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run([*torchrun, *tiny.words(folder, "two")], env={**os.environ, "PYTHONPATH": root},
                          capture_output=True, text=True, timeout=120, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test error %") == 1
    assert run([*tiny.words(folder, "one"), "--bn-batch", "4"]).exit_code == 0
    assert_close(folder / "one", folder / "two")


@pytest.mark.gpu
@pytest.mark.values
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no two CUDA devices")
def test_two_gpus_train_as_one_does(folder: Path) -> None:
    one, two = (["cuda" if word == "cpu" else word for word in tiny.words(folder, name)] for name in ("one", "two"))
    ended = together(two, folder)
    assert ended.codes == [0, 0], ended.said
    assert run([*one, "--bn-batch", "4"]).exit_code == 0
    assert_close(folder / "one", folder / "two")
