"""Speed of counting: resnet-cli compared with an empty program, a bare one, and other counting tools.

`python -m benchmarks.counting` measures and writes its section of docs/why/benchmarks.md; `--quick` measures one round
of each table and prints the tables.
"""

from __future__ import annotations

import argparse
import compileall
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import resnetcli as rc
from benchmarks.page import machine, put
from benchmarks.programs import BARE, SCRIPTS
from benchmarks.timing import LEAST_S, Sample, call, interleaved, process, ratio
from resnetcli.bench.statistics import iqr, median
from resnetcli.plan.plan import Plan
from resnetcli.spec.cell import parse_cell
from resnetcli.spec.parse import parse_head, parse_layers
from resnetcli.spec.zoo import Zoo
from resnetcli.table.numbers import duration, exact, size_of
from resnetcli.table.sheet import Cell, Column, Sheet, cell, to_markdown

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("typer", "rich", "PyYAML", "torch", "torchvision", "fvcore", "thop", "torchinfo")
MODELS = ("resnet50", "resnext50_32x4d_a", "cifar_resnet1202")
COMMANDS = ("profile resnet50", "compare", "list", "compare --all", "verify", "papers", "--help")
OURS = "resnet-cli"
BUDGET_S = 120.0
"""Time limit of a tool for the whole zoo, in seconds: a tool that reaches it skips the remaining models."""

INTRO = """CPU time and memory to count a model: resnet-cli, which reads a spec, and tools that build the model in
PyTorch and run or trace it. Written by `python -m benchmarks.counting`.

The goals of `profile` and `compare` are ratios of CPU time to the bare program, measured in the same rounds. All other
goals are absolute, in seconds or bytes, and depend on the machine.
"""


@dataclass(frozen=True, slots=True)
class Goal:
    """An upper limit for one figure."""

    name: str
    limit: str
    measured: str
    met: bool


@dataclass(frozen=True, slots=True)
class Section:
    """A table, its note, and the goals it measures."""

    title: str
    note: str
    sheet: Sheet
    goals: tuple[Goal, ...] = ()


SPREAD = (Column("median", "median_s"), Column("IQR", "iqr_s"), Column("min", "min_s"))


def spread(samples: Sequence[Sample]) -> list[Cell]:
    """Median, interquartile range and minimum."""
    seconds = [sample.seconds for sample in samples]
    return [cell(value, duration(value)) for value in (median(seconds), iqr(seconds), min(seconds))]


def factor(value: float) -> Cell:
    """A ratio as a cell: `x1.23`, without decimals from 10 on."""
    return cell(value, f"x{value:.2f}" if value < 10 else f"x{value:,.0f}")


def seconds_goal(name: str, samples: Sequence[Sample], limit: float) -> Goal:
    """A goal for the median time."""
    seconds = median([sample.seconds for sample in samples])
    return Goal(name, duration(limit), duration(seconds), seconds < limit)


# --- as a process ------------------------------------------------------------------------------------------------


def install(folder: Path) -> dict[str, str]:
    """Copy the package to `folder` as pip installs its wheel, with bytecode; return the environment that imports it."""
    shutil.copytree(ROOT / "resnetcli", folder / "resnetcli", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "specs", folder / "resnetcli" / "specs")
    compileall.compile_dir(folder, quiet=2)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return inherited | {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}  # import from `folder` alone


