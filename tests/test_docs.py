"""What the documentation shows is what the program does: its commands and sessions are run, its tables of keys held."""

from __future__ import annotations

import difflib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest

import resnetcli as rc
from resnetcli.bench.benchmark import Failure, PairedTimings
from resnetcli.bench.latency import measure
from resnetcli.bench.options import RunOptions
from resnetcli.bench.search import FP32, SettingsSearch, checked
from resnetcli.bench.versus import paired
from resnetcli.errors import Problem
from resnetcli.reports import records
from resnetcli.reports.baseline import (
    Baseline,
    BaselineDiff,
    BaselineEntry,
    baseline_record,
    diff_baseline,
    measured_conditions,
)
from resnetcli.reports.compare_record import compare_record
from resnetcli.reports.comparison import Comparison
from resnetcli.reports.crosscheck import crosscheck_record
from resnetcli.reports.diff import diff, diff_record
from resnetcli.reports.info import info, info_record
from resnetcli.reports.listing import Listing, list_record, listing
from resnetcli.reports.max_batch import max_batch_record
from resnetcli.reports.measured import measurement_record
from resnetcli.reports.papers import paper_tables, papers_record
from resnetcli.reports.profile_record import profile_record
from resnetcli.reports.reconcile import reconcile_record
from resnetcli.reports.show import show_record
from resnetcli.reports.verify import verify, verify_record
from resnetcli.roofline.analysis import TimeDifference, lower_bounds
from resnetcli.roofline.estimate import estimate_record
from resnetcli.roofline.explain_record import explain_record
from resnetcli.roofline.measure import explain_measured
from resnetcli.roofline.profiles import device_profile_record, read_profile
from resnetcli.roofline.suggestions import suggest
from resnetcli.runs.curves import Curve, Curves, Drop, Line, curves_record
from resnetcli.runs.directory import Run
from resnetcli.spec import header, lineage, vocabulary
from resnetcli.train import examine, results
from resnetcli.train import session as training
from resnetcli.train.evaluate import Evaluation
from tests.support.documents import DOCUMENTS, FENCED, ROOT, documented, emitted, fits, rerun, shown, text_of
from tests.support.measured import GPU_MEASURED, MEASURED
from tests.support.measured import measured as made_up
from tests.support.tiny import CONFIG as TRAINED


@pytest.fixture
def _shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty directory, and a terminal of which nothing is known but its width."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS", "TERMINAL_WIDTH"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("_shell")
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_document_shows_what_is_printed(document: Path, pytestconfig: pytest.Config) -> None:
    text = document.read_text(encoding="utf-8")
    now = rerun(text)
    if pytestconfig.getoption("--update-golden", default=False):
        document.write_text(now, encoding="utf-8")
        return
    difference = difflib.unified_diff(text.split("\n"), now.split("\n"), document.name, "printed now", lineterm="")
    assert now == text, "\n".join(difference)


# --- this file's own means ---------------------------------------------------------------------------------------


def test_dots_stand_for_any_lines() -> None:
    assert shown("a\n...\nd\n", "a\nb\nc\nd\n") == "a\n...\nd\n"
    assert shown("a\n...\n", "a\n") == "a\n...\n"
    assert shown("a\n...\nd\n\n", "\na  \nb\nd\n \n") == "a\n...\nd\n"


def test_an_output_that_has_changed_is_cut_where_it_was() -> None:
    assert shown("old\n", "new\nlines\n") == "new\nlines\n"
    assert shown("head 1\n...\nrow x 1\n...\ntotal 1\n", "head 2\nrow w 2\nrow x 2\nrow y 2\ntotal 2\n") == (
        "head 2\n...\nrow x 2\n...\ntotal 2\n"
    )
    assert shown("...\ntotal 1\n", "head 2\ntotal 2\n") == "...\ntotal 2\n"
    assert shown("", "new\n") == "new\n"


@pytest.mark.usefixtures("_shell")
def test_a_document_is_rerun_block_by_block() -> None:
    net = "```yaml\n# net.yaml\ninput: 3x8x8\ntable: {head: fc 10}\n```\n"
    commands = "```console\n$ cat net.yaml\nold\n$ resnet-cli check net.yaml\n```\n"
    ran = rerun(f"{net}{commands}```python\n>>> 1 + 1\n3\n```\n")
    assert "table: {head: fc 10}\n\n$ resnet-cli check net.yaml\nnet.yaml: ok" in ran
    assert ran.endswith(">>> 1 + 1\n2\n```\n")
    assert rerun(ran) == ran
    assert rerun("```console norun\n$ pip install .\n```\n") == "```console norun\n$ pip install .\n```\n"


def test_every_key_and_word_of_the_grammar_is_in_its_reference() -> None:
    quoted = " ".join(re.findall(r"`+([^`]+)`+", text_of("grammar.md")))
    words = {
        *lineage.KEYS, *header.FIGURES, *header.FACTS, *header.EXPECTED, "sizes",
        *vocabulary.COMPOSITES, *vocabulary.layer_words(), *vocabulary.MARKS,
    }  # fmt: skip
    assert {word for word in words if not re.search(rf"(?<![\w.]){re.escape(word)}(?![\w.])", quoted)} == set()


