"""The trainer: against a loop written by hand, at resumes, over several processes, with losses that are not finite."""

from __future__ import annotations

import ast
import inspect
import itertools
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - what everybody calls it
from torch.utils._python_dispatch import TorchDispatchMode

from resnetcli.bench import settings as measure_settings
from resnetcli.data.dataset import Dataset, Split, make_dataset
from resnetcli.errors import ResourceError, UsageError
from resnetcli.net.module import build
from resnetcli.plan.plan import Plan
from resnetcli.recipes.recipe import Augmentation, Recipe
from resnetcli.recipes.schedule import Schedule, Warmup
from resnetcli.recipes.text import read_recipe
from resnetcli.train import ghost_norm as norm
from resnetcli.train import loop, order
from resnetcli.train import weights as step_weights
from resnetcli.train.augment import normalisation
from resnetcli.train.examine import by_class
from resnetcli.train.loop import Trainer, trainable
from tests.support.written import plan_of

TINY = """
    input: 3x8x8
    classes: 4
    conv: conv bn relu
    residual: relu(x + F)
    shortcut: pad
    table:
      conv1: 3x3 8
      conv2: [residual x 2: [3x3 8, 3x3 8]]
      conv3: [residual x 1: [3x3 16 /2, 3x3 16]]
      head:  [global avg, fc classes]
"""
CPU = torch.device("cpu")
SHORT = Recipe(
    "short",
    batch_size=8,
    schedule=Schedule("steps", 0.1, 0.1, at=(4, 6)),
    iterations=8,
    augmentation=Augmentation(pad=2),
)
ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tensors this small are computed sooner by one thread than shared out to several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny(dropout: bool = False) -> Plan:
    return plan_of(TINY.replace("[global avg,", "[global avg, dropout 0.5,") if dropout else TINY)


def data(n: int = 20, classes: int = 4, seed: int = 0) -> Dataset:
    """Images whose class shows in the brightness of one corner."""
    random = np.random.default_rng(seed)

    def split(n: int) -> Split:
        labels = np.arange(n, dtype=np.int64) % classes
        images = random.integers(0, 100, (n, 3, 8, 8), dtype=np.uint8)
        images[:, :, 2:6, 2:6] += (labels * 35).astype(np.uint8)[:, None, None, None]
        return Split(images, labels)

    return make_dataset("custom", split(n), split(12), tuple(map(str, range(classes))))


def trainer(recipe: Recipe = SHORT, *, dropout: bool = False, n: int = 20, **how: Any) -> Trainer:
    return Trainer(tiny(dropout), recipe, data(n), **{"seed": 3, **how})


def steps(of: Trainer, n: int) -> Trainer:
    for _ in range(n):
        of.step()
    return of


def weights(of: Trainer) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in of.state().items() if name.startswith("net.")}


def differing(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]


# --- against a loop written out ------------------------------------------------------------------------------------


