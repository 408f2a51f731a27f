"""Checkpoints: tensors and a little JSON in one safetensors file, written atomically, with a digest.

Nothing in a file is executed. Before any tensor is read, the bounded header must name exactly the expected tensors,
and the file must have exactly their size.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from resnetcli.errors import UsageError
from resnetcli.files import write_atomic
from resnetcli.frozen import frozen
from resnetcli.runs.config import MAX_ITERATIONS

FORMAT = "resnet-cli/checkpoint@1"
KEPT = 2
"""Checkpoints per run: if one is damaged, the other is used."""
MAX_HEADER = 16 * 2**20
MAX_FACTS = 2**20
_NAME = re.compile(r"checkpoint-([0-9]{8,10})\.safetensors")
DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""Names of dtypes in safetensors."""


class Damaged(Exception):  # noqa: N818 - named after the condition
    """A file that is not a valid checkpoint of the run; the message says why."""


@frozen
class Checkpoint:
    """A state to resume from."""

    iteration: int
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    """Saved with the tensors: the run's configuration, and the seconds so far."""


def save(folder: Path, iteration: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
    """Write a checkpoint, then remove all but the last ones. Raises OSError, with the old ones intact, if it fails."""
    from safetensors.torch import save as serialise

    copies = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(facts, sort_keys=True)
    metadata = {
        "format": FORMAT,
        "iteration": str(iteration),
        "facts": text,
        "sha256": _digest(iteration, text, copies),
    }
    path = folder / f"checkpoint-{iteration:08d}.safetensors"
    write_atomic(path, serialise(copies, metadata))
    prune(folder, iteration)
    return path


def prune(folder: Path, iteration: int) -> None:
    """Remove all checkpoints except the last ones up to an iteration, as far as possible."""
    valid = [old for at, old in files(folder) if at <= iteration][:KEPT]
    for _, old in files(folder):
        if old not in valid:  # a later one was damaged, and the run resumed before it
            with suppress(OSError):
                old.unlink()


def files(folder: Path) -> list[tuple[int, Path]]:
    """A run's checkpoints with their iterations, newest first."""
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return sorted(found, reverse=True)


def load_checkpoint(path: Path, expected: Mapping[str, Tensor]) -> Checkpoint:
    """Read a checkpoint whose tensors have the names, shapes and dtypes of `expected`, which may be meta tensors.

    Raises Damaged for any other file, before anything is allocated for it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as deserialise

    try:
        if not path.is_file():  # reading a pipe might never end
            raise Damaged("it is not a regular file")
        with path.open("rb") as file:
            metadata = _header(file, path.stat().st_size, expected)
            file.seek(0)
            tensors = deserialise(file.read(path.stat().st_size))
    except (OSError, SafetensorError) as error:
        raise Damaged(f"it cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not re.fullmatch("[0-9]{1,10}", metadata["iteration"]):
        raise Damaged("it has no iteration")
    iteration, text = int(metadata["iteration"]), metadata["facts"]
    try:
        if _digest(iteration, text, tensors) != metadata["sha256"]:
            raise Damaged("its digest does not match its content")
        facts = json.loads(text)
    except (KeyError, ValueError, RecursionError):  # anybody can compute a digest
        raise Damaged("its metadata was not written by a run") from None
    named = _NAME.fullmatch(path.name)
    if iteration > MAX_ITERATIONS or not isinstance(facts, dict) or (named and int(named[1]) != iteration):
        raise Damaged("its iteration is not the one in its name")
    return Checkpoint(iteration, tensors, facts)


def newest(folder: Path, expected: Mapping[str, Tensor], warn: Callable[[str], object]) -> Checkpoint:
    """Read the newest valid checkpoint; `warn` receives a line about each damaged one.

    Raises UsageError if there is none: starting over silently would hide that all are damaged.
    """
    found = files(folder)
    for place, (_, path) in enumerate(found):
        try:
            return load_checkpoint(path, expected)
        except Damaged as reason:
            then = "the previous one is used" if place < len(found) - 1 else "there is no previous one"
            warn(f"warning: `{path}` is damaged: {reason}; {then}")
    raise UsageError(f"no checkpoint of `{folder}` can be used", "start another run with `--out`")


def _digest(iteration: int, facts: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the whole checkpoint: iteration, facts, and each tensor's name, dtype, shape and bytes."""
    digest = hashlib.sha256(json.dumps([FORMAT, iteration, facts]).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(json.dumps([name, DTYPES[tensor.dtype], list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _header(file: IO[bytes], size: int, expected: Mapping[str, Tensor]) -> dict[str, str]:
    """The metadata. Raises Damaged unless the file has exactly the expected tensors."""
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(MAX_HEADER, size - 8):
        raise Damaged("it is truncated, or not a safetensors file")
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError):
        raise Damaged("its header is not JSON") from None
    metadata = header.pop("__metadata__", None) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise Damaged("it was not written by a run")
    if not all(isinstance(metadata.get(key), str) for key in ("iteration", "facts", "sha256")):
        raise Damaged("its header is incomplete")
    if len(metadata["facts"]) > MAX_FACTS:
        raise Damaged("its header is too large")
    for problem in _unlike(header, expected):
        raise Damaged(problem)
    total = sum(tensor.numel() * tensor.element_size() for tensor in expected.values())
    if size != 8 + length + total:
        raise Damaged(f"it has {size:,} bytes, not {8 + length + total:,}")
    return metadata


def _unlike(header: Mapping[str, Any], expected: Mapping[str, Tensor]) -> Iterator[str]:
    for name in expected.keys() - header.keys():
        yield f"it has no `{name}`"
    for name, entry in header.items():
        if name not in expected:
            yield "it has a tensor that the model does not have"
        elif not isinstance(entry, dict) or entry.get("shape") != list(expected[name].shape):
            yield f"its `{name}` has another shape"
        elif entry.get("dtype") != DTYPES[expected[name].dtype]:
            yield f"its `{name}` has another type"
