"""Options and batches of data-parallel training, and errors as the other processes receive them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from resnetcli.errors import ResourceError, UsageError
from resnetcli.ops import Conv
from resnetcli.parallel.checks import has_unused_steps, require_parallel, split_batch
from resnetcli.parallel.failures import ProcessLost, RankError, exit_code_of, is_connection_error, short_reason
from resnetcli.plan.lower import lower
from resnetcli.plan.plan import Where
from resnetcli.recipes.deviations import deviations
from resnetcli.recipes.text import read_recipe
from resnetcli.spec.read import read
from resnetcli.spec.zoo import Zoo
from resnetcli.train.options import TrainOptions
from tests.support import tiny


def test_batch_norm_is_over_a_process_share_for_the_whole_run() -> None:
    recipe = read_recipe("resnet")
    begun = split_batch(recipe, 2, new=True)
    assert begun == replace(recipe, bn_batch=64)
    assert split_batch(begun, 1, new=False) == split_batch(begun, 2, new=False) == begun
    assert split_batch(replace(recipe, bn_batch=16), 2, new=True).bn_batch == 16
    assert "BN over" not in " ".join(deviations(begun))  # it is what the paper has


@pytest.mark.parametrize(
    ("bn_batch", "world", "new", "message", "hint"),
    [(None, 3, True, "a batch of 128 cannot be split over 3 processes", "`--batch-size 126`, or another number"),
     (None, 256, True, "a batch of 128 cannot be split over 256", "`--batch-size 256`, or another number"),
     (64, 4, True, "BatchNorm is over 64 images, but each of 4 processes has 32", "`--bn-batch 32`, or fewer"),
     (64, 4, False, "BatchNorm is over 64 images, but each of 4 processes has 32", "resume with at most 2"),
     (None, 2, False, "BatchNorm is over 128 images, but each of 2 processes has 64", "resume with at most 1")],
)  # fmt: skip
def test_a_batch_that_cannot_be_split_is_refused(
    bn_batch: int | None, world: int, new: bool, message: str, hint: str
) -> None:
    with pytest.raises(UsageError, match=message) as error:
        split_batch(replace(read_recipe("resnet"), bn_batch=bn_batch), world, new=new)
    assert error.value.hint.startswith(hint)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (TrainOptions(cuda_graph=True), "captures the step of one process"),
        (TrainOptions(device="cuda:1"), "each uses its own GPU"),
    ],
)
def test_unsupported_options_are_refused(options: TrainOptions, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        require_parallel(options, 2)
    require_parallel(TrainOptions(device="cuda"), 2)
    require_parallel(TrainOptions(device="cpu"), 2)


def test_steps_the_output_does_not_depend_on_are_found(tmp_path: Path) -> None:
    plan = lower(read(str(tiny.files(tmp_path) / "tiny.yaml"), zoo=Zoo()))
    assert not has_unused_steps(plan)
    conv = next(index for index, step in enumerate(plan.steps) if isinstance(step.op, Conv))
    more = replace(plan, steps=(*plan.steps, replace(plan.steps[conv], where=Where("aside"))))
    assert has_unused_steps(more)


@pytest.mark.parametrize(
    ("error", "code"),
    [(UsageError("x"), 2), (ResourceError("x"), 3), (ProcessLost(2, "x"), 3), (MemoryError(), 3),
     (KeyboardInterrupt(), 130),
     (SystemExit(141), 141), (ValueError("x"), 1)],
)  # fmt: skip
def test_the_other_ranks_end_with_the_exit_code_of_rank_0(error: BaseException, code: int) -> None:
    assert exit_code_of(error) == code


def test_a_reason_is_one_sentence_without_source_locations() -> None:
    where = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547]"
    text = f"{where} Connection closed by peer [127.0.0.1]:7. This is typically.\nmore"
    assert short_reason(RuntimeError(text)) == "Connection closed by peer [127.0.0.1]:7"
    assert short_reason(RuntimeError("")) == "RuntimeError"


@pytest.mark.parametrize("error", [UsageError("x", "y"), ResourceError("x", "y")])
def test_an_error_of_another_rank_keeps_its_kind_and_hint(error: UsageError | ResourceError) -> None:
    received = RankError.of(error)
    raised = received.as_error(3)
    assert type(raised) is type(error)
    assert (raised.message, raised.hint) == (f"rank 3, on {received.host}: x", "y")


def test_errors_of_the_connection_are_reported_from_others() -> None:
    assert is_connection_error(RuntimeError("[gloo] Connection closed by peer"))
    assert not is_connection_error(RuntimeError("shape mismatch"))
    assert not is_connection_error(ValueError("connection"))
