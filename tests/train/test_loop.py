"""The trainer: against a loop written by hand, at resumes, over several processes, with losses that are not finite."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - what everybody calls it

from resnetcli.errors import ResourceError, UsageError
from resnetcli.net.module import build
from resnetcli.recipes.recipe import Augmentation, Recipe
from resnetcli.recipes.schedule import Schedule, Warmup
from resnetcli.recipes.text import read_recipe
from resnetcli.train import order
from resnetcli.train.augment import normalisation
from resnetcli.train.loop import Trainer
from tests.support.trainers import SHORT, data, differing, spoil, steps, tiny, trainer, weights
from tests.support.written import plan_of

pytestmark = pytest.mark.usefixtures("one_thread")
# --- against a loop written out ------------------------------------------------------------------------------------


def by_hand(recipe: Recipe, net: nn.Module, iterations: int, seed: int) -> list[float]:
    """Trains the model image by image and step by step, as a textbook has it; the losses."""
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
    net.load_state_dict(ours.model.state_dict(), strict=False)
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
    names = {id(parameter): name for name, parameter in ours.model.named_parameters()}
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
    net = Trainer(plan, replace(SHORT, init=init), data()).model
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
    trained = {f"momentum.{name}" for name, _ in ours.model.named_parameters()}
    assert trained < state.keys()
    assert "net.conv1.0.bn.running_mean" in state


@pytest.mark.parametrize("way", ["missing", "unknown", "shape", "type"])
def test_the_state_of_another_model_is_refused_and_nothing_is_changed(way: str) -> None:
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


def test_a_model_learns_what_there_is_to_learn() -> None:
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


def test_a_training_split_keeps_the_other_images_for_validation() -> None:
    ours = trainer(replace(SHORT, train_split=15))
    assert (ours.n, ours.evaluate("train").n, ours.evaluate("validation").n) == (15, 15, 5)
    kept, rest = order.split_indices(20, 15)
    assert np.array_equal(ours._images.plain, data().train.images[kept.numpy()])
    assert np.array_equal(ours.evaluator._split("validation")[0], data().train.images[rest.numpy()])
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


def test_a_model_that_is_not_deep_enough_starts_without_the_warm_up() -> None:
    warmup = Warmup(0.001, until_error=80, from_depth=9)
    ours = trainer(replace(SHORT, schedule=Schedule("fixed", 0.1), iterations=100, warmup=warmup))
    ours.step()
    assert ours.read().lr == 0.1


# --- losses that are not finite ------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_changes_no_weight_and_is_reported_with_its_iteration(where: str) -> None:
    ours = steps(trainer(), 3)
    before = {name: parameter.detach().clone() for name, parameter in ours.model.named_parameters()}
    spoil(ours, where)
    with pytest.raises(ResourceError, match="iteration 4 is not finite"):
        ours.step()
    assert all(torch.equal(before[name], parameter) for name, parameter in ours.model.named_parameters())
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
    before = {name: parameter.detach().clone() for name, parameter in ours.model.named_parameters()}
    mend = spoil(ours, where)
    with monkeypatch.context() as patch:
        patch.setattr(ours, "_require_finite", lambda: None)  # as a GPU's host, which only queues steps
        steps(ours, 1)
        mend()
        steps(ours, 3)  # that would be finite again
    assert all(torch.equal(before[name], parameter) for name, parameter in ours.model.named_parameters())
    with pytest.raises(ResourceError, match="iteration 4 is not finite"):
        ours.read()
    assert ours.iteration == 3
    ours.restore(state, 3)
    assert differing(steps(ours, 1).state(), state)
    assert not differing(ours.state(), steps(trainer(), 2 + 2).state() | {"totals": ours.state()["totals"]})


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


def test_every_built_in_recipe_trains() -> None:
    for name, n in itertools.product(("resnet", "preact", "wrn", "resnext", "fast"), (20,)):
        recipe = read_recipe(name).changed(iterations=100, batch_size=16)
        assert np.isfinite(steps(trainer(recipe, n=n), 2).read().loss)
