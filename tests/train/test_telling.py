"""What a person sees of training: the bar, the lines where there is none, times, and printed errors beside ours."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from resnetcli.data.dataset import Split, make_dataset
from resnetcli.recipes.text import default_recipe
from resnetcli.runs.metrics import Point
from resnetcli.spec.read import read
from resnetcli.spec.zoo import Zoo
from resnetcli.table.output import print_texts
from resnetcli.train.job import new_job
from resnetcli.train.options import TrainOptions
from resnetcli.train.paper import published_errors
from resnetcli.train.progress import ProgressScreen, opening, time_text
from resnetcli.train.results import RunOutcome, result_lines, results_sheet
from tests.support.tiny import CONFIG, config

ZOO = Zoo()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def point(iteration: int, test: float | None = None) -> Point:
    return Point(iteration, 1.0, 0.1, 0.5, 40.0, None, None, test, test, 1234.5, 3.0)


def test_nothing_in_a_run_s_files_is_obeyed_by_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b[2Jevil"
    made = config(
        title=evil, model=evil, data_text=evil, device_name=evil, deviations=(evil,), parameters={evil: 1},
        recipe={**CONFIG.recipe, "name": evil},
    )  # fmt: skip
    result = {
        "recipe": evil, "data": evil, "deviations": [evil], "test_images": 1, "final_train_error_percent": 1.0,
        "images_per_s": 1.0, "wall_s": 1.0, "model": evil, "parameters": {evil: 1},
    }  # fmt: skip
    one = RunOutcome(Path(evil), (result,))
    print_texts([*opening(made, Path(evil)), *result_lines([one])])
    lines = capsys.readouterr().out.splitlines()
    assert all(line.isprintable() for line in lines)
    assert sum(line.count("evil") for line in lines) == 12
    other = replace(one, results=(result | {"deviations": []},))
    print_texts(result_lines([one, other]))
    several = capsys.readouterr().out.splitlines()
    assert all(line.isprintable() for line in several)
    assert several[-1].endswith("evil=1)")  # whose deviation it is, where not all have it
    out, now = Terminal(), iter(range(100))
    screen = ProgressScreen(out, clock=lambda: next(now))
    screen.begin(made, Path(evil))
    screen.stepped(1)
    assert "evil  1/40" in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_where_nobody_looks_there_is_a_line_now_and_then() -> None:
    now = 0.0
    out = io.StringIO()
    screen = ProgressScreen(out, clock=lambda: now)
    screen.begin(CONFIG, Path("run"))
    out.truncate(0)
    out.seek(0)
    for iteration in range(1, 40):
        now += 1.0
        screen.stepped(iteration)
        screen.reading(point(iteration, 12.5 if iteration == 25 else None), 125.0)
    lines = out.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == ["10/40", "20/40", "25/40", "35/40"]
    assert lines[2] == "25/40  loss 0.5  error 40.0%  test 12.50%  lr 0.1  1,234 images/s  2 min left"
    assert "\r" not in out.getvalue()


def test_on_a_terminal_one_line_is_drawn_over_and_taken_away() -> None:
    now = 0.0
    out = Terminal()
    screen = ProgressScreen(out, clock=lambda: now, width=60)
    screen.begin(CONFIG, Path("run"))
    out.truncate(0)
    out.seek(0)
    for iteration in range(1, 21):
        now += 0.05
        screen.stepped(iteration)
    screen.reading(point(20), 60.0)
    screen.say("a line that stays")
    drawn = out.getvalue().split("\r")
    assert 8 <= len(drawn) <= 14  # every tenth of a second, not every step
    assert all(len(line) < 60 for line in drawn[:-1])
    assert "20/40  ████████ " in drawn[-3]
    assert drawn[-2].strip() == ""
    assert drawn[-1] == "a line that stays\n"


def test_what_is_trained_is_reported_first() -> None:
    lines = opening(config(validation_images=5, train_images=45_000, compile=True), Path("runs/x"))
    assert lines == [
        "ResNet-20   cifar_resnet20 depth=20   269.7K parameters",
        "data: CIFAR-10 (verified): 45,000 training images, 5 for validation, 10 test images, 10 classes",
        "recipe resnet: 40 iterations of 4 images, 0.0036 epochs; seed 0",
        "images: per-pixel mean subtracted, crops of images padded by 4 (zeros) and flips",
        "on a CPU, 1 thread, fp32 compile; in runs/x",
        "differs from the paper: BN over 128 images; the paper: BN over 64 images",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "less than 1 s"), (41.4, "41 s"), (89.6, "90 s"), (90, "2 min"), (3600, "60 min"), (5400, "1 h 30 min"),
     (16_320, "4 h 32 min"), (273_600, "3 days 4 h")],
)  # fmt: skip
def test_times_are_as_one_says_them(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


def test_published_errors_are_the_papers_own_and_of_that_data() -> None:
    spec = read("cifar_resnet110", zoo=ZOO)
    assert [(p.value, p.protocol) for p in published_errors(spec, "cifar10")] == [
        ("6.43", "test-best5"),
        ("6.61", "test-mean5"),
    ]
    assert published_errors(spec, "custom") == ()
    assert published_errors(read("cifar_resnet110", zoo=ZOO, parameters={"depth": 20}), "cifar10") == ()
    wide = read("wrn_28_10", zoo=ZOO, parameters={"classes": 100})
    assert [p.value for p in published_errors(wide, "cifar100")] == ["19.25"]


@pytest.mark.parametrize(
    ("name", "recipe"),
    [("cifar_resnet56", "resnet"), ("cifar_plain20", "resnet"), ("cifar_preact_resnet164", "preact"),
     ("wrn_28_10", "wrn"), ("wrn_40_4", "wrn"), ("cifar_resnext29_8x64d", "resnext"), ("resnet18", "resnet")],
)  # fmt: skip
def test_a_model_is_trained_as_its_paper_did_unless_told_otherwise(name: str, recipe: str) -> None:
    assert default_recipe(read(name, zoo=ZOO)).name == recipe


@pytest.mark.parametrize(
    ("net", "data", "recipe", "said"),
    [("cifar_resnet20", "cifar10", None, None), ("cifar_resnet20", "cifar10", "fast", "resnet"),
     ("cifar_preact_resnet110", "cifar10", "resnet", "preact"), ("cifar_resnet20", "custom", "fast", None),
     ("cifar_plain20", "cifar10", "fast", None)],
)  # fmt: skip
def test_errors_beside_a_paper_s_are_not_taken_for_those_of_its_recipe(
    net: str, data: str, recipe: str | None, said: str | None
) -> None:
    split = Split(np.zeros((20, 3, 32, 32), np.uint8), np.arange(20) % 10)
    images = make_dataset(data, split, split, tuple("abcdefghij"))
    found = new_job(TrainOptions(model=net, recipe=recipe, iterations=10, device="cpu"), ZOO, print, images).config
    expected = [] if said is None else [f"recipe {recipe}; the paper: recipe {said}"]
    assert [text for text in found.deviations if text.startswith("recipe ")] == expected


def test_the_table_has_the_published_errors_beside_ours() -> None:
    result = {
        "model": "cifar_resnet110", "parameters": {}, "params": 1727962, "iterations": 64000,
        "final_test_error_percent": 6.5, "data": "CIFAR-10 (verified)",
        "published": [{"value": "6.43", "protocol": "test-best5", "source": "arXiv:1512.03385"}],
    }  # fmt: skip
    summary = {"final_test_error_percent": {"mean": 6.554, "std": 0.161, "best": 6.4}}
    alone = RunOutcome(Path("run"), (result,))
    seeds = RunOutcome(Path("all"), (result, result), summary)
    one, several = results_sheet([alone]), results_sheet([seeds])
    assert [cell.text for cell in one.rows[0]] == [
        "cifar_resnet110", "1.728M", "64,000", "1", "6.50", "", "", "6.43 (test-best5, arXiv:1512.03385)",
        "CIFAR-10 (verified)",
    ]  # fmt: skip
    assert [cell.text for cell in several.rows[0]][3:7] == ["2", "6.55", "0.16", "6.40"]
    assert results_sheet([alone, seeds]).rows == (*one.rows, *several.rows)
    unprinted = results_sheet([replace(alone, results=(result | {"published": []},))])
    shown = [[column.head for column in sheet.columns if column.shown] for sheet in (unprinted, one, several)]
    assert shown[0] == ["model", "params", "iterations", "test error %"]  # what says nothing is left out
    assert shown[1] == [*shown[0], "published %"]
    assert shown[2] == ["model", "params", "iterations", "seeds", "test error %", "std", "best", "published %"]
