from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Any

import pytest

import resnetcli as rc
from resnetcli.ops import Conv, Linear, Pool, ReLU
from resnetcli.roofline.analysis import Explanation, TimeDifference, explain, lower_bounds
from resnetcli.roofline.estimate import estimate_notes
from resnetcli.roofline.explain_record import explain_record
from resnetcli.roofline.explain_table import difference_lines, explain_heading, suggestions_sheet
from resnetcli.roofline.layers import LayerTimes
from resnetcli.roofline.peaks import Peak
from resnetcli.roofline.peaks_table import noisy_lines, noisy_warning, peaks_heading
from resnetcli.roofline.plot import roofline_svg
from resnetcli.roofline.profiles import read_profile
from resnetcli.roofline.suggestions import Suggestion
from resnetcli.roofline.summary import describe_explanation
from tests.support.measured import measured
from tests.support.roofline import NOISE, ROUND, FakeMeasurement, explained, one_convolution
from tests.support.sketch import Sketch


def test_a_ratio_to_zero_is_none() -> None:
    s = Sketch(4, 8, 8)
    s.step("max", Pool("max", (2, 2), 2))
    pool, net = explained(s.plan(), None), explained(one_convolution(), None)
    found = TimeDifference(net, pool)
    assert [found.ratio_of(name) for name in ("macs", "activations", "kernels")] == [None, None, 1.0]
    assert TimeDifference(pool, pool).ratio_of("macs") == 1.0
    none = "(the other model has none)"
    assert f"with MACs {none}" in describe_explanation(net, found)
    assert f"work: MACs {none}, activations {none}" in difference_lines(found)[1]


def test_the_summary_names_the_largest_cause() -> None:
    assert "its lower bound is 501.0 ms; 50.0% of the time is compute." in describe_explanation(
        explained(one_convolution(), 1.0)
    )
    assert "neither compute nor memory traffic" in describe_explanation(explained(one_convolution(), 9.0))
    assert "device peaks are too low" in describe_explanation(explained(one_convolution(), 0.1))
    assert "takes at least 501.0 ms" in describe_explanation(explained(one_convolution(), None))
    assert any("lower bound: eager 501.0 ms" in line for line in explain_heading(explained(one_convolution(), 1.0)))


def test_the_summary_of_two_models_names_memory_traffic() -> None:
    net, other = lower_bounds([(name, name, rc.load(name)) for name in ("resnext50_32x4d", "resnet50")],
                        read_profile("rtx4090"), dtype="fp16", batch_size=512)  # fmt: skip
    summary = describe_explanation(net, TimeDifference(net, other))
    assert "18.8% above that of resnet50, with 3.5% more MACs and 24.4% more bytes moved" in summary
    assert "memory traffic explains all of it" in summary


@pytest.mark.parametrize(
    ("peak", "text"),
    [(1e6, "a lower bound 50.0% above that of"), (3e6, "a lower bound 50.0% below that of"),
     (5e5, "a lower bound 3 x that of"), (1.5e6, "the lower bound of")],
)  # fmt: skip
def test_the_summary_of_lower_bounds_says_above_below_and_how_many_times(peak: float, text: str) -> None:
    def net(peak: float) -> Explanation:
        return explained(one_convolution(), None, replace(ROUND, peaks={"fp32": Peak(peak, peak)}, gap_s=0, launch_s=0))

    words = f"Net has {text} Net, with the same MACs and the same bytes moved"
    assert describe_explanation(net(peak), TimeDifference(net(peak), net(1.5e6))).startswith(words)


def test_the_summary_names_the_kind_of_step_that_differs_most_whichever_model_is_slower() -> None:
    """Twice the convolution of the other model, with 9 s unexplained; ReLU takes 0.1 s in both."""

    def net(width: int, seconds: float) -> Explanation:
        s = Sketch(100, 10, 10)
        s.step("conv", Conv(width, (1, 1)))
        s.step("relu", ReLU())
        s.step("fc", Linear(1))
        times = (0.0, seconds, 0.1, 0.1)
        title = "Slow" if seconds > 5 else "Fast"
        m: Any = FakeMeasurement(sum(times), (sum(times), sum(times)))
        return explain("net", s.plan(), title, ROUND, measurement=m, layer_times=LayerTimes(times, sum(times), 5))

    slow, fast = net(100, 10.0), net(50, 0.6)
    culprit = "unexplained, most of it in conv 1x1, whose lower bound is 10.0% of its time in Slow."
    assert describe_explanation(slow, TimeDifference(slow, fast)).endswith(culprit)
    assert describe_explanation(fast, TimeDifference(fast, slow)).endswith(culprit)