def test_examples_of_operations_are_those_that_are_tested() -> None:
    tested = (ROOT / "tests/ops/test_extending.py").read_text("utf-8")
    section = re.split(r"^## ", text_of("adding.md"), flags=re.MULTILINE)
    (operations,) = (text for text in section if text.startswith("An operation\n"))
    examples = re.findall(r"```python norun\n(?:@register\n)?(.*?)```", operations, re.DOTALL)
    assert len(examples) == 2
    assert [example for example in examples if example.strip() not in tested] == []


def test_every_name_of_the_library_is_in_its_reference() -> None:
    text = text_of("python.md")
    assert {name for name in rc.__all__ if not re.search(rf"\brc\.{name}\b", text)} == set()


LINK = re.compile(r"\]\(([^)#\s:]+)(?:#[^)\s]*)?\)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_document_links_to_files_that_exist(document: Path) -> None:
    targets = LINK.findall(FENCED.sub("", document.read_text(encoding="utf-8")))
    assert [target for target in targets if not (document.parent / target).exists()] == []


PLACE = re.compile(r"`((?:\w[\w.-]*|\.ci)/(?:[\w.*/-]*)|\w+\.(?:md|py|yaml|toml))(?:::(\w+))?`")
"""A path in the repository, and maybe a name in that file: `tests/test_docs.py::PLACE`."""


def test_every_place_that_is_named_for_those_who_add_is_there() -> None:
    text = FENCED.sub("", text_of("adding.md")).replace("`specs/FAMILY/NAME.yaml`", "").replace("`my_net.yaml`", "")
    places = PLACE.findall(text)
    assert len(places) > 20
    assert {path for path, _ in places if not any(ROOT.glob(path.rstrip("/")))} == set()
    named = [(ROOT / path, name) for path, name in places if name]
    assert {name for path, name in named if not re.search(rf"\b{name}\b", path.read_text(encoding="utf-8"))} == set()


def measured() -> rc.Profile:
    """A profile with a measurement, a quick one."""
    profile = rc.profile("cifar_resnet", depth=8)
    warning = Problem("a second BN", hint="leave `bn` out", severity="warning")
    profile = replace(profile, plan=replace(profile.plan, warnings=(warning,)))
    failures = (Failure("cpu", 64, "no memory"),)
    return replace(
        profile, measurements=(measure(profile.plan, time_budget_s=0.01), GPU_MEASURED), failures=failures,
        searches=(SettingsSearch(1, (checked(FP32, MEASURED), checked(RunOptions(dtype="bf16"), "no bf16"))),),
    )  # fmt: skip


def timed() -> Comparison:
    """Two models as if they had been timed interleaved."""
    profiles = (replace(rc.profile("resnet18"), measurements=(made_up(),)), rc.profile("resnet34"))
    pair = PairedTimings(2, "resnet18", (None, paired([1.0, 1.0], [1.2, 1.3], 0.01)), 0.01, 2)
    return Comparison(profiles, timings=(pair,), left_out=("vgg16",), limits={"params": 10**8, "macs": 10**10})


def held(comparison: Comparison) -> BaselineDiff:
    """That run compared with itself."""
    conditions = measured_conditions(measurement_record(comparison.profiles[0].measurements[0]))
    entry = BaselineEntry("resnet18", {"classes": 1000}, (3, 224, 224), 2, 1, 1, conditions, 0.1, (0.1, 0.1), "1")
    return diff_baseline(comparison, Baseline("old.json", (entry, replace(entry, batch=8))))


@lru_cache(maxsize=1)
def the_zoo() -> Listing:
    return listing()


@lru_cache(maxsize=1)
def the_profiles() -> tuple[rc.Profile, ...]:
    return tuple(rc.profile(name) for name in ("googlenet", "resnet50", "plain34", *rc.models()[::8]))


def the_records(schema: str) -> Iterator[records.Record]:
    """Records with every key of a schema."""
    every = the_zoo()
    match schema:
        case "profile@2":
            yield from map(profile_record, (*the_profiles(), measured()))
            yield from (profile_record(each, "block") for each in the_profiles()[:2])
        case "compare@2":
            yield compare_record(Comparison(the_profiles()))
            yield compare_record(timed(), held(timed()))
        case "baseline@1":
            yield baseline_record(timed())
        case "diff@2":
            yield from (diff_record(diff(*pair)) for pair in (("resnet50", "resnet50d"), ("vgg16", "resnet18")))
        case "max-batch@1":
            for mode in ("infer", "train"):
                yield max_batch_record(rc.max_batch("resnet18", "8GB", mode=mode))
        case "reconcile@1":
            yield from (reconcile_record(rc.reconcile("resnet50", figure)) for figure in ("4.13G", "5.0G"))
        case "crosscheck@1":
            yield crosscheck_record((rc.crosscheck("cifar_resnet20"),))
        case "list@1":
            yield list_record(every)
        case "show@2":
            yield show_record(the_profiles())
        case "info@2":
            yield from (info_record(info(model)) for model in ("googlenet", "resnet50", "cifar_resnet20"))
        case "verify@2":
            yield verify_record(verify())
        case "device-profile@1":
            yield device_profile_record(read_profile("rtx4090"))
        case "explain@2":
            yield from explanations()
        case "estimate@1":
            peaks = read_profile("v100")
            yield estimate_record(peaks, lower_bounds(NETS, peaks))
        case "papers@2":
            yield papers_record(paper_tables())
        case "train@2":
            yield trained(0)
        case "models@1":
            one = results.RunOutcome(Path("all/tiny"), (trained(0),))
            yield results.models_record(results.TrainOutcome(Path("all"), (one,), several=True))
        case "seeds@2":
            yield results.seeds_record([trained(0)], range(2))
            yield results.seeds_record([trained(0), trained(1)], range(2))
        case "eval@1":
            classes = [Evaluation(1, 0.5, 10), Evaluation(0, 0.0, 0)]
            yield examine.eval_record(Run(Path("run"), TRAINED), 40, ["cat", "dog"], classes, TRAINED)
        case "curves@2":
            line = Line((100, 200), (50.0, 40.0), (49.0, 39.0), (51.0, 41.0))
            drawn = Curve("net", Path("run"), (Run(Path("run"), TRAINED),), line, line, (Drop(100, 0.1, 0.01),))
            yield curves_record(Curves((drawn,), ("a note",)))


def trained(seed: int) -> records.Record:
    """How a made-up run ended."""
    return training.train_record(
        replace(TRAINED, seed=seed), Evaluation(3, 0.5, 10), Evaluation(1, float("nan"), 20), 60.0, 5.0, 70.0
    )


NETS = [(name, name, rc.load(name)) for name in ("cifar_resnet20", "cifar_resnet32")]


def explanations() -> Iterator[records.Record]:
    """Of models that were measured, fast, and of one that was not."""
    peaks = read_profile("a100-40gb")
    (model, other), ratio = explain_measured(NETS, peaks, device="cpu", time_budget_s=0.01)
    measured = tuple(replace(each, measurement=model.measurement) for each in suggest(model))
    yield explain_record(model, TimeDifference(model, other, ratio), measured, "summary")
    (model, _) = lower_bounds(NETS, peaks)
    yield explain_record(model, None, tuple(replace(each, problem="no") for each in suggest(model)), "summary")


SCHEMAS = re.findall(r"^## `resnet-cli/(.*)`", text_of("json.md"), re.MULTILINE)


def test_every_record_has_its_section() -> None:
    source = "".join(path.read_text("utf-8") for path in (ROOT / "resnetcli").rglob("*.py"))
    made = set(re.findall(r'^def \w+_record\((?:.|\n)*?\n    """`resnet-cli/([\w-]+@[0-9]+)`', source, re.MULTILINE))
    assert {schema for schema in made if not schema.startswith("data@")} == set(SCHEMAS)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_key_of_the_json_is_documented_and_is_as_documented(schema: str) -> None:
    known, entry_kinds, found = documented(schema), documented("profile@2"), set()
    for record in the_records(schema):
        record = json.loads(json.dumps(record))
        assert record["schema"] == f"resnet-cli/{schema}"
        if schema == "compare@2":  # each of its models is a profile, whole
            known_model = documented("profile@2")
            record["models"] = [model | {"latency": None} for model in record["models"]]
            assert all({key for key, _ in emitted(model)} <= known_model.keys() for model in record["models"])
            record["models"] = [{} for _ in record["models"]]
        if schema == "models@1":  # each of them is a run's result, or that of seeds, whole
            for net in record["models"]:
                assert {key for key, _ in emitted(net)} <= documented(net["schema"].removeprefix("resnet-cli/")).keys()
            record["models"] = [{} for _ in record["models"]]
        if record.get("latency"):  # has the keys of a measurement
            assert record["latency"] == record["measurements"][0]
            record["latency"] = {}
        for trial in record.get("trials", ()):
            assert trial["measurement"] is None or trial["measurement"].keys() == record["measurements"][0].keys()
            trial["measurement"] = trial["measurement"] and {}
        for key, value in emitted(record):
            if "published[]." in key and schema not in ("profile@2", "train@2", "seeds@2"):
                key = key[key.index("published[].") :]  # as in a profile
                assert fits(value, entry_kinds[key])
                continue
            found.add(key)
            assert key in known
            assert fits(value, known[key]), f"`{key}` is documented as {known[key]}, not {value!r}"
    assert found == known.keys()


def test_the_zoo_s_page_is_written_from_the_specs() -> None:
    script = [sys.executable, str(ROOT / "docs" / "zoo.py"), "--check"]
    result = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
