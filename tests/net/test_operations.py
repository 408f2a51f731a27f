"""Operations of torch: each has a formula, is known to multiply nothing, or is named; none is passed over."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._C import _dispatch_get_all_op_names, _dispatch_has_kernel_for_dispatch_key
from torch.utils.flop_counter import flop_registry

from resnetcli.net.operations import FORMULAS, FREE, NAMED, UNKNOWN, Product, base_name, kind_of, product_of

aten = torch.ops.aten
OVERLOADS = [name.removeprefix("aten::") for name in _dispatch_get_all_op_names() if name.startswith("aten::")]
NAMES = {name.partition(".")[0] for name in OVERLOADS}


def taken_apart(name: str) -> bool:
    """Whether torch computes an operation by others, which are seen instead."""
    overloads = [f"aten::{each}" for each in OVERLOADS if each.partition(".")[0] == name]
    return all(_dispatch_has_kernel_for_dispatch_key(each, "CompositeImplicitAutograd") for each in overloads)


def test_every_operation_of_the_torch_there_is_counts_is_free_or_is_named() -> None:
    left = {
        name
        for name in NAMES
        if kind_of("aten", base_name(name)) == UNKNOWN
        and base_name(name) not in NAMED
        and getattr(aten, name) not in flop_registry
        and not name.startswith(("_test_", "_foobar"))  # for torch's own tests
        and not taken_apart(name)
    }
    assert len(NAMES) > 1000
    assert not left, "say in net/operations.py what these multiply"


def test_no_operation_is_two_things_at_once() -> None:
    counted = FORMULAS["aten"].keys()
    assert not counted & NAMED | counted & FREE | NAMED & FREE
    packets = [getattr(aten, name) for name in counted | NAMED]
    overloads = [getattr(packet, each) for packet in packets for each in packet.overloads()]
    tagged = [overload for overload in overloads if torch.Tag.pointwise in overload.tags]
    assert not tagged
    assert not [name for name in NAMED if kind_of("aten", name) != UNKNOWN]


@pytest.mark.parametrize("name", ["no_such_operation", "linalg_inv_ex", "_fft_r2c", "_cdist_forward"])
def test_what_is_not_known_is_not_free(name: str) -> None:
    assert kind_of("aten", name) == UNKNOWN


@pytest.mark.parametrize(
    "name", ["add", "relu_", "view", "_foreach_add_", "_foreach_sqrt", "view_copy", "native_layer_norm_backward", "eq_",
             "_softmax_backward_data", "_native_batch_norm_legit_functional", "copy_", "index_copy_"],
)  # fmt: skip
def test_variants_of_what_is_free_are_free(name: str) -> None:
    assert kind_of("aten", base_name(name)) == "free"


def rand(*shape: int) -> Tensor:
    return torch.rand(*shape, device="meta")


CALLS: list[tuple[Any, tuple[Any, ...], int]] = [
    (aten.mm.default, (rand(2, 3), rand(3, 5)), 30),
    (aten.mm.out, (rand(2, 3), rand(3, 5)), 30),
    (aten.addmm.default, (rand(5), rand(2, 3), rand(3, 5)), 30),
    (aten.addmm_.default, (rand(2, 5), rand(2, 3), rand(3, 5)), 30),
    (aten.bmm.default, (rand(7, 2, 3), rand(7, 3, 5)), 210),
    (aten.baddbmm.default, (rand(7, 2, 5), rand(7, 2, 3), rand(7, 3, 5)), 210),
    (aten.addbmm.default, (rand(2, 5), rand(7, 2, 3), rand(7, 3, 5)), 210),
    (aten.mv.default, (rand(2, 3), rand(3)), 6),
    (aten.addmv.default, (rand(2), rand(2, 3), rand(3)), 6),
    (aten.dot.default, (rand(3), rand(3)), 3),
    (aten.addr.default, (rand(2, 3), rand(2), rand(3)), 6),
    (aten._foreach_mm.default, ([rand(2, 3), rand(1, 4)], [rand(3, 5), rand(4, 2)]), 38),
    (aten._trilinear.default, (rand(2, 3), rand(5, 3, 4), rand(2, 4), [1, 3], [0], [1, 2], [2, 3]), 2 * 3 * 4 * 5),
    (aten.conv_tbc.default, (rand(6, 2, 3), rand(3, 3, 5), rand(5), 0), 4 * 2 * 5 * 9),
    (aten.convolution.default, (rand(2, 4, 5, 5), rand(6, 2, 3, 3), None, [1] * 2, [0] * 2, [1] * 2, False, [0] * 2, 2),
     2 * 6 * 9 * 18),
    (aten.convolution.default, (rand(2, 4, 5, 5), rand(4, 3, 3, 3), None, [2] * 2, [0] * 2, [1] * 2, True, [0] * 2, 2),
     2 * 4 * 25 * 27),
    (aten.convolution_backward.default,
     (rand(2, 6, 3, 3), rand(2, 4, 5, 5), rand(6, 2, 3, 3), None, [1] * 2, [0] * 2, [1] * 2, False, [0] * 2, 2,
      [True, True, False]), 2 * 2 * 6 * 9 * 18),
]  # fmt: skip


@pytest.mark.parametrize(("func", "args", "macs"), CALLS, ids=lambda value: str(value) if callable(value) else "")
def test_what_operations_multiply(func: Any, args: tuple[Any, ...], macs: int) -> None:
    kwargs = {"out": rand(2, 5)} if func is aten.mm.out else {}
    result = func(*args, **kwargs)
    product = product_of(func, args, kwargs, result)
    assert isinstance(product, Product)
    assert product.macs == macs


@pytest.mark.parametrize(("a", "b", "macs"), [((2, 8, 16), (2, 16, 8), 2048), ((8, 16), (3, 16, 8), 1024)])
def test_products_in_groups_multiply_each_row_once(a: tuple[int, ...], b: tuple[int, ...], macs: int) -> None:
    left, right = rand(*a).bfloat16(), rand(*b).bfloat16()
    offsets = torch.tensor([3, 6, 8], dtype=torch.int32, device="meta") if len(a) == 2 else None
    product = product_of(aten._grouped_mm.default, (left, right, offsets), {}, rand(*a[:-1], b[-1]))
    assert isinstance(product, Product)
    assert product.macs == macs


def test_fused_recurrent_layers_multiply_as_their_steps() -> None:
    layer = torch.nn.LSTM(3, 4)
    weights = [p.detach() for p in layer.parameters()]
    x, state = torch.rand(5, 2, 3), torch.zeros(1, 2, 4)
    args = (x, *weights, state[0], state[0], False, [], 2, 4, 1, True, False, False, False)
    result = aten.mkldnn_rnn_layer.default(*args)
    product = product_of(aten.mkldnn_rnn_layer.default, args, {}, result)
    assert isinstance(product, Product)
    assert (product.macs, product.layers) == (5 * 2 * 16 * (3 + 4), 5)


def test_sparse_and_nested_tensors_have_no_formula() -> None:
    sparse = torch.eye(3).to_sparse()
    args = (sparse, torch.rand(3, 2))
    assert product_of(aten.mm.default, args, {}, torch.rand(3, 2)) == UNKNOWN
