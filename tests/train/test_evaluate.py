"""Errors of a split: exact, whatever the batch and the model's mode."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - what everybody calls it

from resnetcli.train.augment import Normalisation
from resnetcli.train.evaluate import Evaluation, evaluate

NONE = Normalisation(torch.zeros(3, 4, 4), torch.full((3, 1, 1), 1 / 255))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.Flatten(), nn.Linear(32, 5))


def examples(n: int = 23) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randint(0, 256, (n, 3, 4, 4), dtype=torch.uint8), torch.randint(0, 5, (n,))


def test_an_evaluation_is_the_mean_over_all_images() -> None:
    (images, labels), of = examples(), net()
    with torch.no_grad():
        logits = of.eval()(images.float() / 255)
    found = evaluate(of, images, labels, NONE)
    assert (found.wrong, found.n) == (int((logits.argmax(1) != labels).sum()), 23)
    assert 0 < found.wrong < 23
    assert found.error_percent == 100 * found.wrong / 23
    assert found.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-6)


@pytest.mark.parametrize("batch", [1, 5, 23, 100])
def test_the_batch_changes_nothing(batch: int) -> None:
    whole, parts = evaluate(net(), *examples(), NONE), evaluate(net(), *examples(), NONE, batch=batch)
    assert (parts.wrong, parts.n) == (whole.wrong, whole.n)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)


def test_channels_last_changes_nothing() -> None:
    of = net()
    expected = evaluate(of, *examples(), NONE)
    found = evaluate(of.to(memory_format=torch.channels_last), *examples(), NONE, channels_last=True)  # type: ignore[call-overload]
    assert found.wrong == expected.wrong
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)


def test_an_evaluation_leaves_the_model_as_it_was() -> None:
    of = net().train()
    before = {name: tensor.clone() for name, tensor in of.state_dict().items()}
    evaluate(of, *examples(), NONE)
    assert of.training
    assert all(module.training for module in of.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in of.state_dict().items())
    assert all(parameter.grad is None for parameter in of.parameters())


def test_an_error_is_given_in_per_cent() -> None:
    assert Evaluation(wrong=643, loss=0.3, n=10_000).error_percent == 6.43
