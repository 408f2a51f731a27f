"""From what a user asks for to what a session needs: net, recipe, data, device; of a new run, or of one to resume."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from resnetcli.bench.device import describe, find
from resnetcli.bench.settings import require_possible, settings
from resnetcli.data.read import default_name as default_data
from resnetcli.data.read import load
from resnetcli.errors import UsageError, did_you_mean
from resnetcli.net.memory import NoRoom, gigabytes, physical_memory
from resnetcli.ops import Shape
from resnetcli.plan.count import count
from resnetcli.plan.lower import lower
from resnetcli.plan.memory import memory
from resnetcli.plan.plan import Plan
from resnetcli.recipes.deviations import deviations
from resnetcli.recipes.recipe import BOUNDS, SETTINGS, Recipe
from resnetcli.recipes.text import default_recipe, format_recipe, read_recipe
from resnetcli.runs import tensorboard as board
from resnetcli.runs.directory import MODEL_FILE, RECIPE_FILE, SPEC_FILE, Config, Printed, Run, differences, flat
from resnetcli.runs.metrics import intervals
from resnetcli.spec.lineage import open_document
from resnetcli.spec.read import read
from resnetcli.spec.resolve import resolved
from resnetcli.spec.source import read_source
from resnetcli.spec.spec import Spec
from resnetcli.spec.zoo import Zoo
from resnetcli.train.loop import DTYPES, Trainer

if TYPE_CHECKING:
    from resnetcli.data.dataset import Dataset
    from resnetcli.train.session import Engine
    from resnetcli.train.stop import Stop

CHECKPOINT_EVERY = EVAL_EVERY = 1000
TEST_SETS = {"cifar10": "CIFAR-10 test", "cifar100": "CIFAR-100 test"}
ROOM = 0.9
"""What of a memory the tensors of a step can take: libraries and fragmentation take the rest."""
Say = Callable[[str], None]


class Together(Protocol):
    """Several processes that train one net, as the first of them sees them: `resnetcli.parallel.team.Team`."""

    world: int
    """How many there are."""

    @property
    def stop(self) -> Stop:
        """What a signal to any of them is noted in, for the run that `lead` was last called for."""

    def require_possible(self, asked: Asked) -> None:
        """Raises UsageError for what several processes cannot do."""

    def apart(self, recipe: Recipe, *, new: bool) -> Recipe:
        """The recipe as they train by it, each over its share of a batch. Raises UsageError where they cannot."""

    def lead(self, prepared: Prepared) -> Engine:
        """The trainer that all of them are."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user said of a run; None where nothing."""

    model: str | None = None
    parameters: Mapping[str, int] = field(default_factory=dict)
    recipe: str | None = None
    data: str | None = None
    data_dir: str | None = None
    download: bool = True
    iterations: int | None = None
    batch_size: int | None = None
    seed: int | None = None
    device: str | None = None
    dtype: str | None = None
    channels_last: bool | None = None
    compile: bool | None = None
    cuda_graph: bool | None = None
    deterministic: bool | None = None
    threads: int | None = None
    train_split: int | None = None
    bn_batch: int | None = None
    checkpoint_every: int | None = None
    eval_every: int | None = None
    team: Together | None = None
    """The processes that train it together, if there are several."""
    tensorboard: bool | None = None


MAY_CHANGE = ("data_dir", "download", "device", "threads", "checkpoint_every", "eval_every", "team", "tensorboard")
"""What a resume may be told anew: none of it is in the weights, but for last digits where the machine is another."""

SAID = {
    "device_name": "device", "threads": "number of threads", "processes": "number of processes", "versions": "version"
}  # fmt: skip
"""What the last digits depend on, in words."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run before its first step, or before its next one."""

    config: Config
    plan: Plan
    recipe: Recipe
    data: Dataset
    spec_text: str
    model_text: str
    team: Together | None = None
    tensorboard: bool = False
    """Whether its readings go into event files too."""

    @property
    def recipe_text(self) -> str:
        """The recipe as it is used, as YAML."""
        return format_recipe(self.recipe)


