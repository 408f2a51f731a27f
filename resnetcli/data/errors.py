"""What is wrong with a data set's files, as distinct from how they were asked for."""

from __future__ import annotations

from resnetcli.errors import UsageError


class DataError(UsageError):
    """Files that are damaged, incomplete or not what their names claim."""
