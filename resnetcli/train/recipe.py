"""How a net is trained, as one small YAML file says it, and where that differs from the paper. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

from resnetcli.errors import At, Problems, Source, UsageError, clean, did_you_mean
from resnetcli.spec.numbers import decimal
from resnetcli.spec.source import Map, Node, Seq, Text, parse, read_source
from resnetcli.train.schedule import Rate, Schedule, Warmup, rate

MAX_BATCH = 65_536
MAX_ITERATIONS = 100_000_000
MAX_EPOCHS = 100_000
MAX_MILESTONES = 64
MAX_PAD = 256
FOLDER = Path(__file__).resolve().parent.parent / "recipes"
SUFFIXES = (".yaml", ".yml")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Augmentation:
    """A random crop of the padded image, and a random flip."""

    pad: int = 4
    """Pixels on each side, so that there are (2 * pad + 1)^2 crops."""
    mode: Literal["zeros", "reflect"] = "zeros"
    """What is padded: zeros after normalising, or the image's own reflection."""
    flip: bool = True
    """Whether half of the images are mirrored."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything about a training run but the net, the data, the seed and the machine."""

    name: str
    """A built-in recipe's name or a file's stem."""
    batch_size: int
    """Images a step, over all processes."""
    schedule: Schedule
    iterations: int | None = None
    """How long it trains; exactly one of this and `epochs` is set."""
    epochs: float | None = None
    warmup: Warmup | None = None
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    decay: Literal["weights", "all"] = "weights"
    """What decays: the weights of convolutions and fully connected layers, or every parameter."""
    augmentation: Augmentation = Augmentation()
    normalise: Literal["pixel-mean", "mean-std"] = "pixel-mean"
    """pixel-mean: x/255 less the training images' mean at each pixel; mean-std: each channel to mean 0 and std 1."""
    init: Literal["fan-out", "fan-in"] = "fan-out"
    """Which of a convolution's fans the variance of its weights is 2 over."""
    label_smoothing: float = 0.0
    bn_batch: int | None = None
    """Images BatchNorm normalises over; None: a process's whole share of the batch."""
    train_split: int | None = None
    """Training images that are trained on, the others kept for validation; None: all of them."""
    about: str = ""
    source: str = ""
    """The paper, if it is one's."""
    paper: Mapping[str, Any] = field(default_factory=dict)
    """What the paper says of any of the settings above, by name."""

    def length(self, images: int) -> int:
        """Iterations of a run over so many training images."""
        return self._iterations(self.iterations if self.epochs is None else self.epochs, images)

    def rate(self, images: int, depth: int = 0) -> Rate:
        """The learning rate of a run over so many training images, of a net of `depth` weighted layers."""
        at = tuple(self._iterations(milestone, images) for milestone in self.schedule.at)
        return rate(self.schedule, self.warmup, iterations=self.length(images), at=at, depth=depth)

    def _iterations(self, much: float | None, images: int) -> int:
        """Iterations, of which `much` is a number already or epochs; exactly, so that no milestone moves by one."""
        exact = Fraction(str(much or 0))
        return max(0, round(exact if self.epochs is None else exact * images / self.batch_size))

    def changed(self, **settings: Any) -> Recipe:
        """The recipe with other settings, as options give them; None leaves one as it is.

        Another number of iterations moves a step schedule's milestones along, and leaves a warm-up a tenth of them at
        most. Raises UsageError for a value out of bounds.
        """
        settings = {name: value for name, value in settings.items() if value is not None}
        unknown = settings.keys() - SETTINGS.keys()
        if unknown:
            raise ValueError(f"no settings: {', '.join(sorted(unknown))}")
        iterations = settings.get("iterations")
        if iterations is not None:
            _bounded("iterations", iterations, 1, MAX_ITERATIONS)
            whole = Fraction(str(self.iterations if self.epochs is None else self.epochs))
            at = [round(Fraction(str(milestone)) / whole * iterations) for milestone in self.schedule.at]
            # A run of a few iterations has no room for all of them: two that fall together are one.
            kept = tuple(float(milestone) for milestone in dict.fromkeys(at) if 0 < milestone < iterations)
            warmup = self.warmup
            if warmup is not None and warmup.iterations is not None:  # of which a short run would consist
                warmup = replace(warmup, iterations=min(warmup.iterations, max(1, iterations // 10)))
            settings = {"schedule": replace(self.schedule, at=kept), "warmup": warmup, "epochs": None, **settings}
        for name, (low, high) in _BOUNDS.items():
            if settings.get(name) is not None:
                _bounded(name, settings[name], low, high)
        recipe: Recipe = replace(self, **settings)
        if recipe.bn_batch is not None and recipe.batch_size % recipe.bn_batch:
            raise UsageError(
                f"a batch of {recipe.batch_size} does not split into groups of {recipe.bn_batch} for BatchNorm",
                "`bn_batch` divides `batch_size`",
            )
        return recipe

    def deviations(self, *, dtype: str = "fp32", images: int | None = None) -> tuple[str, ...]:
        """Where the recipe is not the paper's, a sentence each; none for a recipe that is no paper's.

        `images`: how many are trained on.
        """
        if not self.paper:
            return ()
        found = []
        for name, printed in self.paper.items():
            own: Any = getattr(self, name)
            if name == "bn_batch":
                own, printed = (size or self.batch_size for size in (own, printed))
            if name in ("iterations", "epochs") and own is None:
                other = "epochs" if name == "iterations" else "iterations"
                own_text = setting_text(other, getattr(self, other))
            elif name == "train_split" and own is None and images is not None:
                own_text = f"trained on all {images:,} images" if printed else setting_text(name, own)
            else:
                own_text = setting_text(name, own, "iterations" if self.epochs is None else "epochs")
            text = setting_text(name, printed, "epochs" if "epochs" in self.paper else "iterations")
            if text != own_text:
                found.append(f"{own_text}; the paper: {text}")
        if dtype != "fp32":
            found.append(f"computed in {dtype}; the paper: fp32")
        return tuple(found)


def setting_text(name: str, value: Any, unit: str = "iterations") -> str:
    """A setting in words; `unit`: what the recipe's length, and so a schedule's milestones, are in."""
    match name, value:
        case "batch_size", _:
            return f"batch size {value:,}"
        case "iterations" | "epochs", None:
            return f"no number of {name}"
        case "iterations" | "epochs", _:
            return f"{value:,.12g} {name}"
        case "nesterov", _:
            return "Nesterov momentum" if value else "momentum as it is, not Nesterov's"
        case "decay", _:
            return "weight decay on all parameters" if value == "all" else "weight decay on weights only"
        case "weight_decay", _:
            return f"weight decay {value:g}"
        case "label_smoothing", _:
            return f"label smoothing {value:g}" if value else "no label smoothing"
        case "bn_batch", _:
            return "BN over the whole batch" if value is None else f"BN over {value:,} images"
        case "train_split", _:
            return "trained on all training images" if value is None else f"trained on {value:,} images"
        case "normalise", "pixel-mean":
            return "per-pixel mean subtracted"
        case "normalise", _:
            return "each channel to mean 0 and standard deviation 1"
        case "init", _:
            return f"weights drawn by {value}"
        case _, Schedule():
            return _schedule_text(value, unit)
        case "warmup", None:
            return "no warm-up"
        case _, Warmup():
            return _warmup_text(value)
        case _, Augmentation():
            flip = " and flips" if value.flip else ", no flips"
            padding = "reflection" if value.mode == "reflect" else "zeros"
            return (f"crops of images padded by {value.pad} ({padding})" if value.pad else "no crops") + flip
    return f"{name} {value:g}"


def _schedule_text(schedule: Schedule, unit: str) -> str:
    match schedule.kind, schedule.at:
        case ("fixed", _) | ("steps", ()):
            return f"learning rate {schedule.lr:g}"
        case "one-cycle", _:
            return f"learning rate up to {schedule.lr:g} at {schedule.peak:.0%} and down again"
    steps = ", ".join(f"{milestone:,.12g}" for milestone in schedule.at)
    return f"learning rate {schedule.lr:g}, x {schedule.factor:g} at {unit} {steps}"


def _warmup_text(warmup: Warmup) -> str:
    whom = f", from depth {warmup.from_depth} on" if warmup.from_depth else ""
    if warmup.iterations is None:
        return f"warm-up at {warmup.lr:g} until the training error is below {warmup.until_error:g}%{whom}"
    way = f"from {warmup.lr:g} up" if warmup.linear else f"at {warmup.lr:g}"
    return f"warm-up {way} for {warmup.iterations:,} iterations{whom}"


def recipe_names() -> list[str]:
    """The built-in recipes."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_recipe(reference: str | Source) -> Recipe:
    """A recipe: a built-in one's name, a path to a YAML file, or a text.

    Raises UsageError for an unknown name or file, SpecError with every problem of what is written.
    """
    if isinstance(reference, Source):
        name, source = Path(reference.path or reference.label).stem or "recipe", reference
    elif reference.endswith(SUFFIXES) or "/" in reference:
        name, source = Path(reference).stem, read_source(Path(reference), reference)
    else:
        names = recipe_names()
        if reference not in names:
            hint = did_you_mean(reference, names, f"there are {', '.join(names)}; for a file, write `./{reference}`")
            raise UsageError(f"unknown recipe `{reference}`", hint)
        name, source = reference, read_source(FOLDER / f"{reference}.yaml", f"{reference}.yaml")
    problems = Problems()
    recipe = _read(clean(name), source, problems)
    problems.close()
    assert recipe is not None  # what keeps it from being made has been reported
    return recipe


def _read(name: str, source: Source, problems: Problems) -> Recipe | None:
    root, start = parse(source), At(source, 1, 1, 1)
    values = _values(root, {**_TEXTS, **SETTINGS, "paper": _paper}, problems)
    for key, example in (("batch_size", "batch_size: 128"), ("schedule", "schedule: {kind: fixed, lr: 0.1}")):
        if root.get(key) is None:
            problems.add(f"`{key}:` is missing", start, f"for example `{example}`")
    lengths = [key for key, _ in root.pairs if key.value in ("iterations", "epochs")]
    if len(lengths) != 1:
        at = lengths[1].at if lengths else start
        problems.add("a recipe says `iterations:` or `epochs:`, one of them", at, "for example `iterations: 64000`")
    if problems.found:
        return None
    recipe = Recipe(**{"name": name, **values})
    most = recipe.iterations if recipe.epochs is None else recipe.epochs
    schedule, bn_batch = root.get("schedule"), root.get("bn_batch")
    if schedule is not None and recipe.schedule.at and recipe.schedule.at[-1] >= (most or 0):
        problems.add(f"a step of the schedule is at {recipe.schedule.at[-1]:g}, where training is over", schedule.at,
                     f"it takes {most:,.12g} {lengths[0].value}")  # fmt: skip
    if bn_batch is not None and recipe.bn_batch is not None and recipe.batch_size % recipe.bn_batch:
        problems.add(f"a batch of {recipe.batch_size} does not split into groups of {recipe.bn_batch}", bn_batch.at,
                     "`bn_batch` divides `batch_size`")  # fmt: skip
    return recipe


# --- reading values ------------------------------------------------------------------------------------------------

Reader = Callable[[Text, Node, Problems], Any]


class _Wrong(Exception):  # noqa: N818 - a value was no value, which has been noted
    pass


def _values(node: Map, readers: Mapping[str, Reader], problems: Problems) -> dict[str, Any]:
    """The values under known keys; each other key, and each value that is none, becomes a problem."""
    found = {}
    for key, value in node.pairs:
        if key.value not in readers:
            problems.add(f"unknown key `{key.value}`", key.at,
                         did_you_mean(key.value, readers, f"the keys are {', '.join(readers)}"))  # fmt: skip
            continue
        with suppress(_Wrong):
            found[key.value] = readers[key.value](key, value, problems)
    return found


def _text(key: Text, node: Node, problems: Problems) -> str:
    if not isinstance(node, Text) or not node.value.strip():
        problems.add(f"`{key.value}` is one text", key.at)
        raise _Wrong
    return clean(" ".join(node.value.split()))


def _whole(low: int, high: int, word: str = "") -> Reader:
    """Reads a whole number from `low` to `high`; `word` stands for None."""

    def read(key: Text, node: Node, problems: Problems) -> int | None:
        text = node.value if isinstance(node, Text) else ""
        if word and text == word:
            return None
        if not re.fullmatch("[0-9]{1,12}", text) or not low <= int(text) <= high:
            problems.add(
                f"`{key.value}` is a whole number from {low:,} to {high:,}{f', or `{word}`' if word else ''}", node.at
            )
            raise _Wrong
        return int(text)

    return read


def _number(low: float, high: float, *, above: bool = False, below: bool = False) -> Reader:
    """Reads a number from `low` to `high`; `above`: and not `low` itself; `below`: and not `high`."""
    bounds = f"{'above' if above else 'from'} {low:g} {'and below' if below else 'to'} {high:,.12g}"

    def read(key: Text, node: Node, problems: Problems) -> float:
        value = decimal(node.value) if isinstance(node, Text) else None
        if value is None or not low <= value <= high or (above and value == low) or (below and value == high):
            problems.add(f"`{key.value}` is a number {bounds}", node.at, "for example 0.1 or 1e-4")
            raise _Wrong
        return value

    return read


def _word(*words: str) -> Reader:
    def read(key: Text, node: Node, problems: Problems) -> str:
        text = node.value if isinstance(node, Text) else ""
        if text not in words:
            problems.add(f"`{key.value}` is {' or '.join(f'`{word}`' for word in words)}", node.at,
                         did_you_mean(text, words))  # fmt: skip
            raise _Wrong
        return text

    return read


def _yes(key: Text, node: Node, problems: Problems) -> bool:
    text = node.value if isinstance(node, Text) else ""
    if text not in ("yes", "no", "true", "false"):
        problems.add(f"`{key.value}` is `yes` or `no`", node.at)
        raise _Wrong
    return text in ("yes", "true")


def _milestones(key: Text, node: Node, problems: Problems) -> tuple[float, ...]:
    items = node.items if isinstance(node, Seq) else []
    values = [decimal(item.value) if isinstance(item, Text) else None for item in items]
    numbers = tuple(value for value in values if value is not None)
    rising = all(a < b for a, b in pairwise(numbers))
    too_far = bool(numbers) and numbers[-1] > MAX_ITERATIONS
    if not isinstance(node, Seq) or None in values or len(items) > MAX_MILESTONES or not rising or too_far:
        problems.add(f"`{key.value}` is a list of rising numbers, in what the recipe's length is in", node.at,
                     "for example `at: [32000, 48000]`")  # fmt: skip
        raise _Wrong
    return numbers


def _mapping(make: type[T], readers: Mapping[str, Reader], example: str, word: str = "") -> Reader:
    """Reads a mapping as one of `make`; `word` stands for None."""
    needed = {f.name for f in fields(make) if f.default is MISSING}  # type: ignore[arg-type]

    def read(key: Text, node: Node, problems: Problems) -> T | None:
        if word and isinstance(node, Text) and node.value == word:
            return None
        if not isinstance(node, Map):
            problems.add(f"`{key.value}` is a mapping", node.at, f"for example `{key.value}: {example}`")
            raise _Wrong
        before = len(problems.found)
        values = _values(node, readers, problems)
        missing = needed - {name.value for name, _ in node.pairs}
        for name in sorted(missing):
            problems.add(f"`{key.value}` needs `{name}`", key.at, f"for example `{key.value}: {example}`")
        if len(problems.found) > before:
            raise _Wrong
        return make(**values)

    return read


_USES = {"steps": {"factor", "at"}, "one-cycle": {"peak", "start", "end"}, "fixed": set[str]()}
"""What each kind of schedule takes besides `lr`."""


def _schedule(key: Text, node: Node, problems: Problems) -> Schedule:
    readers = {
        "kind": _word("steps", "one-cycle", "fixed"),
        "lr": _number(0, 1000, above=True),
        "factor": _number(0, 1, above=True),
        "at": _milestones,
        "peak": _number(0, 1, above=True, below=True),
        "start": _number(0, 1),
        "end": _number(0, 1),
    }
    example = "{kind: steps, lr: 0.1, factor: 0.1, at: [32000, 48000]}"
    schedule: Schedule = _mapping(Schedule, readers, example)(key, node, problems)
    assert isinstance(node, Map)  # anything else has been reported
    given = {name.value: name for name, _ in node.pairs}
    wrong = [name for name in given if name not in {"kind", "lr", *_USES[schedule.kind]}]
    needed = [name for name in ("kind", "lr", *(("at",) if schedule.kind == "steps" else ())) if name not in given]
    for name in wrong:
        problems.add(f"a schedule of kind `{schedule.kind}` has no `{name}`", given[name].at,
                     f"it has {', '.join(('lr', *sorted(_USES[schedule.kind])))}")  # fmt: skip
    for name in needed:
        problems.add(f"`{key.value}` needs `{name}`", key.at, f"for example `{key.value}: {example}`")
    if wrong or needed:
        raise _Wrong
    return schedule


def _warmup(key: Text, node: Node, problems: Problems) -> Warmup | None:
    readers = {
        "lr": _number(0, 1000),
        "iterations": _whole(1, MAX_ITERATIONS),
        "linear": _yes,
        "until_error": _number(0, 100, above=True),
        "at_most": _whole(1, MAX_ITERATIONS),
        "from_depth": _whole(0, 1_000_000),
    }
    example = "{lr: 0.01, iterations: 400}"
    warmup: Warmup | None = _mapping(Warmup, readers, example, word="none")(key, node, problems)
    if warmup is not None and (warmup.iterations is None) == (warmup.until_error is None):
        problems.add("a warm-up lasts some `iterations` or goes on `until_error`, one of them", key.at,
                     f"`{example}` or `{{lr: 0.01, until_error: 80, at_most: 2000}}`")  # fmt: skip
        raise _Wrong
    return warmup


def _paper(key: Text, node: Node, problems: Problems) -> dict[str, Any]:
    if not isinstance(node, Map):
        problems.add("`paper` is a mapping of settings", node.at, "for example `paper: {batch_size: 128}`")
        raise _Wrong
    return _values(node, SETTINGS, problems)


_TEXTS: Mapping[str, Reader] = {"name": _text, "about": _text, "source": _text}
SETTINGS: Mapping[str, Reader] = {
    "batch_size": _whole(1, MAX_BATCH),
    "iterations": _whole(1, MAX_ITERATIONS),
    "epochs": _number(0, MAX_EPOCHS, above=True),
    "schedule": _schedule,
    "warmup": _warmup,
    "momentum": _number(0, 1, below=True),
    "nesterov": _yes,
    "weight_decay": _number(0, 1),
    "decay": _word("weights", "all"),
    "augmentation": _mapping(
        Augmentation,
        {"pad": _whole(0, MAX_PAD), "mode": _word("zeros", "reflect"), "flip": _yes},
        "{pad: 4, mode: zeros, flip: yes}",
    ),
    "normalise": _word("pixel-mean", "mean-std"),
    "init": _word("fan-out", "fan-in"),
    "label_smoothing": _number(0, 1, below=True),
    "bn_batch": _whole(2, MAX_BATCH, word="all"),
    "train_split": _whole(1, MAX_ITERATIONS, word="all"),
}
"""The keys of a recipe that are a setting, with what reads each."""
_BOUNDS = {
    "batch_size": (1, MAX_BATCH),
    "bn_batch": (2, MAX_BATCH),
    "train_split": (1, MAX_ITERATIONS),
}


def _bounded(name: str, value: float, low: int, high: int) -> None:
    if not low <= value <= high:
        raise UsageError(f"`{name}` of {value:,} is out of range", f"from {low:,} to {high:,}")


# --- writing -------------------------------------------------------------------------------------------------------


def format_recipe(recipe: Recipe) -> str:
    """The recipe as a YAML text that `read_recipe` reads back as the same."""
    lines = [f"{key}: {_quoted(text)}" for key in _TEXTS if (text := getattr(recipe, key))]
    lines += _lines({name: getattr(recipe, name) for name in SETTINGS}, "")
    if recipe.paper:
        lines += ["paper:", *_lines(recipe.paper, "  ")]
    return "\n".join(lines) + "\n"


def _lines(settings: Mapping[str, Any], indent: str) -> list[str]:
    lengths = ("iterations", "epochs")
    return [
        f"{indent}{name}: {_yaml(name, value)}"
        for name, value in settings.items()
        if not (name in lengths and value is None)
    ]


def _yaml(name: str, value: Any) -> str:
    match value:
        case None:
            return "none" if name == "warmup" else "all"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.17g}" if float(f"{value:.12g}") != value else f"{value:.12g}"
        case Schedule():
            kept = ("kind", "lr", *sorted(_USES[value.kind]))
            return _flow({name: getattr(value, name) for name in kept})
        case Warmup() | Augmentation():
            pairs = {f.name: getattr(value, f.name) for f in fields(value)}
            return _flow({name: part for name, part in pairs.items() if part is not None})
        case tuple():
            return f"[{', '.join(_yaml('', part) for part in value)}]"
    return str(value)


def _flow(pairs: Mapping[str, Any]) -> str:
    return f"{{{', '.join(f'{name}: {_yaml(name, value)}' for name, value in pairs.items())}}}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