def depth_model(depth: int, zoo: Zoo) -> tuple[str, dict[str, int]]:
    """The paper's ResNet of so many layers: its own spec, with the figures the paper prints, or the family's.

    Raises UsageError unless the depth is 6n+2.
    """
    if depth < 8 or depth > 20_000 or depth % 6 != 2:
        lower_one = max(8, (min(depth, 20_000) - 2) // 6 * 6 + 2)
        raise UsageError(f"no ResNet of He et al. has {depth} layers for CIFAR: depth is 6n+2",
                         f"`--depth {lower_one}` or `--depth {lower_one + 6}`")  # fmt: skip
    name = f"cifar_resnet{depth}"
    if name in zoo.files and "cifar_resnet" in read(name, zoo=zoo).extends:
        return name, {}
    return "cifar_resnet", {"depth": depth}


def default_name(config: Config, *, several: bool = False) -> Path:
    """`runs/cifar_resnet56-cifar10-seed0`; for several seeds without the last part."""
    end = "" if several else f"-seed{config.seed}"
    return Path("runs") / f"{net_name(config)}-{config.data}{end}"


def net_name(config: Config) -> str:
    """What a net's folder is called: `cifar_resnet56`, `my_net-depth20`."""
    settings = "".join(f"-{name}{value}" for name, value in sorted(config.parameters.items()))
    return f"{Path(os.path.abspath(config.model)).stem}{settings}"  # noqa: PTH100 - `..` is a name, too


# --- a new run -----------------------------------------------------------------------------------------------------


def prepare(asked: Asked, zoo: Zoo, say: Say, data: Dataset | None = None) -> Prepared:
    """Everything of a new run but its directory. Raises UsageError, SpecError and ResourceError for what cannot be."""
    device = _device(asked)
    asked = with_defaults(asked, device)
    if asked.tensorboard:
        board.load()  # which may not be installed
    if asked.model is None:
        raise UsageError("what shall be trained?", "`--depth 56`, or `--model` with a name in the zoo or a path")
    if "classes" in asked.parameters:
        raise UsageError("the number of classes comes from the data", "leave `classes` out")
    _require_intervals(asked)
    seed = asked.seed or 0
    if not 0 <= seed < 2**63:
        raise UsageError(f"`--seed {seed}` is out of range", "from 0 to 2^63 - 1")
    alone = read(asked.model, zoo=zoo, parameters=asked.parameters)  # wrong words are told before data is fetched
    recipe = _changed(read_recipe(asked.recipe) if asked.recipe else default_recipe(alone), asked)
    if asked.team is not None:
        recipe = asked.team.apart(recipe, new=True)
    folder = _folder(asked)
    data = data or load(asked.data or default_data(folder), folder, download=asked.download, log=say)
    spec = of_data(asked.model, alone, asked.parameters, data.image, data.classes, zoo)
    plan = lower(spec)
    model_text = resolved(asked.model, spec, zoo=zoo)
    images = min(recipe.train_split or len(data.train.labels), len(data.train.labels))
    iterations = recipe.length(images)
    assert asked.dtype is not None
    figures = printed(spec, data.name)
    otherwise = deviations(recipe, dtype=asked.dtype, images=images, data=data.name, size=data.image[1:])
    config = Config(
        model=asked.model,
        parameters=dict(asked.parameters),
        title=spec.title,
        input=(spec.input.c, spec.input.h, spec.input.w),
        classes=data.classes,
        params=count(plan).params,
        spec=hashlib.sha256(model_text.encode()).hexdigest(),
        recipe=recipe_record(recipe),
        data=data.name,
        data_text=data.text,
        data_digest=data.digest,
        data_folder=None if asked.data_dir is None else str(Path(asked.data_dir).absolute()),
        train_images=images,
        validation_images=len(data.train.labels) - images,
        test_images=len(data.test.labels),
        iterations=iterations,
        batch_size=recipe.batch_size,
        seed=seed,
        dtype=asked.dtype,
        channels_last=bool(asked.channels_last),
        compile=bool(asked.compile),
        cuda_graph=bool(asked.cuda_graph),
        deterministic=bool(asked.deterministic),
        device=device,
        device_name=describe(device),
        threads=asked.threads or torch.get_num_threads(),
        checkpoint_every=asked.checkpoint_every or CHECKPOINT_EVERY,
        eval_every=asked.eval_every or _eval_every(iterations, recipe.batch_size, len(data.test.labels)),
        deviations=(another_recipe(recipe, spec) if figures else ()) + otherwise,
        printed=figures,
        versions=versions(),
        processes=_processes(asked),
    )
    intervals(config)  # which may be too many readings: that is said before there is a directory
    spec_text = open_document(asked.model, zoo).source.text
    return Prepared(config, plan, recipe, data, spec_text, model_text, asked.team, bool(asked.tensorboard))


def _eval_every(iterations: int, batch: int, test_images: int) -> int:
    """Iterations between tests by default: 1000, or a tenth of a shorter run.

    At least as many as train on the number of test images, so that tests take at most about a quarter of the time.
    """
    return min(iterations, max(1, min(EVAL_EVERY, iterations // 10), -(-test_images // batch)))


def with_defaults(asked: Asked, device: str) -> Asked:
    """Fill in the fastest settings of the device where the user gave none.

    On a GPU: TF32, channels_last and a CUDA graph; the error is below that between two seeds. fp32 without TF32 stays
    NCHW, which is faster in cuDNN; several processes use no graph.
    """
    if device == "cpu":
        return replace(asked, dtype=asked.dtype or "fp32")
    dtype = asked.dtype or ("tf32" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32")
    layout = dtype != "fp32" if asked.channels_last is None else asked.channels_last
    graph = asked.team is None if asked.cuda_graph is None else asked.cuda_graph
    return replace(asked, dtype=dtype, channels_last=layout, cuda_graph=graph)


def _require_intervals(asked: Asked) -> None:
    """Raises UsageError for tests or checkpoints at no iteration."""
    low, high = BOUNDS["iterations"]
    for name in ("checkpoint_every", "eval_every"):
        value = getattr(asked, name)
        if value is not None and not low <= value <= high:
            raise UsageError(f"`--{name.replace('_', '-')} {value}` is out of range", f"from {low:,} to {high:,}")


def _changed(recipe: Recipe, asked: Asked) -> Recipe:
    """The recipe with what options change of it. Raises UsageError in the options' words, not the recipe's."""
    given: dict[str, int] = {name: value for name in BOUNDS if (value := getattr(asked, name)) is not None}
    options = {name: f"--{name.replace('_', '-')}" for name in given}
    for name, value in given.items():
        low, high = BOUNDS[name]
        if not low <= value <= high:
            raise UsageError(f"`{options[name]} {value}` is out of range", f"from {low:,} to {high:,}")
    try:
        return recipe.changed(**given)
    except UsageError as error:
        for name, option in options.items():
            error.hint = error.hint.replace(f"`{name}`", f"`{option}`")
        raise


def another_recipe(recipe: Recipe, spec: Spec) -> tuple[str, ...]:
    """That a net, for which its paper prints errors, is trained by a recipe that is not of that paper."""
    usual = default_recipe(spec)
    return () if usual.paper_id in recipe.source else (f"recipe {recipe.name}; the paper: recipe {usual.name}",)


def of_data(
    model: str, alone: Spec, parameters: Mapping[str, int], image: tuple[int, ...], classes: int, zoo: Zoo
) -> Spec:  # fmt: skip
    """The net for the data's images and classes. Raises UsageError and SpecError if it cannot be."""
    given = dict(parameters)
    if classes != alone.parameters["classes"]:  # a net that has no use for the name may still fit
        given["classes"] = classes
    return read(model, zoo=zoo, input=Shape(*image), parameters=given)


def printed(spec: Spec, data: str) -> tuple[Printed, ...]:
    """The test errors that papers print for just that net on that data: those of its own paper, where it prints any."""
    if spec.changed - {"classes"}:
        return ()
    found = [entry for entry in spec.published
             if entry.figure.startswith("top1_error") and entry.dataset == TEST_SETS.get(data)]  # fmt: skip
    own = [entry for entry in found if entry.source.split(":")[-1] in spec.cite]
    made = [Printed(entry.figure, entry.printed, entry.dataset, entry.protocol, entry.source) for entry in own or found]
    return tuple(dict.fromkeys(made))


def recipe_record(recipe: Recipe) -> dict[str, Any]:
    """A recipe's name and every setting of it."""
    whole = asdict(replace(recipe, paper={}))
    return {"name": recipe.name, **{name: _listed(whole[name]) for name in SETTINGS}}


def _listed(value: Any) -> Any:
    """As JSON gives it back."""
    if isinstance(value, Mapping):
        return {name: _listed(item) for name, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def versions() -> dict[str, str]:
    """What computes."""
    found = {"python": platform.python_version(), "torch": str(torch.__version__)}
    for name in ("resnet-cli", "numpy", "safetensors"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not known"
    return found


def _processes(asked: Asked) -> int:
    return 1 if asked.team is None else asked.team.world


def _folder(asked: Asked) -> Path | None:
    return None if asked.data_dir is None else Path(asked.data_dir)


def _device(asked: Asked) -> str:
    """The device asked for, or a GPU if there is one. Raises UsageError for what it cannot do."""
    if asked.dtype is not None and asked.dtype not in DTYPES:
        hint = did_you_mean(asked.dtype, DTYPES, f"one of {', '.join(DTYPES)}")
        raise UsageError(f"no net is trained in `{asked.dtype}`", hint)
    if asked.team is not None:
        asked.team.require_possible(asked)
    device = find(asked.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    how = settings(
        asked.dtype, channels_last=bool(asked.channels_last), compile=bool(asked.compile),
        cuda_graph=bool(asked.cuda_graph), threads=asked.threads,
    )  # fmt: skip
    require_possible(how, device)
    return device


# --- one to go on with ---------------------------------------------------------------------------------------------


def reopen(run: Run, asked: Asked, say: Say, data: Dataset | None = None, *, trains: bool = True) -> Prepared:
    """Everything of a run from its directory, on this machine.

    `trains`: whether it is gone on with, so that it matters if the machine is another one. Raises UsageError with all
    that was asked for otherwise, and if the data set is another one.
    """
    config = run.config
    require_as_asked(run, asked)
    shown = trains and _tensorboard(run, asked, say)
    where = asked.device or config.device
    dtype, graph = on_device(config, where, _processes(asked))
    how = replace(
        asked, dtype=dtype, channels_last=config.channels_last, compile=config.compile, cuda_graph=graph,
        threads=config.threads if asked.threads is None else asked.threads, device=where,
    )  # fmt: skip
    device = _device(how)
    if trains and dtype != config.dtype:
        say(f"`{device}` does not support {config.dtype}: the run resumes in {dtype}")
    model = read_source(run.path / MODEL_FILE)
    recipe = read_recipe(str(run.path / RECIPE_FILE))
    if asked.team is not None:
        asked.team.apart(recipe, new=False)
    spec = read(model, zoo=Zoo())
    folder = asked.data_dir or config.data_folder
    data = data or load(config.data, None if folder is None else Path(folder), download=asked.download, log=say)
    now = replace(
        config,
        spec=hashlib.sha256(model.text.encode()).hexdigest(),
        recipe=recipe_record(recipe),
        data_text=data.text,
        data_digest=data.digest,
        iterations=recipe.length(config.train_images),
        batch_size=recipe.batch_size,
        device=device,
        device_name=describe(device),
        threads=asked.threads or config.threads,
        checkpoint_every=asked.checkpoint_every or config.checkpoint_every,
        eval_every=asked.eval_every or config.eval_every,
        versions=versions(),
        processes=_processes(asked),
    )
    if found := differences(config.bound, now.bound):
        raise UsageError(f"`{run.path}` cannot be gone on with: {'; '.join(found)}",
                         "the data set and all that was written have to be what they were")  # fmt: skip
    for name, text in SAID.items():
        if trains and getattr(now, name) != getattr(config, name):
            say(f"another {text} than before: the weights' last digits may be others")
    spec_text = read_source(run.path / SPEC_FILE).text
    return Prepared(now, lower(spec), recipe, data, spec_text, model.text, asked.team, shown)


def _tensorboard(run: Run, asked: Asked, say: Say) -> bool:
    """Whether event files are written: if that is asked for now, or was before, which is told by their being there."""
    if not asked.tensorboard and not board.event_files(run.path):
        return False
    try:
        board.load()
    except UsageError as error:
        if asked.tensorboard:
            raise
        say(f"warning: nothing more for TensorBoard: {error.message}")
        return False
    return True


def require_as_asked(run: Run, asked: Asked) -> None:
    """Raises UsageError with every option that is not what the run was started with, and for a file edited since."""
    _require_intervals(asked)
    config = run.config
    then: dict[str, Any] = {
        "model": config.model, "parameters": dict(config.parameters), "data": config.data,
        "train_split": config.recipe.get("train_split"), "bn_batch": config.recipe.get("bn_batch"),
    }  # fmt: skip
    found = []
    for each in fields(Asked):
        name, value = each.name, getattr(asked, each.name)
        if name in MAY_CHANGE or value is None or (name == "parameters" and asked.model is None):
            continue
        if name == "recipe":
            mine = recipe_record(_changed(read_recipe(value), asked))
            if mine["bn_batch"] is None:  # left open by the recipe, and settled by an option or the processes since
                mine["bn_batch"] = config.recipe.get("bn_batch")
            found += [f"recipe's {each}" for each in differences(dict(flat(config.recipe)), dict(flat(mine)))]
            continue
        was = then[name] if name in then else getattr(config, name)
        if value != was:
            found.append(f"{name.replace('_', '-')}: {_said(was)}, now {_said(value)}")
    if asked.model == config.model and asked.parameters == config.parameters and _is_edited(run, asked.model):
        found.append(f"model: `{asked.model}` is another net now")
    if found:
        raise UsageError(f"`{run.path}` was started otherwise: {'; '.join(found)}",
                         "leave these options out, or start a run of its own with `--out`")  # fmt: skip


def _is_edited(run: Run, model: str) -> bool:
    """Whether what the run was started with is another net now; how it is written makes no difference."""
    config, zoo = run.config, Zoo()
    alone = read(model, zoo=zoo, parameters=config.parameters)
    now = of_data(model, alone, config.parameters, config.input, config.classes, zoo)
    return lower(now).steps != lower(read(read_source(run.path / MODEL_FILE), zoo=zoo)).steps


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name}={number}" for name, number in value.items()) or "none"
    return f"{value:,}" if type(value) is int else str(value)


# --- the machine ---------------------------------------------------------------------------------------------------


def engine(prepared: Prepared, rank: int = 0, world: int = 1, *, tell: Say = lambda line: None) -> Trainer:
    """The trainer, on its device, of one process among `world`. Raises ResourceError if memory does not suffice.

    `tell` receives a line about each setting that is dropped during training.
    """
    config = prepared.config
    torch.set_num_threads(config.threads)
    require_room(prepared, physical_memory())
    dtype, graph = on_device(config, config.device, world)
    return Trainer(
        prepared.plan, prepared.recipe, prepared.data, seed=config.seed, device=torch.device(config.device),
        dtype=dtype, channels_last=config.channels_last, compile=config.compile, cuda_graph=graph,
        deterministic=config.deterministic, rank=rank, world=world, tell=tell,
    )  # fmt: skip


def on_device(config: Config, device: str, processes: int) -> tuple[str, bool]:
    """The run's dtype, and whether it uses a CUDA graph, on a device that may not be the one it was started on.

    On a CPU TF32 becomes fp32 and there are no CUDA graphs; several processes have none either.
    """
    cpu = device == "cpu"
    return "fp32" if cpu and config.dtype == "tf32" else config.dtype, config.cuda_graph and not cpu and processes == 1


def require_room(prepared: Prepared, total: int) -> None:
    """Raises NoRoom if a step on a CPU takes more than there is: the system would kill the process for it."""
    config = prepared.config
    if config.device != "cpu":
        return  # a GPU says so itself
    needed = memory(prepared.plan, "train", place="cpu").bytes(config.batch_size) + _data_bytes(prepared.data)
    if needed > total:
        raise NoRoom(
            f"a step with a batch of {config.batch_size:,} would take {gigabytes(needed)}, "
            f"this machine has {gigabytes(total)}", room_hint(prepared, total)
        )  # fmt: skip


def room_hint(prepared: Prepared, total: int) -> str:
    """Which batch would fit into a memory of `total` bytes, derived from the tensors of a step in float32."""
    place = prepared.config.device.partition(":")[0]
    found = memory(prepared.plan, "train", place="cuda" if place == "cuda" else "cpu")
    most = found.largest_batch(int(total * ROOM) - _data_bytes(prepared.data))
    most = most // 8 * 8 if most > 16 else most
    if most < 1:
        return "not even one image would fit (derived)"
    if most >= prepared.config.batch_size:
        return "by its tensors it should fit: something else takes memory there"
    return f"`--batch-size {most}` would fit (derived); the learning rate is then to be set anew"


def device_memory(device: str) -> int:
    """Bytes of a device's memory."""
    if device == "cpu":
        return physical_memory()
    return int(torch.cuda.get_device_properties(device).total_memory)


def _data_bytes(data: Dataset) -> int:
    return int(data.train.images.nbytes + data.test.images.nbytes)
