"""A spec written out is the same model, whatever it extended and whatever was set."""

from __future__ import annotations

from pathlib import Path

import pytest

from resnetcli.errors import Source
from resnetcli.ops import Shape
from resnetcli.plan.lower import lower
from resnetcli.spec.read import read
from resnetcli.spec.resolve import resolved
from resnetcli.spec.spec import Spec
from resnetcli.spec.zoo import Zoo
from tests.support.thin import thinned

ZOO = Zoo()
NOWHERE = Zoo(Path("/nowhere"))
"""A zoo without a single net: what is written out needs none."""


def again(text: str) -> Spec:
    return read(Source("model.yaml", text), zoo=NOWHERE)


@pytest.mark.parametrize("name", thinned(ZOO.files, 4))
def test_every_model_of_the_zoo_written_out_is_the_same_model(name: str) -> None:
    spec = read(name, zoo=ZOO)
    found = again(resolved(name, spec, zoo=ZOO))
    assert found.extends == ()
    for aux in (False, True):
        one, other = lower(spec, aux=aux), lower(found, aux=aux)
        assert (one.steps, one.stages, one.outputs, one.parameters) == (
            other.steps, other.stages, other.outputs, other.parameters
        )  # fmt: skip
    for told in ("title", "cite", "about", "deviations", "published", "expect"):
        assert getattr(found, told) == getattr(spec, told)


def test_what_was_set_is_the_default_of_what_is_written_out() -> None:
    spec = read("wrn_28_10", zoo=ZOO, input=Shape(3, 48, 40), parameters={"depth": 16, "k": 2, "classes": 7})
    found = again(resolved("wrn_28_10", spec, zoo=ZOO))
    assert lower(found).steps == lower(spec).steps
    assert found.parameters == {"depth": 16, "k": 2, "classes": 7}
    assert found.changed == frozenset()
    assert found.input == Shape(3, 48, 40)


def test_figures_of_the_model_as_it_was_written_are_left_out_of_another() -> None:
    same = read("wrn_28_10", zoo=ZOO)
    other = read("wrn_28_10", zoo=ZOO, parameters={"classes": 7})
    assert again(resolved("wrn_28_10", same, zoo=ZOO)).published == same.published != ()
    assert again(resolved("wrn_28_10", other, zoo=ZOO)).published == ()
    assert again(resolved("wrn_28_10", other, zoo=ZOO)).expect is None
