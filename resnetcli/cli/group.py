"""Command-line parsing: other tools' names, amounts split by the shell, and errors as message and hint."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Container, Sequence
from copy import copy
from typing import Any

import typer
from typer.core import TyperGroup

from resnetcli.cli import values
from resnetcli.errors import UsageError, any_of, clean, nearest

_ParseError: type[Exception] = typer.BadParameter.__bases__[0]
"""`click.UsageError`, of which typer has its own copy."""

COMMANDS = {
    "summary": "profile", "flops": "profile", "macs": "profile", "params": "profile", "parameters": "profile",
    "count": "profile", "benchmark": "profile", "bench": "profile", "latency": "profile", "time": "profile",
    "measure": "profile", "analyze": "profile", "train": "train-cifar", "fit-cifar": "train-cifar", "test": "eval",
    "evaluate": "eval", "plot": "curves", "graph": "curves", "ls": "list", "models": "list", "zoo": "list",
    "search": "list", "describe": "info", "print": "show", "table": "show", "table1": "show", "fit": "max-batch",
    "memory": "max-batch", "batch": "max-batch", "validate": "check", "lint": "check", "format": "fmt",
    "roofline": "explain", "predict": "estimate", "download": "data", "dataset": "data", "datasets": "data",
    "vs": "compare",
}  # fmt: skip
"""Other tools' names for commands, and earlier names."""
_BATCH, _INPUT, _OUT = ("--batch-size",), ("--input",), ("--out",)
OPTIONS: dict[str, tuple[str, ...]] = {
    "--epochs": ("--iterations",), "--epoch": ("--iterations",), "--steps": ("--iterations",),
    "--max-steps": ("--iterations",), "--iters": ("--iterations",), "--lr": ("--recipe",),
    "--learning-rate": ("--recipe",), "--weight-decay": ("--recipe",), "--momentum": ("--recipe",),
    "--optimizer": ("--recipe",), "--schedule": ("--recipe",), "--augmentation": ("--recipe",),
    "--batch": _BATCH, "--bs": _BATCH, "--batchsize": _BATCH, "--batches": _BATCH, "-b": _BATCH,
    "--precision": ("--dtype",), "--type": ("--dtype",), "--amp": ("--dtype bf16",), "--bf16": ("--dtype bf16",),
    "--half": ("--dtype fp16", "--dtype bf16"), "--fp16": ("--dtype fp16", "--dtype bf16"),
    "--fp32": ("--dtype fp32",), "--gpu": ("--device cuda",), "--cuda": ("--device cuda",),
    "--cpu": ("--device cpu",), "-d": ("--device",), "--dev": ("--device",), "--nproc": ("--gpus",),
    "--json": ("--format json",), "--csv": ("--format csv",), "--md": ("--format md",),
    "--markdown": ("--format md",), "-f": ("--format",), "--output-format": ("--format",),
    "--output": _OUT, "-o": _OUT, "--out": _OUT, "--output-dir": _OUT, "--log-dir": _OUT,
    "--imgsz": _INPUT, "--img-size": _INPUT, "--image-size": _INPUT, "--size": _INPUT, "--resolution": _INPUT,
    "--input-size": _INPUT, "--shape": _INPUT, "-i": _INPUT, "--macs": ("--convention macs",),
    "--mac": ("--convention macs",), "--flop": ("--flops",), "--gflops": ("--flops",), "--num-threads": ("--threads",),
    "-j": ("--threads",), "-t": ("--threads",), "--training": ("--mode train",), "--train": ("--mode train",),
    "--backward": ("--mode train",), "--nhwc": ("--channels-last",), "--fuse": ("--fold-bn",),
    "--fuse-bn": ("--fold-bn",), "--jit": ("--compile",), "--layers": ("--by layer",), "--per-layer": ("--by layer",),
    "--duration": ("--time-budget",), "--time": ("--time-budget",), "--arch": ("--model",), "--net": ("--model",),
    "-m": ("--model",),
    "--dataset": ("--data",), "--data-path": ("--data-dir",), "--data-root": ("--data-dir",),
    "--checkpoint-dir": ("--out",), "--ckpt": ("--checkpoint",), "--gpu-memory": ("--memory",),
    "--profile": ("--device-profile",), "--hardware": ("--device-profile",), "--relative-to": ("--baseline",),
}  # fmt: skip
"""Other tools' options -> candidates here; the first one that the command has is suggested."""
_COUNTED = (
    "profile",
    "compare",
    "explain",
    "estimate",
    "max-batch",
    "reconcile",
    "diff",
    "crosscheck",
    "verify",
    "check",
    "info",
    "show",
)
"""Commands that print or compare costs."""
_LOADED = ("train-cifar", "eval")
_NO_WORKERS = "omit it: there are no data loader workers, images are kept in memory"
REASONS: tuple[tuple[tuple[str, ...], dict[str, str]], ...] = (
    (("--batch", "--batch-size"), {
        **dict.fromkeys(_COUNTED, "omit it: counts are per image"),
        "max-batch": "omit it: the batch size is the result",
        "eval": "omit it: the error does not depend on the batch size",
    }),
    (("--macs", "--flops", "--gflops", "--params"), {"reconcile": "give the figure last, without an option"}),
    (("--workers", "--num-workers"), dict.fromkeys(_LOADED, _NO_WORKERS)),
    (("--pretrained", "--weights"), {
        **dict.fromkeys(_COUNTED, "omit it: a model's cost does not depend on its weights"),
        "train-cifar": "omit it: training starts from random weights",
        "eval": "omit it: the weights are those of the run; `--checkpoint` selects an iteration",
    }),
)  # fmt: skip
"""Other tools' options without an equivalent, and the hint of each command that has a reason."""
_MODEL_OPTIONS = ("--model", "--arch", "--net", "-m")
_RECIPE_HINT = "set it in the recipe, a YAML file: `--recipe`"

