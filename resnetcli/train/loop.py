"""The training loop: one step is one update of the weights, without a word between device and host.

Everything is indexed by the iteration. Image p of the run, counted over all batches, is image p % n of epoch p // n's
order, so that batches are always full and cross from one epoch into the next, and each epoch has every image once.
What is random is a function of (seed, epoch, sample) (`order`), so the state is the weights, BatchNorm's statistics,
the momentum and a few sums: `restore` with them goes on bit for bit on a CPU with the same number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - what everybody calls it

from resnetcli.bench.runtimes import explained
from resnetcli.bench.settings import Settings, recompile_limits, require_possible, rounding, settings
from resnetcli.errors import ResourceError, UsageError, clean, did_you_mean, plural
from resnetcli.net.memory import NoRoom, fitting, is_out_of_memory
from resnetcli.net.module import Net, build, initialise
from resnetcli.ops import Shape, Softmax
from resnetcli.plan.count import count
from resnetcli.plan.plan import Plan
from resnetcli.recipes.recipe import Recipe
from resnetcli.train import ghost_norm as norm
from resnetcli.train import order
from resnetcli.train.augment import Images, normalisation
from resnetcli.train.evaluate import BATCH, Evaluation, evaluate
from resnetcli.train.weights import StepWeights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from resnetcli.data.dataset import Dataset

DTYPES = ("fp32", "tf32", "bf16", "fp16")
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Mixed precision: weights, their gradients and BatchNorm's parameters are fp32."""
REMEMBERED = 50
"""Iterations that the running training error, which ends a warm-up, is a mean over, roughly."""
EAGER_STEPS = 3
"""Steps before a CUDA graph is recorded: libraries allocate and choose their kernels in the first ones."""

FIRST_SCALE, SCALE_STEPS = 1024.0, 2000
"""fp16: what the loss is multiplied by at first, so that small gradients do not vanish; halved by an update that had to
be skipped, doubled after so many in a row that had not."""
RESIDENT = 2**28
"""Bytes of test images that stay on a GPU between evaluations, at most."""


class NotFinite(ResourceError):  # noqa: N818 - what happened, not that something did
    """A loss or a gradient that is no number."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What happened since it was last asked."""

    iteration: int
    """Finished iterations of the run."""
    iterations: int
    """Of these since the last time."""
    loss: float
    """Mean over them, as trained: with label smoothing. NaN if there were none."""
    error_percent: float
    """Training images, as augmented, that were classified wrongly before each update."""
    lr: float
    """Of the last iteration."""


