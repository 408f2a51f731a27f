"""Train with fake trainers and a clock that they drive."""

from __future__ import annotations

from pathlib import Path

from resnetcli.runs.checkpoint import files
from resnetcli.runs.config import Config
from resnetcli.runs.directory import Run, create
from resnetcli.train.session import Session, SessionOutcome
from tests.support.tiny import CONFIG, Ear, Fake


class Ticks:
    """A clock that advances by 1.5 s per step."""

    def __init__(self, engine: Fake) -> None:
        self.engine, self.start = engine, engine.iteration

    def __call__(self) -> float:
        return 100 + 1.5 * self.engine.iteration


def make(path: Path, made: Config = CONFIG) -> Run:
    return create(path, made, spec="", model="", recipe="")


def train(run: Run, engine: Fake, ear: Ear | None = None) -> SessionOutcome:
    return Session(run, engine, ear or Ear(), Ticks(engine)).train()


def iterations(path: Path) -> list[int]:
    return [iteration for iteration, _ in files(path)]
