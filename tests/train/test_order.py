"""What is random: functions of seed, epoch and sample, the same everywhere and evenly spread."""

from __future__ import annotations

import pytest
import torch

from resnetcli.train import order

MASK = 2**64 - 1


def splitmix64(state: int, n: int) -> list[int]:
    """The generator as its authors publish it, with Python's whole numbers."""
    found = []
    for _ in range(n):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        found.append(z ^ (z >> 31))
    return found


@pytest.mark.parametrize("key", [0, 1, 2**63, 2**64 - 1, 1234567])
def test_bits_are_splitmix64s_sequence(key: int) -> None:
    assert [x % 2**64 for x in order.bits(key, 100).tolist()] == splitmix64(key, 100)


def test_the_first_numbers_of_splitmix64_are_those_known_of_it() -> None:
    assert [x % 2**64 for x in order.bits(1234567, 3).tolist()] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_an_epoch_has_every_sample_once() -> None:
    for n in (1, 2, 1000):
        assert sorted(order.epoch_order(7, 3, n).tolist()) == list(range(n))


def test_orders_differ_between_seeds_and_epochs_and_are_always_the_same() -> None:
    orders = {tuple(order.epoch_order(seed, epoch, 100).tolist()) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25
    assert order.epoch_order(0, 0, 8).tolist() == order.epoch_order(0, 0, 8).tolist()


def test_every_place_of_an_order_is_as_likely_for_every_sample() -> None:
    counts = torch.zeros(10, 10)
    for epoch in range(2000):
        counts[torch.arange(10), order.epoch_order(0, epoch, 10)] += 1
    chi2 = ((counts - 200) ** 2 / 200).sum().item()
    assert 40 < chi2 < 140  # 81 degrees of freedom: mean 81, standard deviation 12.7


def test_all_81_crops_and_both_flips_are_as_likely() -> None:
    top, left, mirrored = order.crops(0, 0, 162_000, 9, True)
    counts = torch.bincount(top * 18 + left * 2 + mirrored, minlength=162).double()
    assert len(counts) == 162
    chi2 = ((counts - 1000) ** 2 / 1000).sum().item()
    assert 90 < chi2 < 240  # 161 degrees of freedom: mean 161, standard deviation 17.9


def test_crops_of_a_sample_differ_from_epoch_to_epoch() -> None:
    seen = {tuple(order.crops(0, epoch, 1, 9, True)[:, 0].tolist()) for epoch in range(400)}
    assert len(seen) > 130  # of 162, of which about 148 are met in 400 draws


def test_without_flips_nothing_is_mirrored_and_without_padding_nothing_is_moved() -> None:
    assert not order.crops(0, 0, 1000, 9, False)[2].any()
    assert not order.crops(0, 0, 1000, 1, True)[:2].any()


def test_a_samples_crop_does_not_depend_on_its_place_in_the_order() -> None:
    index, *rest = order.sample_order(3, 5, 500, 9, True)
    assert torch.equal(torch.stack(rest), order.crops(3, 5, 500, 9, True)[:, index])
    assert torch.equal(index, order.epoch_order(3, 5, 500))


def test_streams_for_different_purposes_differ() -> None:
    keys = {order.key(seed, purpose, n) for seed in range(20) for purpose in range(1, 6) for n in range(20)}
    assert len(keys) == 20 * 5 * 20


def test_a_split_has_every_image_on_one_side() -> None:
    kept, rest = order.split_indices(50, 45)
    assert (len(kept), len(rest)) == (45, 5)
    assert sorted(kept.tolist() + rest.tolist()) == list(range(50))
    assert kept.tolist() == sorted(kept.tolist())
    assert rest.tolist() != list(range(45, 50))


@pytest.mark.gpu
@pytest.mark.values
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_draws_the_same() -> None:
    assert torch.equal(order.sample_order(1, 2, 5000, 9, True), order.sample_order(1, 2, 5000, 9, True, "cuda").cpu())
