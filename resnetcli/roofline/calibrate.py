"""Measures a device's ceilings: large products, dense 3x3 convolutions, copies, sums and a chain of trivial operations.

Of each the quickest of several is kept: a ceiling is what the device can do, not what it usually does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - what everybody calls it

from resnetcli.bench import device as devices
from resnetcli.bench.environment import Ledger
from resnetcli.bench.execution import gpu_computes, rounding
from resnetcli.bench.latency import read_environment
from resnetcli.bench.prepare import on_device
from resnetcli.bench.runtimes import capture_stream
from resnetcli.bench.sampling import Clock
from resnetcli.errors import ResourceError
from resnetcli.net.memory import fitting, is_device_lost, is_out_of_memory
from resnetcli.roofline.peaks import Ceilings, Peak, Rate, processors

SIZES = (256, 1024, 2048, 4096, 8192)
"""Rows and columns of the products, but for those that would take too long."""
CONVOLUTIONS = ((1, 128, 14), (16, 64, 56), (16, 128, 28), (16, 256, 14), (64, 256, 28), (256, 256, 28))
"""Images, channels in and out, height and width of the convolutions, but for those that would take too long."""
CHAIN = 1000
"""Trivial operations, one after the other."""
CAPTURED = 20
"""Copies or sums per CUDA graph: launching a small one takes as long as running it."""
ROUNDS = 2
"""How often everything is measured; the better counts."""
LARGEST = 2**30
"""Bytes of the largest working set."""
LARGEST_ON_GPU = 2**28
"""Minimum bytes of a GPU's largest working set: four small caches are copied in a few microseconds."""
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def calibrate(
    device: str = "cpu",
    *,
    clock: Clock = time.perf_counter,
    budget_s: float = 20.0,
    report: Callable[[str], object] | None = None,
) -> Ceilings:
    """The ceilings of a device, measured in about `budget_s` seconds; `report` is told what is being measured.

    What else went on meanwhile is their `noisy`: the quickest of several does not help where all are disturbed.
    Raises UsageError for a device there is not, ResourceError if it cannot compute in any dtype.
    """
    place = torch.device(devices.find(device))
    with on_device(place), fitting("calibration", place), torch.inference_mode(), _autotuned(place):
        bench = _Bench(place, clock, budget_s, report or (lambda _: None))
        before = read_environment(place)
        launch, gap = bench.launches()
        peaks: dict[str, Peak] = {}
        rates: tuple[Rate, ...] = ()
        for _ in range(ROUNDS):  # of moments apart, lest somebody else's program be taken for a ceiling
            rates = _quicker(rates, bench.rates(gap if place.type == "cuda" else launch))
            for name in bench.dtypes:
                if (peak := bench.peak(name)) is not None:
                    old = peaks.get(name, peak)
                    peaks[name] = Peak(max(old.matmul, peak.matmul), max(old.conv, peak.conv))
        environment = Ledger(before, read_environment(place))
    if not peaks:
        raise ResourceError(f"`{place}` could not be calibrated: no product of matrices ran to its end")
    return Ceilings(
        name=devices.describe(str(place)),
        device=place.type,
        source="measured",
        peaks=peaks,
        rates=rates,
        launch_s=launch,
        gap_s=gap,
        conditions={
            "measured": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "threads": str(torch.get_num_threads()),
            "processors": str(processors()),
            "torch": str(torch.__version__),
            "last_cache_bytes": str(last_cache(place)),
        },
        noisy=tuple(noise.text for noise in environment.noise()),
    )


