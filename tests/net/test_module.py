from __future__ import annotations

import copy
import pickle
import re
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from resnetcli.errors import ResourceError
from resnetcli.net import module as module_under_test
from resnetcli.net.module import Net, build
from resnetcli.ops import (
    Add,
    BatchNorm,
    Concat,
    Conv,
    Dropout,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    Op,
    PadChannels,
    Pool,
    PoolTo,
    PReLU,
    PyramidPool,
    RegionPool,
    ReLU,
    Scale,
    Softmax,
)
from resnetcli.plan.count import count
from resnetcli.plan.plan import Plan
from resnetcli.plan.schedule import last_uses, overwrites
from tests.support.nets import trace_shapes
from tests.support.sketch import Sketch, residual_net
from tests.support.written import plan_of

LAYERS: list[tuple[Op, str]] = [
    (Conv(8, (3, 5), 2, (1, 2), 1, 2), "Conv2d(4, 8, kernel_size=(3, 5), stride=(2, 2), padding=(1, 2), groups=2"),
    (
        Conv(8, (3, 3), 1, (2, 2), 2, 1, True),
        "Conv2d(4, 8, kernel_size=(3, 3), stride=(1, 1), padding=(2, 2), dilation",
    ),
    (BatchNorm(0.001), "BatchNorm2d(4, eps=0.001, momentum=0.1, affine=True"),
    (ReLU(), "ReLU()"),
    (LeakyReLU(0.1), "LeakyReLU(negative_slope=0.1)"),
    (PReLU(), "PReLU(num_parameters=4)"),
    (Pool("max", (3, 3), 2, (1, 1)), "MaxPool2d(kernel_size=(3, 3), stride=2, padding=(1, 1), dilation=1, ceil_mode=F"),
    (
        Pool("max", (3, 3), 2, ceil=True),
        "MaxPool2d(kernel_size=(3, 3), stride=2, padding=(0, 0), dilation=1, ceil_mode=T",
    ),
    (Pool("avg", (3, 2), 3, (1, 1), True), "AvgPool2d(kernel_size=(3, 2), stride=3, padding=(1, 1))"),
    (PoolTo("avg", (1, 1)), "AdaptiveAvgPool2d(output_size=(1, 1))"),
    (PoolTo("max", (7, 3)), "AdaptiveMaxPool2d(output_size=(7, 3))"),
    (PyramidPool((3, 2, 1)), "PyramidPoolModule(3, 2, 1)"),
    (Linear(5), "Linear(in_features=440, out_features=5, bias=True)"),
    (Linear(5, bias=False), "Linear(in_features=440, out_features=5, bias=False)"),
    (LocalResponseNorm(5, 1e-4, 0.75, 2), "LocalResponseNorm(5, alpha=0.0001, beta=0.75, k=2)"),
    (Dropout(0.3), "Dropout(p=0.3, inplace=False)"),
    (Softmax(), "Softmax(dim=1)"),
    (Scale(0.17), "ScaleModule(0.17)"),
    (PadChannels(7, 2), "PadChannelsModule(3, stride=2)"),
    (RegionPool((3, 2), 5), "RegionPoolModule(3x2 of 5)"),
]


def only(op: Op, c: int = 4, h: int = 11, w: int = 10) -> Plan:
    s = Sketch(c, h, w)
    s.step("layer", op)
    return s.plan()


def expected_shapes(plan: Plan, batch: int) -> list[tuple[int, ...]]:
    return [(batch * step.shape.n, step.shape.c, step.shape.h, step.shape.w) for step in plan.steps]


