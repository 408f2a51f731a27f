"""Speed of counting: resnet-cli compared with an empty program, a bare one, and other counting tools.

`python -m benchmarks.counting` measures and writes its part of docs/why/benchmarks.md; `--quick` takes one round of
everything and prints it.
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
NETS = ("resnet50", "resnext50_32x4d_a", "cifar_resnet1202")
COMMANDS = ("profile resnet50", "compare", "list", "compare --all", "verify", "papers", "--help")
OURS = "resnet-cli"
PROFILE = "resnet-cli profile resnet50"
BUDGET_S = 120.0
"""Time limit of a tool over the zoo: it skips the remaining models."""

INTRO = """CPU time and memory to count a model: resnet-cli, which reads a spec, and tools that build the model in
PyTorch and run or trace it. Goals are ratios to programs measured in the same run: `python -c pass` (empty), and a bare
typer + rich program that prints a table of eight rows. Written by `python -m benchmarks.counting`.
"""


@dataclass(frozen=True, slots=True)
class Goal:
    """An upper limit for one figure."""

    what: str
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


def times(value: float) -> Cell:
    """`x12.3`."""
    return cell(value, f"x{value:.2f}" if value < 10 else f"x{value:,.0f}")


def seconds_goal(what: str, samples: Sequence[Sample], limit: float) -> Goal:
    """A limit for the median."""
    seconds = median([sample.seconds for sample in samples])
    return Goal(what, duration(limit), duration(seconds), seconds < limit)


# --- as a process ------------------------------------------------------------------------------------------------


def install(folder: Path) -> dict[str, str]:
    """Lay the package out as its wheel does, compiled as pip does, and return the environment that imports it."""
    shutil.copytree(ROOT / "resnetcli", folder / "resnetcli", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "specs", folder / "resnetcli" / "specs")
    compileall.compile_dir(folder, quiet=2)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return inherited | {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}  # the folder there, not the one we are in


def processes(rounds: int) -> Section:
    """Whole programs, from the interpreter's start to its exit."""
    with TemporaryDirectory() as folder:
        environment = install(Path(folder))
        script = "from resnetcli.cli.main import main; main()"  # all that a console script does
        programs = {"python -c pass": ["-c", "pass"], "bare typer + rich": ["-c", BARE, "model"]}
        programs |= {f"resnet-cli {command}": ["-c", script, *command.split()] for command in COMMANDS}
        programs["python -m resnetcli profile resnet50"] = ["-m", "resnetcli", "profile", "resnet50"]
        programs |= {f"torchvision + {tool}, ResNet-50": ["-c", text] for tool, text in SCRIPTS.items()}
        found = interleaved({name: process(words, environment) for name, words in programs.items()}, rounds)
    empty, bare = found["python -c pass"], found["bare typer + rich"]
    memory = {name: int(median([sample.peak_bytes for sample in samples])) for name, samples in found.items()}
    most = max(
        memory[f"resnet-cli {name}"] for name in ("profile resnet50", "compare", "list", "verify", "compare --all")
    )
    rows = tuple(
        (
            cell(name),
            *spread(samples),
            cell(wall := median([sample.wall_s for sample in samples]), duration(wall)),
            times(ratio(samples, empty)),
            times(ratio(samples, bare)),
            cell(memory[name], size_of(memory[name])),
        )
        for name, samples in found.items()
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
        "medians over the rounds. The empty program is `python -c pass`; the bare one prints a table of eight "
        "rows, no more; those with torchvision build its ResNet-50 and print what the tool prints by default. "
        "Memory is the largest resident set. resnet-cli is laid out as its wheel installs it.",
        Sheet(columns, rows),
        (
            *(
                Goal(f"resnet-cli {name}, to bare", "x1.60", f"x{value:.2f}", value <= 1.6)
                for name in ("profile resnet50", "compare")
                for value in [ratio(found[f"resnet-cli {name}"], bare)]
            ),
            *(
                seconds_goal(f"resnet-cli {name}, CPU time", found[f"resnet-cli {name}"], 0.45)
                for name in ("list", "verify", "compare --all")
            ),
            Goal("memory, the largest of these", "60 MB", size_of(most), most < 60e6),
        ),
    )


# --- inside a process --------------------------------------------------------------------------------------------