def processes(rounds: int) -> Section:
    """Whole programs, from the interpreter's start to its exit."""
    with TemporaryDirectory() as folder:
        environment = install(Path(folder))
        script = "from resnetcli.cli.main import main; main()"  # as the console script
        programs = {"python -c pass": ["-c", "pass"], "bare typer + rich": ["-c", BARE, "model"]}
        programs |= {f"resnet-cli {command}": ["-c", script, *command.split()] for command in COMMANDS}
        programs["python -m resnetcli profile resnet50"] = ["-m", "resnetcli", "profile", "resnet50"]
        programs |= {f"torchvision + {tool}, ResNet-50": ["-c", text] for tool, text in SCRIPTS.items()}
        results = interleaved({name: process(words, environment) for name, words in programs.items()}, rounds)
    empty, bare = results["python -c pass"], results["bare typer + rich"]
    memory = {name: int(median([sample.peak_bytes for sample in samples])) for name, samples in results.items()}
    own = size_of(memory["python -c pass"])  # takes less than this process, so the peak is this process's
    largest = max(
        memory[f"resnet-cli {name}"] for name in ("profile resnet50", "compare", "list", "verify", "compare --all")
    )
    rows = tuple(
        (
            cell(name),
            *spread(samples),
            cell(wall := median([sample.wall_s for sample in samples]), duration(wall)),
            factor(ratio(samples, empty)),
            factor(ratio(samples, bare)),
            cell(memory[name], size_of(memory[name])),
        )
        for name, samples in results.items()
    )
    columns = (
        Column("program", "program", "left"),
        *SPREAD,
        Column("wall clock", "wall_s"),
        Column("to empty", "to_empty"),
        Column("to bare", "to_bare"),
        Column("peak memory", "peak_bytes"),
    )
    return Section(
        "As a process",
        f"n = {rounds}; CPU time, user and system, from start to exit, interleaved; output discarded. Ratios are "
        "medians over the rounds. To empty, to bare: ratio to `python -c pass`, and to a program that prints a table "
        "of eight rows with typer and rich. The programs with torchvision build its ResNet-50 and print the tool's "
        "default output. Peak memory: the larger of the program's own peak resident set and that of the benchmark at "
        f"the time it starts the program, {own} here, which Linux counts into a child's peak; a program at {own} "
        "takes at most that. resnet-cli is laid out as its wheel installs it.",
        Sheet(columns, rows),
        (
            *(
                Goal(f"resnet-cli {name}, to bare", "x1.60", f"x{value:.2f}", value <= 1.6)
                for name in ("profile resnet50", "compare")
                for value in [ratio(results[f"resnet-cli {name}"], bare)]
            ),
            *(
                seconds_goal(f"resnet-cli {name}, CPU time", results[f"resnet-cli {name}"], 0.45)
                for name in ("list", "verify", "compare --all")
            ),
            Goal("memory, the largest of these", "60 MB", size_of(largest), largest < 60e6),
        ),
    )


# --- inside a process --------------------------------------------------------------------------------------------


def parse_to_totals(name: str) -> int:
    """MACs, counted from the spec's text, without the caches of an earlier call."""
    parse_cell.cache_clear()
    parse_layers.cache_clear()
    parse_head.cache_clear()
    return rc.count(rc.load(name)).macs


def build_on_meta(plan: Plan) -> int:
    """Number of parameter tensors of the model, built on the meta device."""
    return len(list(rc.build(plan, device="meta").parameters()))


def inside(rounds: int) -> Section:
    """Single models; importing torch and building the model are not timed."""
    import torch

    from benchmarks.tools import TOOLS

    rows: list[tuple[Cell, ...]] = []
    goals = []
    for name, limit in zip(MODELS, (0.003, None, 0.060), strict=True):
        plan = rc.load(name)
        net, x = rc.build(plan).eval(), torch.zeros(1, plan.input.c, plan.input.h, plan.input.w)
        tasks = {OURS: call(partial(parse_to_totals, name))}
        tasks |= {tool: call(partial(count, net, x)) for tool, count in TOOLS.items()}
        results = interleaved(tasks, rounds)
        for tool, samples in results.items():
            macs = samples[0].result
            rows.append(
                (
                    cell(name),
                    cell(tool),
                    *spread(samples),
                    factor(ratio(samples, results[OURS])),
                    cell(macs, exact(macs)),
                )
            )
        if limit is not None:
            goals.append(seconds_goal(f"parse to totals, {name}", results[OURS], limit))
    columns = (
        Column("model", "model", "left"),
        Column("counted by", "tool", "left"),
        *SPREAD,
        Column("to resnet-cli", "to_resnet_cli"),
        Column("MACs", "macs"),
    )
    return Section(
        "Inside a process",
        f"n = {rounds}. resnet-cli: from the spec's text to the totals, nothing cached. Tools: on the module built "
        "from the same spec, on the CPU, in evaluation mode; building is not timed. Calls are repeated for at least "
        f"{duration(LEAST_S)}. The tools' MACs include more than convolutions and fully connected layers.",
        Sheet(columns, tuple(rows)),
        tuple(goals),
    )


# --- the whole zoo -----------------------------------------------------------------------------------------------


