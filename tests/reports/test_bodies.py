"""What differs between two bodies as they are written."""

from __future__ import annotations

import pytest

from resnetcli.errors import Source
from resnetcli.reports.bodies import body_changes
from resnetcli.spec.read import read
from resnetcli.spec.spec import Item
from tests.support.written import ZOO


def body(text: str) -> tuple[Item, ...]:
    return read(Source("net.yaml", f"input: 8x64x64\ntable:\n  r:\n    {text}\n"), zoo=ZOO).stages["r"]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("3x3 64", "3x3 64 x 1", ()),
        ("[3x3 64, 1x1 8]", "[seq: [3x3 64], 1x1 8]", ()),
        ("3x3 64", "3x3 128", ("width 64 -> 128",)),
        ("3x3 64", "3x3", ("width 64 -> as input",)),
        ("3x3 8", "3x3 dw", ("width 8 -> as input", "groups 1 -> dw")),
        ("3x3 64", "1x1 64", ("kernel 3x3 -> 1x1",)),
        ("3x3 64", "3x3 64 dil=2", ("dilation 1 -> 2",)),
        ("3x3 64", "3x3 64 /2", ("stride 1 -> 2",)),
        ("3x3 64", "3x3 64 V", ("padding same -> none",)),
        ("3x3 64", "3x3 64 linear", ("form conv -> linear",)),
        ("3x3 64 bare", "3x3 64 linear", ("form bare -> linear",)),
        ("3x3 max /2", "3x3 avg /2", ("kind max -> avg",)),
        ("3x3 max /2", "3x3 max /2 ceil", ("size rounded down -> rounded up",)),
        ("[3x3 8, relu]", "[3x3 8, leaky(0.1)]", ("layer relu -> leaky(0.1) (relu)",)),
        ("[3x3 8, bn]", "[3x3 8, bn(0.001)]", ("layer bn -> bn(0.001) (bn)",)),
        ("[global avg, fc 10]", "[global max, fc 10]", ("kind avg -> max (global)",)),
        ("fc 10", "fc 100", ("width 10 -> 100",)),
        ("[1x1 8, 3x3 8]", "[1x1 8, 3x3 8, 3x3 8]", ("added 3x3 8",)),
        ("[1x1 8, 3x3 max, 5x5 8]", "[1x1 8, 5x5 8]", ("dropped 3x3 max",)),
        ("[1x1 8 /2, 3x3 8, 1x1 8]", "[1x1 8, 3x3 8 /2, 1x1 8]", ("stride 2 moved from the first 1x1 to the 3x3",)),
        ("[1x1 8 /2, 3x3 8]", "[1x1 8, 3x3 8]", ("stride 2 -> 1 (1x1)",)),
        ("residual x 3: [3x3 8, 3x3 8]", "residual x 4: [3x3 8, 3x3 8]", ("blocks 3 -> 4",)),
        ("residual: [3x3 8, 3x3 8]", "residual 0.2 linear: [3x3 8, 3x3 8]", ("scale none -> 0.2", "linear no -> yes")),
        ("residual x 2: [3x3 8 /2, 3x3 8]", "residual x 2: [3x3 8, 3x3 8]",
         ("stride 2 -> 1 (first 3x3 of the first block)",)),
        ("concat: [1x1 8, 3x3 8]", "concat: [1x1 8, 3x3 16]", ("width 8 -> 16 (branch 2: 3x3)",)),
        ("concat: [1x1 8, 3x3 8]", "concat: [1x1 8, 3x3 8, 5x5 8]", ("added branch [5x5 8]",)),
        ("concat: [1x1 8, 3x3 8]", "sum: [1x1 8, 3x3 8]", ("kind concat -> sum",)),
        ("sum of 4: [3x3 8]", "sum of 8: [3x3 8]", ("branches 4 -> 8",)),
        ("[residual: [3x3 8], residual: [3x3 8]]", "[residual: [3x3 8], residual: [5x5 8]]",
         ("kernel 3x3 -> 5x5 (second residual: 3x3)",)),
        ("[5x5 8 x 2, 3x3 8]", "fc 10", ("replaced: [5x5 8 x 2, 3x3 8] -> [fc 10]",)),
        ("spp 4 2 1", "spp 2 1", ("levels 4 2 1 -> 2 1",)),
    ],
)  # fmt: skip
def test_two_bodies_differ_in(before: str, after: str, words: tuple[str, ...]) -> None:
    assert body_changes(body(before), body(after)) == words
