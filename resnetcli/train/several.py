"""One run or one for each of several seeds, new or gone on with, and what they come to together."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from resnetcli.disk import write_json
from resnetcli.errors import ResourceError, UsageError, clean, plural
from resnetcli.net.memory import NoRoom
from resnetcli.spec.zoo import Zoo
from resnetcli.train.board import Board
from resnetcli.train.run import (
    CONFIG_FILE,
    SEEDS_FILE,
    SUMMARY,
    SUMMARY_FILE,
    Config,
    Record,
    Run,
    create,
    discard,
    new_directory,
    only_one,
    open_run,
    read_record,
    require_new,
    seed_folder,
)
from resnetcli.train.session import Listener, Outcome, Session, Stop
from resnetcli.train.start import (
    Asked,
    Prepared,
    default_name,
    device_memory,
    engine,
    prepare,
    reopen,
    require_as_asked,
    room_hint,
)

SEEDS = "resnet-cli/several@1"
MAX_SEEDS = 1000


class Audience(Listener, Protocol):
    """Who is told of runs as they begin, and how each goes."""

    def begin(self, config: Config, run: Path) -> None:
        """A run's first step is next, or the next of one that was stopped."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of it."""

    path: Path
    outcome: Outcome
    """The last run's."""
    results: tuple[Record, ...]
    """Of the runs that have finished."""
    summary: Record | None = None
    """Of several seeds."""
    failed: tuple[str, ...] = ()
    """Seeds that could not be trained to their end, and why."""

    @property
    def stopped(self) -> int:
        """The signal that kept something from being finished; 0 if none did."""
        wanted = 1 if self.summary is None else len(self.summary["seeds"])
        return 0 if len(self.results) == wanted else self.outcome.signal


def train(
    asked: Asked, audience: Audience, *, out: Path | None = None, resume: Path | None = None, seeds: int | None = None
) -> Ended:
    """Trains what was asked for to its end, unless it is stopped.

    Raises UsageError, SpecError and ResourceError for what cannot be begun, gone on with or finished.
    """
    if resume is None:
        return _new_seeds(asked, audience, out, seeds) if seeds is not None else _new(asked, audience, out)
    if out is not None:
        raise UsageError("`--resume` goes on in the run's own directory", "leave `--out` out")
    run, every = find_begun(resume, asked, seeds)
    if every is not None:
        return _more_seeds(resume, run, every, replace(asked, seed=None), audience)
    if (result := run.result) is not None:
        audience.say(f"`{resume}` has finished its {plural(run.config.iterations, 'iteration')}")
        _show(run, asked, audience)
        return Ended(resume, Outcome(result), (result,))
    outcome = _go(reopen(run, asked, audience.say), run, audience)
    return Ended(resume, outcome, _results([outcome]))


def _new(asked: Asked, audience: Audience, out: Path | None) -> Ended:
    if out is not None:
        require_new(out)
    prepared = prepare(asked, Zoo(), audience.say)
    path = out or default_name(prepared.config)
    require_new(path)
    outcome = _begin(prepared, path, audience)
    return Ended(path, outcome, _results([outcome]))


def _begin(prepared: Prepared, path: Path, audience: Audience) -> Outcome:
    return _go(prepared, lambda: create_run(path, prepared), audience)


def create_run(path: Path, prepared: Prepared) -> Run:
    """A new run's directory. Raises what `create` raises."""
    return create(path, prepared.config, spec=prepared.spec_text, model=prepared.model_text,
                  recipe=prepared.recipe_text)  # fmt: skip


def _go(prepared: Prepared, run: Run | Callable[[], Run], audience: Audience) -> Outcome:
    team = prepared.team  # the trainer before there is a directory, which is not made for what cannot be built
    trainer = engine(prepared) if team is None else team.lead(prepared)
    made = run if isinstance(run, Run) else run()
    with only_one(made.path):
        audience.begin(prepared.config, made.path)
        if prepared.tensorboard:
            audience.say(_where(made.path))
        try:
            stop = Stop() if team is None else team.stop
            now = replace(made, config=prepared.config)
            return Session(now, trainer, audience, stop=stop, tensorboard=prepared.tensorboard).train()
        except ResourceError as error:
            if run is not made:
                discard(made.path)  # if there is nothing in it yet: the name is free for another try
            if isinstance(error, NoRoom):
                raise NoRoom(error.message, room_hint(prepared, device_memory(prepared.config.device))) from None
            raise


def _show(run: Run, asked: Asked, audience: Audience) -> None:
    """Writes event files of a run that has finished, if they are asked for."""
    if not asked.tensorboard:
        return
    with only_one(run.path):
        try:
            Board(run.path).write()
        except OSError as error:
            raise ResourceError(f"`{run.path}` cannot be written: {error.strerror or error}") from None
    audience.say(_where(run.path))


def _where(run: Path) -> str:
    return f"for TensorBoard: `tensorboard --logdir {clean(str(run))}`"


def _results(outcomes: Sequence[Outcome]) -> tuple[Record, ...]:
    return tuple(outcome.result for outcome in outcomes if outcome.result is not None)


# --- several seeds -------------------------------------------------------------------------------------------------