def by_hand(recipe: Recipe, net: nn.Module, iterations: int, seed: int) -> list[float]:
    """Trains the net image by image and step by step, as a textbook has it; the losses."""
    train = data().train
    n, (h, w), pad = len(train), train.images.shape[2:], recipe.augmentation.pad
    normalise = normalisation(train.images, recipe.normalise)
    convolutions = [m.weight for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    rest = [p for p in net.parameters() if not any(p is weight for weight in convolutions)]
    optimizer = torch.optim.SGD(
        [{"params": convolutions, "weight_decay": recipe.weight_decay},
         {"params": rest, "weight_decay": recipe.weight_decay if recipe.decay == "all" else 0.0}],
        lr=1.0, momentum=recipe.momentum, nesterov=recipe.nesterov, foreach=False, fused=False,
    )  # fmt: skip
    rate, losses = recipe.rate(n), []
    for iteration in range(iterations):
        images, labels = [], []
        for place in range(iteration * recipe.batch_size, (iteration + 1) * recipe.batch_size):
            epoch = place // n
            index = int(order.epoch_order(seed, epoch, n)[place % n])
            crops = order.crops(seed, epoch, n, 2 * pad + 1, recipe.augmentation.flip)
            top, left, mirrored = crops[:, index].tolist()
            image = normalise(torch.from_numpy(train.images[index : index + 1].copy()))
            image = F.pad(image, (pad,) * 4, mode="reflect" if recipe.augmentation.mode == "reflect" else "constant")
            image = image[:, :, top : top + h, left : left + w]
            images.append(image.flip(-1) if mirrored else image)
            labels.append(int(train.labels[index]))
        for group in optimizer.param_groups:
            group["lr"] = rate.lr(iteration)
        optimizer.zero_grad()
        logits = net(torch.cat(images)).flatten(1)
        loss = F.cross_entropy(logits, torch.tensor(labels), label_smoothing=recipe.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"nesterov": True, "weight_decay": 0.01, "label_smoothing": 0.1},
        {"decay": "all", "weight_decay": 0.01, "normalise": "mean-std"},
        {"augmentation": Augmentation(pad=3, mode="reflect"), "schedule": Schedule("one-cycle", 0.2)},
        {"warmup": Warmup(0.001, iterations=3), "momentum": 0.0},
    ],
)
def test_a_trainer_does_what_a_loop_written_out_by_hand_does(changes: dict[str, Any]) -> None:
    recipe = replace(SHORT, **changes)
    ours = trainer(recipe)
    net = build(tiny())
    net.load_state_dict(ours.net.state_dict(), strict=False)
    losses = []
    for _ in range(8):
        ours.step()
        losses.append(ours.read().loss)
    assert losses == pytest.approx(by_hand(recipe, net.train(), 8, seed=3), rel=1e-5)
    for name, tensor in net.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(weights(ours)[f"net.{name}"], tensor, rtol=1e-4, atol=1e-6)


def test_batches_cross_epochs_and_each_epoch_has_every_image_once() -> None:
    ours = trainer(n=20)
    seen = torch.cat([ours._batch(iteration)[0] for iteration in range(10)]).tolist()
    assert [sorted(seen[begin : begin + 20]) for begin in range(0, 80, 20)] == [list(range(20))] * 4
    assert seen[:20] != seen[20:40]
    assert all(len(ours._batch(iteration)[0]) == 8 for iteration in range(10))


def test_a_batch_larger_than_the_data_set_goes_over_it_several_times() -> None:
    batch = trainer(n=3)._batch(1)
    assert sorted(batch[0, 1:7].tolist()) == [0, 0, 1, 1, 2, 2]


def test_only_convolutions_and_fully_connected_weights_decay() -> None:
    ours = trainer(replace(SHORT, weight_decay=0.25))
    names = {id(parameter): name for name, parameter in ours.net.named_parameters()}
    found = {group["weight_decay"]: {names[id(p)] for p in group["params"]} for group in ours.optimizer.param_groups}
    assert found[0.25] == {name for name in names.values() if name.endswith(("conv.weight", "fc.weight"))}
    assert found[0.0] == set(names.values()) - found[0.25]
    assert any("bn" in name for name in found[0.0])
    assert any(name.endswith("fc.bias") for name in found[0.0])


# --- what follows from the seed ------------------------------------------------------------------------------------


def test_a_seed_determines_the_weights_and_another_gives_others() -> None:
    assert not differing(weights(trainer(seed=1)), weights(trainer(seed=1)))
    assert "net.conv1.0.conv.weight" in differing(weights(trainer(seed=1)), weights(trainer(seed=2)))


def test_making_a_trainer_leaves_torchs_own_random_numbers_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    steps(trainer(), 1)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(("init", "fan"), [("fan-out", 64), ("fan-in", 16)])
def test_convolutions_are_drawn_with_the_variance_of_the_recipes_fan(init: Any, fan: int) -> None:
    plan = plan_of("{input: 3x8x8, classes: 4, table: {a: 1x1 16, b: 1x1 64, head: [global avg, fc classes]}}")
    net = Trainer(plan, replace(SHORT, init=init), data()).net
    weight = dict(net.named_parameters())["b.0.conv.weight"]
    assert weight.shape == (64, 16, 1, 1)
    assert weight.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.1)


# --- resume --------------------------------------------------------------------------------------------------------