_AMOUNTS = {"--memory", "--max-memory", "--max-params", "--max-macs", "--max-activations", "--time-budget"}
_NUMBER, _UNIT = re.compile(r"[0-9]+(\.[0-9]+)?"), re.compile(r"([KMGTP]i?B?|B|s|ms|min|h)", re.IGNORECASE)
_AMOUNT = re.compile(_NUMBER.pattern + r"[KMGTP]i?B?", re.IGNORECASE)
_SIDE = re.compile(r"[\[(]?[0-9]{1,5}[,)\]]*|[x×]")


class CommandGroup(TyperGroup):
    """The application, or a group of commands."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for command in self.commands.values():
            prepare_command(command)

    @property
    def names(self) -> list[str]:
        """The commands' names in the order of the help."""
        return list(self.commands)

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, for click."""
        return self.names

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command line and exit."""
        words = canonical(list(sys.argv[1:] if args is None else args), self.names)
        if not standalone_mode:
            return super().main(words, prog_name, complete_var, False, windows_expand_args, **extra)
        try:
            code = super().main(words, prog_name, complete_var, False, windows_expand_args, **extra)
        except UsageError as error:  # of a value's parser
            print(error, file=sys.stderr)
            sys.exit(2)
        except _ParseError as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                print(error)
            else:
                print(_usage_error(self, error, words), file=sys.stderr)
            sys.exit(2)
        except typer.Abort:
            sys.exit(130)
        sys.exit(code if isinstance(code, int) else 0)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command named first. Raises UsageError with suggestions."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise _unknown_command(self, ctx, args)
        return super().resolve_command(ctx, args)


def prepare_command(command: Any) -> None:
    """Normalise a command's values before click converts them, and show its arguments without types."""
    for param in command.params:
        _check_value(param)
        if param.param_type_name == "argument" and param.metavar:
            param.make_metavar = _own_metavar(param)
            param.type = copy(param.type)
            param.type.get_metavar = lambda **_: ""


def _own_metavar(param: Any) -> Callable[..., str]:
    """The metavar as it is written, without typer's braces."""
    return lambda ctx, usage=False: str(param.metavar)


