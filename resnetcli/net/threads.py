"""Record operations of threads that a model starts as part of the module that started them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Generic, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _pop_mode, _push_mode

START_DELAY_S = 0.1
"""Seconds that a module waits for a thread it has just started, so that later stages come after the thread's."""
ORDER_TIMEOUT_S = 2.0
"""Seconds that a thread waits for those started before it."""

Frame = TypeVar("Frame")


class ThreadFrames(Generic[Frame]):
    """A stack of frames (calls of modules) for each thread whose operations `mode` records."""

    def __init__(self, mode: TorchDispatchMode) -> None:
        self.mode = mode
        self.main: list[Frame] = []
        self.local = threading.local()

    @property
    def stack(self) -> list[Frame]:
        """The stack of this thread; of the main thread, in threads that PyTorch itself starts."""
        frames: list[Frame] = getattr(self.local, "frames", self.main)
        return frames

    @property
    def recorded(self) -> bool:
        """Whether operations of the current thread are recorded."""
        return hasattr(self.local, "frames")

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that its operations are recorded in any thread, as part of the module that runs now.

        Threads started by one thread run in that order, so that the order of stages is reproducible.
        """
        for module in ("torch._dynamo", "torch.fx.experimental.symbolic_shapes"):
            import_module(module)  # PyTorch imports them lazily, which would delay the threads by seconds
        frames = [*self.stack]
        previous, done = getattr(self.local, "last_started", None), threading.Event()
        self.local.last_started = done

        def run(*args: Any, **kwargs: Any) -> Any:
            try:
                if self.recorded:
                    return function(*args, **kwargs)
                if previous is not None:
                    previous.wait(ORDER_TIMEOUT_S)  # not forever: it may wait for this thread
                self.local.frames = [*frames]
                _push_mode(self.mode)
                try:
                    with torch.no_grad():
                        return function(*args, **kwargs)
                finally:
                    _pop_mode()
                    del self.local.frames
            finally:
                done.set()

        return run

    @contextmanager
    def patch(self) -> Iterator[None]:
        """Context manager: record threads that a recorded module starts, and its jobs in thread pools.

        The patches are global to the process.
        """
        start, submit = threading.Thread.start, ThreadPoolExecutor.submit
        submitting = threading.local()

        def start_recorded(thread: threading.Thread) -> None:
            if not self.recorded or getattr(submitting, "now", False):
                start(thread)
                return
            thread.run = self.wrap(thread.run)  # type: ignore[method-assign]
            start(thread)
            thread.join(START_DELAY_S)

        def submit_recorded(
            pool: ThreadPoolExecutor, function: Callable[..., Any], /, *args: Any, **kwargs: Any
        ) -> Any:
            if not self.recorded:
                return submit(pool, function, *args, **kwargs)
            submitting.now = True
            try:
                future = submit(pool, self.wrap(function), *args, **kwargs)
            finally:
                submitting.now = False
            wait([future], START_DELAY_S)
            return future

        threading.Thread.start, ThreadPoolExecutor.submit = start_recorded, submit_recorded  # type: ignore[assignment, method-assign]
        try:
            yield
        finally:
            threading.Thread.start, ThreadPoolExecutor.submit = start, submit  # type: ignore[method-assign]
