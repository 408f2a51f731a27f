"""Console script: prepare the environment, run the command line, and never show a traceback."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # `typing` is slow to import, and until `main` runs Ctrl-C shows a traceback
if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Any

    from resnetcli.cli.root import app as app

COMPLETE = "_RESNET_CLI_COMPLETE"
"""Set by the shell's completion script."""
WIDEST = 10_000
"""Largest plausible terminal size, in columns or lines."""


def tidy(environ: MutableMapping[str, str]) -> None:
    """Remove variables that rich and typer read on import and fail on."""
    import re

    for name in ("COLUMNS", "LINES", "TERMINAL_WIDTH"):
        value = environ.get(name)
        if value is not None and not (re.fullmatch("[0-9]{1,5}", value) and 0 < int(value) <= WIDEST):
            del environ[name]
    for name in ("TYPER_USE_RICH", "TYPER_STANDARD_TRACEBACK", "_TYPER_STANDARD_TRACEBACK"):
        environ.pop(name, None)  # never show a traceback; always format help alike


class CollectOnceTorchLoads:
    """An import hook that enables the garbage collector when torch is imported: its objects form cycles."""

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> None:
        """Enable the collector; leave the import to the other finders."""
        if name == "torch":
            import gc

            gc.enable()


def main() -> None:
    """Run the command line. Ctrl-C never shows a traceback, also while modules are imported."""
    try:
        _main()
    except KeyboardInterrupt:
        sys.exit(130)


def _main() -> None:
    import gc
    import io
    import os
    from functools import partial

    gc.disable()  # parsing and counting make no cycles; searching for cycles takes a fifth of the time
    sys.meta_path.insert(0, CollectOnceTorchLoads)

    tidy(os.environ)
    from resnetcli.cli.app import complain
    from resnetcli.cli.root import app
    from resnetcli.cli.supervise import code_in, supervised
    from resnetcli.table.safe import ENCODING_ERRORS

    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the parent process
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - stays open
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ENCODING_ERRORS)  # for a terminal without ×
    command = partial(app, prog_name="resnet-cli")
    try:
        if code := code_in(sys.argv[1:]):
            supervised(command, code)
        else:
            command()
    except OSError as error:  # printed outside a command, such as help on a full disk
        complain(f"error: {error.strerror or error}")
        sys.exit(3)
    except (KeyError, ValueError, IndexError):
        if COMPLETE not in os.environ:
            raise
        complain(f"error: `{COMPLETE}` is set without the other variables of shell completion\n"
                 f"hint: `unset {COMPLETE}`")  # fmt: skip
        sys.exit(2)


def __getattr__(name: str) -> Any:
    """Import the application on demand: it is slow to import."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from resnetcli.cli.root import app

    return app
