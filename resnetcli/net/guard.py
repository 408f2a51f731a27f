"""Run foreign code in isolation: streams, process state and torch's settings are restored afterwards."""

from __future__ import annotations

import builtins
import ctypes
import gc
import io
import logging
import os
import random
import signal
import sys
import sysconfig
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, TextIO

import torch
from torch import nn
from torch._C import _len_torch_function_stack
from torch.nn.modules import module as hooks
from torch.overrides import _get_current_function_mode_stack, _pop_mode, _push_mode
from torch.utils import _device

from resnetcli.errors import error_text

STREAMS = ("stdin", "stdout", "stderr")
_exit = os._exit


class CodeExit(BaseException):
    """Model code called `os._exit`."""


def model_error_text(error: BaseException) -> str:
    """An exception raised by model code, on one line."""
    return str(error) if isinstance(error, CodeExit) else error_text(error)


@contextmanager
def isolate(program: str = "") -> Iterator[list[str]]:
    """Context manager for model code: `program` is its `sys.argv[0]`, stdin is empty, its output goes to stderr.

    Random number generators start from a fixed seed. Afterwards the state of this process is restored; torch functions
    that the code replaced are restored and their names appended to the list. `os._exit` raises CodeExit. Reentrant.
    """
    replaced: list[str] = []
    with ExitStack() as stack:
        stack.enter_context(_end_forked_processes())
        stack.enter_context(_redirect_streams())
        stack.enter_context(_restore_state(replaced))
        stack.enter_context(_record_interrupts())
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        sys.argv[:] = [program or sys.argv[0]]
        random.seed(0)
        torch.default_generator.manual_seed(0)
        if numpy := sys.modules.get("numpy"):
            numpy.random.seed(0)
        yield replaced


@contextmanager
def no_exit() -> Iterator[None]:
    """Context manager: `os._exit` raises CodeExit instead of silently ending the process."""
    process, before = os.getpid(), os._exit

    def raise_exit(status: int) -> None:
        if os.getpid() != process:
            _exit(status)  # in a process that the code has forked
        raise CodeExit(f"os._exit({status!r})")

    os._exit = raise_exit  # type: ignore[assignment]
    try:
        yield
    finally:
        os._exit = before


@contextmanager
def _end_forked_processes() -> Iterator[None]:
    """Context manager: end processes that the code has forked when they return here; only the parent goes on."""
    process = os.getpid()
    try:
        with no_exit():
            yield
    finally:
        if os.getpid() != process:
            _exit(0)


# --- streams -----------------------------------------------------------------------------------------------------


class _Relay(io.TextIOBase):
    """A stream that writes to another one, and can be closed without closing it."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream

    @property
    def buffer(self) -> Any:
        return self.stream.buffer

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding

    def write(self, text: str) -> int:
        return self.stream.write(text)

    def flush(self) -> None:
        self.stream.flush()

    def fileno(self) -> int:
        return self.stream.fileno()

    def isatty(self) -> bool:
        return self.stream.isatty()

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """Do nothing: the stream is shared."""

    def reconfigure(self, **settings: object) -> None:
        """Do nothing: the stream is shared."""


@contextmanager
def _redirect_streams() -> Iterator[None]:
    """Context manager: stdout goes to stderr and stdin is empty, in Python and for file descriptors."""
    before = {name: getattr(sys, name) for name in STREAMS}
    _flush(before["stdout"])
    with ExitStack() as stack:
        copies = {}
        for number in range(3):
            with suppress(OSError):  # closed by the parent process
                copies[number] = os.dup(number)
                stack.callback(_close, copies[number])
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(2 if 2 in copies else null, 1)
        if null > 2:
            os.close(null)
        sys.stdin = io.StringIO()
        sys.stdout, sys.stderr = _Relay(before["stderr"]), _Relay(before["stderr"])
        try:
            yield
        finally:
            _flush(before["stdout"])
            for name, stream in before.items():
                setattr(sys, name, stream)
            for number in range(3):
                if number in copies:
                    with suppress(OSError):  # the code has closed it
                        os.dup2(copies[number], number)
                else:
                    _close(number)


def _close(number: int) -> None:
    with suppress(OSError):
        os.close(number)


def _flush(stream: Any) -> None:
    """Flush the buffers of Python and the C library before descriptor 1 changes."""
    streams: list[Any] = [stream, sys.__stdout__]
    for each in streams:
        with suppress(OSError, ValueError, AttributeError):
            each.flush()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).fflush(None)


# --- state of the process and of torch ---------------------------------------------------------------------------


@contextmanager
def _restore_state(replaced: list[str]) -> Iterator[None]:
    """Context manager: restore what `_states` lists and torch's functions; append the names of those replaced."""
    restorers = [_restorer(read, write) for read, write in _states()]
    names = _names_of_torch()
    try:
        yield
    finally:
        replaced += _put_back(names)
        for restore in reversed(restorers):
            restore()


