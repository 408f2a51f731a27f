"""Signals: a training step is finished and saved first; evaluation, preparation and downloads end at once.

No torch is needed.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal that ends the current action at once."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number
        self.exit_code = 128 + number
        """As a shell reports it."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Context manager: these signals raise `Interrupted`; a second SIGINT or SIGTERM ends the process at once."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        _default()
        raise Interrupted(number)

    before = _listen(interrupt)
    try:
        yield
    finally:
        _restore(before)


class Stop:
    """Context manager: record the first signal in `signal`; a second one ends the process at once."""

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}
        self._breaks = False

    def __enter__(self) -> Stop:
        self._before = _listen(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        _restore(self._before)

    @contextmanager
    def breaking(self) -> Iterator[None]:
        """Context manager: a signal also raises `Interrupted`."""
        self._breaks = True
        try:
            if self.signal:  # it came just before
                raise Interrupted(self.signal)
            yield
        finally:
            self._breaks = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        _default()  # not Python's own, which would wait for the step to be over
        if self._breaks:
            raise Interrupted(number)


def _listen(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Install the handler; returns those before it. A SIGHUP that is ignored, as under `nohup`, stays so."""
    if threading.current_thread() is not threading.main_thread():  # Python allows handlers only there
        return {}
    numbers = [number for number in NUMBERS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in numbers}


def _restore(before: dict[int, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)


def _default() -> None:
    """Make a second SIGINT or SIGTERM end the process; a closed terminal sends SIGHUP twice."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP else signal.SIG_DFL)
