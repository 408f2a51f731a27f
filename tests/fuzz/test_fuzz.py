"""Specs from strangers: whatever stands in a file, it is a plan or an error that points, and soon."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from resnetcli.errors import ResourceError, Source, SpecError, UsageError
from resnetcli.net.module import build
from resnetcli.plan.count import count
from resnetcli.plan.lower import lower
from resnetcli.plan.plan import Plan
from resnetcli.reports.compare import compare
from resnetcli.reports.compare_table import comparison_sheet
from resnetcli.reports.info import info
from resnetcli.reports.listing import listing
from resnetcli.reports.papers import paper_tables
from resnetcli.reports.profile import profile_model
from resnetcli.reports.profile_table import published_sheet
from resnetcli.reports.verify import verify
from resnetcli.spec.header import FIGURES
from resnetcli.spec.read import read
from resnetcli.spec.zoo import Zoo
from tests.support.bad_specs import CASES
from tests.support.nets import trace_shapes
from tests.support.strategies import specs
from tests.support.thin import thinned

ZOO = Zoo()
BUILT_STEPS = 150
"""Larger plans are lowered and counted, not built."""

CORNERS = """\
name: Every corner of the grammar
cite: 'nobody: "nowhere"'
input: 3x65x33
classes: 7
conv: bn relu conv
residual: x + F
shortcut: [sxs avg /s ceil, 1x1]
let: {depth: 10, k: 2, n: (depth-4)/6, wide: 16*k}
blocks:
  inception p1 r3 p3 pp:
    concat: [1x1 p1, [1x1 r3, 3x3 p3], [3x3 max, 1x1 pp]]
  pair a: [unit a, unit a]
  unit a: [residual 0.3 linear: [1x1 a, 3x3 a dw /2, 3x3 a C=k dil=2]]
table:
  stem: [7x7 wide /2 bare, bn, relu, 3x3 max /2 ceil]
  a: [residual x n: [1x1 wide, 3x3 wide C=4 /2, 1x1 4*wide], seq x 2: [3x3, relu]]
  b:
    - inception 8 4 8 4
    - sum of 4: [1x1 4, 3x3 4 linear]
    - concat of k: [1x3 8, 3x1 8 pad=1]
  c: [aside: [5x5 avg(pad) /3, fc 5], pair 12, lrn 5 0.0001 0.75 2, prelu, leaky(0.1), dropout 0.4]
  cell: 7×7, 64, stride 2
  d: [avg to 6x6, roi 3x2 of 5, spp 3 2 1]
  end: average pool, 1000-d fc, softmax
aux: {a: [global avg, fc 7]}
published:
  - {params: 25.5M, top1_error: 22.2, dataset: D, protocol: test, source: "arXiv:1", table: T, note: "cause unknown"}
