"""Measure a device's peaks: matrix products, dense 3x3 convolutions, copies, sums and a chain of trivial kernels.

The fastest of several calls is the peak: the best that the device can do, not its usual rate.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from resnetcli.bench import device as devices
from resnetcli.bench.environment import Ledger, own_processors
from resnetcli.bench.execution import gpu_computes, rounding
from resnetcli.bench.latency import read_environment
from resnetcli.bench.prepare import on_device, timers
from resnetcli.bench.runtimes import DTYPES, capture_stream
from resnetcli.bench.sampling import Clock
from resnetcli.errors import ResourceError
from resnetcli.net.memory import fitting, is_device_lost, is_out_of_memory
from resnetcli.roofline.peaks import Bandwidth, DevicePeaks, Peak

SIZES = (256, 1024, 2048, 4096, 8192)
"""Rows and columns of the matrices; those that would take too long are omitted."""
CONVOLUTIONS = ((1, 128, 14), (16, 64, 56), (16, 128, 28), (16, 256, 14), (64, 256, 28), (256, 256, 28))
"""Batch size, channels, height and width of the convolutions; those that would take too long are omitted."""
CHAIN = 1000
"""Trivial kernels in the chain that gives launch overhead."""
CAPTURED = 20
"""Copies or sums per CUDA graph: launching a small one takes as long as running it."""
ROUNDS = 2
"""How often everything is measured; the faster counts."""
LARGEST = 2**30
"""Bytes of the largest working set."""
LARGEST_ON_GPU = 2**28
"""Minimum bytes of a GPU's largest working set: four small caches are copied in a few microseconds."""


def measure_device_peaks(
    device: str = "cpu",
    *,
    clock: Clock = time.perf_counter,
    budget_s: float = 20.0,
    report: Callable[[str], object] | None = None,
) -> DevicePeaks:
    """Measure a device's peaks in about `budget_s` seconds; `report` is called with each step.

    `noisy` has the reasons if other load made all calls slow. Raises UsageError for an unknown device, ResourceError
    if no dtype works.
    """
    place = torch.device(devices.find(device))
    with on_device(place), fitting("calibration", place), torch.inference_mode(), _autotuned(place):
        bench = _Bench(place, clock, budget_s, report or (lambda _: None))
        before = read_environment(place)
        launch, gap = bench.launches()
        peaks: dict[str, Peak] = {}
        rates: tuple[Bandwidth, ...] = ()
        for _ in range(ROUNDS):  # some time apart, so that another program's load does not slow all of them
            rates = _faster(rates, bench.bandwidth(gap if place.type == "cuda" else launch))
            for name in bench.dtypes:
                if (peak := bench.peak(name)) is not None:
                    old = peaks.get(name, peak)
                    peaks[name] = Peak(
                        max(old.matmul_flop_s, peak.matmul_flop_s), max(old.conv_flop_s, peak.conv_flop_s)
                    )
        environment = Ledger(before, read_environment(place))
    if not peaks:
        raise ResourceError(f"`{place}` could not be calibrated: no matrix multiplication succeeded")
    return DevicePeaks(
        name=devices.describe_device(str(place)),
        device=place.type,
        source="measured",
        peaks=peaks,
        bandwidth=rates,
        launch_s=launch,
        gap_s=gap,
        conditions={
            "measured": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "threads": str(torch.get_num_threads()),
            "processors": str(len(own_processors())),
            "torch": str(torch.__version__),
            "last_cache_bytes": str(last_cache(place)),
        },
        noisy=tuple(noise.text for noise in environment.noise()),
    )


