"""What a report says of a model, whatever form it is printed in."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import pytest

import resnetcli as rc
from resnetcli.bench.benchmark import Failure
from resnetcli.bench.environment import Noise
from resnetcli.errors import ResourceError, Source, SpecError, UsageError
from resnetcli.reports.measured import MEASURED as COLUMNS
from resnetcli.reports.measured import conditions, measured_sheet, measurement_warnings
from resnetcli.reports.profile import parts
from resnetcli.reports.profile_record import profile_record
from resnetcli.reports.profile_table import cost_sheet, with_times
from resnetcli.reports.verdict import judge
from resnetcli.spec.inputs import parse_image
from resnetcli.spec.read import read
from resnetcli.spec.zoo import Zoo
from resnetcli.table.sheet import to_csv, to_markdown
from tests.support.measured import MEASURED

HEAD = "input: 3x32x32\nclasses: 10\n"


@pytest.fixture
def written(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Writes a spec and gives its path."""

    def write(text: str, name: str = "net") -> str:
        path = tmp_path / f"{name}.yaml"
        path.write_text(HEAD + text)
        return str(path)

    return write


def test_a_rows_output_is_what_it_passes_on_not_what_it_computes_aside(written) -> None:  # type: ignore[no-untyped-def]
    found = rc.profile(written("table: {a: [3x3 16, aside: [1x1 99]], b: fc classes}"))
    record = profile_record(found)
    assert [stage["output"] for stage in record["stages"]] == [[16, 32, 32], [10, 1, 1]]
    assert [part.output.c for part in parts(found, "block")] == [16, 99, 10]  # the aside is an item of its own


def test_an_aside_inside_a_block_is_not_its_output(written) -> None:  # type: ignore[no-untyped-def]
    found = rc.profile(written("table: {a: [residual: [3x3 3, aside: [1x1 99]]], b: fc classes}"))
    assert [part.output.c for part in parts(found, "block")] == [3, 10]


@pytest.mark.parametrize("name", Zoo().files)
def test_every_row_says_the_shape_of_the_step_it_passes_on(name: str) -> None:
    found = rc.profile(name)
    shapes = [found.plan.steps[index].shape for index in found.plan.stages.values()]
    assert [part.output for part in parts(found, "stage")] == shapes


def test_a_block_is_an_item_of_a_row_with_its_copies_apart(written) -> None:  # type: ignore[no-untyped-def]
    text = "blocks: {b w: [3x3 w, 3x3 w]}\ntable: {a: [seq: [3x3 4, 3x3 4], b 8, residual x 2: [3x3 8], 3x3 8 x 2]}"
    names = [part.name for part in parts(rc.profile(written(text)), "block")]
    assert names == ["a.0", "a.1", "a.2.0", "a.2.1", "a.3.0", "a.3.1"]


def test_layers_are_called_what_the_grammar_calls_them(written) -> None:  # type: ignore[no-untyped-def]
    text = "table: {a: [3x3 8 C=1 /2 V, 3x3 8 dil=2, 3x3 max /2 ceil, 2x2 avg(pad)], b: [fc 10, softmax]}"
    layers = [part.layers for part in parts(rc.profile(written(text)), "layer")]
    assert layers == [
        "3x3 8 /2 V bn relu",
        "3x3 8 dil=2 bn relu",
        "3x3 max /2 ceil",
        "2x2 avg(pad)",
        "fc 10",
        "softmax",
    ]


def test_a_setting_that_changes_nothing_is_refused(written) -> None:  # type: ignore[no-untyped-def]
    path = written("let: {w: 8, n: 2, unused: 3, m: 2*w}\ntable: {a: [residual x n: [3x3 m, 3x3 m]], b: fc 10}")
    assert rc.profile(path, w=16, n=3).plan.settings == {"w": 16, "n": 3}
    with pytest.raises(UsageError, match="depends on `unused`"):
        rc.profile(path, unused=4)
    with pytest.raises(UsageError, match="depends on `classes`"):
        rc.profile(path, classes=100)


def test_a_baseline_is_the_model_of_exactly_that_label() -> None:
    small = ("resnext50_32x4d", {"C": 8, "d": 14})
    found = rc.compare(small, "resnext50_32x4d", baseline="resnext50_32x4d")
    assert found.baseline is not None
    assert found.baseline.label == "resnext50_32x4d"
    only = rc.compare(small, "resnet50", baseline="resnext50_32x4d").baseline
    assert only is not None
    assert only.label == "resnext50_32x4d C=8 d=14"


def test_a_frame_holds_exact_integers_by_model() -> None:
    frame = rc.compare("resnet50", "resnext50_32x4d").to_frame()
    assert frame.loc["resnet50", "macs"] == 4089184256
    assert list(frame.index) == ["resnet50", "resnext50_32x4d"]