expect: {params: 5, depth: 3, sizes: [1, 2]}
"""
PUBLISHED = 'published: [{{{}, dataset: D, protocol: test, source: "arXiv:1", table: T}}]\n'
SEEDS = [CORNERS, *(path.read_text(encoding="utf-8") for path in ZOO.files.values())]
ODD = """* &a !!int --- null ~ << x × ? | > % @ ` # " ' 1e9 - [ ] { } : , of to extends: 0 -1 00 2147483648 1/0 k/3"""
WORDS: list[str] = [
    *sorted({word for text in SEEDS for word in re.findall(r"[^\s\[\]{},]+", text)}),
    *ODD.split(),
    *("\t", "\r", "\x00", "\x85", "\u2028", "\ufeff", "\ud7ff", "\U0001d7db", "\u0663", "½"),
    *("9" * 12, "9" * 13, "9" * 400, "(" * 40),
]
WORD = st.sampled_from(WORDS)


def edit(text: str, draw: st.DrawFn) -> str:
    """The text with one thing in it changed."""
    match draw(st.sampled_from(["character", "word", "word", "number", "line", "line", "span", "splice"])):
        case "character":
            at = draw(st.integers(0, len(text)))
            return text[:at] + draw(st.characters(codec="utf-8")) + text[at + draw(st.integers(0, 2)) :]
        case "word" | "number" as kind:
            places = list(re.finditer(r"[0-9]+" if kind == "number" else r"[^\s\[\]{},:]+|[\[\]{},:]", text))
            if not places:
                return text
            place = draw(st.sampled_from(places))
            number = st.one_of(st.integers(-1, 70), st.integers(-(10**13), 10**13)).map(str)
            return text[: place.start()] + draw(number if kind == "number" else WORD) + text[place.end() :]
        case "line":
            lines = text.splitlines(keepends=True) or [""]
            first, second = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
            match draw(st.sampled_from(["delete", "duplicate", "swap", "indent"])):
                case "delete":
                    del lines[first]
                case "duplicate":
                    lines.insert(second, lines[first])
                case "swap":
                    lines[first], lines[second] = lines[second], lines[first]
                case _:
                    lines[first] = draw(st.sampled_from(["", " ", "  ", "    ", "\t", "- "])) + lines[first].lstrip()
            return "".join(lines)
        case "span":
            brackets = list(re.finditer(r"\[[^\[\]]*\]|\{[^{}]*\}|[^\s,\[\]][^,\[\]\n]*", text))
            if not brackets:
                return text
            place, other = (draw(st.sampled_from(brackets)) for _ in range(2))
            instead: str = draw(st.sampled_from(["", other.group()]))
            return text[: place.start()] + instead + text[place.end() :]
        case _:
            lines, others = text.splitlines(keepends=True), draw(st.sampled_from(SEEDS)).splitlines(keepends=True)
            cut = draw(st.integers(0, len(lines)))
            start = draw(st.integers(0, len(others) - 1))
            return "".join([*lines[:cut], *others[start : start + draw(st.integers(1, 4))], *lines[cut:]])


def holds(text: str, tries: int = 2) -> Plan | None:
    """The plan of a text, if it is one. Fails if reading raises what it must not, or takes longer than a second.

    Tried again before it is called slow: the garbage collector may have gone through all that hypothesis keeps.
    """
    start = time.process_time()
    plan, said = None, ""
    try:
        plan = lower(read(Source("fuzz.yaml", text), zoo=ZOO), aux=True)
        counts = count(plan)
        assert sum(cost.params for cost in counts.stages.values()) == counts.params
        assert sum(cost.macs for cost in counts.stages.values()) == counts.macs
    except (SpecError, UsageError, ResourceError) as error:
        said = str(error)
    if time.process_time() - start >= 1:
        assert tries, "more than a second"
        return holds(text, tries - 1)
    assert plan or said
    assert all(line.replace("\t", "").isprintable() for line in said.split("\n"))
    return plan


def builds(plan: Plan) -> None:
    """Builds on the meta device, where every step must have the shape the plan says."""
    start = time.process_time()
    net = build(plan, device="meta").eval()
    assert time.process_time() - start < 1
    if count(plan).macs < 10**12:
        image = torch.empty(2, plan.input.c, plan.input.h, plan.input.w, device="meta")
        wanted = [(2 * step.shape.n, step.shape.c, step.shape.h, step.shape.w) for step in plan.steps]
        assert [(*shape, 1, 1)[:4] for shape in trace_shapes(net, image)] == wanted


def holds_and_builds(text: str) -> None:
    plan = holds(text)
    if plan is not None and len(plan.steps) <= BUILT_STEPS:
        builds(plan)


@st.composite
def mutants(draw: st.DrawFn) -> str:
    """A spec with a few things changed."""
    text = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 5))):
        text = edit(text, draw)
    return text


def profile(examples: int) -> settings:
    return settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )


def test_the_seeds_are_right() -> None:
    for text in SEEDS:
        assert holds(text) is not None


@profile(120)
@given(mutants())
def test_a_mutated_spec_is_a_plan_or_an_error_that_points(text: str) -> None:
    holds_and_builds(text)


@profile(80)
@given(specs())
def test_a_spec_of_drawn_items_has_the_shapes_that_torch_gives_or_an_error_that_points(text: str) -> None:
    holds_and_builds(text)


@profile(140)
@given(st.lists(st.one_of(WORD, st.sampled_from(["\n", "\n  ", " ", ": ", ", "])), max_size=60).map("".join))
@example("")
def test_junk_is_an_error_that_points(text: str) -> None:
    holds(text)
    holds(f"input: 3x32x32\ntable: {{t: [{text}]}}\n")
    holds(f"input: 3x32x32\ntable:\n  t:\n    {text}\n")


VALUES = [
    *ODD.split(),
    *(
        "25.5M",
        "~22",
        "22.2%",
        "12ms",
        "22.2",
        "0.000001",
        "100",
        "250",
        "1.5T",
        "3B",
        "5 G",
        "~5K%",
        "1ms",
        "1e5",
        "\u0663",
    ),
    *("9" * 30, "0." + "0" * 300 + "1", "null", "[]", "{}", "''"),
]
TEXTS = [
    "arXiv:1512.03385",
    "Table 1",
    "x",
    "''",
    '"\\e[31m"',
    "'[bold]'",
    "'|'",
    "null",
    "[a]",
    "single-crop-224",
    "a" * 500,
]


@st.composite
def accounts(draw: st.DrawFn) -> str:
    """A model with a header that says much about it."""
    lines = ["input: 3x32x32", "table: {a: 3x3 16, b: [global avg, fc classes]}"]
    value, text = st.sampled_from(VALUES), st.sampled_from(TEXTS)
    for key in ("name", "cite", "about"):
        if draw(st.booleans()):
            lines.append(f"{key}: {draw(text)}")
    if draw(st.booleans()):
        names = draw(st.lists(st.sampled_from(["params", "macs", "depth", "sizes"]), max_size=2, unique=True))
        lines.append(f"expect: {{{', '.join(f'{name}: {draw(value)}' for name in names)}}}")
    lines.append("published:")
    for _ in range(draw(st.integers(1, 3))):
        figures = draw(st.lists(st.sampled_from(FIGURES), min_size=1, max_size=3, unique=True))
        plain = draw(st.booleans())
        facts = ["source", "table", "protocol", "dataset", *draw(st.lists(st.sampled_from(["note", "label", "row"])))]
        pairs = [f"'{figure}': {draw(value)}" for figure in figures]
        pairs += [f"{fact}: {'test' if plain else draw(text)}" for fact in dict.fromkeys(facts)]
        lines.append(f"  - {{{', '.join(pairs)}}}")
    return "\n".join(lines) + "\n"


@profile(80)
@given(accounts())
@example("input: 3x32x32\ntable: {a: 3x3 16}\n" + PUBLISHED.format("params: 25.5M, top1_error: 22.2"))
@example("input: 3x32x32\ntable: {a: 3x3 16}\n" + PUBLISHED.format("top1_error: 22.2%"))
@example("input: 3x32x32\ntable: {a: 3x3 16}\n" + PUBLISHED.format("top1_error: ~22.2"))
@example("input: 3x32x32\ntable: {a: 3x3 16}\n" + PUBLISHED.format("time_per_minibatch16: 12ms, mAP: 3"))
def test_whatever_a_header_says_can_be_shown_or_is_an_error_that_points(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "zoo" / "family"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "net.yaml").write_text(text, encoding="utf-8")
    zoo = Zoo(folder.parent)
    try:
        profiled = profile_model("net", {}, zoo=zoo)
    except (SpecError, UsageError):
        return
    published_sheet(profiled)
    info_lines = info("net", zoo)
    assert info_lines.profile.spec == profiled.spec
    paper_tables(zoo=zoo)
    assert verify("net", zoo=zoo).models
    assert listing(zoo=zoo).models
    with suppress(UsageError):  # no accuracy is published
        comparison_sheet(compare("net", accuracy=True, zoo=zoo))


@profile(100)
@given(st.binary(max_size=200))
def test_bytes_are_an_error_that_points(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "junk.yaml"
    path.write_bytes(junk)
    with pytest.raises((SpecError, UsageError)):
        read(str(path), zoo=ZOO)


@pytest.mark.slow
@profile(5_000)
@given(mutants())
def test_many_mutated_specs_are_plans_or_errors_that_point(text: str) -> None:
    holds_and_builds(text)


@pytest.mark.slow
@profile(1_200)
@given(specs())
def test_many_drawn_specs_have_the_shapes_that_torch_gives_or_errors_that_point(text: str) -> None:
    holds_and_builds(text)


def nested(depth: int, before: str, after: str, inner: str = "1x1 3") -> str:
    return f"{before * depth}{inner}{after * depth}"


def table(row: str, header: str = "") -> str:
    return f"input: 3x64x64\n{header}table:\n  t: {row}\n"


def calls(times: int, levels: int, last: str) -> str:
    """Blocks of which each calls the next so many times."""
    each = "".join(f"  b{i}: [{', '.join([f'b{i + 1}'] * times)}]\n" for i in range(levels))
    return f"blocks:\n{each}  b{levels}: {last}\n"


EVIL = {
    "blocks that call blocks ten times": table("b0", calls(10, 12, "1x1 3")),
    "blocks in a long chain": table("b0", calls(1, 400, "1x1 3")),
    "deep blocks in deep blocks": table(
        "b0",
        "blocks:\n"
        + "".join(f"  b{i}: {nested(12, '{seq: [', ']}', f'b{i + 1}')}\n" for i in range(31))
        + "  b31: 1x1\n",
    ),
    "blocks of a long cell": table("b0", calls(12, 4, "1x1 3" + ", 1x1 3" * 5000)),
    "blocks of a long list": table("b0", calls(12, 4, "spp" + " 1" * 20_000)),
    "blocks of a wrong word": table("b0", calls(12, 4, "reluu")),
    "blocks of a long wrong cell": table("b0", calls(12, 4, "1x1 3" + ", 1x1 3" * 5000 + " ?")),
    "blocks of an unknown name": table("b0", calls(12, 4, "1x1 kk")),
    "sequences of sequences": table(nested(14, "[seq x 16384: ", "]")),
    "concatenations of concatenations": table(nested(14, "[concat of 16384: ", "]")),
    "sequences that do nothing": table(nested(14, "[seq x 16384: ", "]", "aside: [seq x 16384: [1x1 avg]]")),
    "many branches": table(f"[concat: [{'1x1 3, ' * 9000}1x1 3]]"),
    "many items": table(f"[{'bn, ' * 12_000}bn]"),
    "many copies": table("[residual x 16384: [1x1 4]]"),
    "many units": table("[residual x 2000: [1x1 4, 3x3 4 dw, 1x1 4]]"),
    "many cells": table("1x1" + ",1x1" * 15_000),
    "many shortcuts of many layers": table(
        "[residual x 16000: [1x1 4, 1x1 3], residual: 1x1 4, residual: 1x1 5]", f"shortcut: [{'1x1 avg, ' * 5000}1x1]\n"
    ),
    "a shortcut of every stride": table(
        f"[{', '.join(f'residual: 1x1 3 /{s}' for s in range(2, 900))}]", f"shortcut: [{'1x1 avg, ' * 2000}1x1 /s]\n"
    ),
    "many names": table("b0", "let:\n" + "".join(f"  a{i}: a{i - 1}+1\n" for i in range(1, 400)) + calls(12, 4, "bn")),
    "too many names": table("bn", "let:\n" + "".join(f"  a{i}: 1\n" for i in range(5000))),
    "many wrong rows": "input: 3x64x64\ntable:\n" + "".join(f"  r{i}: bnn{i}\n" for i in range(4000)),
    "many wrong words": table(f"[{'rel, ' * 10_000}relu]"),
    "many wrong words among many blocks": table(
        f"[{'bb, ' * 5000}b]", "blocks:\n" + "".join(f"  b{i}: bn\n" for i in range(500))
    ),
    "many keys": "{" + ",".join(f"k{i}" for i in range(9000)) + "}",
    "one key many times": "a: b\n" * 12_000,
    "many parameters": table(
        "[a]", f"blocks:\n  z {' '.join(f'p{i}' for i in range(4000))}: bn\n  a: [z{' 1' * 4000}]\n"
    ),
    "a long line": table("a" * 1_000_000),
    "a long word": table("a" * 60_000),
    "a long number": table("1x1 " + "9" * 60_000),
    "a long figure": f"published: [{{params: {'9' * 60_000}M, source: a, table: b}}]\n" + table("bn"),
    "a long style": f"conv: conv{' relu' * 10_000}\n" + table("3x3 3"),
    "a long expression": table("1x1 k", f"let: {{k: {'(' * 39}1{')' * 39}}}\n"),
    "a long sign": table("1x1 k", f"let: {{k: {'-' * 79}1}}\n"),
    "a huge window": table("[1023x1023 1048576 pad=1024, 1023x1023 1048576 pad=1024]"),
    "brackets": "[" * 30_000,
    "braces": "{" * 30_000,
    "questions": "? " * 30_000,
    "dashes": "- " * 30_000,
    "colons": ":\n" * 30_000,
    "quotes": '"' * 60_000,
    "numbers": f"table: [{'1,' * 30_000}1]",
    "a text of many lines": "name: a" + "\n b" * 20_000,
    "a lone surrogate": table("3x3 \ud800"),
    "NUL": table("3x3 \x00"),
    "an escaped NUL": 'extends: "a\\0b.yaml"\n',
    "an escaped surrogate": table('"\\ud800"'),
    "a name too long for a file": f"extends: {'a' * 5000}\n",
    "a path too long for a file": f"extends: ./{'a' * 5000}.yaml\n",
    "endless input": "extends: /dev/zero\n",
    "a terminal": "extends: /dev/tty\n",
    "standard input": "extends: /dev/stdin\n",
}


@pytest.mark.parametrize("case", thinned(EVIL, 2))
def test_nothing_takes_long_that_was_made_to_take_long(case: str) -> None:
    plan = holds(EVIL[case])
    if plan is not None:
        start = time.process_time()
        build(plan, device="meta")
        assert time.process_time() - start < 3


def test_no_bad_spec_gets_better_by_a_comment_or_a_last_line_break() -> None:
    for bad in CASES.values():
        if isinstance(bad.net, str) and not bad.files and not bad.settings:
            assert holds(bad.net + "\n# end\n") is None
            assert holds(bad.net.rstrip("\n")) is None


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match="not a regular file"):
        read(str(pipe), zoo=ZOO)
    with pytest.raises(SpecError, match="not a regular file"):
        read(Source("net.yaml", f"extends: {pipe}\n"), zoo=ZOO)
