"""Run the CUDA paths of resnet-cli and report PASS, FAIL or SKIP for each check, with its key figures.

`benchmarks/gpu.sh` starts it from a checkout. Each check runs in a separate process with a time limit; without a GPU
those that can run on a CPU do, with small models. A check fails on a traceback, a wrong exit code or a figure that
cannot be right, not on a slow time.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

OUT, WORK, LIMIT_S = Path(os.environ["OUT"]), Path(os.environ["WORK"]), float(os.environ["LIMIT_S"])
START = float(os.environ.get("CHECK_START", time.time()))
CHECKS: dict[str, tuple[Callable[[], None], float, bool]] = {}
"""By name: the check, its time limit in seconds, whether it needs a GPU."""
NUMBERS: dict[str, Any] = {}
LATE = "FAIL not finished after"
Settings = Mapping[str, Mapping[str, Any]]
"""Name -> execution options."""


class FailedError(Exception):
    """A check failed."""


class SkippedError(Exception):
    """A check cannot run here."""


def check(seconds: float, gpu: bool = False) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register a function as a check."""

    def register(function: Callable[[], None]) -> Callable[[], None]:
        CHECKS[function.__name__] = (function, seconds, gpu)
        return function

    return register


def require(condition: object, message: str) -> None:
    """Fail the check unless the condition holds."""
    if not condition:
        raise FailedError(message)


def report(text: str) -> None:
    """Print a line below the check's name."""
    print("| " + text)


def number(name: str, value: object) -> None:
    """Add a figure to the JSON file."""
    NUMBERS[name] = value


def ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}"


def on_gpu() -> bool:
    import torch

    return os.environ.get("DEVICE", "") != "cpu" and torch.cuda.is_available()


def device() -> str:
    return "cuda" if on_gpu() else "cpu"


def place() -> Any:
    import torch

    return torch.device("cuda", 0) if on_gpu() else torch.device("cpu")


def cli(*words: str, limit: float = 120) -> subprocess.CompletedProcess[str]:
    """Run resnet-cli in a separate process. Fails on a traceback or a nonzero exit code."""
    code = "from resnetcli.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=limit)
    print(f"$ resnet-cli {' '.join(words)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}", file=sys.stderr)
    if "Traceback" in done.stderr:
        raise FailedError(f"`{' '.join(words)}`: {done.stderr.strip().splitlines()[-1][:160]}")
    require(done.returncode == 0, f"`{' '.join(words)}` exited with {done.returncode}: {done.stderr.strip()[-160:]}")
    return done


def plan(name: str) -> Any:
    from resnetcli.reports.profile import load

    return load(name)


def options_of(**given: Any) -> Any:
    from resnetcli.bench.options import RunOptions

    if given.pop("compile", False):
        given["runtime"] = "inductor"
    return RunOptions(**given)


def measured(name: str, batch: int, seconds: float = 0.8, **given: Any) -> Any:
    from resnetcli.bench.latency import measure

    return measure(plan(name), device=device(), batch_size=batch, options=options_of(**given), time_budget_s=seconds)


def dataset() -> Any:
    from resnetcli.data.read import read_dataset

    return read_dataset("synthetic", None, download=False, log=lambda line: None)


def trainer(name: str, data: Any, **given: Any) -> Any:
    from resnetcli.recipes.text import read_recipe
    from resnetcli.train.loop import Trainer

    return Trainer(plan(name), read_recipe(given.pop("recipe", "resnet")), data, device=place(), **given)


def wait() -> None:
    import torch

    if on_gpu():
        torch.cuda.synchronize()


def typed(settings: Settings) -> Settings:
    """The argument, with its type declared."""
    return settings


def steps(trained: Any, n: int) -> Any:
    """The trainer after n more steps."""
    for _ in range(n):
        trained.step()
    return trained


def step_s(trained: Any, n: int) -> tuple[float, float]:
    """Seconds per pipelined step, and seconds that the CPU takes to queue it."""
    wait()
    begin = time.perf_counter()
    steps(trained, n)
    queued = time.perf_counter() - begin
    wait()
    return (time.perf_counter() - begin) / n, queued / n


# --- the machine ---------------------------------------------------------------------------------------------------


@check(40)
def machine() -> None:
    """Versions, device, state reported by the driver."""
    import torch

    report(
        f"torch {torch.__version__}, cuda {torch.version.cuda}, python {sys.version.split()[0]}, {os.cpu_count()} cpus"
    )
    if not on_gpu():
        report("no GPU: the checks that can run on a CPU do, with small models")
        return
    from resnetcli.bench.energy import meter
    from resnetcli.bench.latency import nvml_uuid, read_environment

    p = torch.cuda.get_device_properties(0)
    report(
        f"{p.name}, sm_{p.major}{p.minor}, {p.total_memory / 2**30:.0f} GiB, L2 {p.L2_cache_size / 2**20:.0f} MiB, "
        f"cuDNN {torch.backends.cudnn.version()}"  # type: ignore[no-untyped-call]
    )
    number("device", p.name)
    gpu = read_environment(place()).gpu
    assert gpu is not None
    report(
        f"driver: clock {gpu.clock_mhz} MHz, {gpu.temperature_c} C, {gpu.power_w} W, slowed {gpu.slowed}, "
        f"other processes {gpu.other_processes}; meter {bool(meter('cuda:0', gpu=nvml_uuid(place())))}"
    )
    import shutil

    if shutil.which("nvidia-smi"):
        require(gpu.clock_mhz is not None, "nvidia-smi exists, but the clock could not be read (was a field renamed?)")
        require(gpu.slowed is not None, "nvidia-smi exists, but the throttle reasons could not be read")