def zoo(rounds: int) -> Section:
    """All models, in a random order, so that a tool that reaches its time limit has counted a random sample."""
    import torch

    from benchmarks.tools import TOOLS

    names = list(Zoo().files)
    Random(0).shuffle(names)
    meta = "resnet-cli, built on meta instead"
    results: dict[str, dict[str, list[Sample]]] = {tool: {} for tool in (OURS, meta, *TOOLS)}
    for name in names:
        plan = rc.load(name)
        net, x = rc.build(plan).eval(), torch.zeros(1, plan.input.c, plan.input.h, plan.input.w)
        tasks = {OURS: call(partial(parse_to_totals, name))}
        tasks[meta] = call(partial(build_on_meta, plan))
        for tool, count in TOOLS.items():
            if sum(sample.seconds for samples in results[tool].values() for sample in samples) < BUDGET_S:
                tasks[tool] = call(partial(count, net, x))
        for tool, samples in interleaved(tasks, rounds, warm_up=0).items():
            results[tool][name] = samples
    rows = []
    for tool, by_model in results.items():
        ours = totals([results[OURS][name] for name in by_model])
        slowest = max(by_model, key=lambda name: median_s(results[tool][name]))
        rows.append(
            (
                cell(tool),
                cell(len(by_model)),
                *spread(totals(list(by_model.values()))),
                factor(ratio(totals(list(by_model.values())), ours)),
                cell(slowest),
                spread(by_model[slowest])[0],
            )
        )
    columns = (
        Column("counted by", "tool", "left"),
        Column("models", "models"),
        *SPREAD,
        Column("to resnet-cli", "to_resnet_cli"),
        Column("slowest model", "slowest", "left"),
        Column("its median", "slowest_s"),
    )
    return Section(
        f"The whole zoo, {len(names)} models",
        f"n = {rounds}, without warm-up; as above, summed over the models. A tool skips the remaining models after "
        f"{BUDGET_S:.0f} s; its ratio to resnet-cli is over the models it counted. The second row is the time of "
        "`build` on the meta device.",
        Sheet(columns, tuple(rows)),
        (seconds_goal("build on meta, slowest model", max(results[meta].values(), key=median_s), 1),),
    )


def median_s(samples: Sequence[Sample]) -> float:
    """Median time in seconds."""
    return median([sample.seconds for sample in samples])


def totals(by_model: Sequence[Sequence[Sample]]) -> list[Sample]:
    """Seconds of each round, summed over the models."""
    return [Sample(sum(sample.seconds for sample in round)) for round in zip(*by_model, strict=True)]


# --- the page ----------------------------------------------------------------------------------------------------


def goals_sheet(goals: Sequence[Goal]) -> Sheet:
    """A table of the goals and the measured figures."""
    columns = (
        Column("goal", "goal", "left"),
        Column("below", "limit"),
        Column("measured", "measured"),
        Column("met", "met", "left"),
    )
    rows = [(cell(g.name), cell(g.limit), cell(g.measured), cell("met" if g.met else "missed")) for g in goals]
    return Sheet(columns, tuple(rows))


def conditions(before: float) -> str:
    """Machine, package versions, load average and the order of the samples."""
    return (
        f"{machine(PACKAGES, before)} The programs of a table ran interleaved, in a random order in each round, after "
        "a warm-up round. Ratios are medians of the ratios by round. OMP_WAIT_POLICY is passive: on a busy machine "
        "spinning threads would slow the tools down."
    )


def main() -> None:
    """Measure; write the section, or print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="measure one round of each table and print the tables")
    arguments = parser.parse_args()
    # With spinning threads the tools take ten times as long on a busy machine.
    os.environ["OMP_WAIT_POLICY"] = "passive"
    before = os.getloadavg()[0]
    sections = []
    for measure, rounds in ((processes, 15), (inside, 5), (zoo, 3)):  # processes first: see `timing.process`
        print(f"{measure.__name__} ...", file=sys.stderr)
        sections.append(measure(1 if arguments.quick else rounds))
    goals = goals_sheet([goal for section in sections for goal in section.goals])
    note = conditions(before)
    if not arguments.quick:
        parts = [f"### {section.title}\n\n{to_markdown(section.sheet)}\n{section.note}\n" for section in sections]
        put("counting", "\n".join([INTRO, to_markdown(goals), *parts, f"### Conditions\n\n{note}"]))
        return
    from resnetcli.table.output import print_sheet

    for section in sections:
        print(f"\n{section.title}")
        print_sheet(section.sheet)
        print(section.note)
    print("\nGoals")
    print_sheet(goals)
    print(note)


if __name__ == "__main__":
    main()
