"""What is recorded of a run: where weights come from, which products are layers, every operation."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import resnetcli as rc
from tests.support.pytorch import IMAGE, Computes, counted, rows

PRUNE: Any = prune
ATTENTION = "MACs and activations include products of two activations, as in attention"


# --- what is a layer ---------------------------------------------------------------------------------------------


def standardised(s: Any, x: Tensor) -> Tensor:
    w = s.conv.weight
    return F.conv2d(x, (w - w.mean((1, 2, 3), keepdim=True)) / w.std((1, 2, 3), keepdim=True), s.conv.bias)


def vmapped(s: Any, x: Tensor) -> Any:
    return torch.vmap(lambda w: F.linear(x.flatten(1), w))(s.w.view(3, 10, 48))


class WithBuffer(nn.Module):
    w: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("w", torch.rand(10, 48))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.flatten(1), self.w)


def flat(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), *layers)


LINEAR = 480
"""Multiply-accumulates of 48 inputs and 10 outputs."""
LAYERS: dict[str, tuple[Callable[[], nn.Module], int, int, int]] = {
    # name: model, parameters, MACs, depth
    "lazy": (lambda: flat(nn.LazyLinear(10)), 490, LINEAR, 1),
    "lazy convolutions": (
        lambda: nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyConvTranspose2d(5, 3), nn.Flatten(), nn.LazyLinear(3)),
        112 + 185 + 243, 432 + 720 + 240, 3,
    ),
    "in a list": (
        lambda: Computes(lambda s, x: s.f[1](s.f[0](x.flatten(1))), f=[nn.Linear(48, 20), nn.Linear(20, 10)]),
        0, 960 + 200, 2,
    ),
    "parameter in a list": (
        lambda: Computes(lambda s, x: x.flatten(1) @ s.f[0], f=[nn.Parameter(torch.rand(48, 10))]), 0, LINEAR, 1,
    ),
    "buffer": (WithBuffer, 0, LINEAR, 1),
    "weight norm": (lambda: flat(parametrizations.weight_norm(nn.Linear(48, 10))), 500, LINEAR, 1),
    "spectral norm": (lambda: flat(parametrizations.spectral_norm(nn.Linear(48, 10))), 490, LINEAR + 490, 1),
    "pruned": (lambda: flat(PRUNE.l1_unstructured(nn.Linear(48, 10), "weight", 0.5)), 490, LINEAR, 1),
    "standardised": (lambda: Computes(standardised, conv=nn.Conv2d(3, 8, 3)), 224, 27 * 8 * 4, 1),
    "tied, transposed": (
        lambda: Computes(lambda s, x: F.linear(s.f(x.flatten(1)), s.f.weight.t()), f=nn.Linear(48, 10)),
        490, 2 * LINEAR, 2,
    ),
    "in chunks": (
        lambda: Computes(lambda s, x: sum(x.flatten(1) @ each.t() for each in s.w.chunk(2)), w=torch.rand(10, 48)),
        LINEAR, LINEAR, 1,
    ),
    "einsum": (
        lambda: Computes(lambda s, x: torch.einsum("bchw,oc->bohw", x, s.w), w=torch.rand(5, 3)), 15, 15 * 16, 1,
    ),
    "joined": (
        lambda: Computes(lambda s, x: F.linear(x.flatten(1), torch.cat([s.a, s.b])), a=torch.rand(6, 48),
                         b=torch.rand(4, 48)), LINEAR, LINEAR, 1,
    ),
    "low rank update": (
        lambda: Computes(lambda s, x: F.linear(x.flatten(1), s.w + s.a @ s.b), w=torch.rand(10, 48),
                         a=torch.rand(10, 2), b=torch.rand(2, 48)), 480 + 20 + 96, LINEAR + 960, 1,
    ),
    "made by a network": (
        lambda: Computes(lambda s, x: F.linear(x.flatten(1), s.h(s.z).view(10, 48)), z=torch.rand(1, 4),
                         h=nn.Linear(4, 480)), 4 + 2400, LINEAR + 1920, 1,
    ),
    "functional call": (
        lambda: Computes(lambda s, x: torch.func.functional_call(
            s.f, {name: 2 * p for name, p in s.f.named_parameters()}, x.flatten(1)), f=nn.Linear(48, 10)),
        490, LINEAR, 1,
    ),
    "vmap": (lambda: Computes(vmapped, w=torch.rand(30, 48)), 3 * LINEAR, 3 * LINEAR, 1),
    "unfolded": (
        lambda: Computes(lambda s, x: F.fold(s.w @ F.unfold(x, 3, padding=1), (4, 4), 1), w=torch.rand(8, 27)),
        216, 216 * 16, 1,
    ),
    "of an embedding": (
        lambda: Computes(lambda s, x: x.flatten(1) @ s.e(torch.arange(10, device=x.device)).t(),
                         e=nn.Embedding(12, 48)), 576, LINEAR, 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_a_product_of_the_image_with_what_does_not_depend_on_it_is_a_layer(name: str) -> None:
    make, *figures = LAYERS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that lazy modules may change
        found = counted(make(), IMAGE)
    assert [found.counts.params, found.counts.macs, found.counts.depth] == figures
    assert ATTENTION not in found.notes
    assert sum(each[2] for each in rows(found)) == found.counts.macs


@pytest.mark.parametrize(
    ("function", "macs", "depth"),
    [
        (lambda s, x: x @ x, 3 * 64, 0),
        (lambda s, x: F.scaled_dot_product_attention(x @ s.w, x, x), 3 * 64 * 3, 1),
        (lambda s, x: F.linear(x.flatten(1), (x.flatten() * torch.ones(5, 1, device=x.device))), 240, 0),
    ],
)
def test_a_product_of_values_with_values_is_none_and_is_noted(
    function: Callable[[Any, Tensor], Tensor], macs: int, depth: int
) -> None:
    found = counted(Computes(function, w=torch.rand(4, 4)), IMAGE)
    assert (found.counts.macs, found.counts.depth) == (macs, depth)
    assert ATTENTION in found.notes


def test_what_only_has_the_image_s_shape_does_not_depend_on_it() -> None:
    found = counted(Computes(lambda s, x: x @ torch.ones_like(x)), IMAGE)
    assert (found.counts.macs, found.counts.depth, len(found.notes)) == (3 * 64, 1, 1)


def test_weights_that_are_not_parameters_and_weights_of_weights_are_noted_with_their_number() -> None:
    assert counted(WithBuffer(), IMAGE).notes[1].startswith("layers use 480 weights that are not parameters")
    assert counted(flat(parametrizations.spectral_norm(nn.Linear(48, 10))), IMAGE).notes[1:] == (
        "MACs include 490 that do not depend on the image (weights computed from weights)",
    )


def test_parameters_that_took_no_part_are_counted_once_and_named_once() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)
            self.aux = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
            self.again, self.scale = self.aux[0], nn.Parameter(torch.rand(7))

        def forward(self, x: Tensor) -> Any:
            return self.conv(x)

    assert counted(Idle(), IMAGE).notes[1:] == ("unused in this forward pass, their 27 parameters counted: scale, aux",)
    nothing = counted(Computes(lambda s, x: x + 1, a=nn.Linear(48, 5), b=nn.Linear(4, 4)), IMAGE)
    assert nothing.notes[1:] == ("unused in this forward pass, their 265 parameters counted: (Computes)",)


def test_a_layer_that_is_made_when_it_is_first_called_has_a_row() -> None:
    def late(s: Any, x: Tensor) -> Any:
        if not hasattr(s, "late"):
            s.late = nn.Linear(48, 5, device=x.device)
        return s.late(x.flatten(1))

    assert rows(counted(Computes(late), IMAGE)) == [("late", 245, 240)]


def test_a_module_whose_forward_is_called_has_its_row() -> None:
    assert rows(counted(Computes(lambda s, x: s.f.forward(x.flatten(1)), f=nn.Linear(48, 5)), IMAGE)) == [
        ("f", 245, 240)
    ]


# --- every operation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "weights", "macs"),
    [
        (lambda s, x: s.w @ x.flatten(), (5, 48), 240),
        (lambda s, x: torch.zeros(5, device=x.device).addmv_(s.w, x.flatten()), (5, 48), 240),
        (lambda s, x: s.w.flatten().dot(x.flatten()), (48,), 48),
        (lambda s, x: torch.addbmm(x[0, 0] @ s.w[0], x[0], s.w), (3, 4, 4), 64 + 3 * 64),
        (lambda s, x: torch.tensordot(x[0], s.w, dims=([0, 1], [0, 1])), (3, 4, 6), 12 * 4 * 6),
        (lambda s, x: torch.conv_tbc(x[0].transpose(0, 1).contiguous(), s.w, s.w[0, 0], 1), (3, 4, 6), 4 * 3 * 6 * 12),
        (lambda s, x: F.bilinear(x.flatten(2), x.flatten(2), s.w), (7, 16, 16), 3 * 7 * 16 * 16),
        (lambda s, x: F.conv1d(x.flatten(2), s.w, padding="same"), (6, 3, 3), 16 * 54),
        (lambda s, x: F.conv_transpose2d(x, s.w, groups=3), (3, 2, 3, 3), 48 * 18),
        (lambda s, x: torch.mm(x[0, 0], s.w, out=torch.empty(4, 5, device=x.device)), (4, 5), 80),
    ],
)
def test_what_multiplies_is_counted_whatever_it_is_called(
    function: Callable[[Any, Tensor], Tensor], weights: tuple[int, ...], macs: int
) -> None:
    found = counted(Computes(function, w=torch.rand(*weights)), IMAGE)
    assert found.counts.macs == macs
    assert found.counts.depth >= 1
    assert not any("not counted" in note for note in found.notes)


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda s, x: torch.cdist(x[0], s.w), "aten::_cdist_forward (1 call, 60 parameters)"),
        (lambda s, x: torch.fft.rfft2(x) * s.w[0, 0, 0], "aten::_fft_r2c (1 call, 0 parameters)"),
        (lambda s, x: x.mean() * torch.matrix_exp(s.w[0, :4]), "aten::linalg_matrix_exp (1 call, 60 parameters)"),
        (lambda s, x: torch.linalg.inv(x[0, 0]) + torch.linalg.inv(x[0, 1]), "linalg_inv_ex (2 calls, 0 parameters)"),
        (lambda s, x: torch.sparse.mm(torch.eye(5, 48).to_sparse().to(x.device), x.view(48, 1)), "_sparse_addmm"),
    ],
)
def test_what_multiplies_and_has_no_formula_is_named_with_its_calls_and_parameters(
    function: Callable[[Any, Tensor], Tensor], named: str
) -> None:
    assert named in counted(Computes(function, w=torch.rand(3, 5, 4)), IMAGE).notes[-1]


def test_an_operation_of_others_is_named() -> None:
    @torch.library.custom_op("resnetcli_tests::times", mutates_args=())
    def times(a: Tensor, b: Tensor) -> Tensor:
        return a @ b

    times.register_fake(lambda a, b: a.new_empty(a.shape[0], b.shape[1]))
    found = counted(Computes(lambda s, x: times(x.flatten(1), s.w), w=torch.rand(48, 5)), IMAGE)
    assert "resnetcli_tests::times (1 call, 240 parameters)" in found.notes[-1]


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda s, x: (s.c(each) for each in [x]), "generator"),
        (lambda s, x: map(s.c, [x]), "map"),
        (lambda s, x: {"out": [(s.c(each) for each in [x])]}, "generator"),
    ],
)
def test_what_is_computed_after_forward_is_refused(function: Callable[[Any, Tensor], Any], kind: str) -> None:
    with pytest.raises(rc.UsageError, match=f"returns a {kind}, whose tensors are not computed yet"):
        rc.profile_module(Computes(function, c=nn.Conv2d(3, 8, 3)), input=IMAGE)


def cautious(net: Any, x: Tensor) -> Tensor:
    try:
        return x if x.mean() > 100 else net.c(x)
    except Exception:
        return x


def test_a_model_that_catches_the_error_of_looking_at_values_is_run_with_values() -> None:
    assert counted(Computes(cautious, c=nn.Conv2d(3, 8, 3, padding=1)), IMAGE).counts.macs == 8 * 27 * 16


def test_what_numpy_computes_is_not_passed_over() -> None:
    found = counted(Computes(lambda s, x: torch.from_numpy(x.flatten(1).numpy() @ x.flatten(1).T.numpy())), IMAGE)
    assert "no torch operation leads from the image to the output" in found.notes[1]


RECURRENT = [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)]


@pytest.mark.parametrize(("kind", "gates"), RECURRENT)
@pytest.mark.parametrize("values", [False, True])
def test_recurrent_layers_count_each_step(kind: Any, gates: int, values: bool) -> None:
    def run(s: Any, x: Tensor) -> Any:
        if values:
            x.sum().item()  # so that it runs with values, by what the CPU has for it
        return s.layer(x.flatten(2))[0]

    layer = kind(16, 5, num_layers=2, bidirectional=True, batch_first=True)
    found = counted(Computes(run, layer=layer), IMAGE)
    assert found.counts.macs == 3 * 2 * gates * 5 * (16 + 5 + 10 + 5)
    assert found.counts.depth == 6


def test_packed_sequences_projections_and_cells_count_what_they_run() -> None:
    def packed(s: Any, x: Tensor) -> Tensor:
        each = nn.utils.rnn.pack_padded_sequence(torch.cat([x, x]).flatten(2), torch.tensor([3, 2]), batch_first=True)
        return nn.utils.rnn.pad_packed_sequence(s.layer(each)[0])[0]

    assert counted(Computes(packed, layer=nn.LSTM(16, 5, batch_first=True)), IMAGE).counts.macs == 5 * 20 * 21
    found = counted(Computes(lambda s, x: s.layer(x.flatten(2))[0], layer=nn.LSTM(16, 5, proj_size=2)), IMAGE)
    assert found.counts.macs == 3 * (20 * 16 + 20 * 2 + 2 * 5)
    found = counted(Computes(lambda s, x: s.layer(x.flatten(2)[0]), layer=nn.GRUCell(16, 5)), IMAGE)
    assert (found.counts.macs, found.counts.depth) == (3 * 15 * 21, 1)


@pytest.mark.filterwarnings("ignore")
def test_quantised_layers_count_and_their_weights_are_noted() -> None:
    quantize: Any = torch.ao.quantization.quantize_dynamic
    found = counted(quantize(flat(nn.Linear(48, 20), nn.ReLU(), nn.Linear(20, 10)), {nn.Linear}), IMAGE)
    assert (found.counts.macs, found.counts.depth) == (960 + 200, 2)
    assert [each[2] for each in rows(found)] == [0, 960, 0, 200]
    assert found.notes[1].startswith("layers use 1,190 weights that are not parameters")


def test_transformers_run_as_modules_whatever_is_fused() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    found = counted(nn.Sequential(nn.Flatten(2), nn.TransformerEncoder(layer, 2)), IMAGE)
    # three tokens of 16: q, k, v and what is put out; scores and sums; two fully connected layers
    assert found.counts.macs == 2 * (3 * 16 * 16 * 4 + 2 * 9 * 16 + 2 * 3 * 16 * 32)
    assert found.counts.depth == 2 * 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_operations_that_take_functions_are_followed_into_them() -> None:
    from torch._higher_order_ops.map import map as map_
    from torch._higher_order_ops.scan import scan
    from torch._higher_order_ops.while_loop import while_loop
    from torch.nn.attention.flex_attention import flex_attention

    def attend(s: Any, x: Tensor) -> Any:
        t = s.q(x.flatten(2).transpose(1, 2)).unsqueeze(1)
        return flex_attention(t, t, t)

    assert counted(Computes(attend, q=nn.Linear(3, 16)), IMAGE).counts.macs == 16 * 3 * 16 + 2 * 16 * 16 * 16
    loop: Any = while_loop
    w = torch.rand(4, 4)
    steps: list[tuple[Callable[[Any, Tensor], Any], int, int]] = [
        (lambda s, x: torch.cond(x.sum() > -1, lambda a: a @ s.w, lambda a: a + 0, (x,)), 3 * 64, 1),
        (lambda s, x: scan(lambda c, a: (c @ s.w, c * a.mean()), x[0, 0], x[0])[1], 3 * 64, 3),
        (lambda s, x: loop(lambda i, y: i < 3, lambda i, y: (i + 1, y @ s.w), (torch.tensor(0), x))[1], 576, 3),
        (lambda s, x: map_(lambda a, b: a @ b, x[0], s.w), 3 * 64, 1),
        (lambda s, x: torch.utils.checkpoint.checkpoint(lambda a: a @ s.w, x, use_reentrant=False), 3 * 64, 1),
    ]
    for function, macs, depth in steps:
        found = counted(Computes(function, w=w), IMAGE)
        assert (found.counts.macs, found.counts.depth) == (macs, depth)