class Trainer:
    """A net on its way through a recipe."""

    def __init__(
        self,
        plan: Plan,
        recipe: Recipe,
        data: Dataset,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
        dtype: str = "fp32",
        channels_last: bool = False,
        compile: bool = False,
        cuda_graph: bool = False,
        deterministic: bool = False,
        bn_batch: int | None = None,
        rank: int = 0,
        world: int = 1,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        """At iteration 0, its weights drawn from the seed.

        `bn_batch`: instead of the recipe's; `rank`: which of the `world` processes this is, each of which trains on its
        share of every batch; `deterministic`: cuDNN's deterministic algorithms, none chosen by their time. A step that
        cannot be recorded as a CUDA graph is launched kernel by kernel, which `tell` is told. Raises UsageError for a
        net that does not fit the data, ResourceError where memory or a compiler is missing.
        """
        self.device = torch.device(device)
        recipe = recipe.changed(bn_batch=bn_batch)
        self._settings = settings(dtype, channels_last=channels_last, compile=compile, cuda_graph=cuda_graph)
        _check(recipe, seed, self._settings, self.device, rank, world)
        plan = trainable(plan, data)
        self.plan, self.recipe, self.seed, self.dtype = plan, recipe, seed, dtype
        self.rank, self.world, self.channels_last, self.deterministic = rank, world, channels_last, deterministic
        self.iteration = 0
        """Finished iterations."""
        self._data, self._kept = data, _kept(recipe, data)
        images = data.train.images if self._kept is None else data.train.images[self._kept]
        labels = data.train.labels if self._kept is None else data.train.labels[self._kept]
        self.n = len(images)
        """Training images."""
        self.rate = recipe.rate(self.n, count(plan).depth)
        self.iterations = self.rate.iterations
        """Of the whole run."""
        self._images = Images(images, normalisation(images, recipe.normalise), recipe.augmentation, self.device)
        self.normalise = self._images.normalise
        self._labels = _tensor(labels, self.device)
        self._epochs: dict[int, Tensor] = {}

        self.net = _drawn(plan, recipe, seed, self.device)
        if channels_last:
            self.net = self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        share = recipe.batch_size // world
        self._groups = 1  # of BatchNorm
        if recipe.bn_batch is not None and recipe.bn_batch < share:
            norm.group(self.net, recipe.bn_batch)
            self._groups = share // recipe.bn_batch
        self._drops = any(isinstance(module, nn.Dropout) and module.p for module in self.net.modules())
        self.model: Callable[[Tensor], Tensor] = self.net
        """What a step calls: the net, as it is, compiled, or with its gradients shared among processes."""
        if compile:
            self.model = torch.compile(self.net, dynamic=False)  # which fuses autocast's casts by itself
        elif dtype in HALVES or self._groups > 1:
            self.model = StepWeights(self.net, HALVES.get(dtype))
        self._tell = tell
        self.average: Callable[[Tensor], object] | None = None
        """With several processes, puts the mean over all of them into loss and error, and into what BatchNorm keeps."""

        scalar = partial(torch.zeros, (), device=self.device)
        self._masks = torch.default_generator  # what dropout draws from
        if self.device.type == "cuda":
            self._masks = torch.cuda.default_generators[self._labels.device.index]
        self._crops = torch.zeros(4, share, dtype=torch.int64, device=self.device)
        self._scheduled, self._lr, self._stop = scalar(), scalar(), scalar()
        self._warming, self._error = scalar(), scalar() + 1  # running training error, from everything wrong
        self._warming.fill_(float(self.rate.waits(0)))
        self._totals = torch.zeros(3, dtype=torch.float64, device=self.device)  # of loss, error, iterations
        self._one, self._skip = scalar() + 1, scalar()
        self._scale, self._unskipped = scalar() + FIRST_SCALE, scalar().int()  # of the loss, in fp16
        self._resident: dict[str, tuple[Tensor, Tensor]] = {}
        self._since = 0
        """Iterations since `read`, those included whose update was held back."""
        self._compiled = False
        self.optimizer = self._optimizer()
        self._graph: Any = None
        self._eager = EAGER_STEPS if cuda_graph else -1
        # A stream of this device's own: the one that PyTorch would record on is of the first device it recorded for.
        self._side: Any = torch.cuda.Stream(self.device) if cuda_graph else None  # type: ignore[no-untyped-call]

    def _optimizer(self) -> torch.optim.SGD:
        """SGD that decays what the recipe says and takes its rate, and whether to hold still, from the device."""
        recipe, decayed, others = self.recipe, list[nn.Parameter](), list[nn.Parameter]()
        for module in self.net.modules():
            for name, parameter in module.named_parameters(recurse=False):
                weighs = isinstance(module, nn.Conv2d | nn.Linear) and name == "weight"
                (decayed if weighs or recipe.decay == "all" else others).append(parameter)
        groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.SGD(
            [group for group in groups if group["params"]],
            lr=self._lr, momentum=recipe.momentum, nesterov=recipe.nesterov and recipe.momentum > 0, fused=True,
        )  # fmt: skip
        for group in optimizer.param_groups:
            group["lr"] = self._lr  # the tensor itself, which each step writes
        if recipe.momentum:
            for parameter in self.net.parameters():
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        held = self._skip if self.dtype == "fp16" else self._stop
        optimizer.found_inf = held  # type: ignore[attr-defined]  # where it is 1, fused SGD changes nothing
        return optimizer

    # --- a step ----------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """One iteration. On a GPU the host only queues it: `read` waits for it.

        Raises ResourceError where memory does not suffice, and on a CPU at once where the loss is not finite.
        """
        # Each BatchNorm group has the images of one process; they are interleaved in the batch.
        groups, batch = self._groups, self._batch(self.iteration)
        self._crops.view(4, -1, groups).copy_(batch.reshape(4, groups, -1).mT)
        self._scheduled.fill_(self.rate.lr(self.iteration))
        if not self.rate.waits(self.iteration):
            self._warming.zero_()
        if self._drops:
            key = order.key(self.seed, order.DROPOUT, self.iteration * self.world + self.rank) >> 1
            self._masks.manual_seed(key)  # `torch.manual_seed` seeds every device, which takes 0.1 ms a step
        what = f"training `{self.plan.name}` with a batch of {self._crops.shape[1]}"
        with ExitStack() as stack:
            stack.enter_context(fitting(what, self.device, "use a smaller batch"))
            stack.enter_context(self._arithmetic(tf32=self.dtype == "tf32"))
            if self._settings.compile and not self._compiled:
                stack.enter_context(_compiling(self.plan, self._settings))
            self._launch()
        self._compiled = True
        self._since += 1
        self.iteration += 1
        if self.device.type == "cpu":
            self._require_finite()

    def _compute(self) -> None:
        """All of a step that the device does."""
        x, y = self._images.batch(self._crops), self._labels[self._crops[0]]  # (b, c, h, w), (b,)
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        self.optimizer.zero_grad(set_to_none=True)
        # Each weight is read once a step, so that nothing is gained by caching what it is rounded to.
        half = HALVES.get(self.dtype)
        with torch.autocast(self.device.type, half or torch.bfloat16, enabled=half is not None, cache_enabled=False):
            logits = self.model(x)
        logits = logits.float().flatten(1)  # (b, classes)
        loss = F.cross_entropy(logits, y, label_smoothing=self.recipe.label_smoothing)
        (loss * self._scale if self.dtype == "fp16" else loss).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self._update(torch.stack((loss.detach(), (logits.argmax(1) != y).float().mean())))

    def _update(self, measured: Tensor) -> None:
        """Changes the weights, unless the loss or a gradient, now or earlier, was not finite; and takes stock."""
        if self.average is not None:
            self.average(measured)  # first of all: one process's loss that is not finite stops them all
        grads = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        if self.dtype == "fp16":
            self._unscale(grads)
            grads = []
        torch._amp_foreach_non_finite_check_and_unscale_([*grads, measured], self._stop, self._one)
        if self.dtype == "fp16":
            torch.maximum(self._skip, self._stop, out=self._skip)
        if self.rate.most:
            warm = self.rate.warmup.lr if self.rate.warmup is not None else 0.0
            torch.where(self._warming.bool(), torch.full_like(self._lr, warm), self._scheduled, out=self._lr)
        else:
            self._lr.copy_(self._scheduled)
        self.optimizer.step()
        counted = torch.cat((measured.double(), torch.ones_like(self._totals[:1])))
        self._totals += counted.where(self._stop == 0, torch.zeros_like(counted))
        if self.rate.waits(0):
            self._error.lerp_(measured[1], 1 / REMEMBERED)
            self._warming *= self._error >= (self.rate.warmup.until_error or 0) / 100  # type: ignore[union-attr]

    def _unscale(self, grads: list[Tensor]) -> None:
        """Unscale the gradients, and update the loss scale.

        An overflow skips the update; without a scale, it ends training.
        """
        self._skip.zero_()
        torch._amp_foreach_non_finite_check_and_unscale_(grads, self._skip, self._scale.reciprocal())
        torch.maximum(self._stop, self._skip * (self._scale <= 1), out=self._stop)
        torch._amp_update_scale_(self._scale, self._unskipped, self._skip, 2.0, 0.5, SCALE_STEPS)

    def _launch(self) -> None:
        """`_compute`, or the CUDA graph of it once there is one."""
        if self._graph is not None:
            self._graph.replay()
        elif self._eager < 0:
            self._compute()
        elif self._eager:
            self._eager -= 1
            # As recording wants it: what is allocated is of no stream that is recorded.
            self._side.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(self._side):
                self._compute()
            torch.cuda.current_stream(self.device).wait_stream(self._side)
        elif (graph := self._recorded()) is not None:
            self._graph = graph
            graph.replay()
        else:
            self._compute()

    def _recorded(self) -> Any:
        """Capture a step as a CUDA graph, without running it; None if memory does not suffice or capture fails."""
        self.optimizer.zero_grad(set_to_none=True)  # so that the gradients lie in the graph's own memory
        graph = torch.cuda.CUDAGraph()
        try:
            # The outer one restores the stream, which the inner one does not if capture fails.
            now = torch.cuda.stream(torch.cuda.current_stream(self.device))
            with now, torch.cuda.graph(graph, stream=self._side):
                self._compute()
        except RuntimeError as error:
            text = (str(error).strip().splitlines() or [type(error).__name__])[0]
            is_full = is_out_of_memory(error)
            reason = f"the memory of `{self.device}` is too small for one" if is_full else clean(text, 120)
        else:
            return graph
        del graph
        self._drop_graph(reason)
        return None

    def _drop_graph(self, reason: str) -> None:
        """Launch all further steps kernel by kernel, and free the graph's memory."""
        self.optimizer.zero_grad(set_to_none=True)  # which lie in its memory
        self._graph, self._eager = None, -1
        torch.cuda.empty_cache()
        self._tell(f"training continues without a CUDA graph, which may be slower: {reason}")

    @contextmanager
    def _arithmetic(self, *, tf32: bool) -> Iterator[None]:
        """On a GPU: no TF32 unless it is asked for, and convolutions autotuned, as their shapes never change.

        Not if `deterministic`: autotuning chooses by time, and may choose differently in the next run.
        """
        if self.device.type != "cuda":
            yield
            return
        cudnn = torch.backends.cudnn
        before = cudnn.benchmark, cudnn.deterministic
        cudnn.benchmark, cudnn.deterministic = not self.deterministic, self.deterministic or before[1]
        try:
            with torch.cuda.device(self.device), rounding(tf32):
                yield
        finally:
            cudnn.benchmark, cudnn.deterministic = before

    def _batch(self, iteration: int) -> Tensor:
        """This process's share of an iteration's batch: (4, b) of index, top, left, mirrored."""
        size = self.recipe.batch_size // self.world
        place = iteration * self.recipe.batch_size + self.rank * size
        parts = []
        while size:
            epoch, begin = divmod(place, self.n)
            part = self._epoch(epoch)[:, begin : begin + size]
            parts.append(part)
            place, size = place + part.shape[1], size - part.shape[1]
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0]

    def _epoch(self, epoch: int) -> Tensor:
        if epoch not in self._epochs:
            for old in [e for e in self._epochs if e < epoch - 1 or e > epoch]:
                del self._epochs[old]
            augmentation = self.recipe.augmentation
            self._epochs[epoch] = order.stream(
                self.seed, epoch, self.n, self._images.places, augmentation.flip, self.device
            )
        return self._epochs[epoch]

    # --- what one asks of it ---------------------------------------------------------------------------------------

    def read(self) -> Progress:
        """What happened since the last `read`; waits for the device.

        Raises ResourceError, naming the iteration, if a loss or gradient was not finite: none was made from then on.
        """
        self._require_finite()
        loss, error, steps = self._totals.tolist()
        lr = float(f"{self._lr.item():.7g}")  # as far as an fp32 goes
        self._totals.zero_()
        self._since = 0
        if not steps:
            return Progress(self.iteration, 0, float("nan"), float("nan"), lr)
        return Progress(self.iteration, round(steps), loss / steps, 100 * error / steps, lr)

    def _require_finite(self) -> None:
        if not self._stop.item():
            return
        steps = round(self._totals[2].item())
        self.iteration, self._since = self.iteration - (self._since - steps), steps  # without those held back
        raise NotFinite(
            f"the loss or a gradient of iteration {self.iteration + 1:,} is not finite; it did not change the weights",
            "use a lower learning rate or a warm-up, and another `--out`; a checkpoint from before is good",
        )

    def evaluate(self, split: str = "test", part: tuple[int, int] = (0, 1)) -> Evaluation:
        """The error on a split, `test`, `train` or `validation`: no augmentation, in fp32.

        `part`: on share i of k, which is in the batches that the whole would be in. Raises UsageError for a split there
        is not.
        """
        return self.measure(*(_part(tensor, *part) for tensor in self._split(split)))

    def measure(self, images: Tensor, labels: Tensor) -> Evaluation:
        """The error on images, uint8 (n, c, h, w): no augmentation, in fp32 whatever it is trained in.

        On a GPU in NCHW: without TF32, cuDNN's NHWC convolutions are the slower ones. A CUDA graph that leaves it too
        little memory is given up. Raises NoRoom where there is too little all the same.
        """
        try:
            with fitting("evaluation", self.device):
                return self._measure(images, labels)
        except NoRoom:
            if self._graph is None:
                raise
        self._drop_graph("it leaves too little memory for evaluation")
        return self._measure(images, labels)

    def _measure(self, images: Tensor, labels: Tensor) -> Evaluation:
        planar = None
        if self.channels_last and self.device.type == "cuda":
            planar = {name: weight.detach().contiguous() for name, weight in self.net.named_parameters()}
        with self._arithmetic(tf32=False):
            return evaluate(self.net, images, labels, self.normalise, weights=planar,
                            channels_last=self.channels_last and planar is None)  # fmt: skip

    def _split(self, split: str) -> tuple[Tensor, Tensor]:
        """A split's images and labels; on a GPU they stay there, unless they are many."""
        if split not in self._resident:
            images, labels = self._read_split(split)
            place = self._labels.device
            if place.type != "cuda" or images.nbytes > RESIDENT:
                return images, labels
            try:
                self._resident[split] = images.to(place), labels.to(place)
            except torch.OutOfMemoryError:  # then in batches, each time
                return images, labels
        return self._resident[split]

    def _read_split(self, split: str) -> tuple[Tensor, Tensor]:
        if split == "train":
            return self._images.plain, self._labels
        if split == "test":
            return _tensor(self._data.test.images), _tensor(self._data.test.labels)
        if split == "validation" and self._kept is not None:
            rest = np.setdiff1d(np.arange(len(self._data.train.images)), self._kept)
            return _tensor(self._data.train.images[rest]), _tensor(self._data.train.labels[rest])
        if split == "validation":
            raise UsageError("no images were kept for validation", "`--train-split 45000` keeps 5,000 of 50,000")
        known = ("test", "train", "validation")
        raise UsageError(f"unknown split `{split}`", did_you_mean(split, known, f"one of {', '.join(known)}"))

    def state(self) -> dict[str, Tensor]:
        """Everything the next step depends on, by name, as copies on the CPU.

        Raises ResourceError if a loss was not finite: such a state is worth nothing.
        """
        self._require_finite()
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in self._tensors().items()}

    def restore(self, state: Mapping[str, Tensor], iteration: int) -> None:
        """Goes on from a state after so many iterations.

        Raises UsageError if it is not the state of such a net: other names, shapes or types.
        """
        own = self._tensors()
        wrong = [f"no `{name}`" for name in own.keys() - state.keys()]
        wrong += [f"an unknown `{name}`" for name in state.keys() - own.keys()]
        wrong += [
            f"`{name}` of {tuple(state[name].shape)} {state[name].dtype}, not {tuple(tensor.shape)} {tensor.dtype}"
            for name, tensor in own.items()
            if name in state and (state[name].shape, state[name].dtype) != (tensor.shape, tensor.dtype)
        ]
        if wrong:
            more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            raise UsageError(f"not a state of `{self.plan.name}`: {'; '.join(sorted(wrong)[:3])}{more}")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state[name])  # in place: a CUDA graph knows where it lies
            self._stop.zero_()
        self.iteration, self._since = iteration, round(self._totals[2].item())

    def _tensors(self) -> dict[str, Tensor]:
        """The state itself, by name: `net.`, `momentum.` and a few scalars."""
        tensors = {f"net.{name}": tensor for name, tensor in self.net.state_dict(keep_vars=True).items()}
        for name, parameter in self.net.named_parameters():
            if (buffer := self.optimizer.state[parameter].get("momentum_buffer")) is not None:
                tensors[f"momentum.{name}"] = buffer
        if self.dtype == "fp16":
            tensors |= {"scale": self._scale, "scale.steps": self._unskipped}
        return {**tensors, "warmup.on": self._warming, "warmup.error": self._error, "totals": self._totals}