def four_axes(shapes: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    return [(*shape, 1, 1)[:4] for shape in shapes]


def images(plan: Plan, batch: int = 2, **place: Any) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = plan.input
    return torch.randn(batch, shape.c, shape.h, shape.w, generator=generator).to(**place)


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize(("op", "text"), LAYERS, ids=lambda value: type(value).__name__)
def test_a_step_becomes_its_layer_with_the_plan_s_shape_and_parameters(op: Op, text: str, device: str) -> None:
    plan = only(op)
    net = build(plan, device=device).eval()
    assert repr(net.layer).startswith(text)
    assert four_axes(trace_shapes(net, images(plan, device=device))) == expected_shapes(plan, 2)
    assert sum(p.numel() for p in net.parameters()) == op.params(plan.input)


def test_the_layers_of_torch_are_of_torch_s_own_classes() -> None:
    kinds = {type(module) for module in build(residual_net()).modules()}
    assert kinds == {
        Net, nn.ModuleDict, nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.AdaptiveAvgPool2d, nn.Linear,
    }  # fmt: skip


def test_names_follow_the_paths_and_parameters_the_order_of_the_steps() -> None:
    assert [name for name, _ in build(residual_net(), device="meta").named_parameters()] == [
        "conv1.conv.weight",
        "conv1.bn.weight",
        "conv1.bn.bias",
        "conv2_x.0.F.0.conv.weight",
        "conv2_x.0.F.0.bn.weight",
        "conv2_x.0.F.0.bn.bias",
        "conv2_x.0.F.1.conv.weight",
        "conv2_x.0.F.1.bn.weight",
        "conv2_x.0.F.1.bn.bias",
        "conv2_x.0.shortcut.conv.weight",
        "conv2_x.0.shortcut.bn.weight",
        "conv2_x.0.shortcut.bn.bias",
        "head.1.weight",
        "head.1.bias",
    ]


def test_every_value_of_a_residual_model_has_the_plan_s_shape() -> None:
    plan = residual_net(3)
    net = build(plan, device="meta")
    assert four_axes(trace_shapes(net, images(plan, 5, device="meta"))) == expected_shapes(plan, 5)


def test_a_residual_model_computes_what_its_equation_says() -> None:
    plan = residual_net()
    net: Any = build(plan).eval()
    x, block = images(plan), net.conv2_x["0"]
    with torch.no_grad():
        x = torch.relu(net.conv1.bn(net.conv1.conv(x)))
        f = torch.relu(block.F["0"].bn(block.F["0"].conv(x)))
        f = block.F["1"].bn(block.F["1"].conv(f))
        y = torch.relu(f + block.shortcut.bn(block.shortcut.conv(x)))
        y = net.head["1"](y.mean((2, 3)))
        torch.testing.assert_close(net(images(plan)), y)


def test_concat_and_sum_of_many_branches_compute_what_they_say() -> None:
    s = Sketch(2, 4, 4)
    branches = [s.step(f"branch.{index}", Scale(index + 1.0), 0) for index in range(4)]
    total = s.step("sum", Add(), *branches)
    joined = s.step("concat", Concat(), *branches, total)
    plan = s.plan(total, joined)
    x = images(plan)
    total_y, joined_y = build(plan)(x)
    torch.testing.assert_close(total_y, 10 * x)
    torch.testing.assert_close(joined_y, torch.cat([x, 2 * x, 3 * x, 4 * x, 10 * x], 1))


def test_vectors_and_maps_can_be_mixed_after_a_fully_connected_layer() -> None:
    s = Sketch(3, 4, 4)
    s.step("fc1", Linear(8))
    s.step("bn", BatchNorm())
    vector = s.step("relu", ReLU())
    s.step("spatial", PyramidPool((2,)), 0)
    s.step("fc2", Linear(6))
    map_ = s.step("conv", Conv(8, (1, 1)))
    total = s.step("sum", Add(), map_, vector)
    s.step("concat", Concat(), vector, total)
    s.step("pool", PoolTo("avg", (1, 1)))
    s.step("fc3", Linear(5))
    s.step("softmax", Softmax())
    plan = s.plan()
    net = build(plan)
    assert isinstance(net.bn, nn.BatchNorm1d)
    assert four_axes(trace_shapes(net, images(plan))) == expected_shapes(plan, 2)
    torch.testing.assert_close(net(images(plan)).sum(1), torch.ones(2))


def test_one_output_is_a_tensor_and_auxiliary_heads_make_a_tuple() -> None:
    s = Sketch(3, 4, 4)
    main = s.step("head.fc", Linear(5))
    aux = s.step("aux.fc", Linear(7), 0)
    x = images(s.plan())
    assert build(s.plan(main))(x).shape == (2, 5)
    assert [tuple(y.shape) for y in build(s.plan(main, aux))(x)] == [(2, 5), (2, 7)]


def test_option_a_takes_every_other_pixel_and_appends_zeros() -> None:
    plan = only(PadChannels(3, 2), 2, 3, 4)
    x = images(plan, 1)
    y = build(plan)(x)
    assert torch.equal(y[:, :2], x[:, :, ::2, ::2])
    assert torch.equal(y[:, 2:], torch.zeros(1, 1, 2, 2))


def test_a_region_is_sampled_at_its_bins_centres() -> None:
    size, maps = (2, 3), 50
    plan = only(RegionPool(size, maps), 2, 64, 32)
    ramp = torch.stack(torch.meshgrid(torch.arange(64.0), torch.arange(32.0), indexing="ij"))[None]  # (1, 2, 64, 32)
    y = build(plan)(torch.cat([ramp, ramp + 100]))
    assert y.shape == (2 * maps, 2, 2, 3)
    torch.testing.assert_close(y[maps:], y[:maps] + 100)  # the same boxes for each image, image by image
    rows, columns = y[:maps, 0], y[:maps, 1]
    inside = ((rows > 0) & (rows < 63) & (columns > 0) & (columns < 31)).all((1, 2))  # elsewhere zeros are mixed in
    assert inside.sum() > 30
    step = columns[inside].diff(dim=2)
    torch.testing.assert_close(step[..., 0], step[..., 1])  # evenly spaced, left to right ...
    assert (step > 0).all()
    assert (rows[inside].diff(dim=1) > 0).all()  # ... and from top to bottom
    assert len(torch.unique(columns[inside][:, 0, 0])) == inside.sum()


def test_regions_are_the_same_in_every_model_and_no_part_of_its_state() -> None:
    plan = only(RegionPool((2, 2), 3))
    first, second = build(plan), build(plan)
    assert torch.equal(first(images(plan)), second(images(plan)))
    assert not first.state_dict()


def test_pyramid_pooling_lists_each_level_s_maxima() -> None:
    plan = only(PyramidPool((2, 1)), 1, 4, 4)
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert build(plan)(x).tolist() == [[5, 7, 13, 15, 15]]


def test_copies_of_every_kind_compute_the_same() -> None:
    plan = residual_net(2)
    net, x = build(plan).eval(), images(plan)
    y = net(x)
    assert torch.equal(copy.deepcopy(net)(x), y)
    assert torch.equal(pickle.loads(pickle.dumps(net))(x), y)
    assert torch.equal(torch.fx.symbolic_trace(net)(x), y)
    other = build(plan).eval()
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(x), y)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_traced_model_computes_the_same() -> None:
    plan = residual_net(2)
    net, x = build(plan).eval(), images(plan)
    assert torch.equal(torch.jit.trace(net, x)(x), net(x))  # type: ignore[no-untyped-call]