@check(40, gpu=True)
def imports() -> None:
    """--compile with only torch imported."""
    code = (
        "import torch\nfrom resnetcli.bench.options import RunOptions\n"
        "from resnetcli.bench.execution import require_supported as r\n"
        "r(RunOptions('fp32', runtime='inductor'), 'cuda:0')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    require(done.returncode == 0, done.stderr.strip().splitlines()[-1][:160] if done.stderr else "died")


@check(40, gpu=True)
def tf32() -> None:
    """TF32 switches: error of a convolution and a matrix product relative to float64."""
    import torch

    from resnetcli.bench.execution import rounding

    x, w = torch.randn(8, 64, 32, 32, device="cuda"), torch.randn(64, 64, 3, 3, device="cuda")
    a = torch.randn(512, 512, device="cuda")
    exact, product = torch.conv2d(x.double(), w.double(), padding=1), a.double() @ a.double()
    off = {}
    for allowed in (False, True):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with rounding(allowed):
                found = [(torch.conv2d(x, w, padding=1), exact), (a @ a, product)]
        off[allowed] = [float((y.double() - e).norm() / e.norm()) for y, e in found]
    report(
        f"relative error, convolution and product: off {off[False][0]:.1e} {off[False][1]:.1e}, "
        f"on {off[True][0]:.1e} {off[True][1]:.1e}"
    )
    require(max(off[False]) < 2e-6, "TF32 is used although it is switched off")
    if torch.cuda.get_device_capability() >= (8, 0):
        require(off[True][1] > 1e-5, "TF32 is not used in products although it is switched on")


# --- latency -------------------------------------------------------------------------------------------------------


WAYS: Settings = {
    "fp32": {},
    "fp32 no tf32": {"dtype": "fp32"},
    "bf16 nhwc": {"dtype": "bf16", "channels_last": True},
    "bf16 nhwc fold graph": {"dtype": "bf16", "channels_last": True, "fold_bn": True, "cuda_graph": True},
    "bf16 nchw fold graph": {"dtype": "bf16", "fold_bn": True, "cuda_graph": True},
    "bf16 nhwc fold cudnn graph": {
        "dtype": "bf16",
        "channels_last": True,
        "fold_bn": True,
        "cuda_graph": True,
        "runtime": "cudnn",
    },
}


def models() -> tuple[str, ...]:
    return ("resnet50", "resnext50_32x4d") if on_gpu() else ("cifar_resnet20",)


@check(170)
def latency() -> None:
    """Two models, three batch sizes, all settings but --compile: median ms (images/s; peak/derived memory)."""
    wrong = []
    for name in models():
        for batch in (1, 64, 256) if on_gpu() else (1, 8):
            line = []
            for way, given in WAYS.items():
                if not on_gpu() and ("graph" in way or way == "fp32 no tf32"):
                    continue
                if (batch != 64 and way == "fp32 no tf32") or (batch == 256 and way == "bf16 nchw fold graph"):
                    continue
                try:
                    m = measured(name, batch, 0.5, **given)
                except Exception as error:
                    wrong.append(f"{name} {batch} {way}: {type(error).__name__} {str(error)[:100]}")
                    continue
                number(
                    f"{name} b{batch} {way}", [m.median_s, m.throughput_img_s, m.peak_memory_bytes, m.live_peak_bytes]
                )
                off = max((v for v in (m.deviation_maps, m.deviation_outputs) if v is not None), default=0)
                if m.tolerance is not None and not off <= m.tolerance:
                    wrong.append(f"{name} {batch} {way}: off by {off:.2g}")
                peak = (m.peak_memory_bytes or 0) / 1e6
                line.append(
                    f"{way} {ms(m.median_s)} ({m.throughput_img_s:.0f}; "
                    f"{peak:.0f}/{(m.live_peak_bytes or 0) / 1e6:.0f}MB" + (f", off {off:.1e})" if m.tolerance else ")")
                )
            report(f"{name} b{batch}: " + "; ".join(line))
    require(not wrong, " / ".join(wrong)[:400])


@check(200)
def compiled() -> None:
    """torch.compile, alone and in a CUDA graph."""
    ways = [("bf16 nhwc compile", {"dtype": "bf16", "channels_last": True, "compile": True})]
    if on_gpu():
        ways.append(
            ("bf16 nhwc compile graph", {"dtype": "bf16", "channels_last": True, "compile": True, "cuda_graph": True})
        )
    todo = [("resnet50", 64), ("resnext50_32x4d", 64), ("resnet50", 1)] if on_gpu() else [("cifar_resnet20", 1)]
    wrong = []
    for name, batch in todo:
        for way, given in ways:
            if on_gpu() and "graph" not in way and (name, batch) != ("resnet50", 64):
                continue
            m = measured(name, batch, 0.5, **given)
            off = max((v for v in (m.deviation_maps, m.deviation_outputs) if v is not None), default=0)
            number(f"{name} b{batch} {way}", [m.median_s, m.throughput_img_s])
            report(
                f"{name} b{batch} {way}: {ms(m.median_s)} ms, {m.throughput_img_s:.0f} img/s, "
                f"prepared in {m.prepare_s:.0f} s, off {off:.1e}"
            )
            if not off <= (m.tolerance or 1):
                wrong.append(f"{name} {way}: off by {off:.2g}")
    require(not wrong, "; ".join(wrong))


@check(100, gpu=True)
def fused() -> None:
    """Convolutions that cuDNN fuses with the following addition and ReLU, and the deviation of the outputs."""
    import torch

    from resnetcli.bench.deviation import check_outputs, reference_outputs
    from resnetcli.bench.execution import configure_torch
    from resnetcli.bench.runtimes import transform
    from resnetcli.bench.weights import build_random, calibrate_norms
    from resnetcli.net.module import Net, fuse

    wrong = []
    for name in models():
        line = []
        for dtype in ("tf32", "bf16", "fp16"):
            for channels_last in (False, True):
                way = f"{dtype} {'nhwc' if channels_last else 'nchw'}"
                chosen = options_of(dtype=dtype, channels_last=channels_last, fold_bn=True, runtime="cudnn")
                with configure_torch(chosen, place()), torch.inference_mode(False), torch.no_grad():
                    net, x = build_random(plan(name), place()), torch.randn(8, 3, 224, 224, device=place())
                    calibrate_norms(net, x, plan(name))
                    expected = reference_outputs(plan(name), net, x)
                    variant = transform(plan(name), net, chosen, x)
                    off = check_outputs(variant, variant.images, expected)
                    assert isinstance(variant.net, Net)
                    again, convs = fuse(variant.net, variant.plan)
                    again(variant.images)
                done = sum(conv.is_fused for conv in convs)
                line.append(f"{way} {done} of {len(convs)}, off {max(off.feature_map or 0, off.outputs):.1e}")
                number(f"fused {name} {way}", [done, len(convs), off.feature_map, off.outputs])
                if not off.passed:
                    wrong.append(f"{name} {way}")
        report(f"{name}: " + "; ".join(line))
    require(not wrong, "outputs differ from fp32: " + ", ".join(wrong))


@check(60, gpu=True)
def graph_memory() -> None:
    """Peak memory of a CUDA graph compared with eager."""
    plain = measured("resnet50", 64, 0.3, dtype="bf16")
    graph = measured("resnet50", 64, 0.3, dtype="bf16", cuda_graph=True)
    report(
        f"peak without {plain.peak_memory_bytes / 1e6:.0f} MB (derived {plain.live_peak_bytes / 1e6:.0f}), "
        f"as a graph {graph.peak_memory_bytes / 1e6:.0f} MB"
    )
    require(
        graph.peak_memory_bytes > plain.peak_memory_bytes / 2,
        "the graph's memory is not measured (its pool is allocated at capture)",
    )


@check(70)
def train_mode() -> None:
    """profile --mode train: a training step and its three phases."""
    for name in models():
        for given in ({}, {"dtype": "bf16", "channels_last": True}):
            m = measured(name, 64 if on_gpu() else 2, 0.6 if on_gpu() else 0.1, mode="train", **given)
            p = m.phases
            report(
                f"{name} {m.settings}: {ms(m.median_s)} ms = {ms(p.forward.median_s)} + {ms(p.backward.median_s)} + "
                f"{ms(p.optimizer.median_s)}, peak {(m.peak_memory_bytes or 0) / 1e6:.0f} MB"
                + (f" (derived {m.live_peak_bytes / 1e6:.0f})" if m.live_peak_bytes else "")
            )
            number(f"train-mode {name} {m.settings}", m.median_s)


# --- peaks, explain, compare ----------------------------------------------------------------------------------------


@check(75)
def calibrate() -> None:
    """Device peaks; convolutions must reach half the FLOP/s of matrix products."""
    import resnetcli.roofline.calibrate as c

    reached: dict[str, int] = {}

    def noting(kind: str) -> Callable[[Any, Any], Iterator[Any]]:
        sizes = getattr(c._Bench, kind)

        def noted(bench: Any, dtype: Any) -> Iterator[Any]:
            for at, found in enumerate(sizes(bench, dtype)):
                reached[kind] = max(reached.get(kind, 0), at)
                yield found

        return noted

    for kind in ("matmuls", "convolutions"):
        setattr(c._Bench, kind, noting(kind))
    begin = time.time()
    found = c.measure_device_peaks(device(), budget_s=20.0 if on_gpu() else 2.0)
    from resnetcli.bench.device import find
    from resnetcli.roofline.profiles import cache_file, write_profile

    write_profile(found, cache_file(find(device())))  # for the check `explain`
    report(
        "TFLOP/s products/convolutions: "
        + ", ".join(f"{k} {p.matmul_flop_s / 1e12:.4g}/{p.conv_flop_s / 1e12:.4g}" for k, p in found.peaks.items())
    )
    report(
        "GB/s copy/read by MB: "
        + ", ".join(
            f"{r.working_set_bytes / 1e6:.3g}: {r.copy_bytes_s / 1e9:.0f}/{r.read_bytes_s / 1e9:.0f}"
            for r in found.bandwidth
        )
    )
    report(
        f"launch {1e6 * found.launch_s:.2f} us, in a graph {1e6 * found.gap_s:.2f} us; "
        f"took {time.time() - begin:.0f} s; largest product {c.SIZES[reached['matmuls']]}, "
        f"convolutions {reached['convolutions'] + 1} of {2 * len(c.CONVOLUTIONS)}"
    )
    number("device_peaks", {k: [p.matmul_flop_s, p.conv_flop_s] for k, p in found.peaks.items()})
    number("bandwidth", [[r.working_set_bytes, r.copy_bytes_s, r.read_bytes_s] for r in found.bandwidth])
    number("launch_gap_us", [1e6 * found.launch_s, 1e6 * found.gap_s])
    if on_gpu():
        low = [k for k, p in found.peaks.items() if p.conv_flop_s < p.matmul_flop_s / 2]
        require(
            not low,
            f"convolutions reach less than half the FLOP/s of products in {', '.join(low)}: large ones not measured?",
        )


@check(100)
def explain() -> None:
    """Lower bounds compared with measured times, sums of layer times, at batch sizes 64 and 1."""
    wrong = []
    for batch in (64, 1) if on_gpu() else (1,):
        words = [
            "explain",
            models()[0],
            "--device",
            device(),
            "--batch-size",
            str(batch),
            "--time-budget",
            "0.7s",
            "--format",
            "json",
        ]
        words += ["--dtype", "bf16", "--channels-last"] if on_gpu() else []
        explanation = json.loads(cli(*words).stdout)
        shares = explanation.get("shares") or {}
        report(
            f"{models()[0]} b{batch}: "
            + json.dumps(
                {
                    k: v
                    for k, v in explanation.items()
                    if isinstance(v, (int, float, bool, str)) and k not in ("model", "title")
                }
            )[:330]
        )
        report("   shares " + ", ".join(f"{k} {v:.2f}" for k, v in shares.items() if isinstance(v, float)))
        number(f"explain b{batch}", {k: v for k, v in explanation.items() if isinstance(v, (int, float, bool, dict))})
        if on_gpu() and batch == 64 and explanation.get("layers_agree") is False:
            wrong.append("the sum of layer times differs from the whole at batch 64")
        if on_gpu() and shares.get("unexplained", 0) < -0.05:
            wrong.append(f"a time below its lower bound at batch {batch}")
    require(not wrong, "; ".join(wrong))


@check(60)
def compare() -> None:
    """Two models interleaved, with the A/A noise floor."""
    names = models() if len(models()) > 1 else (*models(), "cifar_resnet32")
    found = json.loads(
        cli(
            "compare",
            *names,
            "--device",
            device(),
            "--batch-size",
            "64" if on_gpu() else "2",
            "--time-budget",
            "2s" if on_gpu() else "0.5s",
            "--format",
            "json",
        ).stdout
    )
    text = json.dumps(found)
    report(re.sub(r"[{}\"]", "", json.dumps(found.get("timings", found.get("against", "")))[:300]) or text[:200])


@check(80, gpu=True)
def energy_memory() -> None:
    """--energy and --memory."""
    found = json.loads(
        cli(
            "profile",
            "resnet50",
            "--device",
            "cuda",
            "--batch-size",
            "64",
            "--dtype",
            "bf16",
            "--energy",
            "--memory",
            "--time-budget",
            "1s",
            "--format",
            "json",
        ).stdout
    )
    m = found["measurements"][0]
    report(f"energy {m.get('energy')}"[:260])
    report(
        f"memory {m.get('memory')}, peak {m.get('peak_memory_bytes')}, other programs on the GPU "
        f"{m['environment']['after']['gpu'] and m['environment']['after']['gpu']['other_processes']}"
    )


# --- out of memory -------------------------------------------------------------------------------------------------


@check(110, gpu=True)
def out_of_memory() -> None:
    """Out of memory: sweeps continue, other models are measured, memory is freed, no traceback."""
    import gc

    import torch

    from resnetcli.bench.interleaved import measure_interleaved
    from resnetcli.errors import ResourceError
    from resnetcli.reports.profile import profile

    total = torch.cuda.get_device_properties(0).total_memory
    torch.zeros(1, device="cuda")
    wrong = []

    def cap(gib: float) -> None:
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(min(1.0, gib * 2**30 / total))

    for gib in (0.6, 1.0, 1.5, 2.0, 3.0):  # whichever allocation fails, only ResourceError is raised
        cap(gib)
        for mode in ("infer", "train"):
            try:
                p = profile(
                    "resnet50", device="cuda", batch_size=(128, 2), time_budget_s=0.1, options=options_of(mode=mode)
                )
                if mode == "infer" and 2 not in [m.batch for m in p.measurements]:
                    wrong.append(
                        f"{gib} GiB: batch 2 was not measured after batch 128 failed: {p.failures[-1].problem[:80]}"
                    )
            except ResourceError:
                pass
            except Exception as error:
                wrong.append(f"{gib} GiB {mode}: {type(error).__name__}: {str(error)[:90]}")
    cap(1.2)
    gc.collect()
    before = torch.cuda.memory_allocated()
    found = measure_interleaved(
        [plan("resnet18"), plan("wide_resnet50_2"), plan("resnet18")], device="cuda", batch_size=96, time_budget_s=0.2
    )
    kinds = [type(m).__name__ for m in found.measured]
    report(f"resnet18, wide_resnet50_2, resnet18 at batch 96 in 1.2 GiB: {kinds}")
    if kinds[1] != "Measurement" and "Measurement" not in (kinds[0], kinds[2]):
        wrong.append("the other models are not measured if one does not fit in memory")
    held = torch.cuda.memory_allocated() - before
    if held > 100e6:
        wrong.append(f"the error keeps {held / 1e6:.0f} MB allocated")
    del found
    cap(0.7)
    data = dataset()
    try:
        steps(trainer("cifar_resnet110", data), 2)
    except ResourceError as error:
        report(f"training: {error.message[:110]}")
    except Exception as error:
        wrong.append(f"training: {type(error).__name__}: {str(error)[:90]}")
    require(not wrong, " / ".join(wrong)[:600])


@check(40, gpu=True)
def full_card() -> None:
    """A GPU without free memory: each command ends with one line and exit code 3."""
    code = (
        "import sys, torch; torch.cuda.set_per_process_memory_fraction(1e-6)\n"
        "sys.argv = ['resnet-cli', *sys.argv[1:]]\n"
        "from resnetcli.cli.main import main; main()"
    )
    wrong = []
    for words in (
        ["calibrate", "--device", "cuda"],
        ["profile", "resnet18", "--device", "cuda", "--energy"],
        ["profile", "resnet18", "--device", "cuda"],
    ):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60)
        last = (done.stderr.strip().splitlines() or [""])[-1]
        report(f"{' '.join(words)}: {done.returncode} {last[:90]}")
        if "Traceback" in done.stderr or done.returncode != 3:
            wrong.append(words[0] + (" --energy" if "--energy" in words else ""))
    require(not wrong, f"a traceback or another exit code: {', '.join(wrong)}")


