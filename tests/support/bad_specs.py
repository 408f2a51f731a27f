"""Invalid specs, one per error; `golden/errors.txt` holds their messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Bad:
    """A file that cannot be read or lowered."""

    net: str | bytes
    files: Mapping[str, str] = field(default_factory=dict)
    """Name -> text of other files in the same folder."""
    settings: Mapping[str, int] = field(default_factory=dict)


def row(items: str, header: str = "") -> Bad:
    """A table with one row, `t`, over images of 64 x 56 x 56."""
    return Bad(f"input: 64x56x56\n{header}table:\n  t: {items}\n")


def head(lines: str) -> Bad:
    """A header above a valid table."""
    return Bad(f"input: 64x56x56\n{lines}\ntable:\n  t: 3x3 64\n")


def child(lines: str) -> Bad:
    """A spec that extends one with two rows and an auxiliary head."""
    base = """\
name: Base
input: 64x56x56
let: {k: 2}
table:
  a: 3x3 32*k
  b: [global avg, fc classes]
aux: {a: [global avg, fc classes]}
"""
    return Bad(f"extends: base.yaml\n{lines}\n", {"base.yaml": base})


CASES: dict[str, Bad] = {
    # --- the two examples of the grammar
    "groups that do not divide": Bad(
        """\
name: My Net
input: 3x224x224
conv: conv bn relu
residual: relu(x + F)
shortcut: project


table:
  conv1:   7x7 64 /2
  conv2_x: [3x3 max /2, residual x 3: [1x1 128, 3x3 128 C=48, 1x1 256]]
"""
    ),
    "branches that disagree": Bad(
        """\
name: My Net
input: 3x224x224
conv: conv bn relu
residual: relu(x + F)
shortcut: project


table:
  conv1:   7x7 64 /2
  pool1:   3x3 max /2
  conv2_x: 1x1 64 /2
  b1: [concat: [[1x1 96, 3x3 128 /2], [3x3 max, 1x1 32]]]
