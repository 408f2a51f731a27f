"""The largest batch that fits in a memory, and its report."""

from __future__ import annotations

import pytest

from resnetcli.errors import UsageError
from resnetcli.quantities import parse_bytes, parse_count
from resnetcli.reports.max_batch import max_batch, max_batch_heading, max_batch_notes, max_batch_record


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GB", 8 * 10**9), ("8 gb", 8 * 10**9), ("8G", 8 * 10**9), ("1.5GiB", 3 * 2**29), ("24Gi", 24 * 2**30),
     ("512kB", 512_000), ("1000", 1000), ("1000B", 1000), ("0.5KiB", 512)],
)  # fmt: skip
def test_memory_is_read_with_decimal_and_binary_units(text: str, size: int) -> None:
    assert parse_bytes(text, "memory") == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "GB",
        "-1GB",
        "8XB",
        "8GBB",
        "0",
        "0.1",
        "1e9",
        "inf",
        "nan",
        "\uff18GB",
        "1_000",
        "8Gi B",
        "9" * 40,
        "8\nGB\n8",
    ],
)
def test_what_is_no_amount_of_memory_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^error: memory: `[^\n]*` is .*\nhint: an amount of memory such as 8GB"):
        parse_bytes(text, "memory")


@pytest.mark.parametrize(("text", "number"), [("26M", 26_000_000), ("4.2G", 4_200_000_000), ("25557032", 25_557_032)])
def test_counts_are_read_with_decimal_units(text: str, number: int) -> None:
    assert parse_count(text, "--max-params") == number


@pytest.mark.parametrize("text", ["26MB", "26MiB", "26Mi", "-1", "0", "x", "1.5", "1.2345k"])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_count(text, "--max-params")


@pytest.mark.parametrize("mode", ["infer", "train"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("available", ["1MB", "300MB", "8GB"])
def test_the_parts_sum_to_the_peak_and_the_batch_is_the_largest(mode: str, optimizer: str, available: str) -> None:
    found = max_batch("resnet18", available, mode=mode, optimizer=optimizer if mode == "train" else None)
    assert sum(found.breakdown().values()) == found.peak_bytes
    if found.batch:
        assert found.peak_bytes <= found.available < found.memory.bytes(found.batch + 1)
    else:
        assert found.available < found.peak_bytes
        assert found.shown_batch == 1


def test_training_takes_more_than_inference_and_half_the_bytes_less() -> None:
    batches = [
        max_batch("resnet50", "8GB", mode=mode, dtype=dtype).batch
        for mode, dtype in (("train", "fp32"), ("train", "bf16"), ("infer", "fp32"), ("infer", "fp16"))
    ]
    assert batches == sorted(batches)
    assert 1.9 < batches[1] / batches[0] < 2.1


def test_a_large_optimizer_s_state_sets_the_peak_of_a_small_batch() -> None:
    one = max_batch("vgg16", "8GB", mode="train", optimizer="adam").memory.bytes(1)
    found = max_batch("vgg16", one, mode="train", optimizer="adam")
    assert found.batch == 1
    assert (found.peak_step, found.peak.phase) == ("optimizer", "update")
    assert "peak in the optimizer's update" in "\n".join(max_batch_notes(found))


def test_settings_input_and_auxiliary_heads_count() -> None:
    wide = max_batch("cifar_resnet", "1GB", {"depth": 110})
    assert wide.plan.parameters["depth"] == 110
    assert max_batch("resnet18", "1GB", input="3x448x448").batch < max_batch("resnet18", "1GB").batch / 3
    without, with_them = (max_batch("googlenet", "1GB", mode="train", aux=aux) for aux in (False, True))
    assert with_them.batch < without.batch
    assert "without auxiliary classifiers (--aux)" in max_batch_notes(without)
    assert "without auxiliary classifiers (--aux)" not in max_batch_notes(with_them)


def test_too_small_a_memory_is_reported() -> None:
    found = max_batch("resnet50", "10MB")
    assert max_batch_heading(found)[-1].endswith("fp32: 0 (a single image does not fit)")
    assert any(line.endswith(" MB too much") for line in max_batch_notes(found))
    assert max_batch_record(found)["batch"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [({"mode": "fit"}, "unknown mode `fit`"), ({"dtype": "fp8"}, "unknown dtype `fp8`"),
     ({"mode": "train", "optimizer": "adamw"}, "did you mean `adam`"),
     ({"optimizer": "adam"}, "`--optimizer` requires `--mode train`")],
)  # fmt: skip
def test_what_there_is_not_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        max_batch("resnet18", "8GB", **options)  # type: ignore[arg-type]
