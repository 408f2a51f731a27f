"""Hypothesis strategies for texts of specs: layers, items and whole tables of the grammar."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

CHANNELS = st.sampled_from(["4", "8", "16", "4*k", "(k+2)*4", "classes"])
WINDOWS = st.sampled_from(["1x1", "3x3", "5x5", "1x3", "3x1", "2x2", "kxk"])
DECIMALS = st.sampled_from(["0.1", "0.001", "1", "0.75", "1e-3", "0.12345678", "2"])


def _maybe(mark: SearchStrategy[str]) -> SearchStrategy[str]:
    return st.one_of(st.just(""), st.just(""), mark)


@st.composite
def marked(draw: st.DrawFn, first: SearchStrategy[str], *marks: SearchStrategy[str]) -> str:
    """A window and some of its marks, in any order."""
    words = [word for mark in marks if (word := draw(_maybe(mark)))]
    return " ".join([draw(WINDOWS), draw(first), *draw(st.permutations(words))]).strip()


PADS = st.sampled_from(["V", "pad=0", "pad=1"])
CONVOLUTIONS = marked(
    st.one_of(CHANNELS, st.just("")),
    st.sampled_from(["C=2", "C=4", "dw", "C=k"]),
    st.sampled_from(["/2", "/1", "/k"]),
    st.just("dil=2"),
    PADS,
    st.sampled_from(["linear", "bare"]),
)
POOLS = marked(st.sampled_from(["max", "avg", "avg(pad)"]), st.sampled_from(["/2", "/3"]), PADS, st.just("ceil"))
OTHERS = st.one_of(
    st.sampled_from(["bn", "relu", "prelu", "softmax", "global avg", "max to 1x1", "avg to 2x3", "spp 2 1"]),
    st.sampled_from(["fc 10", "fc classes", "lrn 5 0.0001 0.75 2", "roi 3x3 of 4"]),
    DECIMALS.map("bn({})".format),
    DECIMALS.map("leaky({})".format),
    st.sampled_from(["0", "0.3", "0.5"]).map("dropout {}".format),
)
LAYERS = st.one_of(CONVOLUTIONS, CONVOLUTIONS, POOLS, OTHERS)
TIMES = st.sampled_from(["", "", "", " x 2", " x k", " x 3"])
HEADS = st.one_of(
    st.sampled_from(
        ["residual", "residual", "residual linear", "residual 0.1", "seq", "aside", "sum of 2", "concat of k"]
    ),
    DECIMALS.map("residual {} linear".format),
)


def _composites(items: SearchStrategy[str]) -> SearchStrategy[str]:
    bodies = st.lists(items, min_size=1, max_size=3).map(lambda texts: f"[{', '.join(texts)}]")
    branches = st.lists(bodies, min_size=1, max_size=3).map(lambda texts: f"[{', '.join(texts)}]")
    times = st.sampled_from(["", "", " x 2"])
    return st.one_of(
        st.builds(lambda head, n, body: f"{head}{'' if head == 'aside' else n}: {body}", HEADS, times, bodies),
        st.builds(lambda head, n, of: f"{head}{n}: {of}", st.sampled_from(["concat", "sum"]), times, branches),
        st.sampled_from(["unit 4 8", "unit 8 4*k", "pair"]),
    )


ITEMS = st.recursive(st.builds("{}{}".format, LAYERS, TIMES), _composites, max_leaves=8)
ROWS = st.lists(ITEMS, min_size=1, max_size=4).map(lambda items: f"[{', '.join(items)}]")
STYLES = st.one_of(
    st.sampled_from(["conv bn relu", "conv relu", "bn relu conv", "conv(bias) bn prelu", "conv"]),
    st.sampled_from(["conv bn(0.001) leaky(0.1)", "relu conv bn", "bn relu conv bn", "relu conv relu"]),
)
EQUATIONS = st.sampled_from(["relu(x + F)", "x + F", "relu(F)", "F", "leaky(0.1)(x + F)", "prelu(x+F)"])
SHORTCUTS = st.sampled_from(
    ["project", "project", "pad", "project all", "[sxs avg /s ceil, 1x1]", "[1x1 /s linear, bn]", "[1x1 avg]"]
)


@st.composite
def specs(draw: st.DrawFn) -> str:
    """A whole spec with valid syntax; its shapes may not match."""
    rows = draw(st.lists(ROWS, min_size=1, max_size=3))
    lines = [
        f"input: {draw(st.sampled_from(['8x16x16', '3x32x32', '4x9x7']))}",
        "classes: 10",
        "let: {k: 2}",
        f"conv: {draw(STYLES)}",
        f"residual: {draw(EQUATIONS)}",
        f"shortcut: {draw(SHORTCUTS)}",
        "blocks:",
        "  unit a b: [1x1 a, 3x3 b]",
        "  pair: [unit 4 8, residual: [unit 4 8]]",
        "table:",
        *(f"  r{index}: {row}" for index, row in enumerate(rows)),
    ]
    if draw(st.booleans()):
        lines.append("aux: {r0: [global avg, fc classes]}")
    return "\n".join(lines) + "\n"
