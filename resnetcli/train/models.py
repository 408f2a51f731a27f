"""Several nets, trained one after the other into one directory: what they come to belongs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from resnetcli.errors import ResourceError, UsageError
from resnetcli.runs.directory import (
    MAX_NETS,
    Record,
    has_nets,
    is_folder_name,
    net_folders,
    only_one,
    require_new,
    write_nets,
    writing,
)
from resnetcli.spec.zoo import Zoo
from resnetcli.train.seeds import (
    Audience,
    Ended,
    find_begun,
    require_seeds,
    train,
    write_prepared,
    write_seeds,
)
from resnetcli.train.start import Asked, Prepared, net_name, prepare
from resnetcli.train.stop import Interrupted

RESULTS = "resnet-cli/nets@1"
LONG = 100
"""Characters of the names of all nets that a directory's own name can have in it."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of one net, or of several."""

    path: Path
    ended: tuple[Ended, ...]
    """Of each net that was begun, in order."""
    stopped: int = 0
    """The signal that kept something from being finished; 0 if none did."""
    failed: tuple[str, ...] = ()
    """Nets and seeds that could not be trained to their end, and why."""
    several: bool = False
    """Whether each net has a folder in it."""


def train_nets(
    asked: Sequence[Asked], audience: Audience, *, out: Path | None = None, resume: Path | None = None,
    seeds: int | None = None,
) -> Trained:  # fmt: skip
    """Trains one net, or several in turn, unless it is stopped; one that fails does not keep the others from their end.

    What is asked for differs in model and parameters only. Raises UsageError, SpecError and ResourceError for what
    cannot be begun or gone on with, and where a single net cannot be finished.
    """
    if resume is not None and (len(asked) > 1 or (asked[0].model is not None and has_nets(resume))):
        raise UsageError("`--resume` knows which nets there are", "leave `--model` and `--depth` out")
    if resume is not None and has_nets(resume):
        if out is not None:
            raise UsageError("`--resume` writes to the run's own directory", "omit `--out`")
        with only_one(resume):
            return _go_on(resume, asked[0], audience, seeds)
    if len(asked) > 1:
        path, prepared = _prepare(asked, audience, out, seeds)
        first = asked[0]
        begun = Asked(data_dir=first.data_dir, download=first.download, team=first.team, tensorboard=first.tensorboard)
        with only_one(path, new=True):
            _write(path, prepared, seeds)
            return _go_on(path, begun, audience)
    ended = train(asked[0], audience, out=out, resume=resume, seeds=seeds)
    return Trained(ended.path, (ended,), ended.stopped, ended.failed)


def _prepare(
    asked: Sequence[Asked], audience: Audience, out: Path | None, seeds: int | None
) -> tuple[Path, list[Prepared]]:
    """Prepare every model and their directory: errors of the last are reported before the first starts."""
    if len(asked) > MAX_NETS:
        raise UsageError(f"{len(asked)} nets at once", f"at most {MAX_NETS}")
    if seeds is not None:
        require_seeds(seeds)
    if out is not None:
        require_new(out)
    zoo = Zoo()
    prepared: list[Prepared] = []
    for net in asked:
        prepared.append(prepare(net, zoo, audience.say, prepared[0].data if prepared else None))
    names = [net_name(each.config) for each in prepared]
    wrong = next((name for name in names if not is_folder_name(name)), None)
    if wrong is not None:
        raise UsageError(f"`{wrong}` is no name for a net's folder", "rename the file")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        nets = {each.config.spec for name, each in zip(names, prepared, strict=True) if name == twice}
        if len(nets) > 1:
            raise UsageError(f"two nets are called `{twice}`", "each has a folder of that name: rename a file")
        raise UsageError(f"`{twice}` is named twice", "for several seeds: `--seeds`")
    joined = "+".join(names)
    short = joined if len(joined) <= LONG else f"{names[0]}+{len(names) - 1}"
    return out or Path("runs") / f"{short}-{prepared[0].config.data}", prepared


def _write(path: Path, prepared: Sequence[Prepared], seeds: int | None) -> None:
    """Make a directory, which the caller has locked, one of several nets, with the run of each, not yet trained.

    The list of nets comes last: where there is one, a resume finds them all. Raises ResourceError if it cannot be
    written.
    """
    names = [net_name(each.config) for each in prepared]
    for name, each in zip(names, prepared, strict=True):
        with only_one(path / name, new=True):
            if seeds is None:
                write_prepared(path / name, each)
            else:
                write_seeds(path / name, each, seeds)
    with writing(path):
        write_nets(path, names)


def _go_on(path: Path, asked: Asked, audience: Audience, seeds: int | None = None) -> Trained:
    """Every net that has not finished, in turn."""
    ended: list[Ended] = []
    failed: list[str] = []
    stopped = 0
    places = net_folders(path)
    for place in places:  # what is wrong with the last is told before the first is gone on with
        find_begun(place, asked, seeds)
    for number, place in enumerate(places, 1):
        try:
            ended.append(train(asked, audience, resume=place, seeds=seeds))
        except Interrupted as error:
            stopped = error.number
            break
        except ResourceError as error:
            failed.append(f"{place.name}: {error.message}")
            audience.say(str(error))
            continue
        failed += [f"{place.name}, {what}" for what in ended[-1].failed]
        if signal := ended[-1].outcome.signal:
            stopped = ended[-1].stopped or (signal if number < len(places) else 0)
            break
    return Trained(path, tuple(ended), stopped, tuple(failed), several=True)


def nets_record(trained: Trained) -> Record:
    """`resnet-cli/nets@1`: what each net came to, as it would be by itself."""
    found = [each.summary if each.summary is not None else each.results[0] for each in trained.ended if each.results]
    return {"schema": RESULTS, "nets": found}
