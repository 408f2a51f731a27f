"""Errors of one process as the others receive them, and errors of the connection between processes."""

from __future__ import annotations

import os
import re
import socket
import sys
from typing import NoReturn

import torch.distributed as dist

from resnetcli.errors import ResourceError, SpecError, UsageError
from resnetcli.frozen import frozen


class ProcessLost(ResourceError):  # noqa: N818 - named after the condition
    """Another process has ended, or does not respond."""

    def __init__(self, world: int, reason: str) -> None:
        super().__init__(
            f"another of the {world} processes has ended, or does not respond: {reason}",
            "its own output says more; `--resume` continues from the last checkpoint",
        )


class OtherRankFailed(Exception):  # noqa: N818 - named after the condition
    """Another process could not build its trainer; rank 0 reports it."""


@frozen
class RankError:
    """A UsageError or ResourceError of one rank, as the others receive it."""

    is_usage: bool
    host: str
    message: str
    hint: str

    @classmethod
    def of(cls, error: UsageError | ResourceError) -> RankError:
        return cls(isinstance(error, UsageError), socket.gethostname(), error.message, error.hint)

    def as_error(self, rank: int) -> UsageError | ResourceError:
        """The error as rank 0 raises it."""
        return (UsageError if self.is_usage else ResourceError)(
            f"{rank_name(rank, self.host)}: {self.message}", self.hint
        )


def rank_name(rank: int, host: str) -> str:
    """A process as errors name it: `rank 1, on node0`."""
    return f"rank {rank}, on {host}"


_CONNECTION_WORDS = re.compile(r"gloo|nccl|connection|timed out|timeout|socket", re.IGNORECASE)
"""Words in the messages of a closed connection."""


def is_connection_error(error: BaseException) -> bool:
    """Whether an error means that the connection to another process is lost."""
    return isinstance(error, RuntimeError) and (
        isinstance(error, dist.DistError) or _CONNECTION_WORDS.search(str(error)) is not None
    )


def short_reason(error: BaseException) -> str:
    """The first sentence of an error of gloo or nccl, without its source location."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0].partition(". ")[0]
    return re.sub(r"^(\[[^\]]*\.(cc|cpp|h):\d+\]\s*|\[rank\d+\]:?\s*)+", "", line).rstrip(".")[:200]


def exit_code_of(error: BaseException) -> int:
    """The exit code of an error, for the other processes."""
    code = getattr(error, "exit_code", getattr(error, "code", None))
    if isinstance(code, int):
        return code
    if isinstance(error, UsageError | SpecError):
        return 2
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 3 if isinstance(error, ResourceError | MemoryError | OSError) else 1


def exit_now() -> NoReturn:
    """End the process at once: a GPU that waits for a lost process would keep it forever."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(3)
