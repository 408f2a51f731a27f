"""The training loop: one step is one update of the weights, without synchronising device and host.

Everything is indexed by the iteration. Image p of the run, counted over all batches, is image p % n in the order of
epoch p // n: batches are always full and may span two epochs, and each epoch has every image once. Random numbers are
functions of (seed, epoch, sample) (`order`), so the state is weights, BatchNorm statistics, momentum and a few sums:
training restored from them is bit-identical on a CPU with the same number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's convention

from resnetcli.bench.execution import recompile_limits, require_supported
from resnetcli.bench.options import RunOptions, as_dtype
from resnetcli.bench.runtimes import explain_errors
from resnetcli.errors import ResourceError, UsageError, clean
from resnetcli.frozen import frozen
from resnetcli.net.memory import NoRoom, fitting, is_out_of_memory
from resnetcli.plan.count import count
from resnetcli.plan.plan import Plan
from resnetcli.recipes.recipe import Recipe
from resnetcli.train import ghost_norm as norm
from resnetcli.train import order
from resnetcli.train.augment import Images, normalisation
from resnetcli.train.evaluate import Evaluation, Evaluator
from resnetcli.train.model import as_tensor, initial_model, trainable, training_subset
from resnetcli.train.precision import HALVES, convolution_settings
from resnetcli.train.weights import StepWeights

if TYPE_CHECKING:
    from resnetcli.data.dataset import Dataset

ERROR_WINDOW = 50
"""Iterations that the running training error, which ends a warm-up, averages over, roughly."""
EAGER_STEPS = 3
"""Steps before a CUDA graph is captured: libraries allocate memory and choose kernels in the first ones."""
FIRST_SCALE, SCALE_STEPS = 1024.0, 2000
"""fp16: initial loss scale, against vanishing gradients; halved when gradients overflow and the update is skipped,
doubled after SCALE_STEPS updates in a row."""


class NotFinite(ResourceError):  # noqa: N818 - named after the condition
    """A loss or gradient that is NaN or infinite."""


@frozen
class Progress:
    """Training loss and error since the previous reading."""

    iteration: int
    """Completed iterations of the run."""
    iterations: int
    """Iterations since the previous reading."""
    loss: float
    """Mean training loss over them, with label smoothing. NaN if there were none."""
    error_percent: float
    """Augmented training images misclassified before each update."""
    lr: float
    """Learning rate of the last iteration."""


class Trainer:
    """Trains a model by a recipe."""

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
        """At iteration 0, with weights drawn from the seed.

        `bn_batch`: replaces the recipe's; `rank`: of this process among `world`, each of which trains on its share of
        every batch; `deterministic`: cuDNN's deterministic algorithms, without autotuning. A step that cannot be
        captured as a CUDA graph is launched kernel by kernel, with a line to `tell`. Raises UsageError for a model that
        does not fit the data, ResourceError if memory does not suffice or there is no compiler.
        """
        self.device = torch.device(device)
        recipe = recipe.changed(bn_batch=bn_batch)
        self._settings = RunOptions(
            dtype=as_dtype(dtype), channels_last=channels_last, runtime="inductor" if compile else "eager",
            cuda_graph=cuda_graph,
        )  # fmt: skip
        _check(recipe, seed, self._settings, self.device, rank, world)
        plan = trainable(plan, data)
        self.plan, self.recipe, self.seed, self.dtype = plan, recipe, seed, dtype
        self.rank, self.world, self.channels_last, self.deterministic = rank, world, channels_last, deterministic
        self.iteration = 0
        """Completed iterations."""
        subset = training_subset(recipe, data)
        images = data.train.images if subset is None else data.train.images[subset]
        labels = data.train.labels if subset is None else data.train.labels[subset]
        self.n = len(images)
        """Training images."""
        self.rate = recipe.rate(self.n, count(plan).depth)
        self.iterations = self.rate.iterations
        """Iterations of the whole run."""
        self._images = Images(images, normalisation(images, recipe.normalise), recipe.augmentation, self.device)
        self.normalise = self._images.normalise
        self._labels = as_tensor(labels, self.device)
        self._epochs: dict[int, Tensor] = {}

        self.model = initial_model(plan, recipe, seed, self.device)
        if channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        share = recipe.batch_size // world
        self._groups = 1  # of BatchNorm
        if recipe.bn_batch is not None and recipe.bn_batch < share:
            norm.group(self.model, recipe.bn_batch)
            self._groups = share // recipe.bn_batch
        self._drops = any(isinstance(module, nn.Dropout) and module.p for module in self.model.modules())
        self.forward: Callable[[Tensor], Tensor] = self.model
        """The model as a step calls it: itself, compiled, or with gradients averaged over processes."""
        if compile:
            self.forward = torch.compile(self.model, dynamic=False)  # fuses autocast's casts
        elif dtype in HALVES or self._groups > 1:
            self.forward = StepWeights(self.model, HALVES.get(dtype))
        self.evaluator = Evaluator(
            self.model, data, self.normalise, self.device, subset=subset, train=(self._images.plain, self._labels),
            channels_last=channels_last, deterministic=deterministic,
        )  # fmt: skip
        self._tell = tell
        self.average: Callable[[Tensor], object] | None = None
        """With several processes: averages loss and error, and BatchNorm's running statistics, over all of them."""

        scalar = partial(torch.zeros, (), device=self.device)
        self._masks = torch.default_generator  # for dropout
        if self.device.type == "cuda":
            self._masks = torch.cuda.default_generators[self._labels.device.index]
        self._crops = torch.zeros(4, share, dtype=torch.int64, device=self.device)
        self._scheduled, self._lr, self._stop = scalar(), scalar(), scalar()
        self._warming, self._error = scalar(), scalar() + 1  # running training error, initially 100%
        self._warming.fill_(float(self.rate.waits(0)))
        self._totals = torch.zeros(3, dtype=torch.float64, device=self.device)  # loss, error, iterations
        self._one, self._skip = scalar() + 1, scalar()
        self._scale, self._unskipped = scalar() + FIRST_SCALE, scalar().int()  # loss scale of fp16
        self._since = 0
        """Iterations since `read`, including those whose update was held back."""
        self._compiled = False
        self.optimizer = self._optimizer()
        self._graph: Any = None
        self._eager = EAGER_STEPS if cuda_graph else -1
        # PyTorch's default capture stream belongs to the first device it captured on.
        self._side: Any = torch.cuda.Stream(self.device) if cuda_graph else None  # type: ignore[no-untyped-call]

    def _optimizer(self) -> torch.optim.SGD:
        """SGD with the recipe's weight decay; the learning rate, and whether to skip an update, are device tensors."""
        recipe, decayed, others = self.recipe, list[nn.Parameter](), list[nn.Parameter]()
        for module in self.model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                decays = isinstance(module, nn.Conv2d | nn.Linear) and name == "weight"
                (decayed if decays or recipe.decay == "all" else others).append(parameter)
        groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.SGD(
            [group for group in groups if group["params"]],
            lr=self._lr, momentum=recipe.momentum, nesterov=recipe.nesterov and recipe.momentum > 0, fused=True,
        )  # fmt: skip
        for group in optimizer.param_groups:
            group["lr"] = self._lr  # the tensor itself, updated by each step
        if recipe.momentum:
            for parameter in self.model.parameters():
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        held = self._skip if self.dtype == "fp16" else self._stop
        optimizer.found_inf = held  # type: ignore[attr-defined]  # if it is 1, fused SGD skips the update
        return optimizer

    # --- a step ----------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Run one iteration. On a GPU it is only queued: `read` waits for it.

        Raises ResourceError if memory does not suffice, and on a CPU at once if the loss is not finite.
        """
        # Each BatchNorm group has the images of one process; the groups are interleaved in the batch.
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
            stack.enter_context(
                convolution_settings(self.device, tf32=self.dtype == "tf32", deterministic=self.deterministic)
            )
            if self._settings.compile and not self._compiled:
                stack.enter_context(_compiling(self.plan, self._settings))
            self._launch()
        self._compiled = True
        self._since += 1
        self.iteration += 1
        if self.device.type == "cpu":
            self._require_finite()

    def _compute(self) -> None:
        """The part of a step that runs on the device."""
        x, y = self._images.batch(self._crops), self._labels[self._crops[0]]  # (b, c, h, w), (b,)
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        self.optimizer.zero_grad(set_to_none=True)
        # Each weight is used once per step, so caching its half-precision copy would gain nothing.
        half = HALVES.get(self.dtype)
        with torch.autocast(self.device.type, half or torch.bfloat16, enabled=half is not None, cache_enabled=False):
            logits = self.forward(x)
        logits = logits.float().flatten(1)  # (b, classes)
        loss = F.cross_entropy(logits, y, label_smoothing=self.recipe.label_smoothing)
        (loss * self._scale if self.dtype == "fp16" else loss).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self._update(torch.stack((loss.detach(), (logits.argmax(1) != y).float().mean())))

    def _update(self, measured: Tensor) -> None:
        """Update the weights, unless a loss or gradient has ever been non-finite; then the statistics."""
        if self.average is not None:
            self.average(measured)  # first, so that a non-finite loss of one process stops all
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
            self._error.lerp_(measured[1], 1 / ERROR_WINDOW)
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
            # Outside the capture stream, as CUDA graphs require for warm-up allocations.
            self._side.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(self._side):
                self._compute()
            torch.cuda.current_stream(self.device).wait_stream(self._side)
        elif (graph := self._capture()) is not None:
            self._graph = graph
            graph.replay()
        else:
            self._compute()

    def _capture(self) -> Any:
        """Capture a step as a CUDA graph, without running it; None if memory does not suffice or capture fails."""
        self.optimizer.zero_grad(set_to_none=True)  # so that gradients are allocated in the graph's own memory
        graph = torch.cuda.CUDAGraph()
        try:
            # The outer context restores the stream; the inner one does not if capture fails.
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
        self.optimizer.zero_grad(set_to_none=True)  # gradients are in its memory
        self._graph, self._eager = None, -1
        torch.cuda.empty_cache()
        self._tell(f"training continues without a CUDA graph, which may be slower: {reason}")

    def _batch(self, iteration: int) -> Tensor:
        """This process's share of an iteration's batch: (4, b) of index, top, left, flip."""
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
            self._epochs[epoch] = order.sample_order(
                self.seed, epoch, self.n, self._images.places, augmentation.flip, self.device
            )
        return self._epochs[epoch]

    # --- readings and state ----------------------------------------------------------------------------------------

    def read(self) -> Progress:
        """Loss and error since the last `read`; waits for the device.

        Raises ResourceError, with the iteration, if a loss or gradient was not finite: no update was made since.
        """
        self._require_finite()
        loss, error, steps = self._totals.tolist()
        lr = float(f"{self._lr.item():.7g}")  # fp32 has about 7 digits
        self._totals.zero_()
        self._since = 0
        if not steps:
            return Progress(self.iteration, 0, float("nan"), float("nan"), lr)
        return Progress(self.iteration, round(steps), loss / steps, 100 * error / steps, lr)

    def _require_finite(self) -> None:
        if not self._stop.item():
            return
        steps = round(self._totals[2].item())
        self.iteration, self._since = self.iteration - (self._since - steps), steps  # without skipped updates
        raise NotFinite(
            f"the loss or a gradient of iteration {self.iteration + 1:,} is not finite; the weights were not updated",
            "use a lower learning rate or a warm-up, with another `--out`; earlier checkpoints are valid",
        )

    def evaluate(self, split: str = "test", part: tuple[int, int] = (0, 1)) -> Evaluation:
        """The error on a split; as `Evaluator.evaluate`, but a CUDA graph that leaves too little memory is dropped."""
        try:
            return self.evaluator.evaluate(split, part)
        except NoRoom:
            if self._graph is None:
                raise
        self._drop_graph("it leaves too little memory for evaluation")
        return self.evaluator.evaluate(split, part)

    def state(self) -> dict[str, Tensor]:
        """Everything the next step depends on, by name, as copies on the CPU.

        Raises ResourceError if a loss was not finite.
        """
        self._require_finite()
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in self._tensors().items()}

    def restore(self, state: Mapping[str, Tensor], iteration: int) -> None:
        """Continue from a state after `iteration` iterations.

        Raises UsageError if names, shapes or dtypes are not those of this trainer's state.
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
            what = f"not a state of `{self.plan.name}`: {'; '.join(sorted(wrong)[:3])}{more}"
            raise UsageError(what, "it is of another model, recipe or dtype: use those of its run")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state[name])  # in place: a CUDA graph has its address
            self._stop.zero_()
        self.iteration, self._since = iteration, round(self._totals[2].item())

    def _tensors(self) -> dict[str, Tensor]:
        """The state itself, by name: `net.`, `momentum.` and a few scalars."""
        tensors = {f"net.{name}": tensor for name, tensor in self.model.state_dict(keep_vars=True).items()}
        for name, parameter in self.model.named_parameters():
            if (buffer := self.optimizer.state[parameter].get("momentum_buffer")) is not None:
                tensors[f"momentum.{name}"] = buffer
        if self.dtype == "fp16":
            tensors |= {"scale": self._scale, "scale.steps": self._unskipped}
        return {**tensors, "warmup.on": self._warming, "warmup.error": self._error, "totals": self._totals}