# --- training ------------------------------------------------------------------------------------------------------


@check(120)
def train_steps() -> None:
    """Pipelined training step at batch size 128: ms (CPU time to queue it); 1.875 ms make 64,000 steps in 2 minutes."""
    data = dataset()
    ways: Settings = {
        "fp32": {},
        "fp32 graph": {"cuda_graph": True},
        "tf32 graph": {"dtype": "tf32", "cuda_graph": True},
        "bf16 nhwc": {"dtype": "bf16", "channels_last": True},
        "bf16 nchw graph": {"dtype": "bf16", "cuda_graph": True},
        "bf16 nhwc graph": {"dtype": "bf16", "channels_last": True, "cuda_graph": True},
        "tf32 nhwc graph": {"dtype": "tf32", "channels_last": True, "cuda_graph": True},
        "fp32 graph bn 64": {"cuda_graph": True, "bn_batch": 64},
    }
    if not on_gpu():
        ways = {"fp32": {}, "bf16 nhwc": {"dtype": "bf16", "channels_last": True}}
    for name in ("cifar_resnet20", "cifar_resnet56", "cifar_resnet110") if on_gpu() else ("cifar_resnet20",):
        line = []
        for way, given in ways.items():
            if name != "cifar_resnet56" and way in ("tf32 nhwc graph", "bf16 nchw graph", "fp32 graph bn 64"):
                continue
            t = steps(trainer(name, data, **given), 6 if on_gpu() else 1)
            n = (300 if "graph" in way else 60) if on_gpu() else 2
            step, host = step_s(t, n)
            number(f"step {name} {way}", step)
            line.append(f"{way} {ms(step)} ({ms(host)})")
            t.read() if on_gpu() else None
            del t
        report(f"{name}: " + ", ".join(line))


