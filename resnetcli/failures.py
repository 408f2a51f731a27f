"""Several models in one command: a model that fails does not end the others, and is reported below them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from resnetcli.errors import ResourceError, SpecError, UsageError, first_line
from resnetcli.frozen import frozen

T = TypeVar("T")
Asked = tuple[str, Mapping[str, int]]


@frozen
class ModelFailure:
    """A model that could not be read, built or counted."""

    model: str
    error: SpecError | UsageError | ResourceError
    settings: Mapping[str, int] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """2 for bad input, 3 for lack of resources."""
        return 3 if isinstance(self.error, ResourceError) else 2

    @property
    def label(self) -> str:
        """The model with the parameters that were set."""
        return " ".join([self.model, *(f"{name}={value}" for name, value in self.settings.items())])

    @property
    def reason(self) -> str:
        """The error in one line, without its hint."""
        if isinstance(self.error, SpecError):
            return "; ".join(first_line(problem) for problem in self.error.problems)
        return self.error.message

    def record(self) -> dict[str, Any]:
        """JSON record."""
        hint = None if isinstance(self.error, SpecError) else self.error.hint or None
        return {"model": self.model, "parameters": dict(self.settings), "error": self.reason, "hint": hint}


@dataclass(eq=False)
class ModelsError(Exception):
    """Every one of several models failed, for different reasons."""

    failures: tuple[ModelFailure, ...]

    def __str__(self) -> str:
        return "\n".join(messages(self.failures))

    @property
    def exit_code(self) -> int:
        """Exit code for the failures."""
        return exit_code(self.failures)


def for_each(
    models: Iterable[Asked], make: Callable[[str, Mapping[str, int]], T]
) -> tuple[list[T], list[ModelFailure]]:
    """`make(name, settings)` of every model, and the models that failed.

    Raises what the failures have in common if all fail, or ModelsError if they differ.
    """
    made: list[T] = []
    failures: list[ModelFailure] = []
    for name, settings in models:
        try:
            made.append(make(name, settings))
        except (SpecError, UsageError, ResourceError) as error:
            failures.append(ModelFailure(name, error, settings))
        except MemoryError:
            failures.append(ModelFailure(name, ResourceError(f"out of memory with `{name}`"), settings))
    if failures and not made:
        if len(messages(failures)) == 1:
            raise failures[0].error
        raise ModelsError(tuple(failures))
    return made, failures


def messages(failures: Iterable[ModelFailure]) -> list[str]:
    """Each error once."""
    return list(dict.fromkeys(str(failure.error) for failure in failures))


def exit_code(failures: Iterable[ModelFailure]) -> int:
    """0 without failures; 2 if any is bad input, else 3."""
    return min((failure.exit_code for failure in failures), default=0)
