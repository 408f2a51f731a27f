"""`check`, `fmt` and `diff` on specs a test writes."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from tests.support.cli import run


def test_check_tells_invalid_from_unexpected(tmp_path: Path) -> None:
    good = "input: 3x32x32\ntable: {conv1: 3x3 16 /2, head: [global avg, fc 10]}\n"
    (tmp_path / "good.yaml").write_text(good)
    (tmp_path / "unmet.yaml").write_text(good + "expect: {params: 1, sizes: [16, 1]}\n")
    (tmp_path / "invalid.yaml").write_text(good.replace("3x3 16", "3x3 16 C=5"))
    (tmp_path / "flat.yaml").write_text("input: 3x32x32\ntable: {a: 3x3 8, b: 3x3 8, c: 3x3 8}\n")
    assert run(f"check {tmp_path}/good.yaml").exit_code == 0
    unmet = run(f"check {tmp_path}/unmet.yaml")
    assert unmet.exit_code == 1
    assert "expected 1 params, counted 634 (+633)" in unmet.stderr
    assert run(f"check {tmp_path}/invalid.yaml").exit_code == 2
    both = run(f"check {tmp_path}/unmet.yaml {tmp_path}/invalid.yaml {tmp_path}/good.yaml")
    assert both.exit_code == 2
    assert "good.yaml: ok" in both.stdout
    flat = run(f"check {tmp_path}/flat.yaml")
    assert flat.exit_code == 0
    assert "no stage has a stride" in flat.stderr


def test_check_warns_of_a_stage_that_lacks_the_captions_stride(tmp_path: Path) -> None:
    table = (
        "input: 3x64x64\n"
        "table: {a: 7x7 8 /2, b: [residual x 2: [3x3 8]], c: [residual x 2: [3x3 16STRIDE]], d: global avg}\n"
    )
    (tmp_path / "lacks.yaml").write_text(table.replace("STRIDE", ""))
    (tmp_path / "has.yaml").write_text(table.replace("STRIDE", " /2"))
    (tmp_path / "dilated.yaml").write_text(table.replace("STRIDE", " dil=2"))
    assert "`c` doubles the channels and keeps the size" in run(f"check {tmp_path}/lacks.yaml").stderr
    assert run(f"check {tmp_path}/has.yaml {tmp_path}/dilated.yaml").stderr == ""


def test_diff_s_exit_code_says_whether_models_differ_only_if_asked() -> None:
    assert run("diff resnet50 resnet18").exit_code == 0
    assert run("diff resnet50 resnet18 --exit-code").exit_code == 1
    assert run("diff resnet50 resnet18 --exit-code --format json").exit_code == 1
    assert run("diff resnet50 resnet50 --exit-code").exit_code == 0
    assert json.loads(run("diff resnet50 resnet50 --format json").stdout)["differs"] is False


def test_the_columns_of_a_diff_sum_to_its_total() -> None:
    *rows, total = csv.DictReader(io.StringIO(run("diff inception_v3 inception_v4 --format csv").stdout))
    for column in ("params", "macs", "activations", "memory_bytes"):
        assert sum(int(row[column]) for row in rows) == int(total[column])
        assert sum(float(row[f"{column}_share"]) for row in rows) == pytest.approx(1, abs=1e-4)


def test_fmt_keeps_comments_and_writes_the_canonical_form(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(
        "# mine\ninput: 3×32×32   # small\ntable:\n  conv1: 3x3, 16, stride 2   # stem\n"
        "  conv2:\n  - residual × 2: [3x3 16, 3x3 16]\n  - 3×3 max pool, stride 2\n  head: average pool, 10-d fc\n"
    )
    assert run(f"fmt --check {path}").exit_code == 1
    assert run(f"fmt {path}").exit_code == 0
    assert path.read_text() == (
        "# mine\ninput: 3x32x32   # small\ntable:\n  conv1: 3x3 16 /2   # stem\n"
        "  conv2:\n  - residual x 2: [3x3 16, 3x3 16]\n  - 3x3 max /2\n  head: [global avg, fc 10]\n"
    )
    assert run(f"fmt --check {path}").exit_code == 0


def test_fmt_changes_nothing_in_a_file_it_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text("input: 3x32x32\ntable: {conv1: 3x3 16 16}\n")
    before = path.read_bytes()
    assert run(f"fmt {path}").exit_code == 2
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_fmt_reads_a_cell_written_as_a_block_of_text(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text("input: 3x8x8\ntable:\n  a: |\n    3×3, 64\n  b: 1x1 4\n")
    assert run(f"fmt {path}").exit_code == 0
    assert path.read_text() == "input: 3x8x8\ntable:\n  a: 3x3 64\n  b: 1x1 4\n"
