"""Training speed on CIFAR: our loop compared with the conventional loop of popular repositories, interleaved.

`python -m benchmarks.training` measures and writes its section of docs/why/benchmarks.md; `--quick` measures a few
steps and prints the tables. Run it on a quiet machine. Each loop runs in a separate process, because the allocator
setting of our loops would speed up the conventional loop too.

`--kernels` writes the table of GPU kernels of a training step instead. It counts the nodes of the step's CUDA graph; it
needs a GPU, but not a quiet machine, because it times nothing.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import os
import random
import statistics
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any

from benchmarks.page import machine, put
from resnetcli.bench.versus import paired
from resnetcli.table.numbers import duration
from resnetcli.table.sheet import Column, Sheet, cell, to_markdown

BATCH = 128
MODELS = {"cifar_resnet20": 30, "cifar_resnet56": 12}
"""Model -> training steps per round."""
IMAGES = 50_000


@dataclass(frozen=True, slots=True)
class Loop:
    """One way to train."""

    name: str
    dtype: str = "fp32"
    channels_last: bool = False
    compile: bool = False
    conventional: bool = False


LOOPS = (
    Loop("conventional loop", conventional=True),
    Loop("resnet-cli fp32"),
    Loop("resnet-cli fp32 channels_last", channels_last=True),
    Loop("resnet-cli bf16 channels_last", "bf16", channels_last=True),
    Loop("resnet-cli bf16 channels_last compile", "bf16", channels_last=True, compile=True),
)


# --- the conventional loop ---------------------------------------------------------------------------------------


def conventional(model: str) -> Callable[[int], float]:
    """A function that returns the seconds of n steps of the conventional loop.

    It augments each image as a PIL image in a DataLoader and calls `.item()` after every step. Model, optimizer and
    augmentation are the same as in the other loops.
    """
    import numpy as np
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, Dataset

    sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("torchvision._meta_registrations"))
    from PIL import Image
    from torchvision import transforms

    import resnetcli as rc

    class Images(Dataset[tuple[torch.Tensor, int]]):
        """Like `torchvision.datasets.CIFAR10`: one array, and a PIL image for each index."""

        def __init__(self) -> None:
            draw = np.random.default_rng(0)
            self.data = draw.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
            self.targets = draw.integers(0, 10, IMAGES).tolist()
            mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
            self.transform = transforms.Compose(
                [
                    transforms.RandomCrop(32, padding=4),
                    transforms.RandomHorizontalFlip(),
                    transforms.ToTensor(),
                    transforms.Normalize(mean, std),
                ]
            )

        def __len__(self) -> int:
            return len(self.data)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return self.transform(Image.fromarray(self.data[index])), self.targets[index]

    net = rc.build(rc.load(model)).train()
    loader = DataLoader(
        Images(), batch_size=BATCH, shuffle=True, num_workers=2, drop_last=True, multiprocessing_context="fork"
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    criterion = nn.CrossEntropyLoss()
    batches = iter(loader)

    def run(steps: int) -> float:
        nonlocal batches
        total, correct, losses = 0, 0, 0.0
        start = perf_counter()
        for _ in range(steps):
            try:
                images, targets = next(batches)
            except StopIteration:
                batches = iter(loader)
                images, targets = next(batches)
            optimizer.zero_grad()
            outputs = net(images)
            assert isinstance(outputs, torch.Tensor)
            loss = criterion(outputs, targets)
            loss.backward()
            optimizer.step()
            losses += loss.item()
            total += targets.size(0)
            correct += (outputs.max(1)[1] == targets).sum().item()
        return perf_counter() - start

    return run


# --- our loop ----------------------------------------------------------------------------------------------------


def ours(model: str, loop: Loop) -> Callable[[int], float]:
    """A function that returns the seconds of n steps of our trainer, which reads loss and accuracy once, at the end."""
    import resnetcli as rc
    from resnetcli.bench.allocator import keep_freed_memory
    from resnetcli.data.read import read_dataset
    from resnetcli.recipes.text import read_recipe
    from resnetcli.train.loop import Trainer

    trainer = Trainer(
        rc.load(model), read_recipe("resnet"), read_dataset("synthetic"), seed=0, device="cpu", dtype=loop.dtype,
        channels_last=loop.channels_last, compile=loop.compile,
    )  # fmt: skip

    keep_freed_memory()  # as `train-cifar` does

    def run(steps: int) -> float:
        start = perf_counter()
        for _ in range(steps):
            trainer.step()
        trainer.read()
        return perf_counter() - start

    return run


# --- interleaved -------------------------------------------------------------------------------------------------


def serve(model: str, loop: Loop, link: Connection) -> None:
    """Run in a separate process: for each number received, run that many steps and send their seconds; end at 0."""
    run = conventional(model) if loop.conventional else ours(model, loop)
    while steps := link.recv():
        link.send(run(steps))


def step_times(model: str, steps: int, rounds: int) -> dict[str, list[float]]:
    """Seconds per step of each loop, by round; the loops are interleaved in a random order in each round."""
    context = multiprocessing.get_context("spawn")
    links: dict[str, Connection] = {}
    processes = []
    times: dict[str, list[float]] = {loop.name: [] for loop in LOOPS}
    for loop in LOOPS:
        links[loop.name], child_end = context.Pipe()
        processes.append(context.Process(target=serve, args=(model, loop, child_end)))
        processes[-1].start()
        links[loop.name].send(8)  # warm-up
        links[loop.name].recv()
    order = list(links)
    for _ in range(rounds):
        random.Random(len(times[order[0]])).shuffle(order)
        for name in order:
            links[name].send(6)  # use up the batches that the DataLoader's workers have prefetched
            links[name].recv()
            links[name].send(steps)
            times[name].append(links[name].recv() / steps)
    for link, process in zip(links.values(), processes, strict=True):
        link.send(0)
        process.join()
    return times


def speeds(quick: bool) -> str:
    """A table of training speeds and its note."""
    rounds = 2 if quick else 5
    rows = []
    for model, steps in MODELS.items():
        times = step_times(model, 4 if quick else steps, rounds)
        base = times[LOOPS[0].name]
        for loop in LOOPS:
            ratio = paired(times[loop.name], base)
            low, high = ratio.interval
            middle = statistics.median(times[loop.name])
            rows.append(
                (
                    cell(model), cell(loop.name), cell(middle, duration(middle)),
                    cell(BATCH / middle, f"{BATCH / middle:,.0f}"), cell(ratio.ratio, f"{ratio.ratio:.2f}"),
                    cell(None, f"[{low:.2f}, {high:.2f}]"),
                )
            )  # fmt: skip
    columns = (
        Column("model", "model", "left"), Column("loop", "loop", "left"), Column("step", "step_s"),
        Column("images/s", "images_per_s"), Column("speedup", "ratio"), Column("95% CI", "interval"),
    )  # fmt: skip
    note = (
        f"Batch size {BATCH}, the whole training step including its data; medians of {rounds} rounds of "
        f"{', '.join(f'{steps} steps ({model})' for model, steps in MODELS.items())}, each loop in a separate process. "
        "The conventional loop: PyTorch's DataLoader with two workers, torchvision's RandomCrop, RandomHorizontalFlip, "
        "ToTensor and Normalize on each image as a PIL image, and `.item()` for loss and accuracy after every step."
    )
    return f"{to_markdown(Sheet(columns, tuple(rows)))}\n{note}\n"


def data_share(quick: bool) -> str:
    """A table of the share of data loading in the training step, and its note."""
    import resnetcli as rc
    from resnetcli.data.read import read_dataset
    from resnetcli.recipes.text import read_recipe
    from resnetcli.train.loop import Trainer

    rows = []
    for model in MODELS:
        trainer = Trainer(
            rc.load(model), read_recipe("resnet"), read_dataset("synthetic"), seed=0, device="cpu", dtype="bf16",
            channels_last=True,
        )  # fmt: skip
        for _ in range(3):
            trainer.step()
        steps, batches = [], []
        for _ in range(3 if quick else 30):
            start = perf_counter()
            trainer.step()
            steps.append(perf_counter() - start)
            start = perf_counter()
            trainer._images.batch(trainer._batch(trainer.iteration))
            batches.append(perf_counter() - start)
        step, batch = statistics.median(steps), statistics.median(batches)
        rows.append(
            (
                cell(model), cell(batch, duration(batch)), cell(BATCH / batch, f"{BATCH / batch:,.0f}"),
                cell(step, duration(step)), cell(batch / step, f"{100 * batch / step:.1f}%"),
            )
        )  # fmt: skip
    columns = (
        Column("model", "model", "left"), Column("batch", "batch_s"), Column("images/s", "images_per_s"),
        Column("step", "step_s"), Column("share", "share"),
    )  # fmt: skip
    note = (
        "Batch: time to select, crop, flip and normalise a batch; images/s: its throughput. Step: time of the whole "
        "training step in bf16 channels_last; share: batch / step."
    )
    return f"{to_markdown(Sheet(columns, tuple(rows)))}\n{note}\n"


# --- GPU kernels -------------------------------------------------------------------------------------------------

SETTINGS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "tf32 channels_last (default)": {"dtype": "tf32", "channels_last": True},
    "bf16": {"dtype": "bf16"},
    "bf16 channels_last": {"dtype": "bf16", "channels_last": True},
    "fp16": {"dtype": "fp16"},
    "fp16 channels_last": {"dtype": "fp16", "channels_last": True},
    "fp32 --bn-batch 64": {"bn_batch": 64},
    "tf32 channels_last --bn-batch 64": {"dtype": "tf32", "channels_last": True, "bn_batch": 64},
    "fp16 channels_last --bn-batch 64": {"dtype": "fp16", "channels_last": True, "bn_batch": 64},
}
"""Label of a row -> the trainer's options."""


