"""Architecture tables side by side, like Table 1 of the ResNet paper: a bracket for each repeated block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from resnetcli.ops import Linear, PoolTo, Shape
from resnetcli.reports.profile import Profile
from resnetcli.reports.records import Record, model_head, pick, sizes
from resnetcli.spec.spec import (
    Aside,
    Branches,
    ConvLayer,
    Item,
    Layer,
    PoolLayer,
    Residual,
)
from resnetcli.spec.spec import Sequence as Seq
from resnetcli.spec.words import head_text, item_text, layer_text
from resnetcli.table.numbers import short
from resnetcli.table.output import natural_width
from resnetcli.table.safe import printable
from resnetcli.table.sheet import Cell, Column, Sheet, cell

if TYPE_CHECKING:
    from rich.table import Table


def table1_sheet(profiles: Sequence[Profile], *, flops: bool = False) -> Sheet:
    """Stage, output size and one column per model; parameters and MACs (or FLOPs) in the last rows."""
    columns = [
        Column("stage", "stage", "left", "bold", help="stage of the architecture table"),
        Column("output", "output", help="height and width of the output feature map"),
    ]
    labels = [p.label for p in profiles]
    for place, (p, name) in enumerate(zip(profiles, labels, strict=True)):
        again = labels[:place].count(name)  # the same model twice
        name += f" ({again + 1})" if again else ""
        head = f"{printable(p.spec.title)}\n{printable(name)}"
        columns.append(Column(head, name, "left", help="layers of the stage; × N: repeated N times"))
    rows: list[tuple[Cell, ...]] = []
    for stage in _stages(profiles):
        sizes = dict.fromkeys(
            _size(p.plan.steps[p.plan.stages[stage]].shape) for p in profiles if stage in p.plan.stages
        )
        bodies = [_body(p.spec.stages.get(stage, ())) for p in profiles]
        rows.append((cell(stage), cell(" / ".join(sizes).replace("×", "x"), " / ".join(sizes)), *bodies))
    work = "FLOPs" if flops else "MACs"
    rows.append((cell("params"), cell(""), *(cell(p.counts.params, short(p.counts.params)) for p in profiles)))
    costs = [p.counts.flops if flops else p.counts.macs for p in profiles]
    rows.append((cell(work), cell(""), *(cell(cost, short(cost)) for cost in costs)))
    return Sheet(tuple(columns), tuple(rows))


def table1_pages(profiles: Sequence[Profile], width: int, *, flops: bool = False) -> list[Table]:
    """Tables of at most `width` characters, with as many models as fit, at least one."""
    pages: list[tuple[int, Table]] = []  # with the first model of each
    for end in range(1, len(profiles) + 1):
        start = pages[-1][0] if pages else 0
        table = table1_rich(table1_sheet(profiles[start:end], flops=flops))
        if pages and natural_width(table) <= width:
            pages[-1] = start, table
        else:
            pages.append((end - 1, table1_rich(table1_sheet(profiles[end - 1 : end], flops=flops))))
    return [table for _, table in pages]


def table1_rich(sheet: Sheet) -> Table:
    """The table for a terminal, with lines between stages."""
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SQUARE, show_lines=True, header_style="bold")
    for place, column in enumerate(sheet.columns):
        texts = [column.head, *(row[place].text for row in sheet.rows)]
        least = max(cell_len(line) for text in texts for line in text.split("\n"))
        table.add_column(Text(column.head), justify=column.align, style=column.style, vertical="middle", no_wrap=True,
                         min_width=least)  # fmt: skip
    for row in sheet.rows:
        table.add_row(*(Text(printable(entry.text, "\n")) for entry in row))
    return table


def _body(items: Sequence[Item]) -> Cell:
    """Brackets for people, phrases of the grammar for programs."""
    return cell("; ".join(map(item_text, items)), "\n".join(cell_lines(items)))


def _stages(profiles: Sequence[Profile]) -> list[str]:
    """The stages of all models, in an order that agrees with each model's where possible."""
    merged: list[str] = []
    for profile in profiles:
        place = 0
        for stage in profile.spec.stages:
            if stage in merged:
                place = merged.index(stage) + 1
            else:
                merged.insert(place, stage)
                place += 1
    return merged


def _size(shape: Shape) -> str:
    return f"{shape.h}×{shape.w}"


def cell_lines(items: Sequence[Item]) -> list[str]:
    """The items of a stage as lines of a cell."""
    return [line for item in items for line in _item_lines(item)]


def _item_lines(item: Item) -> list[str]:
    times = f" × {item.times}" if item.times is not None else ""
    match item.what:
        case Residual(body=body) | Seq(body=body):
            note = head_text(item).removeprefix("residual").removeprefix("seq").strip()
            suffix = times or (" × 1" if isinstance(item.what, Residual) else "")
            inner = [line.replace(", stride ", ", /") for line in cell_lines(body)]  # two models fit in 80 columns
            return _bracketed(inner, suffix + (f"  ({note})" if note else ""))
        case Branches(kind=kind, branches=branches, of=of):
            if of is not None:
                return [f"{kind} of {of}{times}", *_indented(cell_lines(branches[0]))]
            lines = [f"{kind}{times}"]
            for branch in branches:
                lines += _indented(cell_lines(branch), "- ")
            return lines
        case Aside(body=body):
            return ["aside", *_indented(cell_lines(body))]
        case ConvLayer() | PoolLayer() | PoolTo() | Linear() as layer:
            return [_layer_words(layer) + times]
        case _:
            return [head_text(item) + times]


def _indented(lines: list[str], lead: str = "  ") -> list[str]:
    return [(lead if index == 0 else " " * len(lead)) + line for index, line in enumerate(lines)]


def _bracketed(lines: list[str], suffix: str) -> list[str]:
    """The lines in square brackets, `× N` behind the middle one."""
    width = max(map(len, lines), default=0)
    last, middle = len(lines) - 1, len(lines) // 2
    bracketed = []
    for index, line in enumerate(lines):
        left, right = ("[", "]") if last == 0 else ("⎡⎤" if index == 0 else "⎣⎦" if index == last else "⎢⎥")
        bracketed.append(f"{left} {line:{width}} {right}{suffix if index == middle else ''}")
    return bracketed


def _layer_words(layer: Layer) -> str:
    """A layer as papers write it: `3×3, 128, C=32, stride 2`."""
    match layer:
        case PoolTo(kind="avg", size=(1, 1)):
            return "global average pool"
        case PoolLayer(kind=kind, kernel=kernel, stride=stride):
            what = f"{kernel[0]}×{kernel[1]} {'max' if kind == 'max' else 'average'} pool"
            return f"{what}, stride {stride}" if stride > 1 else what
        case Linear(features=features):
            return f"{features}-d fc"
        case ConvLayer():
            size, *marks = layer_text(layer).split()
            words = [size.replace("x", "×"), *marks]
            return ", ".join(f"stride {word[1:]}" if word.startswith("/") else word for word in words)
        case _:
            return layer_text(layer)


def show_record(profiles: tuple[Profile, ...]) -> Record:
    """`resnet-cli/show@2`: the layers of each stage as phrases of the grammar, with all numbers."""
    return {
        "schema": "resnet-cli/show@2",
        "models": [
            {
                **model_head(profile),
                "name": profile.spec.title,
                **pick(profile.counts, "params", "macs", "flops"),
                "stages": [
                    {
                        "stage": stage,
                        "output": sizes(profile.plan.steps[profile.plan.stages[stage]].shape),
                        "layers": [item_text(item) for item in items],
                    }
                    for stage, items in profile.spec.stages.items()
                ],
            }
            for profile in profiles
        ],
    }