def test_a_path_object_names_a_file(written) -> None:  # type: ignore[no-untyped-def]
    path = Path(written("table: {a: fc classes}"))
    assert rc.load(path) == rc.load(str(path))


@pytest.mark.parametrize(
    ("printed", "counted", "verdict"),
    [
        ("25.5M", 25_557_032, "truncates"),
        ("25.6M", 25_557_032, "rounds"),
        ("3.8G", 3_857_973_248, "truncates"),
        ("7.6G", 7_570_194_432, "rounds"),
        ("15G", 15_460_270_080, "rounds"),
        ("7.8G", 7_969_996_800, "differs"),
        ("0.27M", 269_722, "rounds"),
        ("19.4M", 19_421_274, "rounds"),
        ("25.7M", 25_557_032, "differs"),
    ],
)
def test_a_published_figure_rounds_or_truncates_or_differs(written, printed, counted, verdict) -> None:  # type: ignore[no-untyped-def]
    path = written(f"table: {{a: fc classes}}\npublished: [{{macs: {printed}, source: s, table: t}}]")
    (figure,) = (entry.published for entry in rc.profile(path).judged)
    assert judge(figure, counted) == verdict


def test_what_a_spec_calls_itself_cannot_command_the_terminal(written) -> None:  # type: ignore[no-untyped-def]
    found = rc.profile(written('name: "\\e[31mred\\a"\ntable: {a: fc classes}'))
    assert found.spec.title.isprintable()


def test_an_image_written_height_first_is_refused() -> None:
    assert parse_image("224x224x3") is None
    assert parse_image("3x224x224") is not None
    assert parse_image("192x28x28") is not None
    assert parse_image("4x4x4") is not None
    assert parse_image("480x640x3") is None
    assert parse_image("640x480x4") is None
    assert parse_image("512x16x4") is not None
    assert parse_image("64x1000x1") is not None


def test_the_hint_for_an_image_written_height_first_is_its_size() -> None:
    with pytest.raises(UsageError) as shown:
        rc.load("resnet50", input="480x640x3")
    assert shown.value.hint == "`--input 3x480x640`"
    with pytest.raises(SpecError, match="for example `input: 3x480x640`"):
        read(Source("net.yaml", "input: 480x640x3\nclasses: 10\ntable: {a: fc classes}"), zoo=Zoo())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("table: {a: 3x3 64/2}", "reads like channels and a stride"),
        ("table: {a: [residual 3: [3x3 3]]}", "not a scale"),
        ("table: {a: [residual x3: [3x3 3]]}", "residual x 3"),
        ("table: {total: 3x3 3}", "`total` cannot be a stage name"),
        ("extends: /etc/hostname\ntable: {a: 3x3 3}", "`extends` takes a spec"),
        ("blocks: {b: [b]}\ntable: {a: 3x3 3}", "block `b` calls itself"),
        ("blocks: {b: [c], c: [b]}\ntable: {a: 3x3 3}", "calls itself"),
        ("blocks: {b w: [nope w]}\ntable: {a: 3x3 3}", "unknown word `nope`"),
        ("table: {a: avg}", "`avg` needs a window"),
    ],
)
def test_a_likely_slip_is_an_error(written, text: str, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SpecError) as caught:
        rc.load(written(text))
    assert message in str(caught.value)


def test_a_name_a_child_adds_stands_above_the_entry_it_replaces_next(written) -> None:  # type: ignore[no-untyped-def]
    parent = written("let: {C: 32, d: 4, D: C*d, E: 2*D}\ntable: {a: [3x3 D, 3x3 E]}", "parent")
    child = Path(parent).with_name("child.yaml")
    child.write_text("extends: ./parent.yaml\nlet: {w: 3, D: C*w, k: 2}\n")
    assert [step.shape.c for step in rc.load(str(child)).steps if step.path.endswith("conv")] == [96, 192]


def test_an_auxiliary_head_hangs_from_a_row_that_is_left_whatever_the_order_of_keys(written) -> None:  # type: ignore[no-untyped-def]
    written("table: {a: 3x3 3, b: fc classes}", "parent")
    for text in ("aux: {a: fc 5}\ntable: {a: null}\n", "table: {a: null}\naux: {a: fc 5}\n"):
        path = Path(written("", "parent")).with_name("child.yaml")
        written("table: {a: 3x3 3, b: fc classes}", "parent")
        path.write_text("extends: ./parent.yaml\n" + text)
        with pytest.raises(SpecError, match="names an unknown stage `a`"):
            rc.load(str(path))