def _check_value(param: Any) -> None:
    """Normalise a parameter's values, by its name or type, before click converts them."""
    convert = param.process_value
    has_choices = hasattr(param.type, "choices")
    of_type: dict[str, Callable[[str], Any]] = {"int": values.whole, "float": values.real}
    parser = of_type.get(param.type.name) or values.PARSERS.get(param.opts[0])

    def normalise(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            if has_choices:
                return values.one_of(value, [str(getattr(choice, "value", choice)) for choice in param.type.choices])
            return parser(value) if parser is not None else value
        except UsageError as error:
            raise UsageError(f"{_display_name(param)}: {error.message}", error.hint) from None

    def process_value(ctx: Any, value: Any) -> Any:
        several = isinstance(value, list | tuple)
        return convert(ctx, [normalise(item) for item in value] if several else normalise(value))

    if (has_choices or parser is not None) and not getattr(param, "is_flag", False):
        param.process_value = process_value


def canonical(words: list[str], commands: Container[str]) -> list[str]:
    """Rewrite `help` and `version` as options, and join amounts that the shell split."""
    match words:
        case ["help", *rest]:
            words = [*rest, "--help"]
        case ["--help" | "-h" as option, command, *rest] if command in commands:
            words = [command, *rest, option]
        case ["version" | "-V" | "-v"]:
            words = ["--version"]
    joined: list[str] = []
    place = 0
    while place < len(words):
        word = words[place]
        joined.append(word)
        place += 1
        amount = words[place : place + 2]
        if word in _AMOUNTS and len(amount) == 2 and _NUMBER.fullmatch(amount[0]) and _UNIT.fullmatch(amount[1]):
            joined.append("".join(amount))  # `8 GB`
            place += 2
        elif word == "--input":
            start = place
            while place < len(words) and place < start + 7 and _SIDE.fullmatch(words[place]):
                place += 1
            joined += [" ".join(words[start:place])] if place > start else []  # `3 224 224`, `(3, 224, 224)`
    return joined


def _unknown_command(group: CommandGroup, ctx: Any, args: list[str]) -> UsageError:
    word, *rest = args
    from resnetcli.spec.reference import is_path, origin_of
    from resnetcli.spec.zoo import Zoo

    path = str(ctx.command_path)
    message = f"unknown command `{word}`"
    if not ctx.parent and (is_path(word) or origin_of(word).is_pytorch or word in Zoo().files):
        return UsageError(message, f"`{_command_line([path, 'profile', *args])}`")
    synonym = COMMANDS.get(word.lower(), "") if not ctx.parent else ""
    close = [synonym] if synonym else nearest(word, group.names)
    if not close:
        return UsageError(message, f"see `{path} --help`")
    valid = [_command_line([path, name, *rest]) for name in close if rest and _parses(group, ctx, name, rest)]
    if valid:
        return UsageError(message, f"did you mean {any_of(valid)}?")
    return UsageError(message, f"see `{path} {close[0]} --help`")


def _parses(group: CommandGroup, ctx: Any, name: str, rest: list[str]) -> bool:
    """Whether the command accepts these arguments."""
    if {"--help", "-h"} & set(rest):
        return False
    with contextlib.suppress(_ParseError, UsageError):
        command = group.get_command(ctx, name)
        return command is not None and command.make_context(name, list(rest), parent=ctx) is not None
    return False


def _command_line(words: list[str]) -> str:
    import shlex

    path, *rest = words
    return f"{path} {shlex.join(rest)}"


def _usage_error(group: CommandGroup, error: Any, words: Sequence[str]) -> UsageError:
    """A parsing error as message and hint."""
    ctx = getattr(error, "ctx", None)
    if ctx is None:
        path = " ".join(["resnet-cli", *(word for word in words[:1] if word in group.names)])
    else:
        path = str(ctx.command_path)
    see_help = f"see `{path} --help`"
    match type(error).__name__:
        case "NoSuchOption":
            option = str(error.option_name)
            return UsageError(f"unknown option `{clean(option, 80)}`", _option_hint(option, ctx) or see_help)
        case "MissingParameter":
            kind = error.param.param_type_name
            hint = _value_hint(error.param, words) or _example(ctx, error.param) or see_help
            return UsageError(f"missing {kind} {_display_name(error.param)}", hint)
        case "BadOptionUsage":
            problem = "needs a value" if "requires" in error.message else "takes no value"
            return UsageError(f"{error.option_name} {problem}", see_help)
        case "BadParameter":
            return UsageError(f"{_display_name(error.param)}: {error.message.rstrip('.')}", see_help)
    if extra := _EXTRA.match(error.format_message()):
        word = extra[1].split()[0]
        return UsageError(f"unexpected argument `{clean(word, 80)}`", _device_hint(word, ctx) or see_help)
    return UsageError(error.format_message().rstrip("."), see_help)


_EXTRA = re.compile(r"Got unexpected extra argument\(s\) \((.*)\)", re.DOTALL)


def _device_hint(word: str, ctx: Any) -> str:
    """The hint for a device without its option."""
    if "--device" in _options_of(ctx) and re.fullmatch(r"cpu|cuda(:[0-9]+)?", word):
        return f"did you mean `--device {word}`?"
    return ""


def _value_hint(param: Any, words: Sequence[str]) -> str:
    """The hint for a required option whose value, an amount, is there without it: `max-batch resnet50 8GB`."""
    option = _display_name(param)
    amount = next((word for word in words if _AMOUNT.fullmatch(word)), "")
    return f"did you mean `{option} {amount}`?" if option in _AMOUNTS and amount else ""


def _example(ctx: Any, param: Any) -> str:
    """An example of the command's help that has the option."""
    lines = (ctx.command.epilog or "").splitlines() if ctx is not None else []
    return next((f"for example `{line}`" for line in lines if _display_name(param) in line.split()), "")


def _display_name(param: Any) -> str:
    """`--memory`, `MODEL`."""
    if param is None:
        return "an argument"
    if param.param_type_name == "option":
        return str(max(param.opts, key=len))
    return re.sub(r"[^A-Z|].*", "", (getattr(param, "metavar", None) or param.name.upper()).lstrip("["))


def _options_of(ctx: Any) -> list[str]:
    """The names of a command's options."""
    return [name for param in ctx.command.params for name in (*param.opts, *param.secondary_opts)
            if param.param_type_name == "option" and not param.hidden]  # fmt: skip


def _option_hint(option: str, ctx: Any) -> str:
    """The hint for an unknown option."""
    if ctx is None:
        return ""
    known = _options_of(ctx)
    word = option.lower().replace("_", "-")
    synonym = next((candidate for candidate in OPTIONS.get(word, ()) if candidate.split()[0] in known), "")
    if synonym == "--recipe":
        return _RECIPE_HINT
    if synonym:
        return f"did you mean `{synonym}`?"
    if reason := _reason(word, ctx):
        return reason
    if word in ("--version", "-v") and "--version" not in known:
        return "`resnet-cli --version`"
    if word in ("--output", "-o", "--out", "--save") and "--format" in known:
        return "the result goes to stdout: add `> FILE`"
    long_names = {name.removeprefix("--"): name for name in known if name.startswith("--")}
    close = nearest(word.lstrip("-"), long_names) if len(word) > 2 else []
    return f"did you mean {any_of([long_names[name] for name in close])}?" if close else ""


def _reason(option: str, ctx: Any) -> str:
    """Why this command has no such option, and what to type; empty if that is not known."""
    command = str(ctx.command_path).partition(" ")[2]
    if option in _MODEL_OPTIONS:
        arguments = [_display_name(param) for param in ctx.command.params if param.param_type_name == "argument"]
        takes_model = any("MODEL" in name for name in arguments) or command == "check"
        if takes_model:
            return "give the model as an argument, without an option"
        return "give the run's directory as an argument" if "RUN" in arguments else ""
    return next((hints.get(command, "") for options, hints in REASONS if option in options), "")
