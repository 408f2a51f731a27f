"""How a run computes where its user says nothing of it, and on another device than it was started on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch

from resnetcli.errors import UsageError
from resnetcli.runs import checkpoint
from resnetcli.spec.zoo import Zoo
from resnetcli.train.build import build_trainer
from resnetcli.train.examine import evaluate_run
from resnetcli.train.job import load_dataset, new_job, resumed_job
from resnetcli.train.options import DataParallel, TrainOptions, with_defaults
from resnetcli.train.precision import supported_settings
from tests.support import tiny


@pytest.mark.parametrize(
    ("device", "capability", "asked", "dtype", "channels_last", "cuda_graph"),
    [
        ("cpu", None, TrainOptions(), "fp32", None, None),
        ("cpu", None, TrainOptions(dtype="bf16", channels_last=True), "bf16", True, None),
        ("cuda:0", (9, 0), TrainOptions(), "tf32", True, True),
        ("cuda:0", (8, 0), TrainOptions(dtype="fp32"), "fp32", False, True),
        ("cuda:0", (8, 0), TrainOptions(dtype="fp32", channels_last=True), "fp32", True, True),
        ("cuda:0", (8, 6), TrainOptions(dtype="fp16"), "fp16", True, True),
        ("cuda:0", (9, 0), TrainOptions(dtype="bf16", channels_last=False, cuda_graph=False), "bf16", False, False),
        ("cuda:0", (7, 5), TrainOptions(), "fp32", False, True),
        ("cuda:0", (7, 0), TrainOptions(dtype="fp16"), "fp16", True, True),
        ("cuda:0", (9, 0), TrainOptions(cuda_graph=False), "tf32", True, False),
        ("cuda:0", (9, 0), TrainOptions(compile=True), "tf32", True, True),
        ("cuda:0", (9, 0), TrainOptions(team=cast("DataParallel", object())), "tf32", True, False),
    ],
)
def test_a_gpu_computes_as_is_fastest_unless_the_user_says_otherwise(
    device: str, capability: tuple[int, int] | None, asked: TrainOptions, dtype: str, channels_last: bool | None,
    cuda_graph: bool | None, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    found = with_defaults(asked, device)
    assert (found.dtype, found.channels_last, found.cuda_graph) == (dtype, channels_last, cuda_graph)


@pytest.mark.parametrize(
    ("dtype", "graph", "device", "processes", "expected"),
    [
        ("tf32", True, "cuda:0", 1, ("tf32", True)),
        ("tf32", True, "cuda:0", 2, ("tf32", False)),
        ("tf32", True, "cpu", 1, ("fp32", False)),
        ("bf16", True, "cpu", 1, ("bf16", False)),
        ("fp16", False, "cuda:1", 1, ("fp16", False)),
        ("fp32", False, "cpu", 4, ("fp32", False)),
    ],
)
def test_a_run_continues_as_it_was_started_as_far_as_the_device_can(
    dtype: str, graph: bool, device: str, processes: int, expected: tuple[str, bool]
) -> None:
    assert supported_settings(tiny.config(dtype=dtype, cuda_graph=graph), device, processes) == expected


def test_a_run_of_a_gpu_is_resumed_and_tested_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.files(tmp_path)
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    asked = TrainOptions(model=str(tmp_path / "tiny.yaml"), recipe=str(tmp_path / "recipe.yaml"), data="custom",
                  data_dir=str(tmp_path / "data"), device="cpu", threads=1)  # fmt: skip
    job = new_job(asked, Zoo(), said.append)
    begun = replace(job, config=replace(job.config, dtype="tf32", channels_last=True, cuda_graph=True))
    (tmp_path / "run").mkdir()
    made = begun.write(tmp_path / "run")
    now = resumed_job(made, TrainOptions(device="cpu"), said.append)
    assert (now.config.dtype, now.config.cuda_graph) == ("tf32", True)  # what it is, and what its checkpoints say
    assert "`cpu` does not support tf32: the run resumes in fp32" in said
    trainer = build_trainer(now)
    trainer.step()
    checkpoint.save(made.path, 1, trainer.state(), {"config": now.config.bound})
    assert evaluate_run(made, TrainOptions(device="cpu"), said.append)["iteration"] == 1
    with pytest.raises(UsageError, match="dtype tf32 -> fp32"):
        resumed_job(made, TrainOptions(device="cpu", dtype="fp32"), said.append)
    with pytest.raises(UsageError, match="deterministic False -> True"):
        resumed_job(made, TrainOptions(device="cpu", deterministic=True), said.append)


def test_a_run_on_synthetic_data_that_recorded_a_folder_is_still_read(tmp_path: Path) -> None:
    config = replace(tiny.CONFIG, data="synthetic", data_folder=str(tmp_path))
    assert load_dataset(config, TrainOptions(), print).name == "synthetic"
    with pytest.raises(UsageError, match="synthetic data is not read from `--data-dir`"):
        load_dataset(config, TrainOptions(data_dir=str(tmp_path)), print)