def parse_to_totals(name: str) -> int:
    """MACs from the spec's text, without caches of an earlier call."""
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
    for name, limit in zip(NETS, (0.003, None, 0.060), strict=True):
        plan = rc.load(name)
        net, x = rc.build(plan).eval(), torch.zeros(1, plan.input.c, plan.input.h, plan.input.w)
        tasks = {OURS: call(partial(parse_to_totals, name))}
        tasks |= {tool: call(partial(count, net, x)) for tool, count in TOOLS.items()}
        found = interleaved(tasks, rounds)
        for tool, samples in found.items():
            macs = samples[0].result
            rows.append(
                (cell(name), cell(tool), *spread(samples), times(ratio(samples, found[OURS])), cell(macs, exact(macs)))
            )
        if limit is not None:
            goals.append(seconds_goal(f"parse to totals, {name}", found[OURS], limit))
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
    """Every model, in a random order, so that a tool that reaches its time limit has counted a fair sample."""
    import torch

    from benchmarks.tools import TOOLS

    names = list(Zoo().files)
    Random(0).shuffle(names)
    meta = "resnet-cli, built on meta instead"
    found: dict[str, dict[str, list[Sample]]] = {tool: {} for tool in (OURS, meta, *TOOLS)}
    for name in names:
        plan = rc.load(name)
        net, x = rc.build(plan).eval(), torch.zeros(1, plan.input.c, plan.input.h, plan.input.w)
        tasks = {OURS: call(partial(parse_to_totals, name))}
        tasks[meta] = call(partial(build_on_meta, plan))
        for tool, count in TOOLS.items():
            if sum(sample.seconds for samples in found[tool].values() for sample in samples) < BUDGET_S:
                tasks[tool] = call(partial(count, net, x))
        for tool, samples in interleaved(tasks, rounds, warm_up=0).items():
            found[tool][name] = samples
    rows = []
    for tool, by_net in found.items():
        ours = totals([found[OURS][name] for name in by_net])
        slowest = max(by_net, key=lambda name: slowness(found[tool][name]))
        rows.append(
            (
                cell(tool),
                cell(len(by_net)),
                *spread(totals(list(by_net.values()))),
                times(ratio(totals(list(by_net.values())), ours)),
                cell(slowest),
                spread(by_net[slowest])[0],
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
        f"{BUDGET_S:.0f} s, and is compared with resnet-cli over those it counted. The second row is the time of "
        "`build` on the meta device.",
        Sheet(columns, tuple(rows)),
        (seconds_goal("build on meta, slowest model", max(found[meta].values(), key=slowness), 1),),
    )


def slowness(samples: Sequence[Sample]) -> float:
    """The median time."""
    return median([sample.seconds for sample in samples])


def totals(by_net: Sequence[Sequence[Sample]]) -> list[Sample]:
    """Each round's seconds over all nets."""
    return [Sample(sum(sample.seconds for sample in round)) for round in zip(*by_net, strict=True)]


# --- the page ----------------------------------------------------------------------------------------------------


def goals_sheet(goals: Sequence[Goal]) -> Sheet:
    """A table of the goals and the measured figures."""
    columns = (
        Column("goal", "goal", "left"),
        Column("below", "limit"),
        Column("measured", "measured"),
        Column("", "met", "left"),
    )
    rows = [(cell(g.what), cell(g.limit), cell(g.measured), cell("met" if g.met else "missed")) for g in goals]
    return Sheet(columns, tuple(rows))


def conditions(before: float) -> str:
    """Machine, versions, load."""
    return (
        f"{machine(PACKAGES, before)} The programs of a table ran interleaved, in a random order in each round, after "
        "a warm-up round. Ratios are medians of the ratios by round. OMP_WAIT_POLICY is passive: on a busy machine "
        "spinning threads would slow the tools down."
    )


def main() -> None:
    """Measure, and write or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of everything, printed")
    asked = parser.parse_args()
    os.environ["OMP_WAIT_POLICY"] = (
        "passive"  # with spinning threads the tools take ten times as long on a busy machine
    )
    before = os.getloadavg()[0]
    sections = []
    for measure, rounds in ((processes, 15), (inside, 5), (zoo, 3)):  # processes first: see `timing.process`
        print(f"{measure.__name__} ...", file=sys.stderr)
        sections.append(measure(1 if asked.quick else rounds))
    goals = goals_sheet([goal for section in sections for goal in section.goals])
    under = conditions(before)
    if not asked.quick:
        parts = [f"### {section.title}\n\n{to_markdown(section.sheet)}\n{section.note}\n" for section in sections]
        put("counting", "\n".join([INTRO, to_markdown(goals), *parts, f"### Conditions\n\n{under}"]))
        return
    from resnetcli.table.output import print_sheet

    for section in sections:
        print(f"\n{section.title}")
        print_sheet(section.sheet)
        print(section.note)
    print("\nGoals")
    print_sheet(goals)
    print(under)


if __name__ == "__main__":
    main()
