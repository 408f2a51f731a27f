"""Exclusive access to a run directory: one process writes at a time, and a new run never overwrites progress."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from resnetcli.errors import ResourceError, UsageError, typed
from resnetcli.runs.layout import (
    CONFIG_FILE,
    GROUP_FILE,
    LOCK_FILE,
    METRICS_FILE,
    is_draft,
    is_initial_file,
)

_MARK = b"resnet-cli run\n"
"""Content of the lock file of a directory that a run has created or reused."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Context manager: report an OSError as a directory that cannot be written."""
    try:
        yield
    except OSError as error:
        hint = "`--out` selects another directory"
        raise ResourceError(f"`{path}` cannot be written: {error.strerror or error}", hint) from None


def require_new(path: Path) -> None:
    """Raise UsageError unless a new run may use the path.

    It may if the path does not exist, is an empty directory, or has a run without readings and checkpoints. Nothing
    else is ever overwritten.
    """
    try:
        if not path.exists() and not path.is_symlink():
            return
        if path.is_dir() and (not any(path.iterdir()) or leftovers(path) is not None):
            return
    except (OSError, ValueError):  # the name is too long or has a null, or the directory is not readable
        raise UsageError(f"`{path}` cannot be a directory", "`--out` selects another one") from None
    for file, what in ((CONFIG_FILE, "a run"), (GROUP_FILE, "several runs")):
        if (path / file).exists():
            hint = f"resume with `--resume {typed(path)}`, or select another directory with `--out`"
            raise UsageError(f"`{path}` already has {what}", hint)
    raise UsageError(f"`{path}` already exists and is not empty", "`--out` selects another directory")


def require_begun(path: Path) -> None:
    """Raise UsageError for an empty directory, and for one whose run was stopped while the directory was created."""
    try:
        is_empty = not any(path.iterdir())
        if not is_empty and leftovers(path) is None:
            return
    except OSError:  # open_run reports it
        return
    reason = "it is empty" if is_empty else "its run was stopped before the first step, and no progress is lost"
    raise UsageError(
        f"`{path}` is not a run yet: {reason}", f"run the whole `train-cifar` command again, with `--out {typed(path)}`"
    )


def leftovers(path: Path, depth: int = 2) -> list[Path] | None:
    """Files and directories of a run without progress, in order of removal, without the lock.

    None if there is anything else: a reading, a checkpoint, a foreign file, or no lock file. A run creates and marks
    the lock first, so a file with a run's name beside a foreign lock is foreign. If removal is interrupted, what
    remains is a run without progress, too. Raises OSError.
    """
    files: list[Path] = []
    inner: list[Path] = []
    empty = True
    for child in path.iterdir():
        empty = False
        if child.is_symlink():
            return None
        if child.is_dir():
            below = leftovers(child, depth - 1) if depth else None
            if below is None:
                return None
            inner += [*below, child / LOCK_FILE, child]
        elif not child.is_file() or not is_initial_file(child.name) or (child.name == METRICS_FILE and _size(child)):
            return None
        elif child.name != LOCK_FILE:
            files.append(child)
    if not _is_marked(path / LOCK_FILE, alone=not files and not inner) and not (empty and depth < 2):
        return None  # except an empty directory inside another, which was about to be locked
    commits = (CONFIG_FILE, GROUP_FILE)  # removed first, so that no directory claims files it no longer has
    return [*sorted(files, key=lambda file: (file.name not in commits, file.name)), *inner]


def _is_marked(lock: Path, *, alone: bool) -> bool:
    """Whether it is a run's lock file; `alone`: or one that was not fully marked when the run was killed."""
    if not lock.is_file() or _size(lock) > len(_MARK):
        return False
    content = lock.read_bytes()
    return content == _MARK or (alone and _MARK.startswith(content))


def _size(file: Path) -> int:
    return file.stat().st_size


def discard(path: Path, *, whole: bool = True) -> None:
    """Remove a run without progress; a directory with a reading or a checkpoint stays.

    `whole`: the directory and its lock, too, not only its content. Raises OSError.
    """
    content = leftovers(path)
    if content is None:
        return
    for each in [*content, *([path / LOCK_FILE, path] if whole else [])]:
        with suppress(FileNotFoundError):
            each.rmdir() if each.is_dir() else each.unlink()


@contextmanager
def lock_directory(run: Path, *, new: bool = False) -> Iterator[None]:
    """Context manager: hold a run directory for this process, cleared of unfinished files of killed processes.

    `new`: create it, or reuse one whose run made no progress, and remove it if an error leaves it without any. Of
    several processes that start at the same time, one gets it. Raises UsageError if another process trains there or
    the path is not free, ResourceError if it cannot be written. The system releases the lock however the process ends.
    """
    if new:
        require_new(run)
        with writing(run):
            run.mkdir(parents=True, exist_ok=True)
    handle = _lock(run)
    try:
        if new:
            require_new(run)  # again, now that no other process can change it
            with writing(run):
                discard(run, whole=False)
                os.pwrite(handle, _MARK, 0)
        else:
            _sweep(run)
        try:
            yield
        except BaseException:  # an interrupt as well
            if new:
                with suppress(OSError):
                    discard(run)  # frees the name for another try
            raise
    finally:
        os.close(handle)


def _lock(run: Path) -> int:
    """Open and lock a directory's lock file. Raises as `lock_directory`."""
    while True:
        try:  # no links and no waiting for a pipe: the directory is untrusted
            handle = os.open(run / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        except OSError as error:
            raise ResourceError(f"`{run / LOCK_FILE}` cannot be written: {error.strerror or error}") from None
        try:
            _flock(handle, run)
            if _is_at(handle, run / LOCK_FILE):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # the previous holder removed the file: try again


def _flock(handle: int, run: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        hint = "wait for it, or select another directory with `--out`"
        raise UsageError(f"another process is training in `{run}`", hint) from None
    except OSError:  # a file system without locks
        pass


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file still has that name."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def _sweep(run: Path) -> None:
    """Remove the unfinished files of killed processes, as far as possible."""
    with suppress(OSError):
        for child in run.iterdir():
            if is_draft(child.name):
                child.unlink(missing_ok=True)
