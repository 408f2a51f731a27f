"""Batches as they are cut on the device, against images augmented one by one as the papers describe it."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from resnetcli.errors import UsageError
from resnetcli.recipes.recipe import Augmentation
from resnetcli.train import order
from resnetcli.train.augment import Images, Normalisation, normalisation

CPU = torch.device("cpu")
Kind = Literal["pixel-mean", "mean-std"]
KINDS: tuple[Kind, ...] = ("pixel-mean", "mean-std")


def noise(n: int = 20, size: tuple[int, int] = (32, 32), channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(n).integers(0, 256, (n, channels, *size), dtype=np.uint8)


def one_by_one(
    images: NDArray[np.uint8], normalise: Normalisation, how: Augmentation, crops: torch.Tensor
) -> NDArray[np.float32]:
    """Each image for itself: subtract, scale, pad, crop, flip, in that order."""
    mean, scale = normalise.mean.numpy(), normalise.scale.numpy()
    found = []
    _, _, h, w = images.shape
    for index, top, left, mirrored in crops.T.tolist():
        image = (images[index].astype(np.float32) - mean) * scale
        mode: Literal["constant", "reflect"] = "reflect" if how.mode == "reflect" else "constant"
        image = np.pad(image, ((0, 0), (how.pad, how.pad), (how.pad, how.pad)), mode=mode)
        image = image[:, top : top + h, left : left + w]
        found.append(image[:, :, ::-1] if mirrored else image)
    return np.stack(found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "how",
    [
        Augmentation(),
        Augmentation(mode="reflect"),
        Augmentation(pad=0),
        Augmentation(pad=2, flip=False),
    ],
)
@pytest.mark.parametrize("size", [(32, 32), (12, 9)])
def test_a_batch_is_bit_for_bit_what_augmenting_each_image_gives(
    kind: Kind, how: Augmentation, size: tuple[int, int]
) -> None:
    images = noise(size=size)
    normalise = normalisation(images, kind)
    on_device = Images(images, normalise, how, CPU)
    for epoch in range(5):
        crops = order.sample_order(1, epoch, len(images), on_device.places, how.flip)
        batch = on_device.batch(crops)
        assert batch.dtype == torch.float32
        assert np.array_equal(batch.numpy(), one_by_one(images, normalise, how, crops))


def test_the_four_corners_are_among_the_81_crops() -> None:
    images = noise(1)
    normalise = normalisation(noise(), "pixel-mean")
    on_device = Images(images, normalise, Augmentation(), CPU)
    assert on_device.places**2 == 81
    crops = torch.tensor([[0, 0, 0, 0], [0, 0, 8, 8], [0, 8, 0, 8], [0, 0, 0, 0]])
    corners = on_device.batch(crops)
    plain = normalise(torch.from_numpy(images))[0]
    for corner, (rows, columns), (from_rows, from_columns) in zip(
        corners,
        [(slice(4, 32), slice(4, 32)), (slice(4, 32), slice(0, 28)), (slice(0, 28), slice(4, 32)),
         (slice(0, 28), slice(0, 28))],
        [(slice(0, 28), slice(0, 28)), (slice(0, 28), slice(4, 32)), (slice(4, 32), slice(0, 28)),
         (slice(4, 32), slice(4, 32))],
        strict=True,
    ):  # fmt: skip
        assert torch.equal(corner[:, rows, columns], plain[:, from_rows, from_columns])
        outside = torch.ones(32, 32, dtype=torch.bool)
        outside[rows, columns] = False
        assert not corner[:, outside].any()  # the mean image, which is what zeros after subtracting it are


def test_images_that_are_not_augmented_are_the_images() -> None:
    images = noise()
    assert np.array_equal(Images(images, normalisation(images, "pixel-mean"), Augmentation(), CPU).plain, images)


def test_the_mean_of_every_pixel_is_subtracted() -> None:
    images = noise(1000, (4, 4))
    found = normalisation(images, "pixel-mean")
    assert np.array_equal(found.mean.numpy(), images.astype(np.float64).mean(0).astype(np.float32))
    assert found.scale.tolist() == [[[np.float32(1 / 255)]]] * 3
    assert found(torch.from_numpy(images)).mean(0).abs().max().item() < 1e-6


def test_channels_come_to_mean_0_and_standard_deviation_1() -> None:
    images = (noise(3000, (4, 4)) // np.array([1, 2, 5])[:, None, None]).astype(np.uint8)
    found = normalisation(images, "mean-std")
    exact = images.astype(np.float64)
    assert np.array_equal(found.mean.numpy()[:, 0, 0], exact.mean((0, 2, 3)).astype(np.float32))
    assert np.allclose(found.scale.numpy()[:, 0, 0], 1 / exact.std((0, 2, 3)), rtol=1e-6, atol=0)
    x = found(torch.from_numpy(images)).double()
    assert x.mean((0, 2, 3)).abs().max().item() < 1e-5
    assert (x.std((0, 2, 3), correction=0) - 1).abs().max().item() < 1e-5


def test_a_channel_of_one_value_is_left_at_0_and_not_divided_by_0() -> None:
    images = noise()
    images[:, 1] = 77
    assert not normalisation(images, "mean-std")(torch.from_numpy(images))[:, 1].any()


def test_images_that_cannot_be_written_to_are_read_without_a_warning() -> None:
    images = noise()
    images.flags.writeable = False
    Images(images, normalisation(images, "mean-std"), Augmentation(), CPU)


def test_an_image_smaller_than_its_reflection_is_refused() -> None:
    images = noise(size=(4, 32))
    with pytest.raises(UsageError, match="too small for reflection padding of 4 pixels"):
        Images(images, normalisation(images, "mean-std"), Augmentation(mode="reflect"), CPU)
    Images(images, normalisation(images, "mean-std"), Augmentation(), CPU)  # zeros can be any number