def test_the_record_says_which_runs_were_noisy() -> None:
    reasons = ["other programs used 40% of the CPU time"]
    noisy = explain("net", one_convolution(), "Net", ROUND, measurement=measured(1.0, noisy=NOISE))
    quiet = replace(noisy, measurement=measured(1.0))
    tried = Suggestion("--fold-bn", noisy.eager, "", measurement=noisy.measurement)
    record = explain_record(quiet, TimeDifference(quiet, noisy), (tried, replace(tried, measurement=None)), "summary")
    assert (record["noisy"], record["vs"]["noisy"]) == ([], reasons)
    assert [each["noisy"] for each in record["suggestions"]] == [reasons, []]
    assert explain_record(explained(one_convolution(), None), None, (), "summary")["noisy"] == []


def test_tables_say_which_runs_were_noisy() -> None:
    noisy = FakeMeasurement(1.0, (1.0, 1.0), noisy=NOISE)
    found = replace(explained(one_convolution(), 1.0), measurement=noisy)  # type: ignore[arg-type]
    line = f"noisy, measure net again on a quiet machine: {NOISE[0].text}"
    assert explain_heading(found)[-1] == line
    quiet = explained(one_convolution(), 1.0)
    assert not any("noisy" in text for text in explain_heading(quiet))
    assert difference_lines(TimeDifference(quiet, found))[-1] == line
    tried = Suggestion("--fold-bn", found.eager, "", measurement=noisy)  # type: ignore[arg-type]
    sheet = suggestions_sheet(found, [tried])
    assert sheet.rows[0][[column.key for column in sheet.columns].index("noisy")].text == "noisy"


def test_the_summary_says_that_the_run_was_noisy() -> None:
    quiet = explained(one_convolution(), 1.0)
    noisy = replace(quiet, measurement=FakeMeasurement(1.0, (1.0, 1.0), noisy=NOISE))  # type: ignore[arg-type]
    assert describe_explanation(noisy) == f"On a noisy run, {describe_explanation(quiet)}"
    calm = describe_explanation(quiet, TimeDifference(quiet, quiet))
    assert calm.startswith("Net takes")
    for net, other in ((noisy, quiet), (quiet, noisy)):
        assert describe_explanation(net, TimeDifference(net, other)) == f"On a noisy run, {calm}"


def test_peaks_of_a_busy_machine_are_reported_where_they_are_shown_and_used() -> None:
    busy = replace(ROUND, noisy=("other programs used 80% of the CPU time", "the host took 3%\x1b[2J"))
    reasons = "other programs used 80% of the CPU time; the host took 3%\ufffd[2J"
    assert noisy_lines(busy) == [f"noisy, calibrate again on a quiet machine: {reasons}"]
    warning = (
        f"the device peaks were measured on a busy machine ({reasons}); run `resnet-cli calibrate` when it is quiet"
    )
    assert noisy_warning(busy) == [warning]
    assert "`resnet-cli calibrate --device cuda`" in noisy_warning(replace(busy, device="cuda"))[0]
    found = explained(one_convolution(), None, busy)
    assert warning in explain_heading(found)
    quiet = explained(one_convolution(), None)
    notes = estimate_notes((quiet,), None)
    assert noisy_lines(ROUND) == noisy_warning(ROUND) == []
    assert not any("busy" in line for line in (*explain_heading(quiet), *notes))


def test_control_characters_of_a_profile_reach_neither_terminal_nor_plot() -> None:
    evil = replace(ROUND, name="\x1b[2J\x00" + "x" * 999, conditions={"datasheet": "a\nb\x1b[31m", "measured": "\x07"})
    found = explained(one_convolution(), None, evil)
    ET.fromstring(roofline_svg(found))
    for line in (*explain_heading(found), *peaks_heading(evil)):
        assert line.isprintable()
        assert len(line) < 400


def test_extreme_peaks_can_be_plotted() -> None:
    for peak in (1e-300, 1e308):
        found = explained(one_convolution(), None, replace(ROUND, peaks={"fp32": Peak(peak, peak)}))
        ET.fromstring(roofline_svg(found))


@pytest.mark.parametrize("seconds", [None, 1.0])
def test_the_plot_is_well_formed_and_has_a_dot_for_every_step_with_weights(seconds: float | None) -> None:
    plan = rc.load("resnet50")
    found = explained(plan, seconds)
    root = ET.fromstring(roofline_svg(replace(found, title="<Net & co>")))
    space = "{http://www.w3.org/2000/svg}"
    dots = [circle for circle in root.iter(f"{space}circle") if circle.find(f"{space}title") is not None]
    assert len(dots) == sum(isinstance(step.op, Conv | Linear) for step in plan.steps)
    for circle in dots:
        assert 0 <= float(circle.attrib["cx"]) <= 900
        assert 0 <= float(circle.attrib["cy"]) <= 560
