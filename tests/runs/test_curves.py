"""Curves are what the runs' readings say: every one of a run, and of seeds the mean and the range."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from resnetcli.errors import UsageError
from resnetcli.runs.curves import Drop, Line, read_curves
from resnetcli.runs.layout import METRICS_FILE
from tests.support.trained import CONFIG, a_run, falling, point, points, some_seeds

SHORT = {"iterations": 400, "eval_every": 200}


def test_a_run_s_lines_are_its_readings(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", [point(100, 60.0), point(200, 30.0, 40.0), point(300, 20.0)], **SHORT)
    (curve,) = read_curves([run]).curves
    assert curve.train == Line((100, 200, 300), *[(60.0, 30.0, 20.0)] * 3)
    assert curve.test == Line((200,), *[(40.0,)] * 3)
    assert (curve.label, curve.reached, curve.seeds, curve.path) == ("ResNet-20 (CIFAR)", 300, (0,), run)


def test_of_seeds_there_is_the_mean_with_the_lowest_and_the_highest(tmp_path: Path) -> None:
    runs = [[point(200, base, base + 10), point(400, base / 2, base)] for base in (10.0, 20.0, 60.0)]
    found = read_curves([some_seeds(tmp_path / "seeds", runs, **SHORT)])
    (curve,) = found.curves
    assert curve.test == Line((200, 400), (40.0, 30.0), (20.0, 10.0), (70.0, 60.0))
    assert curve.train.mean == (30.0, 15.0)
    assert (curve.label, curve.seeds, found.notes) == ("ResNet-20 (CIFAR), mean of 3 seeds", (0, 1, 2), ())


def test_seeds_that_have_not_finished_are_no_part_of_a_mean_of_those_that_have(tmp_path: Path) -> None:
    whole = [point(200, 10.0, 20.0), point(400, 5.0, 10.0)]
    seeds = some_seeds(tmp_path / "seeds", [whole, whole[:1], []], **SHORT)
    found = read_curves([seeds])
    assert found.curves[0].seeds == (0,)
    assert found.curves[0].test.iterations == (200, 400)
    assert found.notes == (f"`{seeds}`: mean of 1 of 3 seeds, those that are complete",)


def test_while_no_seed_has_finished_the_mean_goes_as_far_as_all_of_them_are(tmp_path: Path) -> None:
    ahead = [point(100, 50.0), point(200, 30.0, 40.0), point(300, 10.0)]
    seeds = some_seeds(tmp_path / "seeds", [ahead, ahead[:2]], **SHORT)
    (curve,) = read_curves([seeds]).curves
    assert (curve.seeds, curve.train.iterations, curve.reached) == ((0, 1), (100, 200), 200)


def test_seeds_that_were_never_read_at_the_same_iteration_have_no_mean(tmp_path: Path) -> None:
    seeds = some_seeds(tmp_path / "seeds", [[point(100, 50.0)], [point(57, 60.0)]], **SHORT)
    found = read_curves([seeds, a_run(tmp_path / "run", [point(100, 60.0, 60.0)])])
    assert [curve.path for curve in found.curves] == [tmp_path / "run"]
    assert found.notes == (f"`{seeds}`: its seeds have no readings at a common iteration yet",)


def test_seeds_are_in_the_order_of_their_numbers_and_only_those_directories_are_seeds(tmp_path: Path) -> None:
    seeds = some_seeds(tmp_path / "seeds", [[point(400, 1.0, float(seed))] for seed in range(11)], **SHORT)
    (seeds / "seed12").mkdir()
    shutil.copytree(seeds / "seed0", seeds / "seed0.backup")
    (curve,) = read_curves([seeds]).curves
    assert curve.seeds == tuple(range(11))


def test_the_rate_fell_where_the_last_reading_at_the_higher_one_is(tmp_path: Path) -> None:
    errors = falling(90, 9, 5000)
    run = a_run(tmp_path / "run", points(CONFIG, errors, errors, every=1000))
    assert read_curves([run]).curves[0].drops == (Drop(32_000, 0.1, 0.01), Drop(48_000, 0.01, 0.001))


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ({"schedule": {"kind": "steps", "at": [150.0, 225.0]}}, (150, 225)),
        # Of 50,000 images in batches of 128 an epoch takes 390.625 iterations.
        ({"schedule": {"kind": "steps", "at": [0.4, 0.5]}, "epochs": 1.0}, (156, 210)),
        ({"schedule": {"kind": "steps", "at": ["150", 10**400, -1, None, True, float("nan")]}}, (150, 210)),
        ({"schedule": {"kind": "steps", "at": 150}}, (150, 210)),
    ],
)  # fmt: skip
def test_the_rate_fell_at_the_recipe_s_milestone_if_it_is_between_the_readings(
    recipe: dict[str, object], expected: tuple[int, ...], tmp_path: Path
) -> None:
    rates = [(150, 0.1), (180, 0.01), (210, 0.01), (240, 0.001)]
    run = a_run(tmp_path / "run", [point(at, 50.0, lr=rate) for at, rate in rates], recipe={"name": "mine", **recipe})
    assert tuple(drop.iteration for drop in read_curves([run]).curves[0].drops) == expected


STEPS = {"name": "mine", "schedule": {"kind": "steps", "lr": 0.1, "factor": 0.1, "at": [40.0, 50.0]}}


def test_steps_between_two_readings_are_reported_as_the_recipe_has_them(tmp_path: Path) -> None:
    readings = [point(20, 60.0), point(40, 50.0), point(60, 40.0, lr=0.001)]
    drops = (Drop(40, 0.1, 0.01), Drop(50, 0.01, 0.001))
    assert read_curves([a_run(tmp_path / "run", readings, recipe=STEPS)]).curves[0].drops == drops
    stopped = a_run(tmp_path / "stopped", readings[:2], recipe=STEPS)
    assert read_curves([stopped]).curves[0].drops == ()
    at_44 = a_run(tmp_path / "at_44", [*readings[:2], point(44, 45.0, lr=0.01)], recipe=STEPS)
    assert read_curves([at_44]).curves[0].drops == drops[:1]


def test_a_rate_with_more_digits_than_a_reading_has_is_the_recipe_s(tmp_path: Path) -> None:
    recipe = {"name": "mine", "schedule": {"kind": "steps", "lr": 0.123456789, "factor": 0.5, "at": [40.0, 50.0]}}
    readings = [point(20, 60.0, lr=0.1234568), point(60, 40.0, lr=0.0308642)]
    drops = read_curves([a_run(tmp_path / "run", readings, recipe=recipe)]).curves[0].drops
    assert [drop.iteration for drop in drops] == [40, 50]


@pytest.mark.parametrize("change", [{"lr": 0.2}, {"lr": 10**400}, {"factor": float("nan")}, {"at": [41.0] * 65}])
def test_a_recipe_that_the_readings_contradict_or_that_is_none_is_not_believed(
    change: dict[str, object], tmp_path: Path
) -> None:
    recipe = {**STEPS, "schedule": {**STEPS["schedule"], **change}}  # type: ignore[dict-item]
    run = a_run(tmp_path / "run", [point(40, 50.0), point(60, 40.0, lr=0.001)], recipe=recipe)
    assert read_curves([run]).curves[0].drops == (Drop(40, 0.1, 0.001),)


def test_a_rate_that_rises_or_falls_all_the_time_has_no_steps(tmp_path: Path) -> None:
    warm = a_run(tmp_path / "warm", [point(100, 90.0, lr=0.01), point(200, 80.0, lr=0.1)])
    cycle = {"name": "fast", "schedule": {"kind": "one-cycle"}}
    cycling = a_run(tmp_path / "cycle", [point(at, 50.0, lr=0.1 - at / 1e5) for at in (100, 200, 300)], recipe=cycle)
    odd = a_run(
        tmp_path / "odd", [point(100, 90.0, lr=0.1), point(200, 80.0, lr=0.01)], recipe={"name": "odd", "schedule": 3}
    )
    assert [curve.drops for curve in read_curves([warm, cycling, odd]).curves] == [(), (), ()]


def test_runs_of_one_model_are_told_apart_by_what_they_differ_in(tmp_path: Path) -> None:
    reading = [point(100, 50.0, 50.0)]
    runs = [
        a_run(tmp_path / "a", reading, title="plain-20 (CIFAR)"),
        a_run(tmp_path / "b", reading, seed=1),
        a_run(tmp_path / "c", reading, seed=2),
        a_run(tmp_path / "d", reading, batch_size=64),
        a_run(tmp_path / "e", reading, title="ResNet (CIFAR)", parameters={"depth": 56}),
        a_run(tmp_path / "f", reading, title="ResNet (CIFAR)", parameters={"depth": 110}),
        a_run(tmp_path / "g", reading, title="plain-56 (CIFAR)"),
        a_run(tmp_path / "h", reading, title="plain-56 (CIFAR)"),
    ]
    assert [curve.label for curve in read_curves([*runs, runs[0]]).curves] == [
        "plain-20 (CIFAR)",
        "ResNet-20 (CIFAR), batch 128, seed 1",
        "ResNet-20 (CIFAR), batch 128, seed 2",
        "ResNet-20 (CIFAR), batch 64",
        "ResNet (CIFAR) depth=56",
        "ResNet (CIFAR) depth=110",
        f"plain-56 (CIFAR), {runs[6]}",
        f"plain-56 (CIFAR), {runs[7]}",
    ]


def test_a_run_without_an_evaluation_has_its_training_error_and_a_note(tmp_path: Path) -> None:
    found = read_curves([a_run(tmp_path / "run", [point(100, 60.0)])])
    assert found.curves[0].test == Line((), (), (), ())
    assert found.curves[0].test.last is None
    assert found.notes == ("training error only, not evaluated yet: ResNet-20 (CIFAR)",)


def test_a_run_without_a_reading_is_noted_unless_there_is_no_other(tmp_path: Path) -> None:
    none, some = a_run(tmp_path / "none", []), a_run(tmp_path / "some", [point(100, 60.0, 60.0)])
    found = read_curves([none, some])
    assert [curve.path for curve in found.curves] == [some]
    assert found.notes == (f"`{none}` has no reading yet",)
    with pytest.raises(UsageError, match="has no reading yet"):
        read_curves([none])
    with pytest.raises(UsageError, match="none of these runs has a reading yet"):
        read_curves([none, a_run(tmp_path / "other", [])])


def test_a_line_that_was_not_finished_is_no_reading_and_any_other_junk_is_an_error(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", [point(100, 60.0), point(200, 50.0)])
    metrics = run / METRICS_FILE
    whole = metrics.read_bytes()
    metrics.write_bytes(whole[:-9])
    assert read_curves([run]).curves[0].train.iterations == (100,)
    for junk in (b"junk\n", whole.splitlines(keepends=True)[0], whole.replace(b"60.0", b"NaN"), b"\xff\n"):
        metrics.write_bytes(whole + junk)
        with pytest.raises(UsageError, match=rf"{METRICS_FILE}`, line 3"):
            read_curves([run])


def test_what_is_no_run_is_reported_and_runs_inside_are_pointed_to(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no directory"):
        read_curves([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="is not a run yet: it is empty"):
        read_curves([tmp_path / "empty"])
    a_run(tmp_path / "runs" / "one", [point(100, 60.0)])
    with pytest.raises(UsageError) as error:
        read_curves([tmp_path / "runs"])
    assert error.value.hint == f"it contains runs: `{tmp_path / 'runs' / 'one'}`, or all of them: `{tmp_path}/runs/*`"
