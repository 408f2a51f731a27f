"""Record the operations of threads that a model starts as part of the module that started them."""

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
"""How long a module waits for a thread it has just started, so that its own stages come later."""
ORDER_TIMEOUT_S = 2.0
"""How long a thread waits for those started before it."""

Frame = TypeVar("Frame")


class ThreadFrames(Generic[Frame]):
    """A stack of frames (calls of modules) for each thread whose operations `mode` records."""

    def __init__(self, mode: TorchDispatchMode) -> None:
        self.mode = mode
        self.main: list[Frame] = []
        self.local = threading.local()

    @property
    def stack(self) -> list[Frame]:
        """Of this thread; in a thread that PyTorch itself started, of the main one."""
        frames: list[Frame] = getattr(self.local, "frames", self.main)
        return frames

    @property
    def recorded(self) -> bool:
        """Whether operations of the current thread are recorded."""
        return hasattr(self.local, "frames")

    def wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function whose operations are recorded in any thread, as part of the module that runs now.

        What one thread starts runs in the order it is started, so that stages have the same order every time.
        """
        for module in ("torch._dynamo", "torch.fx.experimental.symbolic_shapes"):
            import_module(module)  # PyTorch does so when it first runs, and threads would wait seconds for it
        frames = [*self.stack]
        before, done = getattr(self.local, "last_started", None), threading.Event()
        self.local.last_started = done

        def run(*args: Any, **kwargs: Any) -> Any:
            try:
                if self.recorded:
                    return function(*args, **kwargs)
                if before is not None:
                    before.wait(ORDER_TIMEOUT_S)  # longer only if that one waits for this one
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
    def patched(self) -> Iterator[None]:
        """Context manager: record threads that a recorded module starts, and its jobs in thread pools.

        The patches are global to the process.
        """
        start, submit = threading.Thread.start, ThreadPoolExecutor.submit
        submitting = threading.local()

        def started(thread: threading.Thread) -> None:
            if not self.recorded or getattr(submitting, "now", False):
                start(thread)
                return
            thread.run = self.wrapped(thread.run)  # type: ignore[method-assign]
            start(thread)
            thread.join(START_DELAY_S)

        def submitted(pool: ThreadPoolExecutor, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            if not self.recorded:
                return submit(pool, function, *args, **kwargs)
            submitting.now = True
            try:
                future = submit(pool, self.wrapped(function), *args, **kwargs)
            finally:
                submitting.now = False
            wait([future], START_DELAY_S)
            return future

        threading.Thread.start, ThreadPoolExecutor.submit = started, submitted  # type: ignore[assignment, method-assign]
        try:
            yield
        finally:
            threading.Thread.start, ThreadPoolExecutor.submit = start, submit  # type: ignore[method-assign]