@check(150)
def train_compiled() -> None:
    """Training step with torch.compile."""
    data = dataset()
    for name in ("cifar_resnet56",) if on_gpu() else ("cifar_resnet20",):
        given = (
            {"dtype": "bf16", "channels_last": True, "compile": True, "cuda_graph": True}
            if on_gpu()
            else {"compile": True}
        )
        begin = time.time()
        t = steps(trainer(name, data, **given), 6 if on_gpu() else 1)
        wait()
        took = time.time() - begin
        step, host = step_s(t, 300 if on_gpu() else 1)
        number(f"step {name} bf16 nhwc compile graph", step)
        report(f"{name}: bf16 nhwc compile graph {ms(step)} ms ({ms(host)}), first steps {took:.0f} s")


@check(60, gpu=True)
def kernels() -> None:
    """Kernels of a training step of ResNet-56 by the profiler, the most expensive first."""
    from torch.profiler import ProfilerActivity, profile

    data = dataset()
    for way, given in typed(
        {
            "fp32": {},
            "bf16 nhwc": {"dtype": "bf16", "channels_last": True},
            "bf16 nchw": {"dtype": "bf16"},
        }
    ).items():
        t = steps(trainer("cifar_resnet56", data, **given), 5)
        wait()
        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            steps(t, 1)
            wait()
        events = [e for e in profiled.events() if "CUDA" in str(e.device_type).upper()]
        busy = sum(e.time_range.elapsed_us() for e in events)
        kinds: dict[str, list[Any]] = {}
        for e in events:
            at = kinds.setdefault(re.sub(r"<.*|\(.*", "", e.name)[:38], [0, 0.0])
            at[0] += 1
            at[1] += e.time_range.elapsed_us()
        top = sorted(kinds.items(), key=lambda each: -each[1][1])[:4]
        number(f"kernels {way}", [len(events), busy])
        report(
            f"{way}: {len(events)} kernels, {busy / 1e3:.2f} ms busy; "
            + ", ".join(f"{n} {c}x {u:.0f}us" for n, (c, u) in top)
        )