def _restorer(read: Callable[[], Any], write: Callable[[Any], object]) -> Callable[[], None]:
    value = read()

    def restore() -> None:
        with suppress(OSError):  # the working directory was removed
            if read() != value:
                write(value)

    return restore


def _states() -> Iterator[tuple[Callable[[], Any], Callable[[Any], object]]]:
    """Yield a reader and a writer of each state that code can change."""

    def attribute(owner: object, name: str) -> tuple[Callable[[], Any], Callable[[Any], object]]:
        return lambda: getattr(owner, name), lambda value: setattr(owner, name, value)

    def contents(mapping: Any) -> tuple[Callable[[], Any], Callable[[Any], object]]:
        return lambda: dict(mapping), lambda value: _refill(mapping, value)

    def items(owner: list[Any]) -> tuple[Callable[[], Any], Callable[[Any], object]]:
        return lambda: list(owner), lambda value: owner.__setitem__(slice(None), value)

    own = dict(vars(builtins))
    modes = _modes()
    yield items(sys.argv)
    yield attribute(sys, "argv")
    yield items(sys.path)
    yield attribute(sys, "path")
    yield attribute(sys, "dont_write_bytecode")
    yield attribute(sys, "excepthook")
    yield attribute(sys, "unraisablehook")
    yield attribute(sys, "displayhook")
    yield attribute(threading, "excepthook")
    yield sys.getrecursionlimit, sys.setrecursionlimit
    yield sys.gettrace, sys.settrace
    yield sys.getprofile, sys.setprofile
    yield lambda: {name: id(value) for name, value in vars(builtins).items()}, lambda _: _refill(vars(builtins), own)
    yield contents(os.environ)
    yield _folder, os.chdir
    yield gc.isenabled, lambda on: gc.enable() if on else gc.disable()
    root = logging.getLogger()
    yield items(root.handlers)
    yield attribute(root, "level")
    yield attribute(logging.root.manager, "disable")
    if threading.current_thread() is threading.main_thread():
        yield lambda: signal.getitimer(signal.ITIMER_REAL)[0] > 0, lambda _: signal.setitimer(signal.ITIMER_REAL, 0)
        yield _handlers, _set_handlers
    yield random.getstate, random.setstate
    if numpy := sys.modules.get("numpy"):
        yield lambda: _Unequal(numpy.random.get_state()), lambda state: numpy.random.set_state(state.value)
    yield lambda: _Unequal(torch.get_rng_state()), lambda state: torch.set_rng_state(state.value)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        yield (
            lambda: _Unequal(torch.cuda.get_rng_state_all()),
            lambda state: torch.cuda.set_rng_state_all(state.value),
        )
    yield torch.get_default_dtype, torch.set_default_dtype
    yield attribute(_device, "CURRENT_DEVICE")
    yield lambda: [*map(id, _modes())], lambda _: _set_modes(modes)
    yield _default_device, torch.set_default_device
    yield torch.is_grad_enabled, torch.set_grad_enabled
    yield torch.get_num_threads, torch.set_num_threads
    yield torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms
    yield torch.is_anomaly_enabled, torch.set_anomaly_enabled
    yield torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled
    for kind in ("cpu", "cuda"):
        yield _autocast(kind)
    for name in ("enabled", "benchmark", "deterministic"):
        yield attribute(torch.backends.cudnn, name)
    yield _precisions, _set_precisions
    for name, value in vars(hooks).items():
        if name.startswith("_global_") and isinstance(value, dict):
            yield contents(value)