def _check(recipe: Recipe, seed: int, how: RunOptions, device: torch.device, rank: int, world: int) -> None:
    if not 0 <= seed <= order.MAX_SEED:
        raise UsageError(f"seed {seed} is out of range", f"from 0 to {order.MAX_SEED:,}")
    # fp16 on a CPU is correct but too slow to train in: `train.options` refuses it.
    possible = replace(how, dtype="fp32") if how.dtype == "fp16" and device.type == "cpu" else how
    require_supported(possible, "cpu" if device.type == "cpu" else str(device))
    if not 0 <= rank < world or recipe.batch_size % world:
        raise UsageError(
            f"a batch of {recipe.batch_size} cannot be split over {world} processes", "use a multiple as the batch size"
        )
    share = recipe.batch_size // world
    if recipe.bn_batch is not None and recipe.bn_batch < share and share % recipe.bn_batch:
        raise UsageError(
            f"{share} images cannot be split into groups of {recipe.bn_batch} for BatchNorm", "choose a divisor"
        )


@contextmanager
def _compiling(plan: Plan, how: RunOptions) -> Iterator[None]:
    """Context manager for the first step, which compiles. Raises a one-line ResourceError if the compiler fails."""
    from torch._dynamo import config

    with config.patch(recompile_limits()), explain_errors(plan, how):
        yield
