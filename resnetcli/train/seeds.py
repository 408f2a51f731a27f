"""One run or one for each of several seeds, new or gone on with, and what they come to together."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from resnetcli.errors import ResourceError, UsageError, clean, plural, typed
from resnetcli.files import write_json
from resnetcli.net.memory import NoRoom
from resnetcli.runs.directory import (
    CONFIG_FILE,
    SEEDS_FILE,
    SUMMARY,
    SUMMARY_FILE,
    Config,
    Record,
    Run,
    only_one,
    open_run,
    read_record,
    require_new,
    seed_folder,
    write_run,
    writing,
)
from resnetcli.runs.tensorboard import Board
from resnetcli.spec.zoo import Zoo
from resnetcli.train.session import Listener, Outcome, Session
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
from resnetcli.train.stop import Interrupted, Stop

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
    try:
        outcome = _train(reopen(run, asked, audience.say), run, audience)
    except Interrupted as error:
        outcome = Outcome(None, error.number)
    return Ended(resume, outcome, _results([outcome]))


def _new(asked: Asked, audience: Audience, out: Path | None) -> Ended:
    if out is not None:
        require_new(out)
    prepared = prepare(asked, Zoo(), audience.say)
    path = out or default_name(prepared.config)
    require_new(path)
    try:
        outcome = _train(prepared, path, audience)
    except Interrupted as error:
        if not (path / CONFIG_FILE).exists():  # nothing was begun
            raise
        outcome = Outcome(None, error.number)
    return Ended(path, outcome, _results([outcome]))


def write_prepared(path: Path, prepared: Prepared) -> Run:
    """Write a new run's files into its directory. Raises what `write_run` raises."""
    return write_run(path, prepared.config, spec=prepared.spec_text, model=prepared.model_text,
                     recipe=prepared.recipe_text)  # fmt: skip


def _train(prepared: Prepared, run: Run | Path, audience: Audience) -> Outcome:
    """Train an existing run, or a new one at that path."""
    team = prepared.team  # the trainer before there is a directory, which is not made for what cannot be built
    trainer = engine(prepared, tell=audience.say) if team is None else team.lead(prepared)
    path = run if isinstance(run, Path) else run.path
    with only_one(path, new=isinstance(run, Path)):
        if isinstance(run, Path):
            run = write_prepared(path, prepared)
        audience.begin(prepared.config, path)
        if prepared.tensorboard:
            audience.say(_where(path))
        try:
            stop = Stop() if team is None else team.stop
            now = replace(run, config=prepared.config)
            return Session(now, trainer, audience, stop=stop, tensorboard=prepared.tensorboard).train()
        except NoRoom as error:
            raise NoRoom(error.message, room_hint(prepared, device_memory(prepared.config.device))) from None


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
    return f"for TensorBoard: `tensorboard --logdir {clean(typed(run))}`"


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
    with only_one(path, new=True):
        write_seeds(path, prepared, seeds)
        return _each(path, range(first, first + seeds), prepared, asked, audience)


def require_seeds(seeds: int) -> None:
    """Raises UsageError for a number of seeds that cannot be."""
    if not 1 <= seeds <= MAX_SEEDS:
        raise UsageError(f"`--seeds {seeds}` is out of range", f"from 1 to {MAX_SEEDS:,}")


def write_seeds(path: Path, prepared: Prepared, seeds: int) -> None:
    """Make a directory, which the caller has locked, one of several seeds, with the first one's run, not yet trained.

    The list of seeds comes last: where there is one, a resume finds all that the others are begun from. Raises
    ResourceError if it cannot be written.
    """
    first = prepared.config.seed
    with only_one(seed_folder(path, first), new=True):
        write_prepared(seed_folder(path, first), prepared)
    with writing(path):
        write_json(path / SEEDS_FILE, {"schema": SEEDS, "first": first, "count": seeds})


def find_begun(path: Path, asked: Asked, seeds: int | None) -> tuple[Run, range | None]:
    """The run in a directory, or the first that was begun of several seeds, and those.

    Raises UsageError for what cannot be gone on with as it is asked for.
    """
    if not os.path.isfile(path / SEEDS_FILE):  # noqa: PTH113 - Path's raises for a name too long to exist
        run = open_run(path)
        if seeds is not None:
            raise UsageError(f"`{path}` is a run of one seed", "leave `--seeds` out")
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
        raise UsageError(
            f"no seed of `{path}` was started, and no settings are recorded to start one",
            f"run the whole `train-cifar` command again, with `--out {typed(path)}`",
        )
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
    unsaved: tuple[str, ...] = ()
    for seed in seeds:
        folder = seed_folder(path, seed)
        try:
            outcomes.append(_seed(folder, seed, prepared, asked, audience))
        except Interrupted as error:
            outcomes.append(Outcome(None, error.number))
        except ResourceError as error:
            failed.append(f"seed {seed}: {error.message}")
            audience.say(str(error))
            continue
        if found := _results(outcomes):
            try:
                write_json(path / SUMMARY_FILE, seeds_record(found, seeds))
                unsaved = ()
            except OSError as error:
                audience.say(f"warning: `{path / SUMMARY_FILE}` could not be written: {error.strerror or error}")
                unsaved = ("the summary",)
        if outcomes[-1].signal:
            break
    found = _results(outcomes)
    last = outcomes[-1] if outcomes else Outcome(None)
    lost = tuple(dict.fromkeys((*(what for outcome in outcomes for what in outcome.unsaved), *unsaved)))
    return Ended(path, replace(last, unsaved=lost), found, seeds_record(found, seeds) if found else None, tuple(failed))


def _seed(folder: Path, seed: int, prepared: Prepared, asked: Asked, audience: Audience) -> Outcome:
    if not (folder / CONFIG_FILE).is_file():
        return _train(replace(prepared, config=replace(prepared.config, seed=seed)), folder, audience)
    run = open_run(folder)
    if (result := run.result) is not None:
        audience.say(f"`{folder}` has finished")
        _show(run, asked, audience)
        return Outcome(result)
    return _train(reopen(run, asked, audience.say, prepared.data), run, audience)


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