# --- before it begins ----------------------------------------------------------------------------------------------


def trainable(plan: Plan, data: Dataset) -> Plan:
    """The plan as it is trained on a data set: without a softmax at its end, which the loss computes itself.

    Raises UsageError if the net reads other images, gives other classes, or has auxiliary heads.
    """
    _, c, h, w = data.train.images.shape
    if len(plan.outputs) > 1:
        raise UsageError(f"`{plan.name}` has auxiliary heads", "train it without them: their weights are no recipe's")
    if plan.input != Shape(c, h, w):
        raise UsageError(
            f"`{plan.name}` reads images of {plan.input}, the data set's are {c} x {h} x {w}",
            f"`--input {c}x{h}x{w}`, or another net",
        )
    last = plan.steps[plan.outputs[0]]
    if last.shape != Shape(data.classes, 1, 1):
        raise UsageError(
            f"`{plan.name}` ends in {last.shape}, the data set has {plural(data.classes, 'class', 'classes')}",
            "its last layer should be `fc classes`",
        )
    if isinstance(last.op, Softmax) and plan.outputs[0] == len(plan.steps) - 1:
        return replace(plan, steps=plan.steps[:-1], outputs=last.inputs)
    return plan


def _check(recipe: Recipe, seed: int, how: Settings, device: torch.device, rank: int, world: int) -> None:
    if not 0 <= seed <= order.MAX_SEED:
        raise UsageError(f"a seed of {seed}", f"from 0 to {order.MAX_SEED:,}")
    # fp16 on a CPU is too slow to train in, which `start` says; it is computed rightly.
    possible = replace(how, dtype="fp32") if how.dtype == "fp16" and device.type == "cpu" else how
    require_possible(possible, "cpu" if device.type == "cpu" else str(device))
    if not 0 <= rank < world or recipe.batch_size % world:
        raise UsageError(
            f"a batch of {recipe.batch_size} does not split over {world} processes", "use a multiple as the batch size"
        )
    share = recipe.batch_size // world
    if recipe.bn_batch is not None and recipe.bn_batch < share and share % recipe.bn_batch:
        raise UsageError(
            f"{share} images do not split into groups of {recipe.bn_batch} for BatchNorm", "choose a divisor"
        )


