"""Plans built step by step, for tests of code that reads plans."""

from __future__ import annotations

from dataclasses import dataclass, field

from resnetcli.ops import Add, BatchNorm, Concat, Conv, Input, Linear, Op, PoolTo, ReLU, Shape
from resnetcli.plan.plan import Plan, Step, Where


@dataclass
class Sketch:
    """A builder of a plan with input c x h x w."""

    c: int
    h: int
    w: int
    steps: list[Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        shape = Shape(self.c, self.h, self.w)
        self.steps.append(Step(Where("input"), Input(shape), (), shape))

    def step(self, path: str, op: Op, *inputs: int) -> int:
        """Append a step and return its index. Its input is the previous step unless `inputs` are given."""
        inputs = inputs or (len(self.steps) - 1,)
        shapes = tuple(self.steps[index].shape for index in inputs)
        shape = op.join(shapes) if isinstance(op, Add | Concat) else op.out(shapes[0])
        self.steps.append(Step(Where(path), op, inputs, shape))
        return len(self.steps) - 1

    def plan(self, *outputs: int) -> Plan:
        """The plan; its output is the last step unless `outputs` are given."""
        last = len(self.steps) - 1
        return Plan("sketch", "Sketch", tuple(self.steps), {"all": last}, outputs or (last,), {})


def residual_net(blocks: int = 1, *, width: int = 4) -> Plan:
    """3 x 8 x 8 -> conv bn relu -> residual blocks relu(x + F), the first with a stride and a projection -> fc 10."""
    s = Sketch(3, 8, 8)
    s.step("conv1.conv", Conv(width, (3, 3), pad=(1, 1)))
    s.step("conv1.bn", BatchNorm())
    x = s.step("conv1.relu", ReLU())
    for block in range(blocks):
        path, stride = f"conv2_x.{block}", 1 if block else 2
        s.step(f"{path}.F.0.conv", Conv(3 * width // 2, (3, 3), stride, (1, 1)), x)
        s.step(f"{path}.F.0.bn", BatchNorm())
        s.step(f"{path}.F.0.relu", ReLU())
        s.step(f"{path}.F.1.conv", Conv(3 * width // 2, (3, 3), pad=(1, 1), groups=2))
        f = s.step(f"{path}.F.1.bn", BatchNorm())
        if not block:
            s.step(f"{path}.shortcut.conv", Conv(3 * width // 2, (1, 1), stride), x)
            x = s.step(f"{path}.shortcut.bn", BatchNorm())
        s.step(f"{path}.add", Add(), f, x)
        x = s.step(f"{path}.relu", ReLU())
    s.step("head.0", PoolTo("avg", (1, 1)))
    s.step("head.1", Linear(10))
    return s.plan()