"""
    ),
    # --- not text, or not YAML
    "an empty file": Bad(""),
    "nothing but a comment": Bad("# later\n"),
    "binary junk": Bad(b"\x7fELF\x02\x01\x01\x00\x00\x00"),
    "not UTF-8": Bad("name: café\ninput: 3x32x32\n".encode("latin-1")),
    "UTF-16": Bad("input: 3x32x32\n".encode("utf-16")),
    "a control character": Bad("input: 3x32x32\ntable: {t: 3x3\x07 64}\n"),
    "a tab that indents": Bad("input: 3x32x32\ntable:\n\tt: 3x3 64\n"),
    "a bracket left open": Bad("input: 3x32x32\ntable:\n  t: [3x3 64, 3x3 64\n  u: 3x3 64\n"),
    "a bracket too many": Bad("input: 3x32x32\ntable:\n  t: [3x3 64]]\n"),
    "a colon in a text": Bad("name: Net: the second\ninput: 3x32x32\ntable: {t: 3x3 64}\n"),
    "a row indented differently": Bad("input: 3x32x32\ntable:\n  t: 3x3 64\n   u: 3x3 64\n"),
    "an entry without its brackets": Bad("input: 3x32x32\ntable:\n  t: residual x 3: [3x3 64]\n"),
    "a list and then something": Bad("input: 3x32x32\ntable:\n  t: [3x3 64, relu] x 3\n"),
    "a colon without its space": Bad("input: 3x32x32\ntable:\n  t:3x3 64\n  u: 3x3 64\n"),
    "a comma forgotten": Bad("input: 3x32x32\ntable:\n  t: [3x3 64,\n      residual x 2: [3x3 64] 3x3 8]\n"),
    "a quotation mark left open": Bad("input: 3x32x32\ntable:\n  t: '3x3 64\n  u: 3x3 64\n"),
    "a list instead of a mapping": Bad("- 3x3 64\n- 3x3 64\n"),
    "a text instead of a mapping": Bad("3x3 64\n"),
    "a duplicate key": Bad("input: 3x32x32\ntable: {t: 3x3 64}\ninput: 3x64x64\n"),
    "a duplicate row": Bad("input: 3x32x32\ntable:\n  t: 3x3 64\n  t: 3x3 32\n"),
    "an anchor and an alias": Bad("input: 3x32x32\ntable:\n  t: &a [3x3 64]\n  u: *a\n"),
    "a merge key": Bad("input: 3x32x32\ntable:\n  t: 3x3 64\n  <<: {u: 3x3 64}\n"),
    "a tag": Bad("input: 3x32x32\ntable:\n  t: !!python/object/apply:os.system [ls]\n"),
    "a second document": Bad("input: 3x32x32\ntable: {t: 3x3 64}\n---\nname: Another\n"),
    "a key that is a list": Bad("input: 3x32x32\ntable:\n  ? [a, b]\n  : 3x3 64\n"),
    "braces for brackets": Bad("input: 3x32x32\ntable:\n  t: {3x3 64, 3x3 32}\n"),
    "a thousand deep": Bad("input: 3x32x32\ntable: {t: " + "[seq: " * 1000 + "3x3 64" + "]" * 1000 + "}\n"),
    "thirty thousand brackets": Bad("[" * 30_000),
    "far too large": Bad("# " + "x" * 70_000),
    # --- keys
    "no input and no table": Bad("name: Nothing\n"),
    "an unknown key": head("shortcuts: pad"),
    "a misspelt key": Bad("input: 3x32x32\ntabel: {t: 3x3 64}\n"),
    "an unknown key similar to none": head("colour: red"),
    "a table that is a list": Bad("input: 3x32x32\ntable: [3x3 64, 3x3 64]\n"),
    "an empty table": Bad("input: 3x32x32\ntable:\n"),
    "an input that is not a shape": Bad("input: 224\ntable: {t: 3x3 64}\n"),
    "an input with a zero": Bad("input: 3x0x224\ntable: {t: 3x3 64}\n"),
    "an input that is enormous": Bad("input: 3x224x99999\ntable: {t: 3x3 64}\n"),
    "classes that are not a number": head("classes: many"),
    "no classes": head("classes: 0"),
    "a name that is a list": head("name: [a]"),
    "an about that is a list": head("about: [wide, deep]"),
    "deviations that are one text": head("deviations: wider than printed"),
    "a deviation that is a mapping": head("deviations: [printed: 5 G]"),
    "a convolution without a convolution": head("conv: bn relu"),
    "an unknown word in conv": head("conv: conv bn relo"),
    "an eps that is not a number": head("conv: conv bn(nan) relu"),
    "an invalid equation": head("residual: relu(x * F)"),
    "an equation left open": head("residual: relu(x + F"),
    "an unknown shortcut": head("shortcut: projekt"),
    "an activation is not allowed in a shortcut": head("shortcut: [1x1, relu]"),
    "published figures without a source": head("published: [{params: 25.5M}]"),
    "an unknown figure": head('published: [{parms: 25.5M, source: "arXiv:1", table: Table 1}]'),
    "a figure that is not a number": head('published: [{params: many, source: "arXiv:1", table: Table 1}]'),
    "a row that is not a number": head('published: [{params: 25.5M, source: "arXiv:1", table: Table 1, row: x}]'),
    "a row before the first": head('published: [{params: 25.5M, source: "arXiv:1", table: Table 1, row: 0}]'),
    "a figure of zero": head('published: [{params: 0M, source: "arXiv:1", table: Table 1}]'),
    "an accuracy without a protocol": head(
        'published: [{top1_error: 9.1, dataset: D, source: "arXiv:1", table: Table 1}]'
    ),
    "an unknown protocol": head(
        'published: [{top1_error: 9.1, dataset: D, protocol: centre, source: "arXiv:1", table: T}]'
    ),
    "published that is not a list": head("published: 25.5M"),
    "an invalid expectation": head("expect: {params: 25.5M, sizes: [a], width: 3}"),
    # --- names of rows
    "a row called total": Bad("input: 3x32x32\ntable: {total: 3x3 64}\n"),
    "a row with a dot": Bad("input: 3x32x32\ntable: {a.b: 3x3 64}\n"),
    "a row with a space": Bad("input: 3x32x32\ntable: {conv 1: 3x3 64}\n"),
    "a row that begins with an underscore": Bad("input: 3x32x32\ntable: {_calls: 3x3 64}\n"),
    "a row called aux": Bad("input: 3x32x32\ntable: {aux: 3x3 64}\n"),
    # --- layers
    "an empty value": row(""),
    "an empty list": row("[]"),
    "an empty entry": row('[3x3 64, ""]'),
    "an unknown word": row("[3x3 64, rellu]"),
    "an unknown word similar to none": row("[3x3 64, attention 8]"),
    "a window without its second side": row("3 64"),
    "channels twice": row("3x3 64 128"),
    "a stride twice": row("3x3 64 /2 /2"),
    "an unknown mark": row("3x3 64 G=32"),
    "a mark without its number": row("3x3 64 C="),
    "marks that exclude each other": row("3x3 64 C=2 dw"),
    "a convolution that rounds up": row("3x3 64 /2 ceil"),
    "a pool with channels": row("3x3 max 64"),
    "a pool without a window": row("max /2"),
    "a fully connected layer without features": row("fc"),
    "a fully connected layer with too much": row("fc 10 20"),
    "three layers without commas": row("fc 100 relu dropout 0.5"),
    "layers without commas after a window": row("3x3 16 /2 relu 3x3 max /2 relu"),
    "layers without commas after a pool": row("global avg fc 10"),
    "a leaky without its slope": row("leaky"),
    "a dropout of everything": row("dropout 1"),
    "a dropout that is not a number": row("dropout half"),
    "levels that are missing": row("spp"),
    "an invalid size": row("avg to 7"),
    "regions without their number": row("roi 7x7"),
    "stride without a number": row("3x3 64 stride"),
    "nothing between commas": row("3x3, , 64"),
    "a pasted cell in brackets": row("[7x7, 64, stride 2]"),
    "a pasted cell with groups in brackets": row("[3x3, 128, C=32]"),
    "a percent sign": row("3x3 64%"),
    "a semicolon": row("3x3 64; relu"),
    # --- numbers
    "zero channels": row("3x3 0"),
    "a negative number": row("3x3 -5"),
    "a stride of zero": row("3x3 64 /0"),
    "a window of zero": row("0x3 64"),
    "an enormous number": row("3x3 99999999999999999999"),
    "too many channels": row("1x1 1048577"),
    "an enormous window": row("9999x9999 64"),
    "a fraction": row("3x3 64.5"),
    "an unknown name": row("3x3 16*w", "let: {width: 2, wide: 3}\n"),
    "an undeclared name": row("3x3 k"),
    "a power tower": row("3x3 9**9**9"),
    "code": row("3x3 __import__('os').system('ls')"),
    "channels and a stride in one word": row("3x3 64/3"),
    "a division with a remainder": row("3x3 2*32/3"),
    "a division by zero": row("3x3 64/(2-2)"),
    "an expression that ends too early": row("3x3 (16*2"),
    "an expression that grows": row("3x3 " + "*".join(["999999"] * 9)),
    "an expression that is too long": row("3x3 " + "+".join(["1"] * 60)),
    # --- let
    "a let that is not a whole number": Bad(
        "input: 3x32x32\nlet: {depth: 21, n: (depth-2)/6}\ntable: {t: [residual x n: 3x3 3]}\n"
    ),
    "a depth that does not fit": Bad("extends: cifar_resnet\nlet: {depth: 21}\n"),
    "a setting that does not fit": Bad("extends: cifar_resnet\n", settings={"depth": 21}),
    "an unknown parameter": Bad("extends: cifar_resnet\n", settings={"dpeth": 56}),
    "a parameter that is derived": Bad("extends: cifar_resnet\n", settings={"n": 5}),
    "a parameter out of range": Bad("extends: cifar_resnet\n", settings={"classes": 0}),
    "no copies left": Bad("extends: cifar_resnet\n", settings={"depth": 2}),
    "a let that is a word of the grammar": row("3x3 64", "let: {linear: 2}\n"),
    "a let that is not a name": row("3x3 64", "let: {2x: 2}\n"),
    "a let of a list": row("3x3 64", "let: {k: 2, w: 4,5}\n"),
    "a let that is empty": row("3x3 64", "let: {k: }\n"),
    "a let that uses what comes below": row("3x3 n", "let: {n: 2*k, k: 2}\n"),
    "a let that is enormous": row("3x3 64", "let: {k: 99999999999999}\n"),
    "a let of two numbers": row("3x3 64", "let: {k: 1 0}\n"),
    "a let that is not a mapping": row("3x3 64", "let: 5\n"),
    # --- composites
    "a list inside a list": row("[[3x3 64, 3x3 64], 3x3 64]"),
    "several keys in one entry": row("\n  - {residual: 3x3 64, concat: [3x3 64]}"),
    "a dash forgotten": row("\n  - residual x 2: [3x3 64]\n    seq: [3x3 64]"),
    "a body where none belongs": row("[3x3 64: [relu]]"),
    "an unknown composite": row("[resdual x 2: [3x3 64]]"),
    "a composite without a body": row("[residual x 3, 3x3 64]"),
    "a composite with an empty body": row("[residual x 3: ]"),
    "a concat of one layer": row("[concat: 3x3 64]"),
    "a concat with too much": row("[concat 4: [3x3 64]]"),
    "a scale that is not a number": row("[residual half: [3x3 64]]"),
    "x 0": row("[residual x 0: [3x3 64]]"),
    "x a billion": row("[residual x 1000000000: [3x3 64]]"),
    "x without a number": row("3x3 64 x"),
    "x without a space": row("3x3 64 x3"),
    "nothing to repeat": row("[x 3]"),
    "copies of copies": row("[seq x 16384: [seq x 16384: [seq x 16384: relu]]]"),
    "a stride in a repeated layer": row("3x3 64 /2 x 3"),
    "a stride in a repeated sequence": row("[seq x 2: [1x1 64, concat: [3x3 64 /2, 3x3 max /2]]]"),
    # --- blocks
    "a block that calls itself": row("[a]", "blocks:\n  a: [3x3 64, b]\n  b: [a]\n"),
    "a block with too few numbers": row(
        "[inception 64 96]", "blocks: {inception p1 r3 p3: [1x1 p1, 1x1 r3, 3x3 p3]}\n"
    ),
    "an unknown block": row("[incption 64]", "blocks: {inception p1: 1x1 p1}\n"),
    "a block that is a word of the grammar": row("3x3 64", "blocks: {pool k: 3x3 max}\n"),
    "a block with a parameter twice": row("3x3 64", "blocks: {a k k: 3x3 k}\n"),
    "an invalid block that is not used": row("3x3 64", "blocks: {a: [3x3 64 G=2]}\n"),
    "a stride in a repeated block": row("a x 2", "blocks: {a: [3x3 64 /2]}\n"),
    "a number that a block cannot take": row("[a 0]", "blocks: {a k: [3x3 64, 3x3 k]}\n"),
    "blocks that explode": row(
        "a0", "blocks:\n" + "".join(f"  a{i}: [{', '.join([f'a{i + 1}'] * 10)}]\n" for i in range(9)) + "  a9: relu\n"
    ),
    "blocks in blocks in blocks": row(
        "a0", "blocks:\n" + "".join(f"  a{i}: a{i + 1}\n" for i in range(40)) + "  a40: relu\n"
    ),
    # --- extends
    "extends a circle": Bad("extends: other.yaml\n", {"other.yaml": "extends: net.yaml\n"}),
    "extends itself": Bad("extends: ./net.yaml\n"),
    "extends an unknown name": Bad("extends: resnet5\n"),
    "extends a file that does not exist": Bad("extends: ../no-such-net.yaml\n"),
    "extends a directory": Bad("extends: ./\n"),
    "extends a device": Bad("extends: /dev/zero\n"),
    "extends two": Bad("extends: [resnet50, resnet18]\n"),
    "extends too deep": Bad("extends: n0.yaml\n", {f"n{i}.yaml": f"extends: n{i + 1}.yaml\n" for i in range(20)}),
    "a child that adds a row": child("table: {c: 3x3 64}"),
    "a child that misspells a row": child("table: {B: fc 10}"),
    "a child whose value is empty": child("table: {a: }"),
    "a child that drops every row": child("table: {a: null, b: null}"),
    "an error in what is extended": Bad("extends: base.yaml\n", {"base.yaml": "input: 3x32x32\ntable: {t: rellu}\n"}),
    "nothing to drop": Bad("input: 3x32x32\ntable: {a: 3x3 64, b: null}\n"),
    "an aux head of an unknown row": head("aux: {u: [fc 10]}"),
    # --- shapes
    "a feature map shrunk to nothing": row("[3x3 64 /2, 7x7 64 /7, 7x7 64 V, 3x3 max V]"),
    "a pool padded too much": row("3x3 max pad=2"),
    "groups that do not divide the input channels": row("3x3 96 C=48"),
    "a residual whose shapes cannot meet": row("[residual: [1x1 64, 3x3 64 V]]"),
    "a plain sum whose terms differ": row("[sum: [3x3 64, 3x3 32]]"),
    "zero channels that would have to be negative": row("[residual: [3x3 32]]", "shortcut: pad\n"),
    "a weight that is enormous": row("[1x1 1048576, 9x9 1048576]"),
    "an activation that is enormous": Bad("input: 3x16384x16384\ntable: {t: 1x1 65536}\n"),
    "a region head in a region head": row("[roi 7x7 of 9, roi 7x7 of 9]"),
    "branches with long texts": row(
        "[concat: [[1x1 64, 1x1 65, 1x1 66, 1x1 67, 1x1 68, 1x1 69, 1x1 70, 1x1 71, 3x3 64 /2], 3x3 max]]"
    ),
    # --- several at once
    "every error of reading together": Bad(
        """\
input: 224x224
colour: red
shortcut: projekt
table:
  a: [3x3 64, rellu, 3x3 0]
  b: 5x5 k
  c:
"""
    ),
    "of each row the first that cannot be lowered": row(
        "[3x3 96 C=48, 3x3 96 C=7]\n  u: [1x1 64, residual: [3x3 64 V]]\n  v: 3x3 64\n  w: 3x3 64 C=3"
    ),
    "an invalid shortcut does not hide other errors": row(
        "[residual: [3x3 64 /3, 3x3 96]]\n  u: 3x3 96 C=5", "shortcut: [sxs avg /s ceil, 1x1 16384/s]\n"
    ),
    # --- terminal escape sequences
    "escape sequences": row('"\\e[31m3x3\\e[0m 64"'),
    "a word of a thousand letters": row("3x3 " + "k" * 1000),
}