def nodes(model: str, options: Mapping[str, Any]) -> int:
    """The number of nodes of the CUDA graph of one training step: kernels, copies and fills."""
    import torch

    import resnetcli as rc
    from resnetcli.data.read import read_dataset
    from resnetcli.recipes.text import read_recipe
    from resnetcli.train.loop import Trainer
    from resnetcli.train.precision import convolution_settings

    trainer = Trainer(
        rc.load(model), read_recipe("resnet"), read_dataset("synthetic"), device="cuda", cuda_graph=True, **options
    )
    for _ in range(3):  # as training does before capture: libraries choose their kernels
        trainer.step()
    graph = torch.cuda.CUDAGraph(keep_graph=True)
    trainer.optimizer.zero_grad(set_to_none=True)
    with (
        convolution_settings(trainer.device, tf32=options.get("dtype") == "tf32", deterministic=False),
        torch.cuda.graph(graph, stream=trainer._side),
    ):
        trainer._compute()
    count = ctypes.c_size_t()
    runtime = ctypes.CDLL(f"libcudart.so.{(torch.version.cuda or '13').partition('.')[0]}")
    failed = runtime.cudaGraphGetNodes(ctypes.c_void_p(graph.raw_cuda_graph()), None, ctypes.byref(count))
    if failed:
        raise RuntimeError(f"cudaGraphGetNodes: error {failed}")
    return count.value


