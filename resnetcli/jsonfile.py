"""Reads a file of JSON that anybody may have written: no more of it than it may have, and nothing that never ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from resnetcli.errors import UsageError


def load_json(label: str, hint: str, most: int) -> Any:
    """What is in a file of JSON of at most so many bytes. Raises UsageError for whatever else a file may hold."""
    try:
        if Path(label).exists() and not Path(label).is_file():
            raise UsageError(f"`{label}` is no regular file", hint)
        with Path(label).open("rb") as file:
            data = file.read(most + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "no such file"
        raise UsageError(f"`{label}` cannot be read: {reason}", hint) from None
    if len(data) > most:
        raise UsageError(f"`{label}` is larger than {most // 2**20} MiB", hint)
    try:
        return json.loads(data)
    except (ValueError, RecursionError):  # no JSON, no UTF-8, a number of thousands of digits; brackets without end
        raise UsageError(f"`{label}` is not JSON", hint) from None
