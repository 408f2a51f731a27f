"""Train one model or several, each with one seed or several, to the end; start them or resume them.

A single run has its own directory. Several runs are a group: every one is prepared and written before the first is
trained, so resuming is the same for all, and starting is writing and resuming.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from resnetcli.errors import ResourceError, UsageError, clean, plural, typed
from resnetcli.files import write_json
from resnetcli.frozen import frozen
from resnetcli.net.memory import NoRoom
from resnetcli.runs.config import Config
from resnetcli.runs.directory import Record, Run, open_run
from resnetcli.runs.group import MAX_RUNS, models_of, read_group, seeds_of, write_group
from resnetcli.runs.layout import CONFIG_FILE, SUMMARY_FILE, is_folder_name
from resnetcli.runs.lock import lock_directory, require_new, writing
from resnetcli.runs.tensorboard import EventWriter
from resnetcli.spec.zoo import Zoo
from resnetcli.train.build import batch_hint, build_trainer, device_memory
from resnetcli.train.job import TrainJob, model_name, new_job, require_same_options, resumed_job, writes_events
from resnetcli.train.options import TrainOptions
from resnetcli.train.results import RunOutcome, TrainOutcome, seeds_record
from resnetcli.train.session import Listener, Session, SessionOutcome
from resnetcli.train.stop import Interrupted, Stop

if TYPE_CHECKING:
    from resnetcli.data.dataset import Dataset

MAX_NAME = 100
"""Characters of the model names in a group's default name."""


class RunListener(Listener, Protocol):
    """Receives the progress of runs."""

    def begin(self, config: Config, run: Path) -> None:
        """A run starts or resumes."""


def train(
    options: Sequence[TrainOptions], listener: RunListener, *, out: Path | None = None, resume: Path | None = None,
    seeds: int | None = None,
) -> TrainOutcome:  # fmt: skip
    """Train one model or several, one after another, unless a signal stops it; a failed run does not stop the others.

    Options differ in model and parameters only. Raises UsageError, SpecError and ResourceError for what cannot be
    started or resumed, and if a single run fails.
    """
    if resume is None:
        return _start(options, listener, out, seeds)
    if out is not None:
        raise UsageError("`--resume` writes to the run's own directory", "omit `--out`")
    models = _read_models(resume)
    if len(options) > 1 or (options[0].model is not None and models is not None and models[0].path != resume):
        raise UsageError("`--resume` resumes all models of the directory", "omit `--model` and `--depth`")
    if models is not None:
        with lock_directory(resume):
            return _train_group(resume, models, options[0], listener, seeds)
    run = open_run(resume)
    _require_one_seed(resume, seeds)
    require_same_options(run, options[0])
    if run.result is not None:
        return _single(resume, lambda: _finished(run, options[0], listener))
    return _single(resume, lambda: _train(resumed_job(run, options[0], listener.say), run, listener))


# --- starting ------------------------------------------------------------------------------------------------------


def _start(
    options: Sequence[TrainOptions], listener: RunListener, out: Path | None, seeds: int | None
) -> TrainOutcome:  # fmt: skip
    if len(options) > MAX_RUNS["models"]:
        raise UsageError(f"{len(options)} models", f"at most {MAX_RUNS['models']}")
    if seeds is not None and not 1 <= seeds <= MAX_RUNS["seeds"]:
        raise UsageError(f"`--seeds {seeds}` is out of range", f"from 1 to {MAX_RUNS['seeds']:,}")
    if out is not None:
        require_new(out)
    zoo = Zoo()
    jobs: list[TrainJob] = []
    for each in options:  # an error in the last is reported before the first is trained
        jobs.append(new_job(each, zoo, listener.say, jobs[0].data if jobs else None))
    path = out or _default_path(jobs, seeds)
    if len(jobs) == 1 and seeds is None:
        require_new(path)
        return _single(path, lambda: _train(jobs[0], path, listener))
    names = _folder_names(jobs)
    with lock_directory(path, new=True):
        if len(jobs) == 1:
            _write_seeds(path, jobs[0], seeds or 1)
        else:
            for name, job in zip(names, jobs, strict=True):
                with lock_directory(path / name, new=True):
                    job.write(path / name) if seeds is None else _write_seeds(path / name, job, seeds)
            with writing(path):
                write_group(path, "models", names)
        models = _read_models(path)
        assert models is not None
        return _train_group(path, models, options[0].for_resume(), listener, seeds, jobs[0].data)