@contextmanager
def _autotuned(place: torch.device) -> Iterator[None]:
    """Context manager: autotune a GPU's convolutions, as in measurements of models."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or place.type == "cuda"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def last_cache(place: torch.device) -> int:
    """Bytes of the last-level cache; 32 MiB if it is unknown."""
    if place.type == "cuda":
        return int(getattr(torch.cuda.get_device_properties(place), "L2_cache_size", 0)) or 2**25
    cache_bytes = [2**25]
    with suppress(OSError, ValueError, KeyError):
        units = {"K": 2**10, "M": 2**20, "G": 2**30}
        sizes = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
        cache_bytes = [int(size[:-1]) * units[size[-1]] for size in sizes] or cache_bytes
    return max(cache_bytes)


def working_sets(cache: int, least: int = 2**20) -> list[int]:
    """Sizes from 256 KiB to max(least, min(4 x cache, 1 GiB)), each but the last four times the previous one."""
    most = max(least, min(4 * cache, LARGEST))
    sizes = [2**18]
    while sizes[-1] * 4 < most:
        sizes.append(sizes[-1] * 4)
    return [*sizes, most]


def _faster(some: tuple[Bandwidth, ...], others: tuple[Bandwidth, ...]) -> tuple[Bandwidth, ...]:
    """The faster of two by working set, none slower than a larger working set: part of that would be as fast."""
    fastest: dict[int, Bandwidth] = {}
    copy = read = 0.0
    for rate in sorted((*some, *others), key=lambda rate: -rate.working_set_bytes):
        copy, read = max(copy, rate.copy_bytes_s), max(read, rate.read_bytes_s)
        fastest[rate.working_set_bytes] = Bandwidth(rate.working_set_bytes, copy, read)
    return tuple(fastest[size] for size in sorted(fastest))


def _computes(place: torch.device, dtype: str) -> bool:
    """Whether to measure a dtype: TF32 needs an NVIDIA GPU since Ampere; on a CPU fp16 is slower than fp32."""
    if place.type == "cpu":
        return dtype not in {"tf32", "fp16"}
    return dtype != "tf32" or gpu_computes("tf32", place)


class _Bench:
    """Times calls on one device, within a total budget."""

    def __init__(self, place: torch.device, clock: Clock, budget_s: float, report: Callable[[str], object]) -> None:
        self.place, self.clock, self.budget_s, self.report = place, clock, budget_s, report
        self.random = torch.Generator(device=place)
        self.random.manual_seed(0)
        self.dtypes = tuple(name for name in DTYPES if _computes(place, name))

    def best(self, call: Callable[[], object], budget_s: float, least: int = 3) -> float:
        """Seconds of the fastest call. A sample is as many calls as take 1 ms; there are at least `least`."""
        call()
        calls = 1
        while (seconds := self.time(call, calls)) < 1e-3 and calls < 2**20:
            calls *= 2
        samples, start = [seconds / calls], self.clock()
        while len(samples) < least or self.clock() - start < budget_s:
            samples.append(self.time(call, calls) / calls)
            if self.clock() - start > 4 * budget_s:
                break
        return min(samples)

    def time(self, call: Callable[[], object], calls: int) -> float:
        """Seconds from the start of the first call to the end of the last, on a GPU by CUDA events."""
        _, queued = timers(call, self.place, self.clock)
        return queued(calls)

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
        """Random numbers, a megabyte of them repeated; not zeros, which draw less power and can be faster."""
        numbers = math.prod(shape)
        some = torch.randn(min(numbers, 2**18), device=self.place, generator=self.random).to(dtype)
        return some.repeat(-(-numbers // len(some)))[:numbers].view(shape)

    # --- launches --------------------------------------------------------------------------------------------

    def launches(self) -> tuple[float, float]:
        """Time to launch a kernel, and the device's idle time between queued kernels."""
        self.report("launch overhead")
        x = torch.zeros(1, device=self.place)

        def chain() -> None:
            for _ in range(CHAIN):
                x.add_(1)

        launch = self.best(chain, self.budget_s / 20) / CHAIN
        if self.place.type != "cuda":
            return launch, launch
        gap = launch
        with suppress(RuntimeError):  # without CUDA graphs the launch time is an upper limit
            gap = min(launch, self.best(self.graph(chain, 1).replay, self.budget_s / 20) / CHAIN)
        return launch, gap

    # --- memory ----------------------------------------------------------------------------------------------

    def bandwidth(self, launch_s: float) -> tuple[Bandwidth, ...]:
        """Copy and read bandwidth by working set, without launch overhead."""
        sizes = working_sets(last_cache(self.place), LARGEST_ON_GPU if self.place.type == "cuda" else 2**20)
        share, rates = self.budget_s / 4 / ROUNDS / len(sizes) / 2, []

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
                break  # larger working sets do not fit either
            copied = size / max(copy - launch_s, copy / 2)
            rates.append(Bandwidth(size, copied, max(copied, size / max(read - launch_s, read / 2))))
        if not rates:
            raise ResourceError(f"`{self.place}` has too little free memory to measure its bandwidth")
        return tuple(rates)

    # --- compute ---------------------------------------------------------------------------------------------

    def peak(self, name: str) -> Peak | None:
        """Peaks of one dtype; None if the device does not support it."""
        try:
            with rounding(name == "tf32"):
                return Peak(self.matmul_flop_s(name), self.conv_flop_s(name))
        except RuntimeError as error:
            if is_device_lost(error):
                raise
            return None  # not implemented, or out of memory at the smallest size

    def matmul_flop_s(self, name: str) -> float:
        return self.peak_flop_s(name, "matrix products", self.matmuls(DTYPES[name]))

    def conv_flop_s(self, name: str) -> float:
        return self.peak_flop_s(name, "convolutions", self.convolutions(DTYPES[name]))

    def peak_flop_s(self, name: str, what: str, calls: Iterator[tuple[int, Callable[[], object]]]) -> float:
        """FLOP/s of the fastest size; `calls` are pairs of FLOPs and the call.

        All sizes have an equal share of the time, since a fast device reaches its peak only in the largest. A size is
        omitted if one call takes longer than half of the total time: a device that slow peaks at smaller sizes.
        """
        self.report(f"{what} in {name}")
        share, peak = self.budget_s / 2 / ROUNDS / len(self.dtypes) / 2, 0.0
        parts = max(len(SIZES), 2 * len(CONVOLUTIONS))
        try:
            for flops, call in calls:
                if not peak or flops / peak < share / 2:
                    peak = max(peak, flops / self.best(call, share / parts, least=1))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        if not peak:
            raise RuntimeError(f"no {what} in {name}")
        return peak

    def matmuls(self, dtype: torch.dtype) -> Iterator[tuple[int, Callable[[], object]]]:
        for n in SIZES:
            a, b = (self.random_tensor(n, n, dtype=dtype) for _ in range(2))
            out = torch.empty_like(a)
            yield 2 * n**3, lambda a=a, b=b, out=out: torch.mm(a, b, out=out)  # type: ignore[misc]

    def convolutions(self, dtype: torch.dtype) -> Iterator[tuple[int, Callable[[], object]]]:
        for images, c, size in CONVOLUTIONS:
            for layout in (torch.contiguous_format, torch.channels_last):
                x = self.random_tensor(images, c, size, size, dtype=dtype).contiguous(memory_format=layout)
                w = self.random_tensor(c, c, 3, 3, dtype=dtype).contiguous(memory_format=layout)
                flops = 2 * 9 * c * c * images * size * size
                yield flops, lambda x=x, w=w: F.conv2d(x, w, padding=1)  # type: ignore[misc]
