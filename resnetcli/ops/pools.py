"""Pooling: over a window, to an output size, over a pyramid, over regions."""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd
from typing import TYPE_CHECKING, ClassVar, Literal

from resnetcli.frozen import frozen
from resnetcli.ops.base import (
    INDEX_BYTES,
    NO_TRAFFIC,
    WHOLE,
    Execution,
    ModuleSettings,
    Op,
    Saved,
    Shape,
    ShapeError,
    TensorSettings,
    Traffic,
    Window,
    register,
)
from resnetcli.ops.windows import no_room, read_elements, window_size

if TYPE_CHECKING:
    from torch import nn


@register
@frozen
class Pool(Op):
    """Max or mean over a sliding window."""

    kinds: ClassVar[Mapping[str, str]] = {
        "pool_in": "input elements of max and average pooling over a window",
        "avg_pool_out": "output elements of average pooling over a window",
    }
    transparent = True
    needs_map = True

    kind: Literal["max", "avg"]
    kernel: tuple[int, int]
    stride: int = 1
    pad: tuple[int, int] = (0, 0)
    ceil: bool = False
    count_pad: bool = False
    """Whether the average includes padding: the grammar's `avg(pad)`."""

    @property
    def name(self) -> str:
        """`max` or `avg`."""
        return self.kind

    @property
    def label(self) -> str:
        """`pool`."""
        return "pool"

    def out(self, x: Shape) -> Shape:
        """(c, h', w')."""
        if 2 * self.pad[0] > self.kernel[0] or 2 * self.pad[1] > self.kernel[1]:
            raise ShapeError(
                f"a pooling window of {self.kernel[0]}x{self.kernel[1]} cannot be padded by {max(self.pad)}",
                hint="padding is at most half the window",
                recovered=x,
            )
        h = window_size(x.h, self.kernel[0], self.stride, self.pad[0], ceil=self.ceil)
        w = window_size(x.w, self.kernel[1], self.stride, self.pad[1], ceil=self.ceil)
        if h < 1 or w < 1:
            raise no_room(x, self.kernel)
        return Shape(x.c, h, w, x.n)

    def counted(self, x: Shape, y: Shape) -> Mapping[str, int]:
        """Each input element; for average pooling also each output element."""
        return {"pool_in": x.elements, "avg_pool_out": y.elements if self.kind == "avg" else 0}

    def window(self, x: Shape, axis: Literal[0, 1]) -> Window:
        """`kernel` positions, the first at stride*o - pad."""
        pad = self.pad[axis]
        return Window(self.stride, (-pad,), (self.kernel[axis] - 1 - pad,))

    def saved(self, x: Shape, y: Shape, settings: TensorSettings) -> Saved:
        """The input and, for max pooling, the positions of maxima."""
        return Saved(input=True, image_bytes=INDEX_BYTES * y.elements if self.kind == "max" else 0)

    def scratch_bytes(self, x: Shape, y: Shape, settings: TensorSettings) -> int:
        """The positions of maxima, which PyTorch computes in inference too."""
        return 0 if settings.train or self.kind == "avg" else INDEX_BYTES * y.elements

    def traffic(self, x: Shape, y: Shape) -> Traffic:
        """Reads the input under its windows; writes the output and, for max pooling, the positions of maxima."""
        read = read_elements(x, y, self.kernel, self.stride, self.pad)
        return Traffic(read, y.elements, indices=y.elements if self.kind == "max" else 0, kernels=1)

    def module(self, x: Shape, settings: ModuleSettings) -> nn.Module:
        """`nn.MaxPool2d` or `nn.AvgPool2d`."""
        from torch import nn

        if self.kind == "max":
            return nn.MaxPool2d(self.kernel, self.stride, self.pad, ceil_mode=self.ceil)
        return nn.AvgPool2d(self.kernel, self.stride, self.pad, self.ceil, self.count_pad)