def _default_path(jobs: Sequence[TrainJob], seeds: int | None) -> Path:
    """`runs/cifar_resnet56-cifar10-seed0`, without the seed for several; `runs/tiny+deep-custom`."""
    config, names = jobs[0].config, [model_name(job.config) for job in jobs]
    joined = "+".join(names)
    short = joined if len(names) == 1 or len(joined) <= MAX_NAME else f"{names[0]}+{len(names) - 1}"
    seed = f"-seed{config.seed}" if len(names) == 1 and seeds is None else ""
    return Path("runs") / f"{short}-{config.data}{seed}"


def _folder_names(jobs: Sequence[TrainJob]) -> list[str]:
    """The folder of each of several models. Raises UsageError unless all are possible and different."""
    names = [model_name(job.config) for job in jobs]
    if len(names) == 1:
        return names
    for name in names:
        if not is_folder_name(name):
            raise UsageError(f"`{name}` cannot be the name of a model's folder", "rename the file")
        if names.count(name) > 1:
            specs = {job.config.spec for other, job in zip(names, jobs, strict=True) if other == name}
            if len(specs) > 1:
                raise UsageError(f"two models are called `{name}`", "each has a folder of that name: rename a file")
            raise UsageError(f"`{name}` is given twice", "for several seeds: `--seeds`")
    return names


def _write_seeds(path: Path, job: TrainJob, seeds: int) -> None:
    """Make a directory, which the caller has locked, a group of seeds. Raises ResourceError if it cannot be written."""
    names = [f"seed{job.config.seed + number}" for number in range(seeds)]
    for number, name in enumerate(names):
        with lock_directory(path / name, new=True):
            job.with_seed(job.config.seed + number).write(path / name)
    with writing(path):
        write_group(path, "seeds", names)


def _single(path: Path, session: Callable[[], SessionOutcome]) -> TrainOutcome:
    """The outcome of a run that is not part of a group."""
    try:
        outcome = session()
    except Interrupted as error:
        if not (path / CONFIG_FILE).exists():  # it was not started
            raise
        outcome = SessionOutcome(None, error.number)
    results = () if outcome.result is None else (outcome.result,)
    return TrainOutcome(path, (RunOutcome(path, results, unsaved=outcome.unsaved),), 0 if results else outcome.signal)


def _train(job: TrainJob, run: Run | Path, listener: RunListener) -> SessionOutcome:
    """Train an existing run, or a new one at that path."""
    team = job.team  # the trainer comes before the directory, which is not created for a model that cannot be built
    trainer = build_trainer(job, tell=listener.say) if team is None else team.lead(job)
    path = run if isinstance(run, Path) else run.path
    with lock_directory(path, new=isinstance(run, Path)):
        if isinstance(run, Path):
            run = job.write(path)
        listener.begin(job.config, path)
        if job.tensorboard:
            listener.say(_tensorboard_command(path))
        try:
            stop = Stop() if team is None else team.stop
            now = replace(run, config=job.config)
            return Session(now, trainer, listener, stop=stop, tensorboard=job.tensorboard).train()
        except NoRoom as error:
            raise NoRoom(error.message, batch_hint(job, device_memory(job.config.device))) from None


def _finished(run: Run, options: TrainOptions, listener: RunListener) -> SessionOutcome:
    """The outcome of a complete run; writes its TensorBoard events if they are requested."""
    listener.say(f"`{run.path}` has finished its {plural(run.config.iterations, 'iteration')}")
    if options.tensorboard:
        with lock_directory(run.path), writing(run.path):
            EventWriter(run.path).write()
        listener.say(_tensorboard_command(run.path))
    return SessionOutcome(run.result)


def _tensorboard_command(run: Path) -> str:
    return f"for TensorBoard: `tensorboard --logdir {clean(typed(run))}`"


# --- a group -------------------------------------------------------------------------------------------------------


@frozen
class _Model:
    """A model of a group: one run, or one per seed."""

    path: Path
    runs: tuple[Path, ...]
    has_seeds: bool