RESUMED: dict[str, tuple[Recipe, dict[str, Any]]] = {
    "plain": (SHORT, {}),
    "nesterov": (replace(SHORT, nesterov=True, decay="all", bn_batch=4), {"channels_last": True}),
    "bf16": (SHORT, {"dtype": "bf16", "channels_last": True}),
    "fp16": (replace(SHORT, bn_batch=2), {"dtype": "fp16", "channels_last": True}),
    "dropout": (SHORT, {"dropout": True}),
    "waiting": (replace(SHORT, iterations=60, schedule=Schedule("fixed", 0.1),
                        warmup=Warmup(0.01, until_error=74, at_most=6)), {}),
    "no momentum": (replace(SHORT, momentum=0.0, train_split=15), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_resumed_at_any_iteration_ends_bit_for_bit_as_the_uninterrupted_one(name: str) -> None:
    recipe, how = RESUMED[name]
    whole = trainer(recipe, **how)
    states = [whole.state()]
    for _ in range(7):
        whole.step()
        states.append(whole.state())
    expected, read = whole.state(), whole.read()
    assert differing(states[0], expected)
    for iteration, state in enumerate(states[:-1]):
        resumed = trainer(recipe, **how)
        steps(resumed, iteration % 3)  # what it did before it was restored is forgotten
        resumed.restore(state, iteration)
        steps(resumed, 7 - iteration)
        assert not differing(resumed.state(), expected)
        assert resumed.read() == read


def test_a_state_is_a_copy_and_names_what_it_holds() -> None:
    ours = trainer()
    state = ours.state()
    kept = {name: tensor.clone() for name, tensor in state.items()}
    steps(ours, 2)
    assert not differing(state, kept)
    assert {name.split(".")[0] for name in state} == {"net", "momentum", "warmup", "totals"}
    trained = {f"momentum.{name}" for name, _ in ours.net.named_parameters()}
    assert trained < state.keys()
    assert "net.conv1.0.bn.running_mean" in state


@pytest.mark.parametrize("way", ["missing", "unknown", "shape", "type"])
def test_the_state_of_another_net_is_refused_and_nothing_is_changed(way: str) -> None:
    ours = trainer()
    before, state = ours.state(), ours.state()
    name = "net.conv1.0.conv.weight"
    match way:
        case "missing":
            del state[name]
        case "unknown":
            state["net.conv9.weight"] = torch.zeros(3)
        case "shape":
            state[name] = torch.zeros(3)
        case "type":
            state[name] = state[name].half()
    for other in state.values():
        other.add_(1)
    with pytest.raises(UsageError, match="not a state of `written`") as caught:
        ours.restore(state, 5)
    assert ("conv9" if way == "unknown" else name) in str(caught.value)
    assert not differing(ours.state(), before)
    assert ours.iteration == 0


# --- what it tells -------------------------------------------------------------------------------------------------


def test_progress_is_the_mean_since_it_was_last_asked() -> None:
    one, other = trainer(), trainer()
    single = []
    for _ in range(6):
        one.step()
        single.append(one.read())
    steps(other, 4)
    first = other.read()
    steps(other, 2)
    second = other.read()
    assert (first.iteration, first.iterations, second.iteration, second.iterations) == (4, 4, 6, 2)
    for together, apart in ((first, single[:4]), (second, single[4:])):
        assert together.loss == pytest.approx(np.mean([progress.loss for progress in apart]))
        assert together.error_percent == pytest.approx(np.mean([progress.error_percent for progress in apart]))
    assert [progress.lr for progress in single] == [0.1, 0.1, 0.1, 0.1, 0.01, 0.01]


def test_progress_over_no_iteration_has_no_loss() -> None:
    progress = trainer().read()
    assert progress.iterations == 0
    assert np.isnan(progress.loss)


def test_a_net_learns_what_there_is_to_learn() -> None:
    recipe = Recipe(
        "learn",
        batch_size=20,
        schedule=Schedule("one-cycle", 0.1),
        iterations=60,
        augmentation=Augmentation(1, flip=False),
    )
    ours = trainer(recipe, n=80)
    before = ours.evaluate("test").error_percent
    first = steps(ours, 5).read()
    steps(ours, 50).read()
    last = steps(ours, 5).read()
    assert last.loss < first.loss / 3
    assert ours.evaluate("test").error_percent <= 10 < before
    assert ours.evaluate("train").n == 80


def test_errors_are_measured_without_tf32_also_of_what_is_trained_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, asked = trainer(), list[bool]()
    expected = ours.evaluate()

    @contextmanager
    def noted(allowed: bool) -> Iterator[None]:
        asked.append(allowed)
        yield

    monkeypatch.setattr(loop, "rounding", noted)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    ours.device, ours.dtype = torch.device("cuda"), "tf32"  # as far as the arithmetic is concerned
    classes = by_class(ours, data())
    assert (ours.evaluate(), sum(each.wrong for each in classes)) == (expected, expected.wrong)
    assert asked == [False] * 5


def test_bf16_learns_nearly_as_fp32_does() -> None:
    recipe = replace(SHORT, schedule=Schedule("fixed", 0.05))
    single, half = steps(trainer(recipe), 4), steps(trainer(recipe, dtype="bf16", channels_last=True), 4)
    assert half.read().loss == pytest.approx(single.read().loss, rel=0.03)
    assert all(tensor.dtype in (torch.float32, torch.float64) for tensor in half.state().values())


def test_fp16_learns_nearly_as_fp32_does_and_its_state_is_fp32_with_the_losss_scale() -> None:
    recipe = replace(SHORT, schedule=Schedule("fixed", 0.05))
    single, half = steps(trainer(recipe), 4), steps(trainer(recipe, dtype="fp16", channels_last=True), 4)
    assert half.read().loss == pytest.approx(single.read().loss, rel=0.003)
    state = half.state()
    assert state.keys() - single.state().keys() == {"scale", "scale.steps"}
    assert all(tensor.dtype in (torch.float32, torch.float64, torch.int32) for tensor in state.values())
    for name, tensor in weights(single).items():
        torch.testing.assert_close(state[name], tensor, rtol=0.02, atol=0.01)


def test_gradients_that_overflow_in_fp16_skip_the_update_and_the_next_loss_is_scaled_less() -> None:
    ours = steps(trainer(dtype="fp16"), 2)
    before = {name: parameter.detach().clone() for name, parameter in ours.net.named_parameters()}
    mend = spoil(ours, "gradient")
    steps(ours, 2)
    assert all(torch.equal(before[name], parameter) for name, parameter in ours.net.named_parameters())
    assert ours.state()["scale"].item() == loop.FIRST_SCALE / 4
    mend()
    steps(ours, 1)
    assert not all(torch.equal(before[name], parameter) for name, parameter in ours.net.named_parameters())
    assert (ours.read().iterations, ours.iteration) == (5, 5)
    assert ours.state()["scale"].item() == loop.FIRST_SCALE / 4


def test_the_scale_of_the_loss_grows_where_no_update_is_skipped_and_changes_no_weight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "SCALE_STEPS", 2)
    growing = steps(trainer(dtype="fp16"), 5)
    assert growing.state()["scale"].item() == loop.FIRST_SCALE * 4
    monkeypatch.undo()
    fixed = steps(trainer(dtype="fp16"), 5)
    for name, tensor in weights(fixed).items():  # a power of two, so that it differs only where something vanished
        torch.testing.assert_close(weights(growing)[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_in_fp16_without_a_scale_stops_training(where: str) -> None:
    ours = steps(trainer(dtype="fp16"), 3)
    before = {name: parameter.detach().clone() for name, parameter in ours.net.named_parameters()}
    ours._scale.fill_(1.0)
    spoil(ours, where)
    with pytest.raises(ResourceError, match="iteration 4 is not finite"):
        ours.step()
    assert all(torch.equal(before[name], parameter) for name, parameter in ours.net.named_parameters())


def test_channels_last_changes_the_last_digits_only() -> None:
    plain, laid_out = steps(trainer(), 4), steps(trainer(channels_last=True), 4)
    assert laid_out.read().loss == pytest.approx(plain.read().loss, rel=1e-5)


def test_a_training_split_keeps_the_other_images_for_validation() -> None:
    ours = trainer(replace(SHORT, train_split=15))
    assert (ours.n, ours.evaluate("train").n, ours.evaluate("validation").n) == (15, 15, 5)
    kept, rest = order.split(20, 15)
    assert np.array_equal(ours._images.plain, data().train.images[kept.numpy()])
    assert np.array_equal(ours._split("validation")[0], data().train.images[rest.numpy()])
    exact = data().train.images[kept.numpy()].astype(np.float64).mean(0)
    assert np.array_equal(ours.normalise.mean.numpy(), exact.astype(np.float32))  # of the images trained on alone
    assert max(ours._batch(0)[0].tolist()) < 15


@pytest.mark.parametrize("split", ["validation", "tests"])
def test_a_split_there_is_not_is_refused(split: str) -> None:
    with pytest.raises(UsageError) as caught:
        trainer().evaluate(split)
    assert ("train-split" if split == "validation" else "`test`") in caught.value.hint


# --- the warm-up that waits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("threshold", "most"), [(97, 50), (99.99, 50), (1, 6)])
def test_a_warm_up_ends_when_the_running_error_has_fallen_and_at_the_latest_when_it_must(
    threshold: float, most: int
) -> None:
    warmup = Warmup(0.001, until_error=threshold, at_most=most)
    ours = trainer(replace(SHORT, iterations=1000, schedule=Schedule("fixed", 0.1), warmup=warmup))
    running, warming, ended = np.float32(1), True, None
    for iteration in range(most + 5):
        warming = warming and iteration < most
        ours.step()
        progress = ours.read()
        assert progress.lr == (0.001 if warming else 0.1)
        running += (np.float32(progress.error_percent / 100) - running) / np.float32(50)
        if warming and running < threshold / 100:
            warming, ended = False, iteration + 1
    assert not warming
    assert (ended is None) == (threshold == 1)  # the others end by themselves, and do not begin again


def test_a_net_that_is_not_deep_enough_starts_without_the_warm_up() -> None:
    warmup = Warmup(0.001, until_error=80, from_depth=9)
    ours = trainer(replace(SHORT, schedule=Schedule("fixed", 0.1), iterations=100, warmup=warmup))
    ours.step()
    assert ours.read().lr == 0.1


# --- losses that are not finite ------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_changes_no_weight_and_is_told_with_its_iteration(where: str) -> None:
    ours = steps(trainer(), 3)
    before = {name: parameter.detach().clone() for name, parameter in ours.net.named_parameters()}
    spoil(ours, where)
    with pytest.raises(ResourceError, match="iteration 4 is not finite"):
        ours.step()
    assert all(torch.equal(before[name], parameter) for name, parameter in ours.net.named_parameters())
    assert ours.iteration == 3
    for ask in (ours.read, ours.state):
        with pytest.raises(ResourceError, match="iteration 4 is not finite"):
            ask()


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_host_that_does_not_look_at_each_step_still_finds_the_weights_before_the_first_bad_one(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = steps(trainer(), 2)
    ours.read()
    steps(ours, 1)
    state = ours.state()
    before = {name: parameter.detach().clone() for name, parameter in ours.net.named_parameters()}
    mend = spoil(ours, where)
    with monkeypatch.context() as patch:
        patch.setattr(ours, "_require_finite", lambda: None)  # as a GPU's host, which only queues steps
        steps(ours, 1)
        mend()
        steps(ours, 3)  # that would be finite again
    assert all(torch.equal(before[name], parameter) for name, parameter in ours.net.named_parameters())
    with pytest.raises(ResourceError, match="iteration 4 is not finite"):
        ours.read()
    assert ours.iteration == 3
    ours.restore(state, 3)
    assert differing(steps(ours, 1).state(), state)
    assert not differing(ours.state(), steps(trainer(), 2 + 2).state() | {"totals": ours.state()["totals"]})


def spoil(of: Trainer, where: str) -> Any:
    """Makes what the next step computes infinite; returns what ends that."""
    if where == "gradient":
        return next(of.net.parameters()).register_hook(lambda grad: grad * float("inf")).remove  # type: ignore[no-untyped-call]
    model = of.model
    of.model = lambda x: model(x) * float("nan")
    return lambda: setattr(of, "model", model)


# --- BatchNorm over groups, and several processes ------------------------------------------------------------------


def test_batchnorm_over_groups_is_batchnorm_of_each_group() -> None:
    whole = trainer(replace(SHORT, bn_batch=4))
    parts = [trainer(replace(SHORT, bn_batch=None), rank=rank, world=2) for rank in range(2)]
    assert [tuple(part._crops.shape) for part in parts] == [(4, 4), (4, 4)]
    for one in (whole, *parts):
        one.step()
    found = [weights(part) for part in parts]
    for name, tensor in weights(whole).items():  # after one step both are linear in what the processes computed
        mean = torch.stack([part[name] for part in found]).mean(0)
        torch.testing.assert_close(tensor, mean, rtol=1e-5, atol=1e-6)
    assert differing(found[0], found[1])


def test_the_processes_shares_make_up_the_batch() -> None:
    whole, parts = trainer(), [trainer(rank=rank, world=4) for rank in range(4)]
    for iteration in range(6):
        assert torch.equal(torch.cat([part._batch(iteration) for part in parts], 1), whole._batch(iteration))


def test_groups_as_large_as_the_batch_are_batchnorm_as_it_is() -> None:
    grouped, plain = steps(trainer(replace(SHORT, bn_batch=8)), 3), steps(trainer(), 3)
    assert not differing(grouped.state(), plain.state())


def test_groups_are_not_seen_in_evaluation() -> None:
    grouped, plain = trainer(replace(SHORT, bn_batch=2)), trainer()
    grouped.restore(steps(plain, 3).state(), 3)
    assert grouped.evaluate() == plain.evaluate()


def test_an_average_over_processes_is_asked_for_once_a_step() -> None:
    ours, seen = trainer(), []

    def average(measured: Tensor) -> None:
        seen.append(measured.clone())
        measured.fill_(0.5)

    ours.average = average
    steps(ours, 3)
    progress = ours.read()
    assert (progress.loss, progress.error_percent) == (0.5, 50)
    assert [tuple(measured.shape) for measured in seen] == [(2,)] * 3


# --- what cannot be trained ----------------------------------------------------------------------------------------

HEAD = "[global avg, fc classes]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{input: 3x32x32, classes: 4, table: {a: 3x3 8, head: [global avg, fc classes]}}", "reads images of 3 x 32"),
        ("{input: 3x8x8, classes: 5, table: {a: 3x3 8, head: [global avg, fc classes]}}", "has 4 classes"),
        ("{input: 3x8x8, classes: 4, table: {a: 3x3 8, head: [1x1 classes]}}", "ends in 4 x 8 x 8"),
    ],
)
def test_a_net_that_does_not_fit_the_data_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Trainer(plan_of(text), SHORT, data())


def test_a_net_with_auxiliary_heads_is_refused() -> None:
    text = "{input: 3x8x8, classes: 4, table: {a: 3x3 8, head: [global avg, fc classes]}, " \
           "aux: {a: [global avg, fc classes]}}"  # fmt: skip
    with pytest.raises(UsageError, match="auxiliary heads"):
        trainable(plan_of(text, aux=True), data())
    assert trainable(plan_of(text), data()) == plan_of(text)


def test_a_softmax_at_the_end_is_left_to_the_loss() -> None:
    text = "{input: 3x8x8, classes: 4, table: {a: 3x3 8, head: [global avg, fc classes%s]}}"
    with_one, without = (Trainer(plan_of(text % end), SHORT, data(), seed=1) for end in (", softmax", ""))
    for one in (with_one, without):
        steps(one, 2)
    assert with_one.read() == without.read()


def test_a_net_that_ends_in_maps_of_one_pixel_is_trained() -> None:
    plan = plan_of("{input: 3x8x8, classes: 4, table: {a: 3x3 8, head: [1x1 classes linear, global avg]}}")
    assert np.isfinite(steps(Trainer(plan, SHORT, data()), 2).read().loss)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"dtype": "fp8"}, "unknown dtype"),
        ({"dtype": "tf32"}, "TF32"),
        ({"cuda_graph": True}, "no CUDA graphs"),
        ({"seed": -1}, "a seed of -1"),
        ({"world": 3}, "does not split over 3 processes"),
        ({"rank": 2, "world": 2}, "does not split"),
        ({"bn_batch": 3}, "groups of 3"),
        ({"bn_batch": 4, "recipe": replace(SHORT, batch_size=12), "world": 2}, "groups of 4"),
        ({"recipe": replace(SHORT, train_split=21)}, "20 training images, not 21"),
        ({"recipe": replace(SHORT, augmentation=Augmentation(8, "reflect"))}, "no reflection of 8 pixels"),
    ],
)
def test_what_cannot_be_done_is_refused(how: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        trainer(**how)


def test_labels_beyond_the_classes_are_refused() -> None:
    of = data(classes=5)
    with pytest.raises(UsageError, match="not all of its 4 classes"):
        Trainer(tiny(), SHORT, replace(of, classes=4))


def test_training_images_that_do_not_fit_into_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnetcli.net.memory.physical_memory", lambda: 1000)
    with pytest.raises(ResourceError, match="the training images would take"):
        trainer()


# --- between host and device ---------------------------------------------------------------------------------------

ASKING = {"_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select", "unique"}
"""Operations whose result the host waits for."""


class Listening(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the operations that are run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.heard: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        self.heard.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_nothing_of_what_a_device_computes_in_a_step_is_waited_for() -> None:
    warmup = Warmup(0.01, until_error=50, at_most=10)
    ours = steps(trainer(replace(SHORT, bn_batch=4, iterations=100, warmup=warmup), channels_last=True), 1)
    with Listening() as mode:
        ours._compute()
    assert {"convolution", "_fused_sgd_"} <= mode.heard
    assert not ASKING & mode.heard
    with Listening() as mode:
        ours.read()
    assert "_local_scalar_dense" in mode.heard  # so that the test above can hear it


WAITS = {"item", "tolist", "cpu", "numpy", "nonzero", "unique", "masked_select", "synchronize", "equal", "allclose"}
"""Methods and functions whose result the host waits for."""


def test_no_line_of_a_step_waits_for_the_device() -> None:
    methods = {node.name: node for node in ast.walk(ast.parse(inspect.getsource(loop.Trainer)))
               if isinstance(node, ast.FunctionDef)}  # fmt: skip
    modules = [ast.parse(inspect.getsource(module)) for module in (norm, step_weights)]
    parts = [methods[name] for name in ("_compute", "_update", "_unscale", "_launch", "_recorded")]
    for node in itertools.chain.from_iterable(map(ast.walk, [*parts, *modules])):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            assert name not in WAITS, ast.unparse(node)
            # Of `bool`, `int` and `float` only the first argument's kind matters: a tensor is never one here.
            assert name not in ("bool", "int", "float") or isinstance(node.func, ast.Attribute), ast.unparse(node)
        if isinstance(node, ast.Attribute) and node.attr in ("T", "data"):
            pytest.fail(ast.unparse(node))
    step = ast.unparse(methods["step"])
    assert step.count("_require_finite") == 1
    assert "if self.device.type == 'cpu':\n        self._require_finite()" in step


class Recording:
    """What stands for a stream, a graph and its recording; recording fails with an error."""

    error: Exception | None = None

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        if self.error is not None:
            raise self.error

    def replay(self) -> None:
        raise AssertionError("there is no graph")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "the memory of `cpu` is too small"),
        (RuntimeError("CUDA error: out of memory\nmore"), "the memory of `cpu` is too small"),
        (RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore"), "operation not permitted"),
    ],
)
def test_a_step_that_cannot_be_recorded_is_launched_by_itself_which_is_told_once(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    ours, plain = trainer(tell=told.append), trainer()
    ours._eager = 0  # as with a CUDA graph behind the first steps
    for name in ("CUDAGraph", "graph", "stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, Recording)
    monkeypatch.setattr(Recording, "error", error)
    compute, recorded = ours._compute, iter([lambda: None])
    monkeypatch.setattr(ours, "_compute", lambda: next(recorded, compute)())  # recording runs nothing
    steps(ours, 4)
    assert not differing(ours.state(), steps(plain, 4).state())
    assert len(told) == 1
    assert told[0].startswith("training continues without a CUDA graph, which may be slower: ")
    assert said in told[0]


def test_a_graph_that_leaves_no_memory_for_evaluation_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    ours = trainer(tell=told.append)
    expected = ours.evaluate()
    tries = iter([torch.OutOfMemoryError("CUDA out of memory."), None, torch.OutOfMemoryError("CUDA out of memory.")])
    measure = ours._measure

    def short(*what: Tensor) -> Any:
        if (error := next(tries)) is not None:
            raise error
        return measure(*what)

    monkeypatch.setattr(ours, "_measure", short)
    ours._graph = Recording()
    assert ours.evaluate() == expected
    assert ours._graph is None
    assert told == [
        "training continues without a CUDA graph, which may be slower: it leaves too little memory for evaluation"
    ]
    with pytest.raises(ResourceError, match="evaluation does not fit"):
        ours.evaluate()


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_gpus_algorithms_are_chosen_by_time_unless_it_is_to_be_deterministic(
    deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, cudnn = trainer(deterministic=deterministic), torch.backends.cudnn
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    ours.device = torch.device("cuda")  # as far as cuDNN is concerned
    before = cudnn.benchmark, cudnn.deterministic
    with ours._arithmetic(tf32=False):
        assert (cudnn.benchmark, cudnn.deterministic) == (not deterministic, deterministic)
    assert (cudnn.benchmark, cudnn.deterministic) == before


def test_a_trainer_sets_nothing_for_the_whole_process(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(measure_settings, "_mallopt", lambda: lambda *what: asked.append(what))
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    steps(trainer(dropout=False), 2).evaluate()
    assert not asked
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_a_compiler_that_fails_is_told_in_a_line_and_its_limits_are_set_back() -> None:
    from torch._dynamo import config

    before, ours = config.recompile_limit, trainer()
    ours._settings = replace(ours._settings, runtime="inductor")

    def fail(x: Tensor) -> Tensor:
        assert config.recompile_limit >= 256
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.\nmore")

    ours.model = fail
    with pytest.raises(
        ResourceError, match=r"`written` as fp32 compile cannot be run: RuntimeError: Failed to find C compiler"
    ) as one:
        ours.step()
    assert "more" not in str(one.value)
    assert config.recompile_limit == before


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # whatever compilers think of each other
@pytest.mark.parametrize("how", [{"dtype": "bf16", "channels_last": True}, {}])
def test_a_compiled_net_with_groups_learns_as_the_net_itself(how: dict[str, Any]) -> None:
    recipe = replace(SHORT, bn_batch=4)
    compiled, plain = steps(trainer(recipe, compile=True, **how), 3), steps(trainer(recipe, **how), 3)
    assert compiled.read().loss == pytest.approx(plain.read().loss, rel=0.02 if how else 1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # whatever compilers think of each other
def test_a_compiled_net_learns_as_the_net_itself() -> None:
    compiled, plain = steps(trainer(compile=True), 4), steps(trainer(), 4)
    assert compiled.read().loss == pytest.approx(plain.read().loss, rel=1e-4)
    assert compiled.state().keys() == plain.state().keys()
    assert compiled.evaluate().n == 12


@pytest.mark.values
@pytest.mark.parametrize(
    "how", [pytest.param(how, marks=ON_GPU) for how in ({}, {"cuda_graph": True}, {"cuda_graph": True, "dropout": True},
                                                        {"channels_last": True}, {"dtype": "fp16", "cuda_graph": True},
                                                        {"dtype": "tf32", "channels_last": True, "cuda_graph": True})]
)  # fmt: skip
def test_a_gpu_learns_as_the_cpu_does_and_goes_on_from_its_state(how: dict[str, Any]) -> None:
    plain, ours = trainer(dropout="dropout" in how), trainer(**how, device="cuda")
    assert not differing(weights(plain), weights(ours))
    if "dropout" not in how:  # whose masks are drawn otherwise
        close = 1e-3 if "dtype" not in how else 0.02
        assert steps(ours, 6).read().loss == pytest.approx(steps(plain, 6).read().loss, rel=close)
    else:
        steps(ours, 6).read()
    state = ours.state()
    expected = steps(ours, 2).read()
    ours.restore(state, 6)
    assert steps(ours, 2).read().loss == pytest.approx(expected.loss, rel=1e-4)


@pytest.mark.parametrize(
    "how", [pytest.param(how, marks=ON_GPU) for how in (
        {}, {"cuda_graph": True}, {"dtype": "fp16", "channels_last": True}, {"dtype": "bf16", "cuda_graph": True},
        {"bn_batch": 4, "channels_last": True}, {"bn_batch": 4, "cuda_graph": True, "dropout": True},
    )]
)  # fmt: skip
def test_a_step_on_a_gpu_waits_for_nothing(how: dict[str, Any]) -> None:
    ours = steps(trainer(**how, device="cuda"), 5)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Synchronization debug mode is a prototype")
        try:
            torch.cuda.set_sync_debug_mode("error")
            steps(ours, 20)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert ours.read().iteration == 25


def test_every_built_in_recipe_trains() -> None:
    for name, n in itertools.product(("resnet", "preact", "wrn", "resnext", "fast"), (20,)):
        recipe = read_recipe(name).changed(iterations=100, batch_size=16)
        assert np.isfinite(steps(trainer(recipe, n=n), 2).read().loss)
