"""The error for a dataset whose files are broken, as opposed to a wrong command."""

from __future__ import annotations

from resnetcli.errors import UsageError

FETCH_HINT = "download it again: `resnet-cli data fetch`"


class DataError(UsageError):
    """Files that are damaged, incomplete or not what their names claim."""