def test_a_csv_carries_every_measurement_in_a_line_with_the_total() -> None:
    noisy = dataclasses.replace(MEASURED, batch=8, noisy=(Noise("others", 0.8),))
    sheet = with_times(cost_sheet(rc.profile("resnet18"), "stage"), (MEASURED, noisy))
    lines = list(csv.DictReader(to_csv(sheet).splitlines()))
    first, second = lines[-2:]
    assert [line["stage"] for line in lines].count("total") == 2
    shown = [first[key] for key in ("stage", "device", "median_s", "peak_memory_bytes")]
    assert shown == ["total", "cpu", "0.1", ""]
    assert (first["batch"], first["noisy"], second["batch"], second["noisy"]) == ("2", "", "8", "noisy")
    assert first["params"] == second["params"] == "11689512"
    assert {line["median_s"] for line in lines[:-2]} == {""}


def test_without_a_measurement_a_csv_ends_in_one_total() -> None:
    sheet = cost_sheet(rc.profile("resnet18"), "stage")
    assert with_times(sheet, ()) == sheet


def test_a_sweep_names_the_batch_in_the_column_that_every_part_of_a_narrow_table_has() -> None:
    one, two = (dataclasses.replace(MEASURED, batch=batch) for batch in (1, 8))
    assert [row[0].text for row in measured_sheet((one, two)).rows] == ["cpu fp32, batch 1", "cpu fp32, batch 8"]
    assert measured_sheet((one,)).rows[0][0].text == "cpu fp32"


def test_an_interval_is_shown_as_half_its_width_with_a_mark_where_the_model_was_not_steady() -> None:
    (half,) = (each for each in COLUMNS if each.head == "±")
    assert half.cell(MEASURED).text == "20.0%*"
    steady = dataclasses.replace(MEASURED, warmup_settled=True)
    assert half.cell(steady).text == "20.0%"
    assert half.of(steady) == pytest.approx(0.2)
    note = "*: warm-up did not converge"
    assert note in measurement_warnings([MEASURED])
    assert note not in measurement_warnings([steady])


def test_warnings_name_the_model_whose_outputs_deviate() -> None:
    right = dataclasses.replace(MEASURED, tolerance=1e-3, deviation_outputs=1e-6, deviation_maps=None)
    wrong = dataclasses.replace(right, batch=8, deviation_outputs=0.5)
    line = "at batch 8 its outputs deviate by 0.5, more than 0.001"
    assert line in measurement_warnings([right, wrong])
    found = measurement_warnings([right, wrong, wrong], models=["resnet18", "resnet34", "resnet50"])
    assert [each for each in found if "deviate" in each] == [f"resnet34: {line}", f"resnet50: {line}"]


def test_an_interval_is_in_every_format() -> None:
    sheet = measured_sheet([MEASURED])
    assert "20.0%*" in to_markdown(sheet)
    (line,) = csv.DictReader(to_csv(sheet).splitlines())
    assert float(line["half_interval"]) == pytest.approx(0.2)


def test_why_no_more_samples_were_taken_is_reported() -> None:
    precise = dataclasses.replace(MEASURED, stopped="precise")
    assert "the time budget ended before the median's 95% CI was within 1%" in conditions([MEASURED])[0]
    both = conditions([MEASURED, precise])
    assert "the time budget ended before 1 of 2 medians' 95% CIs were within 1%" in both[0]
    assert "every median's 95% CI is within 1%" in conditions([precise, precise])[0]


def test_a_record_with_a_measurement_is_json() -> None:
    record = profile_record(dataclasses.replace(rc.profile("resnet18"), measurements=(MEASURED,)))
    assert json.loads(json.dumps(record))["latency"]["samples_s"] == [0.08, 0.1, 0.13]
    assert record["measurements"][0] == record["latency"]


@pytest.mark.parametrize(
    ("message", "batch", "problem"),
    [
        ("`net` with a batch of 16 does not fit", 16, "`net` with a batch of 16 does not fit"),
        ("`net` with a batch of 16 does not fit", 1, "`net` with a batch of 16 does not fit, at batch 1"),
        ("a batch of 1,600 does not fit", 1, "a batch of 1,600 does not fit, at batch 1"),
        ("nothing at batch 8: no", 8, "nothing at batch 8: no"),
        ("nothing at batch 8: no", 80, "nothing at batch 8: no, at batch 80"),
        ("`at batch 8.py:Net` fails", 8, "`at batch 8.py:Net` fails, at batch 8"),
    ],
)
def test_a_failure_names_its_batch(message: str, batch: int, problem: str) -> None:
    assert Failure.of("cpu", batch, ResourceError(message)).problem == problem