def kernels() -> str:
    """A table of the graph's nodes by settings and model, and its note."""
    import torch

    rows = [
        (cell(name), *(cell(count, f"{count:,}") for count in (nodes(model, options) for model in MODELS)))
        for name, options in SETTINGS.items()
    ]
    columns = (Column("settings", "settings", "left"), *(Column(model, model) for model in MODELS))
    version = torch.__version__.partition("+")[0]
    note = (
        f"Nodes of the CUDA graph of one training step, PyTorch {version}, batch size {BATCH}: kernels, copies and "
        "fills, those that select and augment the batch included. Kernels that cuDNN launches from within a kernel are "
        "not counted."
    )
    return f"{to_markdown(Sheet(columns, tuple(rows)))}\n{note}\n"


def main() -> None:
    """Measure; write the section, or print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="measure a few steps and print the tables")
    parser.add_argument("--kernels", action="store_true", help="count the kernels of a training step on a GPU instead")
    arguments = parser.parse_args()
    if arguments.kernels:
        text = kernels()
        print(text) if arguments.quick else put("training kernels", text)
        return
    before = os.getloadavg()[0]
    text = f"### Training step\n\n{speeds(arguments.quick)}\n### Data\n\n{data_share(arguments.quick)}"
    if arguments.quick:
        print(text)
    else:
        put("training", f"{text}\n### Conditions\n\n{machine(('torch', 'torchvision', 'pillow'), before)}")


if __name__ == "__main__":
    main()
