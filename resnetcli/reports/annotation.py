"""Problems as GitHub Actions annotations, which are shown beside their line."""

from __future__ import annotations

from resnetcli.errors import Problem, clean


def annotation(problem: Problem) -> str:
    """`::error file=model.yaml,line=5,col=49::message`; notes and hint are further lines of the message."""
    lines = [problem.message, *problem.notes, *([f"hint: {problem.hint}"] if problem.hint else [])]
    place = {}
    if problem.at is not None:
        at = problem.at
        place = {"file": at.source.label, "line": at.line, "col": at.column}
    properties = ",".join(f"{key}={_property(str(value))}" for key, value in place.items())
    message = "\n".join(map(clean, lines))
    return f"::{problem.severity}{f' {properties}' if properties else ''}::{_escaped(message)}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(clean(text)).replace(":", "%3A").replace(",", "%2C")
