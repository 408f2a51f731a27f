"""Plans of specs that are written in tests."""

from __future__ import annotations

from textwrap import dedent

from resnetcli.errors import Source
from resnetcli.ops import Op, Shape
from resnetcli.plan.lower import lower
from resnetcli.plan.plan import Plan
from resnetcli.spec.read import read
from resnetcli.spec.zoo import Zoo

ZOO = Zoo()


def plan_of(text: str, /, *, aux: bool = False, **parameters: int) -> Plan:
    """The plan of a spec's text."""
    return lower(read(Source("written.yaml", dedent(text)), zoo=ZOO, parameters=parameters), aux=aux)


def plan_of_model(name: str, /, size: int | None = None, **parameters: int) -> Plan:
    """The plan of a model in the zoo; over images of 3 x size x size, if it is given."""
    shape = None if size is None else Shape(3, size, size)
    return lower(read(name, zoo=ZOO, input=shape, parameters=parameters))


def row(items: str, /, input: str = "8x8x8", **header: str) -> Plan:
    """The plan of a table with one row, `r`, over images of 8 x 8 x 8; `header` by keyword: conv="bn relu conv"."""
    lines = [f"input: {input}", *(f"{key}: {value}" for key, value in header.items()), "table:", "  r:", f"    {items}"]
    return plan_of("\n".join(lines))


def ops(plan: Plan) -> list[Op]:
    """The plan's operations, without the input."""
    return [step.op for step in plan.steps[1:]]


def wiring(plan: Plan) -> list[str]:
    """Each step's path, followed by its inputs unless the only input is the previous step."""
    lines = []
    for index, step in enumerate(plan.steps[1:], start=1):
        read_from = ", ".join(plan.steps[i].path for i in step.inputs)
        lines.append(step.path if step.inputs == (index - 1,) else f"{step.path} <- {read_from}")
    return lines