def _read_models(path: Path) -> list[_Model] | None:
    """The models of a group; None if the directory is not a group. Raises UsageError if it is invalid."""
    if read_group(path) is None:
        return None
    models = []
    for folder in models_of(path):
        seeds = seeds_of(folder)
        models.append(_Model(folder, (folder,) if seeds is None else seeds.folders, seeds is not None))
    return models


def _require_same(model: _Model, options: TrainOptions, seeds: int | None) -> None:
    """Raise UsageError unless all runs of a model can be resumed with these options."""
    runs = [open_run(path) for path in model.runs]
    first, last = runs[0].config.seed, runs[-1].config.seed
    if not model.has_seeds:
        _require_one_seed(model.path, seeds)
    elif seeds not in (None, len(runs)) or options.seed not in (None, first):
        raise UsageError(f"`{model.path}` has the seeds {first} to {last}", "omit `--seed` and `--seeds`")
    for run in runs:
        require_same_options(run, replace(options, seed=None) if model.has_seeds else options)


def _require_one_seed(path: Path, seeds: int | None) -> None:
    if seeds is not None:
        raise UsageError(f"`{path}` is a run with one seed", "omit `--seeds`")


class _Training:
    """Trains the runs of a group, one after another."""

    def __init__(self, options: TrainOptions, listener: RunListener, data: Dataset | None, *, events: bool) -> None:
        self._options, self._listener, self._data = replace(options, seed=None), listener, data
        self._events = events
        self.signal = 0
        self.failed: list[str] = []

    def model(self, model: _Model, label: str) -> RunOutcome:
        """Train every run of a model that is not complete; `label`: names it in errors, empty for the only one."""
        results, unsaved, summary = list[Record](), dict[str, None](), None
        seeds = [open_run(folder).config.seed for folder in model.runs]
        for folder, seed in zip(model.runs, seeds, strict=True):
            try:
                outcome = self._run(folder)
            except Interrupted as error:
                outcome = SessionOutcome(None, error.number)
            except ResourceError as error:
                name = ", ".join(filter(None, (label, f"seed {seed}" if model.has_seeds else "")))
                self.failed.append(f"{name}: {error.message}")
                self._listener.say(str(error))
                continue
            unsaved |= dict.fromkeys(outcome.unsaved)
            if outcome.result is not None:
                results.append(outcome.result)
            if results and model.has_seeds:
                summary = seeds_record(results, seeds)
                self._write_summary(model.path / SUMMARY_FILE, summary, unsaved)
            self.signal = outcome.signal
            if self.signal:
                break
        return RunOutcome(model.path, tuple(results), summary, tuple(unsaved))

    def _run(self, folder: Path) -> SessionOutcome:
        run = open_run(folder)
        if run.result is not None:
            return _finished(run, self._options, self._listener)
        job = resumed_job(run, replace(self._options, tensorboard=self._events), self._listener.say, self._data)
        self._data = job.data
        return _train(job, run, self._listener)

    def _write_summary(self, path: Path, summary: Record, unsaved: dict[str, None]) -> None:
        try:
            write_json(path, summary)
            unsaved.pop("the summary", None)
        except OSError as error:
            self._listener.say(f"warning: `{path}` could not be written: {error.strerror or error}")
            unsaved["the summary"] = None


def _train_group(
    path: Path, models: Sequence[_Model], options: TrainOptions, listener: RunListener, seeds: int | None = None,
    data: Dataset | None = None,
) -> TrainOutcome:  # fmt: skip
    """Train every run of a locked group that is not complete; `data`: their dataset, if it is loaded already."""
    for model in models:  # an error in the last is reported before the first is resumed
        _require_same(model, options, seeds)
    several = models[0].path != path
    events = writes_events((run for model in models for run in model.runs), options, listener.say)
    training, outcomes = _Training(options, listener, data, events=events), list[RunOutcome]()
    for model in models:
        with lock_directory(model.path) if several and model.has_seeds else nullcontext():
            outcomes.append(training.model(model, model.path.name if several else ""))
        if training.signal:
            break
    complete = sum(len(outcome.results) for outcome in outcomes) == sum(len(model.runs) for model in models)
    return TrainOutcome(
        path, tuple(outcomes), 0 if complete else training.signal, tuple(training.failed), several=several
    )