@contextmanager
def _autotuned(place: torch.device) -> Iterator[None]:
    """Context manager: autotune a GPU's convolutions, as where models are measured."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or place.type == "cuda"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def last_cache(place: torch.device) -> int:
    """Bytes of the cache nearest to memory; 32 MiB where nobody says."""
    if place.type == "cuda":
        return int(getattr(torch.cuda.get_device_properties(place), "L2_cache_size", 0)) or 2**25
    found = [2**25]
    with suppress(OSError, ValueError, KeyError):
        units = {"K": 2**10, "M": 2**20, "G": 2**30}
        sizes = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
        found = [int(size[:-1]) * units[size[-1]] for size in sizes] or found
    return max(found)


def working_sets(cache: int, least: int = 2**20) -> list[int]:
    """Sizes from 256 KiB to min(4 x the last cache, 1 GiB), or `least` if that is more.

    Each is four times the one before, but for the last.
    """
    most = max(least, min(4 * cache, LARGEST))
    found = [2**18]
    while found[-1] * 4 < most:
        found.append(found[-1] * 4)
    return [*found, most]


def _quicker(some: tuple[Rate, ...], others: tuple[Rate, ...]) -> tuple[Rate, ...]:
    """The better of two by working set, none slower than a larger one's: part of that would be as quick."""
    found: dict[int, Rate] = {}
    copy = read = 0.0
    for rate in sorted((*some, *others), key=lambda rate: -rate.working_set):
        copy, read = max(copy, rate.copy), max(read, rate.read)
        found[rate.working_set] = Rate(rate.working_set, copy, read)
    return tuple(found[size] for size in sorted(found))


def _computes(place: torch.device, dtype: str) -> bool:
    """Whether to measure a dtype: TF32 needs an NVIDIA GPU since Ampere; on a CPU fp16 is slower than fp32."""
    if place.type == "cpu":
        return dtype not in {"tf32", "fp16"}
    return dtype != "tf32" or gpu_computes("tf32", place)