def test_a_copy_shares_nothing_with_the_original() -> None:
    plan = residual_net()
    net, x = build(plan).eval(), images(plan)
    y, twin = net(x), copy.deepcopy(net)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(net(x), y)
    assert not twin(x).any()


def test_the_compiler_sees_one_graph() -> None:
    plan = residual_net()
    net, x = build(plan).eval(), images(plan)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), net(x))


def test_a_layer_put_in_another_s_place_is_run() -> None:
    plan = residual_net()
    net: Any = build(plan)
    net.head["1"] = nn.Linear(6, 3)
    assert net(images(plan)).shape == (2, 3)


def test_hooks_see_every_layer_once_in_reading_order() -> None:
    plan = residual_net()
    net = build(plan, device="meta")
    seen: list[str] = []
    for name, layer in net.named_modules():
        layer.register_forward_hook(lambda *_, name=name: seen.append(name))
    net(images(plan, device="meta"))
    assert seen == [*[step.path for step in plan.steps[1:] if not isinstance(step.op, Add)], ""]


def test_another_type_can_be_asked_for_at_once_or_later() -> None:
    plan = only(RegionPool((2, 2), 3))
    assert build(plan, dtype=torch.float64)(images(plan, dtype=torch.float64)).dtype == torch.float64
    plan = residual_net()
    x = images(plan, dtype=torch.float64)
    assert build(plan, dtype=torch.float64)(x).dtype == build(plan).double()(x).dtype == torch.float64


def test_a_model_can_be_moved_to_meta() -> None:
    plan = residual_net()
    assert build(plan).to("meta")(images(plan, device="meta")).shape == (2, 10)


def test_every_parameter_receives_a_gradient() -> None:
    plan = residual_net(3)
    net = build(plan)
    net(images(plan)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())


def test_overwriting_changes_no_value_and_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = residual_net(3)
    x = images(plan, dtype=torch.float64)

    def run(net: Net) -> list[Tensor]:
        y = net(x)
        return [y, *torch.autograd.grad(y.square().sum(), list(net.parameters()))]

    net = build(plan, dtype=torch.float64)
    assert all(layer.inplace for layer in net.modules() if isinstance(layer, nn.ReLU))
    monkeypatch.setattr(module_under_test, "overwrites", lambda plan: {})
    careful = build(plan, dtype=torch.float64)
    assert not any(layer.inplace for layer in careful.modules() if isinstance(layer, nn.ReLU))
    careful.load_state_dict(net.state_dict())
    for got, wanted in zip(run(net), run(careful), strict=True):
        assert torch.equal(got, wanted)


def test_nothing_is_written_over_the_image_or_another_reader_s_value() -> None:
    s = Sketch(3, 4, 4)
    s.step("relu", ReLU())
    shared = s.step("conv", Conv(3, (1, 1)))
    s.step("f", ReLU(), shared)
    s.step("add", Add(), shared, shared + 1)
    plan = s.plan()
    net, x = build(plan), images(plan)
    before = x.clone()
    y = net(x)
    assert torch.equal(x, before)
    value = net.conv(x.relu())  # type: ignore[operator]
    torch.testing.assert_close(y, value + value.relu())


