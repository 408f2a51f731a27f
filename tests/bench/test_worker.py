"""Processes that measure, and their end, whoever ends them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from resnetcli.bench import worker as child
from resnetcli.bench.environment import STARTED_BY
from resnetcli.bench.latency import Measurement
from resnetcli.bench.options import RunOptions
from resnetcli.bench.search import FP32
from resnetcli.bench.worker import Job, execute, run, spawned
from resnetcli.ops import LocalResponseNorm, Shape
from resnetcli.reports.foreign import of_reference
from tests.support.sketch import Sketch, residual_net


def job(settings: RunOptions = FP32, **others: object) -> Job:
    return replace(Job(residual_net(), settings, "cpu", 2, 0.01), **others)  # type: ignore[arg-type]


def test_a_separate_process_measures_and_checks() -> None:
    m = run(job(RunOptions(fold_bn=True, channels_last=True, keep_memory=True, threads=1)))
    assert isinstance(m, Measurement)
    assert (m.settings, m.threads, m.batch) == ("fp32 channels_last fold-bn keep-memory", 1, 2)
    assert m.deviation_outputs is not None
    assert m.deviation_outputs < 1e-5
    assert m.prepare_s >= m.first_call_s > 0


def test_a_pytorch_model_is_made_again_in_a_separate_process(tmp_path: Path) -> None:
    net = tmp_path / "net.py"
    net.write_text("from torch import nn\nprint('made')\nNet = lambda width: nn.Conv2d(3, width, 3)\n")
    plan = of_reference(f"{net}:Net", {"width": 4}, Shape(3, 16, 16)).plan
    m = run(job(RunOptions(channels_last=True), plan=plan))
    assert isinstance(m, Measurement)
    assert m.deviation_outputs is not None
    assert m.deviation_outputs < 1e-5
    net.unlink()
    assert run(job(plan=plan)) == f"no such file: `{net}`"


def test_what_goes_wrong_in_the_process_is_a_line() -> None:
    s = Sketch(6, 8, 8)
    s.step("lrn", LocalResponseNorm(5, 1e-4, 0.75, 2.0))
    found = execute(job(RunOptions(dtype="bf16"), plan=s.plan()))
    assert isinstance(found, str)
    assert found.startswith("`sketch` as bf16: ")
    assert "\n" not in found
    assert execute(job(RunOptions(dtype="fp16"))) == "fp16 on a CPU is slower than fp32: few CPUs compute in it"
    assert "would take" in str(execute(job(batch_size=10**12)))


@pytest.mark.parametrize(
    ("does", "says"),
    [
        ("os.kill(os.getpid(), 9)", "killed by the system, most likely because memory ran out"),
        ("os.kill(os.getpid(), 11)", "its process ended with SIGSEGV"),
        ("sys.exit('no such thing')", "its process ended with exit code 1: no such thing"),
        ("sys.exit(0)", "its process ended with exit code 0"),
        ("time.sleep(60)", "not done after 1 s"),
    ],
)
def test_a_process_that_dies_is_a_line(does: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code = f"import os, sys, time; sys.stdin.buffer.read(); {does}"
    monkeypatch.setattr(child, "spawned", lambda _, **streams: spawned(code, **streams))
    assert run(job(), timeout_s=1.0) == says


def test_another_process_can_have_the_gpu_s_memory_that_is_only_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    freed: list[str] = []
    monkeypatch.setattr(child, "spawned", lambda _, **streams: spawned("import sys; sys.exit('no')", **streams))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append("all"))
    run(job())
    assert freed == []
    run(job(device="cuda:0"))
    assert freed == ["all"]


# --- how they end ------------------------------------------------------------------------------------------------

LINGERS = """
import subprocess, sys
compiler = "import os, time; os.write({handle}, b'x'); time.sleep(60)"
subprocess.run([sys.executable, "-c", compiler], pass_fds=[{handle}])
"""
"""A process with another one, such as a compiler, that says that it runs and would take a minute."""


@pytest.fixture
def held() -> Iterator[tuple[int, int]]:
    """Two ends of a pipe: who reads from the first one learns when nobody holds the second any more."""
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


def heard(reading: int, within_s: float = 20.0) -> bytes | None:
    """What comes out of a pipe: nothing where all that held its other end are over; None if it takes longer."""
    return os.read(reading, 1) if select.select([reading], [], [], within_s)[0] else None


def test_what_a_process_has_started_ends_with_it_whatever_is_raised(held: tuple[int, int]) -> None:
    reading, writing = held
    code = LINGERS.format(handle=writing)
    with pytest.raises(KeyboardInterrupt), spawned(code, handles=[writing]) as process:  # noqa: PT012
        os.close(writing)
        assert heard(reading) == b"x"
        raise KeyboardInterrupt
    assert process.returncode == -signal.SIGKILL
    assert heard(reading) == b""


PARENT = """
import signal
from resnetcli.bench.worker import spawned
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background has it ignored
with spawned({code!r}, handles=[{handle}]) as process:
    process.wait()
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_processes_end_with_who_has_started_them_whatever_ends_that(
    number: signal.Signals, code: int, held: tuple[int, int], tmp_path: Path
) -> None:
    reading, writing = held
    script = PARENT.format(code=LINGERS.format(handle=writing), handle=writing)
    with subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.DEVNULL, pass_fds=[writing],
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as parent:  # fmt: skip
        os.close(writing)
        assert heard(reading) == b"x"
        parent.send_signal(number)
        assert parent.wait(20) == code
    assert heard(reading) == b""
    left = [entry.name for entry in tmp_path.iterdir()]
    assert left == [] or number is signal.SIGKILL  # nothing can be tidied up by who is killed at once


def test_sigterm_is_listened_to_only_meanwhile_and_only_where_nobody_else_does() -> None:
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    with spawned("import sys; sys.stdin.read()", stdin=subprocess.PIPE):
        assert callable(signal.getsignal(signal.SIGTERM))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    mine = lambda number, frame: None  # noqa: E731
    signal.signal(signal.SIGTERM, mine)
    try:
        with spawned("import sys; sys.stdin.read()", stdin=subprocess.PIPE):
            assert signal.getsignal(signal.SIGTERM) is mine
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_a_process_knows_who_waits_for_it_and_has_a_folder_of_its_own() -> None:
    code = f"import os, sys; sys.stdout.write(os.environ[{STARTED_BY!r}] + ' ' + os.environ['TORCHINDUCTOR_CACHE_DIR'])"
    with spawned(code, stdout=subprocess.PIPE) as process:
        said = process.communicate(timeout=20)[0].decode()
    number, folder = said.split(" ", 1)
    assert int(number) == os.getpid()
    assert not Path(folder).exists()  # any more
