"""BatchNorm over groups: against one BatchNorm for each group, alone and made ready for all layers at once."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from resnetcli.train import ghost_norm as norm


def net(kind: type[nn.Module], channels: int) -> nn.Sequential:
    made = nn.Sequential(kind(channels), nn.ReLU(inplace=True), kind(channels))
    with torch.no_grad():
        for tensor in (*made.parameters(), *made.buffers()):
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape))
    return made


def images(shape: tuple[int, ...], channels_last: bool) -> Tensor:
    x = torch.randn(shape)
    return (x.to(memory_format=torch.channels_last) if channels_last else x).requires_grad_()


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize(
    ("kind", "shape", "channels_last"),
    [
        (nn.BatchNorm2d, (12, 5, 3, 4), False),
        (nn.BatchNorm2d, (12, 5, 3, 4), True),
        (nn.BatchNorm2d, (12, 5, 1, 1), True),
        (nn.BatchNorm2d, (12, 1, 3, 3), True),
        (nn.BatchNorm1d, (12, 5), False),
    ],
)
@pytest.mark.parametrize("size", [2, 3, 4, 6])
def test_each_group_is_normalised_by_itself(
    kind: type[nn.Module], shape: tuple[int, ...], channels_last: bool, size: int, tiled: bool
) -> None:
    torch.manual_seed(1)
    plain = net(kind, shape[1])
    ours, groups = copy.deepcopy(plain), shape[0] // size
    parts = [copy.deepcopy(plain) for _ in range(groups)]
    norm.group(ours, size)
    x = images(shape, channels_last)
    inputs = [x.detach()[at::groups].clone().requires_grad_() for at in range(groups)]
    expected = [part(one) for part, one in zip(parts, inputs, strict=True)]
    weight = torch.randn(shape)
    with norm.tiled(norm.grouped_layers(ours) if tiled else [], groups):
        y = ours(x)
    for layout in (torch.contiguous_format, torch.channels_last)[: max(1, x.dim() - 2)]:
        assert y.is_contiguous(memory_format=layout) == x.is_contiguous(memory_format=layout)
    (y * weight).sum().backward()
    assert x.grad is not None
    for at, (one, out) in enumerate(zip(inputs, expected, strict=True)):
        (out * weight[at::groups]).sum().backward()
        torch.testing.assert_close(y[at::groups], out, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(x.grad[at::groups], one.grad, rtol=1e-4, atol=1e-4)
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None
        sums = torch.stack([dict(part.named_parameters())[name].grad for part in parts]).sum(0)  # type: ignore[misc]
        torch.testing.assert_close(parameter.grad, sums, rtol=1e-4, atol=1e-4)
    for name, buffer in ours.named_buffers():
        if buffer.is_floating_point():
            mean = torch.stack([dict(part.named_buffers())[name] for part in parts]).mean(0)
            torch.testing.assert_close(buffer, mean)
    assert all(each.tiles is None for each in norm.grouped_layers(ours))


def test_what_is_made_for_all_layers_is_given_up_with_a_forward_that_fails() -> None:
    ours = net(nn.BatchNorm2d, 4)
    norm.group(ours, 2)
    before = [buffer.clone() for buffer in ours.buffers()]
    with pytest.raises(RuntimeError), norm.tiled(norm.grouped_layers(ours), 2):
        ours(torch.zeros(4, 5, 2, 2))
    assert all(each.tiles is None for each in norm.grouped_layers(ours))
    assert all(torch.equal(*pair) for pair in zip(before, ours.buffers(), strict=True))