class _Unequal:
    """A state that is always restored: comparing would not be cheaper."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - chdir takes text
    except FileNotFoundError:
        return ""


def _refill(mapping: Any, value: dict[Any, Any]) -> None:
    for name in [*mapping]:
        if name not in value:
            del mapping[name]
    mapping.update(value)


def _handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


def _set_handlers(value: dict[int, Any]) -> None:
    for number, handler in value.items():
        if handler is not None and signal.getsignal(number) != handler:
            with suppress(OSError, ValueError):  # SIGKILL's cannot be set
                signal.signal(number, handler)


def _default_device() -> torch.device | None:
    context = torch._GLOBAL_DEVICE_CONTEXT
    held = getattr(context, "device_context", None)
    return None if held is None else held.device


def _modes() -> list[Any]:
    """Modes that intercept torch's functions, such as a default device."""
    return [*_get_current_function_mode_stack()]  # type: ignore[no-untyped-call]


def _set_modes(modes: list[Any]) -> None:
    """Reset the stack of modes: nested default devices leave modes behind."""
    while _len_torch_function_stack():
        _pop_mode()  # type: ignore[no-untyped-call]
    for mode in modes:
        _push_mode(mode)  # type: ignore[no-untyped-call]


def _autocast(kind: str) -> tuple[Callable[[], Any], Callable[[Any], object]]:
    return lambda: torch.is_autocast_enabled(kind), lambda on: torch.set_autocast_enabled(kind, on)


def _precisions() -> tuple[str, ...]:
    return torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]


def _set_precisions(value: tuple[str, ...]) -> None:
    torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision = value  # type: ignore[attr-defined]


def _names_of_torch() -> list[tuple[Any, dict[str, Any]]]:
    """Torch's functions and its layers' methods, which code may replace globally."""
    classes = {value for value in vars(nn).values() if isinstance(value, type)}
    spaces = [torch, nn, nn.functional, nn.init, torch.Tensor, torch._C._nn, *classes]
    return [(space, dict(vars(space))) for space in spaces]


def _put_back(names: list[tuple[Any, dict[str, Any]]]) -> list[str]:
    replaced = []
    for space, before in names:
        now = vars(space)
        for name in [name for name, value in now.items() if value is not before.get(name, names)]:
            if _is_foreign(now[name]):  # torch sets some of its own names late
                replaced.append(f"{space.__name__}.{name}")
                setattr(space, name, before[name]) if name in before else delattr(space, name)
    return replaced


def _is_foreign(value: Any) -> bool:
    """Whether a function, method or class is not from torch."""
    if isinstance(value, ModuleType):
        return False
    inner = getattr(value, "fget", None) or getattr(value, "__func__", None) or value
    module = getattr(inner, "__module__", None)
    return callable(inner) and str(module).partition(".")[0] != "torch"


_interrupts: list[int] = []


def is_model_error(error: BaseException) -> bool:
    """Whether model code raised the error, rather than the user by Ctrl-C."""
    return not (isinstance(error, KeyboardInterrupt) and _interrupts)


@contextmanager
def _record_interrupts() -> Iterator[None]:
    """Context manager: record SIGINT, to recognise the user's KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    _interrupts.clear()

    def record(number: int, frame: FrameType | None) -> None:
        _interrupts.append(number)
        if callable(before):
            before(number, frame)

    if callable(before):
        signal.signal(signal.SIGINT, record)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is record:
            signal.signal(signal.SIGINT, before)


# --- positions of errors ---------------------------------------------------------------------------------------------

_LIBRARIES = tuple(
    f"{Path(place).resolve()}{os.sep}"
    for place in {*map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")), *torch.__path__,
                  str(Path(__file__).parents[1])}
)  # fmt: skip


def in_library(path: str) -> bool:
    """Whether a resolved path belongs to Python, an installed package or this one."""
    return path.startswith(_LIBRARIES) or not {"site-packages", "dist-packages"}.isdisjoint(Path(path).parts)


def line_of(error: BaseException, file: str) -> str:
    """The user's line that raised an error, `net.py:12`: of the innermost frame outside libraries, or in `file`."""
    place, step, named = "", error.__traceback__, str(Path(file).resolve()) if file else ""
    while step is not None:
        code = step.tb_frame.f_code.co_filename
        own = not code.startswith("<") and str(Path(code).resolve())
        if own and own == named:
            place = f"{file}:{step.tb_lineno}"
        elif own and not in_library(own):
            place = f"{relative_path(own)}:{step.tb_lineno}"
        step = step.tb_next
    return place


def relative_path(path: str) -> str:
    """A path relative to the current directory if it is below it."""
    here = _folder()
    return os.path.relpath(path, here) if here and path.startswith(f"{here}{os.sep}") else path