@check(60, gpu=True)
def waits() -> None:
    """Training steps do not synchronize with the device."""
    import torch

    data, wrong = dataset(), []
    for way, given in typed(
        {
            "eager": {},
            "graph": {"cuda_graph": True},
            "bf16 nhwc": {"dtype": "bf16", "channels_last": True},
            "bn 64": {"bn_batch": 64},
        }
    ).items():
        t = steps(trainer("cifar_resnet20", data, **given), 5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.cuda.set_sync_debug_mode("error")
            try:
                steps(t, 20)
            except RuntimeError as error:
                wrong.append(f"{way}: {str(error)[:80]} at {traceback.extract_tb(error.__traceback__)[-1].name}")
            finally:
                torch.cuda.set_sync_debug_mode("default")
    require(not wrong, "; ".join(wrong))


@check(90)
def resume() -> None:
    """The same run twice, and a run resumed from its state: bit-exact, or the largest difference."""
    data, wrong = dataset(), []

    def largest_difference(a: Any, b: Any) -> float:
        return max(float((a[k].double() - b[k].double()).abs().max()) for k in a)

    ways: Settings = {
        "fp32": {},
        "fp32 graph": {"cuda_graph": True},
        "bf16 nhwc graph": {"dtype": "bf16", "channels_last": True, "cuda_graph": True},
    }
    for way, given in (ways if on_gpu() else typed({"fp32": {}})).items():
        n = 16 if on_gpu() else 4
        once, again = (
            steps(trainer("cifar_resnet20", data, **given), n).state(),
            steps(trainer("cifar_resnet20", data, **given), n).state(),
        )
        half = steps(trainer("cifar_resnet20", data, **given), n // 2).state()
        t = trainer("cifar_resnet20", data, **given)
        t.restore(half, n // 2)
        on = steps(t, n - n // 2).state()
        same, resumed = largest_difference(once, again), largest_difference(once, on)
        report(
            f"{way}: after {n} steps two runs differ by {same:.2g}, a resumed one by {resumed:.2g}"
            + (" (bit-exact)" if not same and not resumed else "")
        )
        number(f"resume {way}", [same, resumed])
        if not resumed <= max(5e-2 if "bf16" in way else 5e-3, 10 * same):
            wrong.append(f"{way}: a resumed run differs by {resumed:.2g}")
        if not on_gpu() and (same or resumed):
            wrong.append("not bit-exact on a CPU")
    require(not wrong, "; ".join(wrong))


@check(60, gpu=True)
def resume_deterministic() -> None:
    """Resume with deterministic cuDNN and without autotuning."""
    from contextlib import contextmanager

    import torch

    from resnetcli.bench.execution import rounding
    from resnetcli.train import loop

    @contextmanager
    def fixed(device: torch.device, *, tf32: bool, deterministic: bool) -> Iterator[None]:
        cudnn = torch.backends.cudnn
        before = cudnn.benchmark, cudnn.deterministic
        cudnn.benchmark, cudnn.deterministic = False, True
        try:
            with torch.cuda.device(device), rounding(tf32):
                yield
        finally:
            cudnn.benchmark, cudnn.deterministic = before

    loop.convolution_settings = fixed  # type: ignore[attr-defined]
    data = dataset()
    for way, given in typed(
        {
            "fp32 graph": {"cuda_graph": True},
            "bf16 nhwc graph": {"dtype": "bf16", "channels_last": True, "cuda_graph": True},
        }
    ).items():
        t = trainer("cifar_resnet20", data, **given)
        once = steps(t, 40).state()
        step, _ = step_s(t, 100)
        half = steps(trainer("cifar_resnet20", data, **given), 20).state()
        t = trainer("cifar_resnet20", data, **given)
        t.restore(half, 20)
        on = steps(t, 20).state()
        bad = [k for k in once if not torch.equal(once[k], on[k])]
        report(f"{way}: {'bit-exact' if not bad else f'{len(bad)} tensors differ'}; step {ms(step)} ms")
        number(f"deterministic {way}", [len(bad), step])


@check(100, gpu=True)
def train_cli() -> None:
    """train-cifar until SIGTERM, --resume to the end, eval."""
    run = f"{WORK}/run"
    words = [
        "train-cifar",
        "--depth",
        "20" if on_gpu() else "8",
        "--data",
        "synthetic",
        "--device",
        device(),
        "--out",
        run,
        "--iterations",
        "3000" if on_gpu() else "40",
        "--checkpoint-every",
        "100" if on_gpu() else "5",
    ]
    words += ["--cuda-graph", "--dtype", "bf16", "--channels-last"] if on_gpu() else ["--batch-size", "16"]
    code = "from resnetcli.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    until = time.time() + 60
    while time.time() < until and process.poll() is None and not list(Path(run).glob("checkpoint*")):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    print(output, file=sys.stderr)
    require("Traceback" not in output, output.strip().splitlines()[-1][:160] if output.strip() else "no output")
    if process.returncode == 143:
        cli("train-cifar", "--resume", run, "--device", device(), limit=90)
    else:
        require(process.returncode == 0, f"exited with {process.returncode}: {output[-160:]}")
    result = json.loads(Path(run, "result.json").read_text("utf-8"))
    report(
        f"exit code {process.returncode} when stopped; resumed: {result['images_per_s']} images/s, "
        f"test error {result['final_test_error_percent']}%"
    )
    evaluated = json.loads(cli("eval", run, "--no-download", "--format", "json", limit=60).stdout)
    require(
        evaluated["wrong"] == round(result["final_test_error_percent"] * evaluated["images"] / 100),
        "the error of `eval` differs from the run's",
    )


@check(90, gpu=True)
def two_gpus() -> None:
    """Two processes over NCCL; CUDA graphs on two devices in one process."""
    import torch

    if torch.cuda.device_count() < 2:
        raise SkippedError("only one GPU")
    cli(
        "train-cifar",
        "--depth",
        "20",
        "--data",
        "synthetic",
        "--iterations",
        "60",
        "--gpus",
        "2",
        "--out",
        f"{WORK}/two",
        limit=80,
    )
    from resnetcli.bench.latency import measure

    for n in (0, 1, 0):
        measure(
            plan("resnet18"),
            device=f"cuda:{n}",
            batch_size=2,
            options=options_of(dtype="bf16", cuda_graph=True),
            time_budget_s=0.2,
        )
    report("NCCL trained, graphs on both")


# --- tests, --best -------------------------------------------------------------------------------------------------


@check(140)
def pytest_gpu() -> None:
    """pytest -m gpu (or MARK): the tests that fail."""
    if subprocess.run([sys.executable, "-c", "import pytest, hypothesis"], capture_output=True).returncode:
        raise SkippedError("pytest or hypothesis is not installed")
    found = subprocess.run(["grep", "-rl", "mark.gpu", "tests"], capture_output=True, text=True).stdout.split()
    files = [f for f in found if f.endswith(".py")]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-m",
            os.environ.get("MARK", "gpu"),
            "-q",
            "--no-header",
            "--tb=line",
            "-p",
            "no:cacheprovider",
            "--continue-on-collection-errors",
            *files,
        ],
        capture_output=True,
        text=True,
        timeout=135,
    )
    print(done.stdout[-8000:], done.stderr[-2000:], file=sys.stderr)
    lines = done.stdout.strip().splitlines()
    report(lines[-1][:120] if lines else "nothing")
    for line in [each for each in lines if each.startswith(("FAILED", "ERROR"))][:14]:
        report("  " + line[:150])
    require(done.returncode in (0, 5) or not on_gpu(), "tests failed")


@check(220)
def ladder() -> None:
    """profile --best."""
    words = [
        "profile",
        "cifar_resnet20",
        "--device",
        device(),
        "--best",
        "--batch-size",
        "64" if on_gpu() else "2",
        "--time-budget",
        "0.4s",
        "--format",
        "json",
        "--dtype",
        "bf16" if on_gpu() else "fp32",
    ]
    found = json.loads(cli(*words, limit=215).stdout)
    text = []
    for trial in found["trials"]:
        t = (trial.get("measurement") or trial).get("median_s")
        text.append(
            f"{trial['settings']}: {ms(t) if t else '-'}{' best' if trial['best'] else ''} "
            f"{str(trial['problem'] or '')[:60]}"
        )
    report("; ".join(text)[:900] or json.dumps(found)[:200])
    broken = [t for t in text if "Error:" in t]
    require(not broken, broken[0] if broken else "")


# --- driver --------------------------------------------------------------------------------------------------------


ORDER = (
    "machine", "imports", "tf32", "latency", "train_steps", "out_of_memory", "graph_memory", "full_card", "calibrate",
    "explain", "resume", "waits", "kernels", "fused", "compiled", "pytest_gpu", "train_compiled", "train_cli",
    "train_mode", "resume_deterministic", "compare", "energy_memory", "two_gpus", "ladder",
)  # fmt: skip


def run_here(name: str) -> None:
    """Run one check in this process and print its figures and verdict."""
    try:
        CHECKS[name][0]()
        verdict = "PASS"
    except SkippedError as error:
        verdict = f"SKIP {error}"
    except FailedError as error:
        verdict = f"FAIL {error}"
    except Exception as error:
        traceback.print_exc()
        verdict = f"FAIL {type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
    print("NUMBERS " + json.dumps(NUMBERS, default=str))
    print("VERDICT " + verdict.replace("\n", " "))


def run_in_subprocess(name: str, seconds: float, log: TextIO, numbers: dict[str, Any]) -> tuple[str, list[str]]:
    """Run one check in a separate process; return its verdict and lines."""
    process = subprocess.Popen(
        [sys.executable, "-W", "default", __file__, "--one", name], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True, env={**os.environ, "CHECK_START": str(START)},
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=seconds)
        late = False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        late = True
    log.write(f"\n===== {name}\n{out}\n{err}\n")
    log.flush()
    lines: list[str] = []
    verdict = f"FAIL exited with {process.returncode}: {(err.strip().splitlines() or [''])[-1][:150]}"
    if late:
        verdict = f"{LATE} {seconds:.0f} s"
    for line in out.splitlines():
        if line.startswith("| "):
            lines.append(line[2:])
        elif line.startswith("NUMBERS "):
            numbers.update(json.loads(line[8:]))
        elif line.startswith("VERDICT "):
            verdict = line[8:]
    return verdict, lines


def main() -> None:
    """Run the named checks, or all that fit in the time limit."""
    if sys.argv[1:2] == ["--one"]:
        run_here(sys.argv[2])
        return
    if "--list" in sys.argv:
        print("\n".join(f"{name:22s} {CHECKS[name][0].__doc__}" for name in ORDER))
        return
    asked = sys.argv[1:] or list(ORDER)
    unknown = [name for name in asked if name not in CHECKS]
    if unknown:
        print(f"error: unknown check `{unknown[0]}`\nhint: `benchmarks/gpu.sh --list` lists them", file=sys.stderr)
        sys.exit(2)
    gpu, rows, numbers = on_gpu(), list[tuple[str, str, float]](), dict[str, Any]()
    with (OUT / "gpu.log").open("w", encoding="utf-8") as log:
        for name in asked:
            _, seconds, needs_gpu = CHECKS[name]
            begin, lines = time.time(), list[str]()
            left = LIMIT_S - (begin - START)
            if needs_gpu and not gpu:
                verdict = "SKIP no GPU"
            elif left < 12:
                verdict = "SKIP time limit reached"
            else:
                verdict, lines = run_in_subprocess(name, min(seconds, left - 2), log, numbers)
                if verdict.startswith(LATE) and left - 2 < seconds:
                    verdict = "SKIP time limit reached before the end"
            took = time.time() - begin
            rows.append((name, verdict, took))
            print(f"{verdict[:4]} {name:20s} {took:5.0f} s  {verdict[5:]}")
            for line in lines:
                print(f"       {line}")
            sys.stdout.flush()
            (OUT / "gpu.json").write_text(json.dumps({"rows": rows, "numbers": numbers}, indent=1), encoding="utf-8")
    count = {word: sum(verdict.startswith(word) for _, verdict, _ in rows) for word in ("PASS", "FAIL", "SKIP")}
    summary = ", ".join(f"{n} {word}" for word, n in count.items())
    print(f"\n{summary} in {time.time() - START:.0f} s; all output in {OUT}")
    for name, verdict, _ in rows:
        if verdict.startswith("FAIL"):
            print(f"  FAIL {name}: {verdict[5:205]}")
    sys.exit(1 if count["FAIL"] else 0)


if __name__ == "__main__":
    main()