def test_values_live_no_longer_than_the_plan_needs_them() -> None:
    plan = residual_net(3)
    dying, written = last_uses(plan), overwrites(plan)
    tensor_of: list[int] = []  # the step that first made the tensor which holds this step's value
    made: dict[int, weakref.ref[Tensor]] = {}
    needed: set[int] = set()

    def observe(value: Tensor) -> None:
        """Called when a step is done, before what it read last is dropped."""
        index = len(tensor_of)
        tensor_of.append(tensor_of[written[index]] if index in written else index)
        made.setdefault(tensor_of[index], weakref.ref(value))
        needed.add(index)
        assert {at for at, ref in made.items() if ref() is not None} == {tensor_of[at] for at in needed}
        needed.difference_update(dying[index])

    with torch.inference_mode():
        build(plan).eval().run(images(plan), observe)
    assert len(tensor_of) == len(plan.steps)
    assert len(made) == len(plan.steps) - len(written)


def test_weights_are_drawn_as_the_papers_do() -> None:
    s = Sketch(16, 8, 8)
    s.step("grouped", Conv(64, (3, 3), pad=(1, 1), groups=2, bias=True))
    s.step("bn", BatchNorm())
    s.step("prelu", PReLU())
    s.step("fc", Linear(50))
    torch.manual_seed(0)
    net = build(s.plan())
    state = net.state_dict()
    assert float(state["grouped.weight"].std()) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.05)
    assert float(state["fc.weight"].std()) == pytest.approx(0.01, rel=0.05)
    constants = {"grouped.bias": 0, "bn.weight": 1, "bn.bias": 0, "prelu.weight": 0.25, "fc.bias": 0}
    constants |= {"bn.running_mean": 0, "bn.running_var": 1, "bn.num_batches_tracked": 0}
    for name, value in constants.items():
        assert (state[name] == value).all(), name


def test_torch_s_seed_decides_the_weights() -> None:
    def weights() -> dict[str, Tensor]:
        torch.manual_seed(3)
        return build(residual_net()).state_dict()

    first, second = weights(), weights()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_model_on_meta_draws_nothing() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    net = build(residual_net(), device="meta")
    assert all(value.is_meta for value in net.state_dict().values())
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("row", ["train", "type", "forward", "run", "_modules", "keys", "train_", "__init__"])
def test_a_row_may_be_called_as_a_module_s_attribute(row: str) -> None:
    s = Sketch(3, 4, 4)
    s.step(f"{row}.conv", Conv(4, (1, 1)))
    s.step(f"{row}_.conv", Conv(5, (1, 1)))
    net = build(s.plan())
    assert net(images(s.plan())).shape == (2, 5, 4, 4)
    assert list(net.state_dict()) == [f"{row}_.conv.weight", f"{row}__.conv.weight"]


@pytest.mark.parametrize(("first", "second"), [("a", "a"), ("a", "a.b"), ("a.b", "a"), ("a.b", "a.b.c.d")])
def test_no_step_is_lost_where_paths_collide(first: str, second: str) -> None:
    s = Sketch(3, 4, 4)
    s.step(first, ReLU())
    s.step(second, ReLU())
    with pytest.raises(ValueError, match=r"the path `a.* belongs to two steps"):
        build(s.plan())


def test_weights_larger_than_the_machine_are_refused_before_anything_is_allocated() -> None:
    plan = only(Linear(2**28), 2**10, 4, 4)
    with pytest.raises(ResourceError) as caught:
        build(plan)
    assert re.fullmatch(
        r"the weights of `sketch` would take 17\.59 TB, this machine has [\d.]+ [GT]B", caught.value.message
    )
    assert next(build(plan, device="meta").parameters()).numel() == 2**42


@pytest.mark.parametrize("name", ["forward", "eval", "train", "state_dict", "parameters", "type", "training", "F"])
def test_a_stage_may_have_the_name_of_a_module_s_attribute(name: str) -> None:
    """The attribute gets an underscore; the model is built, trained, saved and loaded like any other."""
    plan = plan_of(f"input: 3x8x8\ntable:\n  {name}: [residual: [3x3 8]]\n  {name}_: [global avg, fc 4]\n")
    net = build(plan)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    net.train()
    before = copy.deepcopy(net.state_dict())
    net(torch.rand(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    after = net.state_dict()
    assert any(not torch.equal(before[key], after[key]) for key in before)
    net.eval()
    again = build(plan)
    again.load_state_dict(after)
    again.eval()
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(net(x), again(x))
    assert sum(p.numel() for p in net.parameters()) == count(plan).params