def _kept(recipe: Recipe, data: Dataset) -> NDArray[np.int64] | None:
    """The indices of the training images to train on; None for all. Raises UsageError if there are not enough."""
    n, labels = len(data.train.images), data.train.labels
    if not n or len(labels) != n or labels.min() < 0 or labels.max() >= data.classes:
        classes = plural(data.classes, "class", "classes")
        raise UsageError(f"the data set has {plural(n, 'training image')}, whose labels are not all of its {classes}")
    if recipe.train_split is None or recipe.train_split == n:
        return None
    if recipe.train_split > n:
        raise UsageError(
            f"the data set has {plural(n, 'training image')}, not {recipe.train_split:,}",
            f"use `--train-split` below {n:,}",
        )
    kept: NDArray[np.int64] = order.split(n, recipe.train_split)[0].numpy()
    return kept


def _drawn(plan: Plan, recipe: Recipe, seed: int, device: torch.device) -> Net:
    """The plan's net with weights that the seed determines, whatever the device."""
    generator = torch.Generator().manual_seed(order.key(seed, order.INIT) >> 1)

    def draw(weight: Tensor, std: float) -> None:
        if recipe.init == "fan-in" and weight.dim() == 4:
            std = (2 / weight[0].numel()) ** 0.5  # (c_in / groups) * kh * kw
        nn.init.normal_(weight, std=std, generator=generator)

    net = build(plan, dtype=torch.float32, init=lambda net: initialise(net, draw))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.num_batches_tracked = None  # a kernel a layer to count what only cumulative averages would read
    with fitting(f"the weights of `{plan.name}`", device):
        return net.to(device).train()


@contextmanager
def _compiling(plan: Plan, how: Settings) -> Iterator[None]:
    """Context manager for the first step, which compiles. Raises a one-line ResourceError if the compiler fails."""
    from torch._dynamo import config

    with config.patch(recompile_limits()), explained(plan, how):
        yield


def _part(tensor: Tensor, index: int, parts: int) -> Tensor:
    """The images or labels of share `index`, in whole batches of an evaluation but for the last one; perhaps none."""
    batches = -(-len(tensor) // BATCH)
    return tensor[batches * index // parts * BATCH : batches * (index + 1) // parts * BATCH]


def _tensor(array: NDArray[Any], device: torch.device | str = "cpu") -> Tensor:
    """The array as a tensor; a copy where it could not be written to, of which torch would warn."""
    array = np.ascontiguousarray(array)
    return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device)