class _Bench:
    """Times calls on one device, within a budget for all of them together."""

    def __init__(self, place: torch.device, clock: Clock, budget_s: float, report: Callable[[str], object]) -> None:
        self.place, self.clock, self.budget_s, self.report = place, clock, budget_s, report
        self.random = torch.Generator(device=place)
        self.random.manual_seed(0)
        self.dtypes = tuple(name for name in DTYPES if _computes(place, name))

    def best(self, call: Callable[[], object], budget_s: float, least: int = 3) -> float:
        """Seconds of the quickest call, of `least` or more within the budget; a sample is of calls lasting 1 ms."""
        call()
        calls = 1
        while (seconds := self.time(call, calls)) < 1e-3 and calls < 2**20:
            calls *= 2
        found, start = [seconds / calls], self.clock()
        while len(found) < least or self.clock() - start < budget_s:
            found.append(self.time(call, calls) / calls)
            if self.clock() - start > 4 * budget_s:
                break
        return min(found)

    def time(self, call: Callable[[], object], calls: int) -> float:
        """Seconds that so many calls take from the first to the end of the last, on a GPU by its own events."""
        if self.place.type != "cuda":
            start = self.clock()
            for _ in range(calls):
                call()
            return self.clock() - start
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    def captured(self, call: Callable[[], object]) -> tuple[Callable[[], object], int]:
        """On a GPU a CUDA graph of several calls, without launch overhead, and their number; else the call and 1."""
        if self.place.type == "cuda":
            with suppress(RuntimeError):
                call()
                return self.graph(call, CAPTURED).replay, CAPTURED
        return call, 1

    def graph(self, call: Callable[[], object], calls: int) -> torch.cuda.CUDAGraph:
        """Capture `calls` calls."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=capture_stream(self.place)):
            for _ in range(calls):
                call()
        return graph

    def random_tensor(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """Never zeros: arithmetic on them draws less power and can be faster. A megabyte of numbers is repeated."""
        numbers = math.prod(shape)
        some = torch.randn(min(numbers, 2**18), device=self.place, generator=self.random).to(dtype)
        return some.repeat(-(-numbers // len(some)))[:numbers].view(shape)

    # --- launches --------------------------------------------------------------------------------------------

    def launches(self) -> tuple[float, float]:
        """Seconds to ask for an operation, and those a device that is asked early enough loses to it."""
        self.report("launches")
        x = torch.zeros(1, device=self.place)

        def chain() -> None:
            for _ in range(CHAIN):
                x.add_(1)

        launch = self.best(chain, self.budget_s / 20) / CHAIN
        if self.place.type != "cuda":
            return launch, launch
        gap = launch
        with suppress(RuntimeError):  # without graphs all one knows is that it is no more than this
            gap = min(launch, self.best(self.graph(chain, 1).replay, self.budget_s / 20) / CHAIN)
        return launch, gap

    # --- memory ----------------------------------------------------------------------------------------------

    def rates(self, launch_s: float) -> tuple[Rate, ...]:
        """Copy and read bandwidth by working set, without launch overhead."""
        sizes = working_sets(last_cache(self.place), LARGEST_ON_GPU if self.place.type == "cuda" else 2**20)
        share, found = self.budget_s / 4 / ROUNDS / len(sizes) / 2, []

        def seconds(call: Callable[[], object]) -> float:
            several, calls = self.captured(call)
            return self.best(several, share) / calls

        for size in sizes:
            self.report(f"memory, {size // 2**10:,} KiB")
            try:
                half = self.random_tensor(size // 8, dtype=torch.float32)
                other = torch.empty_like(half)
                copy = seconds(lambda to=other, of=half: to.copy_(of))  # type: ignore[misc]
                both = torch.cat((half, other))
                read = seconds(lambda of=both: of.sum())  # type: ignore[misc]
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                break  # nor is there memory for a larger working set
            copied = size / max(copy - launch_s, copy / 2)
            found.append(Rate(size, copied, max(copied, size / max(read - launch_s, read / 2))))
        if not found:
            raise ResourceError(f"`{self.place}` has no memory left to measure its bandwidth with")
        return tuple(found)

    # --- arithmetic ------------------------------------------------------------------------------------------

    def peak(self, name: str) -> Peak | None:
        """Peaks of one dtype; None if the device does not support it."""
        try:
            with rounding(name == "tf32"):
                return Peak(self.products(name), self.convolutions(name))
        except RuntimeError as error:
            if is_device_lost(error):
                raise
            return None  # not implemented, or not enough memory for the smallest

    def products(self, name: str) -> float:
        return self.quickest(name, "matrix products", self.each_product(DTYPES[name]))

    def convolutions(self, name: str) -> float:
        return self.quickest(name, "convolutions", self.each_convolution(DTYPES[name]))

    def quickest(self, name: str, what: str, each: Iterator[tuple[int, Callable[[], object]]]) -> float:
        """Floating-point operations a second, the most of several sizes.

        All have an equal part of the time, since a fast device reaches its peak only in the largest. One is left out if
        a single call takes longer than half of the time for all: a device that slow reaches its peak in smaller ones.
        """
        self.report(f"{what} in {name}")
        share, found = self.budget_s / 2 / ROUNDS / len(self.dtypes) / 2, 0.0
        parts = max(len(SIZES), 2 * len(CONVOLUTIONS))
        try:
            for flops, call in each:
                if not found or flops / found < share / 2:
                    found = max(found, flops / self.best(call, share / parts, least=1))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        if not found:
            raise RuntimeError(f"no {what} in {name}")
        return found

    def each_product(self, dtype: torch.dtype) -> Iterator[tuple[int, Callable[[], object]]]:
        for n in SIZES:
            a, b = (self.random_tensor(n, n, dtype=dtype) for _ in range(2))
            out = torch.empty_like(a)
            yield 2 * n**3, lambda a=a, b=b, out=out: torch.mm(a, b, out=out)  # type: ignore[misc]

    def each_convolution(self, dtype: torch.dtype) -> Iterator[tuple[int, Callable[[], object]]]:
        for images, c, size in CONVOLUTIONS:
            for layout in (torch.contiguous_format, torch.channels_last):
                x = self.random_tensor(images, c, size, size, dtype=dtype).contiguous(memory_format=layout)
                w = self.random_tensor(c, c, 3, 3, dtype=dtype).contiguous(memory_format=layout)
                flops = 2 * 9 * c * c * images * size * size
                yield flops, lambda x=x, w=w: F.conv2d(x, w, padding=1)  # type: ignore[misc]