def _new_seeds(asked: Asked, audience: Audience, out: Path | None, seeds: int) -> Ended:
    require_seeds(seeds)
    first = asked.seed or 0
    if out is not None:
        require_new(out)
    prepared = prepare(asked, Zoo(), audience.say)
    path = out or default_name(prepared.config, several=True)
    create_seeds(path, first, seeds)
    with only_one(path):
        return _each(path, range(first, first + seeds), prepared, asked, audience)


def require_seeds(seeds: int) -> None:
    """Raises UsageError for a number of seeds that cannot be."""
    if not 1 <= seeds <= MAX_SEEDS:
        raise UsageError(f"`--seeds {seeds}` is out of range", f"from 1 to {MAX_SEEDS:,}")


def create_seeds(path: Path, first: int, seeds: int) -> None:
    """A new directory for a run of each seed. Raises what `new_directory` raises."""
    with new_directory(path):
        write_json(path / SEEDS_FILE, {"schema": SEEDS, "first": first, "count": seeds})


def find_begun(path: Path, asked: Asked, seeds: int | None) -> tuple[Run, range | None]:
    """The run in a directory, or the first that was begun of several seeds, and those.

    Raises UsageError for what cannot be gone on with as it is asked for.
    """
    if not os.path.isfile(path / SEEDS_FILE):  # noqa: PTH113 - Path's raises for a name too long to exist
        if seeds is not None:
            raise UsageError(f"`{path}` is a run of one seed", "leave `--seeds` out")
        run = open_run(path)
        require_as_asked(run, asked)
        return run, None
    record = read_record(path / SEEDS_FILE, SEEDS)
    first, count = record.get("first"), record.get("count")
    if type(first) is not int or type(count) is not int or not 1 <= count <= MAX_SEEDS or not 0 <= first < 2**63:
        raise UsageError(f"`{path / SEEDS_FILE}` is not whole")
    asked_otherwise = (seeds is not None and seeds != count) or (asked.seed is not None and asked.seed != first)
    if asked_otherwise:
        raise UsageError(f"`{path}` has the seeds {first} to {first + count - 1}", "leave `--seed` and `--seeds` out")
    every = range(first, first + count)
    there = next((seed for seed in every if (seed_folder(path, seed) / CONFIG_FILE).is_file()), None)
    if there is None:
        raise UsageError(f"no seed of `{path}` was begun", "remove it and start anew")
    run = open_run(seed_folder(path, there))
    require_as_asked(run, replace(asked, seed=None))
    return run, every


def _more_seeds(path: Path, run: Run, every: range, asked: Asked, audience: Audience) -> Ended:
    prepared = reopen(run, asked, audience.say)
    with only_one(path):
        return _each(path, every, prepared, asked, audience)


def _each(path: Path, seeds: range, prepared: Prepared, asked: Asked, audience: Audience) -> Ended:
    """Every seed that has not finished, in turn; one whose loss is not finite does not keep the others from theirs."""
    outcomes: list[Outcome] = []
    failed: list[str] = []
    for seed in seeds:
        folder = seed_folder(path, seed)
        try:
            outcomes.append(_seed(folder, seed, prepared, asked, audience))
        except ResourceError as error:
            failed.append(f"seed {seed}: {error.message}")
            audience.say(str(error))
            continue
        try:
            if found := _results(outcomes):
                write_json(path / SUMMARY_FILE, seeds_record(found, seeds))
        except OSError as error:
            raise ResourceError(f"`{path / SUMMARY_FILE}` cannot be written: {error.strerror or error}") from None
        if outcomes[-1].signal:
            break
    found = _results(outcomes)
    last = outcomes[-1] if outcomes else Outcome(None)
    lost = tuple(dict.fromkeys(what for outcome in outcomes for what in outcome.unsaved))
    return Ended(path, replace(last, unsaved=lost), found, seeds_record(found, seeds) if found else None, tuple(failed))


def _seed(folder: Path, seed: int, prepared: Prepared, asked: Asked, audience: Audience) -> Outcome:
    if not (folder / CONFIG_FILE).is_file():
        if folder.is_dir():
            discard(folder)  # of a process that was killed before its first step
        return _begin(replace(prepared, config=replace(prepared.config, seed=seed)), folder, audience)
    run = open_run(folder)
    if (result := run.result) is not None:
        audience.say(f"`{folder}` has finished")
        _show(run, asked, audience)
        return Outcome(result)
    return _go(reopen(run, asked, audience.say, prepared.data), run, audience)


def seeds_record(results: Sequence[Record], seeds: range) -> Record:
    """`resnet-cli/seeds@1`: the final test errors of several seeds, none of them chosen."""
    errors = [float(result["final_test_error_percent"]) for result in results]
    first = results[0] if results else {}
    return {
        "schema": SUMMARY,
        **{name: first.get(name) for name in ("model", "parameters", "params", "recipe", "data", "iterations")},
        "seeds": list(seeds),
        "finished": [result["seed"] for result in results],
        "final_test_error_percent": {
            "mean": statistics.fmean(errors) if errors else None,
            "std": statistics.stdev(errors) if len(errors) > 1 else None,
            "median": statistics.median(errors) if errors else None,
            "best": min(errors, default=None),
            "worst": max(errors, default=None),
        },
        "runs": [
            {name: result[name] for name in ("seed", "final_test_error_percent", "final_train_error_percent",
                                             "images_per_s", "wall_s")}
            for result in results
        ],
        "printed": first.get("printed", []),
        "deviations": first.get("deviations", []),
    }  # fmt: skip