@register
@frozen
class PoolTo(Op):
    """Max or mean over as many windows as give the output size; `global avg` is `avg to 1x1`."""

    kinds: ClassVar[Mapping[str, str]] = {
        "adaptive_max_in": "input elements of max pooling to a size (`global max`, `max to`)",
        "adaptive_avg_in": "input elements of average pooling to a size (`global avg`, `avg to`)",
        "adaptive_avg_out": "output elements of average pooling to a size",
        "adaptive_avg_work": "input and output elements of average pooling to a size, computed in float64",
    }
    transparent = True
    needs_map = True

    kind: Literal["max", "avg"]
    size: tuple[int, int]

    @property
    def name(self) -> str:
        """`max` or `avg`."""
        return self.kind

    @property
    def label(self) -> str:
        """`pool`."""
        return "pool"

    def out(self, x: Shape) -> Shape:
        """(c, size)."""
        return Shape(x.c, self.size[0], self.size[1], x.n)

    def counted(self, x: Shape, y: Shape) -> Mapping[str, int]:
        """Each input element; for average pooling also each output element, and both together in floating point."""
        if self.kind == "max":
            return {"adaptive_max_in": x.elements}
        work = int((x.h / y.h * (x.w / y.w) + 1) * y.elements)
        return {"adaptive_avg_in": x.elements, "adaptive_avg_out": y.elements, "adaptive_avg_work": work}

    def window(self, x: Shape, axis: Literal[0, 1]) -> Window:
        """From s positions to p: output i reads floor(i*s/p) to ceil((i+1)*s/p) - 1."""
        size, parts = (x.h, x.w)[axis], self.size[axis]
        if parts == 1:
            return WHOLE
        common = gcd(size, parts)
        size, parts = size // common, parts // common
        firsts = tuple(i * size // parts for i in range(parts))
        return Window(size, firsts, tuple(-(-(i + 1) * size // parts) - 1 for i in range(parts)))

    def saved(self, x: Shape, y: Shape, settings: TensorSettings) -> Saved:
        """Max pooling: the input and the positions of maxima. Average pooling: the input, or nothing for 1x1."""
        if self.kind == "max":
            return Saved(input=True, image_bytes=INDEX_BYTES * y.elements)
        return Saved(input=self.size != (1, 1))

    def scratch_bytes(self, x: Shape, y: Shape, settings: TensorSettings) -> int:
        """The positions of maxima, which PyTorch computes in inference too."""
        return 0 if settings.train or self.kind == "avg" else INDEX_BYTES * y.elements

    def traffic(self, x: Shape, y: Shape) -> Traffic:
        """Reads the input; writes the output and, for max pooling, the positions of maxima."""
        return Traffic(x.elements, y.elements, indices=y.elements if self.kind == "max" else 0, kernels=1)

    def gpu_traffic(self, x: Shape, y: Shape, execution: Execution, *, vector: bool) -> Traffic:
        """Max pooling computes in NCHW."""
        if self.kind == "avg" or not execution.reorders(x):
            return NO_TRAFFIC
        return _max_in_nchw(x.elements, y.elements, y.elements // x.c)

    def module(self, x: Shape, settings: ModuleSettings) -> nn.Module:
        """`nn.AdaptiveMaxPool2d` or `nn.AdaptiveAvgPool2d`."""
        from torch import nn

        return (nn.AdaptiveMaxPool2d if self.kind == "max" else nn.AdaptiveAvgPool2d)(self.size)


def _max_in_nchw(x: int, y: int, places: int) -> Traffic:
    """Adaptive max pooling on a GPU in channels_last: the input is copied to NCHW, maxima and indices back."""
    back = Traffic(y, y, indices=y, kernels=2) if places > 1 else NO_TRAFFIC
    return Traffic(x, x, kernels=1) + back


@register
@frozen
class PyramidPool(Op):
    """Max pooling to each level's grid, concatenated to one vector (He et al. 2014, arXiv:1406.4729)."""

    word = "spp"
    kinds: ClassVar[Mapping[str, str]] = {"pyramid_in": "input elements of pyramid pooling, once per level"}
    needs_map = True
    gives_vector = True

    levels: tuple[int, ...]

    @property
    def label(self) -> str:
        """`pool`."""
        return "pool"

    def out(self, x: Shape) -> Shape:
        """(c * sum of level^2, 1, 1)."""
        return Shape(x.c * sum(level * level for level in self.levels), 1, 1, x.n)

    def counted(self, x: Shape, y: Shape) -> Mapping[str, int]:
        """Each input element, once per level."""
        return {"pyramid_in": x.elements * len(self.levels)}

    def window(self, x: Shape, axis: Literal[0, 1]) -> Window:
        """The whole feature map."""
        return WHOLE

    def saved(self, x: Shape, y: Shape, settings: TensorSettings) -> Saved:
        """The input, and the positions of maxima."""
        return Saved(input=True, image_bytes=INDEX_BYTES * y.elements)

    def scratch_bytes(self, x: Shape, y: Shape, settings: TensorSettings) -> int:
        """Each level's maxima until they are concatenated; in inference also their positions, one level at a time."""
        most = done = 0
        for level in self.levels:
            done += x.c * level * level * settings.size
            indices = 0 if settings.train else INDEX_BYTES * x.c * level * level
            most = max(most, done + indices - y.elements * settings.size)
        return max(most, done)

    def gradient_scratch_bytes(self, x: Shape, y: Shape, settings: TensorSettings) -> int:
        """One level's gradient, which is added to the sum of the others."""
        if len(self.levels) == 1:
            return 0
        return (1 if settings.adds_in_place else 2) * x.elements * settings.size

    def traffic(self, x: Shape, y: Shape) -> Traffic:
        """Each level separately, then their concatenation."""
        n, out, levels = x.elements, y.elements, len(self.levels)
        return Traffic(levels * n + out, 2 * out, indices=out, kernels=levels + 1)

    def gpu_traffic(self, x: Shape, y: Shape, execution: Execution, *, vector: bool) -> Traffic:
        """Each level is computed in NCHW and copied to a vector."""
        extra = NO_TRAFFIC
        for level in self.levels if execution.reorders(x) else ():
            part = x.c * level * level
            copied = Traffic(part, part, kernels=1) if level > 1 else NO_TRAFFIC
            extra += _max_in_nchw(x.elements, part, level * level) + copied
        return extra

    def module(self, x: Shape, settings: ModuleSettings) -> nn.Module:
        """`resnetcli.ops.modules.PyramidPoolModule`."""
        from resnetcli.ops import modules

        return modules.PyramidPoolModule(self.levels)


@register
@frozen
class RegionPool(Op):
    """A feature map of one size for each of `maps` regions of the image; every later layer runs once per region."""

    word = "roi"
    kinds: ClassVar[Mapping[str, str]] = {"roi": "output elements of region pooling"}
    needs_map = True

    size: tuple[int, int]
    maps: int

    @property
    def label(self) -> str:
        """`region pool`."""
        return "region pool"

    def out(self, x: Shape) -> Shape:
        """(c, size), `maps` times per image."""
        y = Shape(x.c, self.size[0], self.size[1], self.maps)
        if x.n != 1:
            raise ShapeError("`roi` inside a region head", hint="a model has one `roi`", recovered=y)
        return y

    def counted(self, x: Shape, y: Shape) -> Mapping[str, int]:
        """Each output element."""
        return {"roi": y.elements}

    def window(self, x: Shape, axis: Literal[0, 1]) -> Window:
        """The whole feature map."""
        return WHOLE

    def saved(self, x: Shape, y: Shape, settings: TensorSettings) -> Saved:
        """The input."""
        return Saved(input=True)

    def scratch_bytes(self, x: Shape, y: Shape, settings: TensorSettings) -> int:
        """The regions stacked along the height, before each becomes a separate feature map."""
        return y.elements * settings.size if self.maps > 1 else 0

    def gradient_scratch_bytes(self, x: Shape, y: Shape, settings: TensorSettings) -> int:
        """The gradient of the sample points, which is not used."""
        return max(2 * y.n * y.h * y.w, y.elements - x.elements) * settings.size

    def buffer_bytes(self, y: Shape, size: int) -> int:
        """The sample points of all regions, x and y."""
        return 2 * y.n * y.h * y.w * size

    def traffic(self, x: Shape, y: Shape) -> Traffic:
        """A sample reads four pixels; several regions are then copied to separate feature maps."""
        copied = y.elements if self.maps > 1 else 0
        read = min(x.elements, 4 * y.elements) + copied
        weights = 2 * y.elements // x.c
        return Traffic(read, y.elements + copied, weights=weights, kernels=2 if copied else 1)

    def module(self, x: Shape, settings: ModuleSettings) -> nn.Module:
        """`resnetcli.ops.modules.RegionPoolModule`."""
        from resnetcli.ops import modules

        return modules.RegionPoolModule(self.size, self.maps, **settings.factory)
