"""What papers print, set beside the counts: verdicts, tables, accuracies."""

from __future__ import annotations

import csv
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest

import resnetcli as rc
from resnetcli.errors import Source, UsageError
from resnetcli.reports.compare import compare
from resnetcli.reports.info import info, starter
from resnetcli.reports.listing import listing
from resnetcli.reports.papers import PaperTable, paper_tables
from resnetcli.reports.verify import verify
from resnetcli.spec.read import read
from resnetcli.spec.zoo import Zoo

ZOO = Zoo()
NET = """\
input: 3x32x32
table: {conv1: 3x3 16 /2, head: [global avg, fc 10]}
"""  # 634 parameters


def published(tmp_path: Path, *lines: str) -> str:
    """A spec's file with those lines behind its table."""
    path = tmp_path / "net.yaml"
    path.write_text(NET + "\n".join(lines) + "\n")
    return str(path)


def test_the_whole_zoo_is_verified() -> None:
    found = verify(zoo=ZOO)
    assert found.faults == ()
    assert len(found.models) == len(ZOO.files)


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (["published: [{params: 0.63K, source: a, table: b}]"], ""),
        (["published: [{params: 0.64K, source: a, table: b}]"], "params 0.64K in a, b differs from 634"),
        (["published: [{params: 0.64K, source: a, table: b, note: cause unknown}]"], ""),
        (["published: [{params: 0.63K, source: a, table: b, note: counts no BN}]"], "agrees with 634, but has a"),
        (["published: [{top1_error: 9.9, source: a, table: b, dataset: d, protocol: test}]"], ""),
        (["expect: {params: 635}"], "expected 635 params, counted 634 (-1)"),
        (["expect: {params: 634, sizes: [16, 1]}"], ""),
    ],
)
def test_verification_fails_where_a_difference_has_no_note_or_a_note_no_difference(
    tmp_path: Path, lines: list[str], fault: str
) -> None:
    found = verify(published(tmp_path, *lines))
    assert len(found.faults) == bool(fault)
    assert fault in "".join(found.faults)


def test_a_template_s_width_is_counted_in_its_first_block() -> None:
    widths = {
        e.published.figure: e.counted
        for e in verify("resnext50_8x14d").models[0].judged
        if "width" in e.published.figure
    }
    assert widths == {"bottleneck_width_d": 14, "group_conv_width": 112}


TABLES = {table.name: table for table in paper_tables(zoo=ZOO)}


def labels(table: PaperTable) -> list[str]:
    return [row.profile.model for row in table.rows]


def test_a_table_has_its_lines_in_the_order_of_print() -> None:
    assert labels(TABLES["ResNet Table 1"]) == ["resnet18", "resnet34_a", "resnet50_v1", "resnet101_v1", "resnet152_v1"]
    assert labels(TABLES["ResNet Table 6"]) == [f"cifar_resnet{n}" for n in (20, 32, 44, 56, 110, 1202)]


@pytest.mark.parametrize("name", TABLES)
def test_a_line_of_a_table_is_one_model(name: str) -> None:
    for row in TABLES[name].rows:
        assert {entry.published.row for entry in row.entries} == {row.entries[0].published.row}
        assert set(row.entries) <= set(row.profile.judged)


def test_every_source_of_a_figure_and_every_citation_names_a_paper_of_the_zoo_s() -> None:
    for name in ZOO.files:
        found = info(name, ZOO)
        assert found.paper is not None, name
        for entry in found.profile.judged:
            assert ZOO.paper(entry.published.source) is not None, (name, entry.published.source)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["resnext", "table", "1"], ["ResNeXt Table 1"]),
        (["ResNeXt 1"], ["ResNeXt Table 1"]),
        (["arXiv:1611.05431 Table 1"], ["ResNeXt Table 1"]),
        (["1611.05431, table 1"], ["ResNeXt Table 1"]),
        (["Aggregated Residual Transformations for Deep Neural Networks table 2"], ["ResNeXt Table 2"]),
    ],
)
def test_a_table_is_asked_for_in_several_ways(words: list[str], names: list[str]) -> None:
    assert [table.name for table in paper_tables(*words, zoo=ZOO)] == names


def test_a_paper_is_all_of_its_tables() -> None:
    found = [table.name for table in paper_tables("resnext", zoo=ZOO)]
    assert {f"ResNeXt Table {number}" for number in range(1, 6)} <= set(found)
    assert all(name.startswith("ResNeXt ") for name in found)


def test_an_unknown_table_is_refused_with_the_nearest_ones() -> None:
    with pytest.raises(UsageError, match="ResNeXt Table 1"):
        paper_tables("resnxt table 1", zoo=ZOO)


def test_accuracies_are_of_one_protocol_and_name_every_source() -> None:
    found = compare("resnet50", "resnet50_v1", "resnet18", protocol="single-crop-224", zoo=ZOO)
    assert found.accuracy is not None
    printed = [found.accuracy.published(profile, "top1_error", "ImageNet-1K val") for profile in found.profiles]
    assert printed == [{"23.9": ["ResNeXt"], "24.01": ["WRN"]}, {}, {}]  # that of resnet50_v1 is a 10-crop error
    assert "10-crop" in found.accuracy.others


@pytest.mark.parametrize("name", ["single-crop-224", "single crop 224", "Single_Crop-224"])
def test_a_protocol_is_known_however_it_is_spaced(name: str) -> None:
    found = compare("resnet50", protocol=name, zoo=ZOO)
    assert found.accuracy is not None
    assert found.accuracy.protocol == "single-crop-224"


def test_an_empty_protocol_is_not_taken_for_none() -> None:
    with pytest.raises(UsageError, match="under ``"):
        compare("resnet50", protocol="", zoo=ZOO)


def test_without_a_protocol_it_is_the_one_most_models_have() -> None:
    found = compare("resnet50", "resnet50_v1", "resnet101_v1", "resnet34_c", accuracy=True, zoo=ZOO)
    assert found.accuracy is not None
    assert found.accuracy.protocol in ("10-crop", "single-model-multi-crop")


def test_a_figure_that_papers_print_alike_stands_once_with_each_paper() -> None:
    found = compare("resnet101", protocol="single-crop-224", zoo=ZOO)
    assert found.accuracy is not None
    printed = found.accuracy.published(found.profiles[0], "top1_error", "ImageNet-1K val")
    assert printed == {"22.0": ["ResNeXt"], "22.44": ["WRN"]}  # ResNeXt prints it in three tables


def test_a_model_that_was_changed_has_no_published_accuracy() -> None:
    with pytest.raises(UsageError, match="no accuracy is published"):
        compare("resnet50", input="3x320x320", accuracy=True, zoo=ZOO)


def test_a_model_knows_its_relatives() -> None:
    found = info("resnext101_32x4d", ZOO)
    assert found.profile.spec.extends == ("resnext50_32x4d",)
    assert "resnext101_64x4d" in found.extended_by
    assert found.source.label == "specs/resnext/resnext101_32x4d.yaml"


def test_heads_are_counted_both_ways() -> None:
    heads = info("googlenet", ZOO).profile.heads
    assert heads is not None
    assert heads.with_them.params - heads.without.params == 6_379_728
    assert info("resnet50", ZOO).profile.heads is None


UNIT = {"1e6": 10**6, "1e9": 10**9}


def test_every_figure_of_the_main_papers_tables_is_in_the_specs_as_printed() -> None:
    """printed.csv was put together from the papers, by others than the specs were."""
    here = Counter(
        (row.profile.model, p.figure, p.value, p.source, p.table, p.protocol, p.dataset)
        for table in TABLES.values() for row in table.rows for p in (entry.published for entry in row.entries)
    )  # fmt: skip
    with (Path(__file__).parent / "printed.csv").open(encoding="utf-8") as file:
        wanted = Counter(
            (
                line["model"], line["metric"], Decimal(line["value"]) * UNIT.get(line["unit"], 1),
                f"arXiv:{line['source'].rpartition('arXiv:')[2].rstrip(')')}", line["table"], line["protocol"],
                line["dataset"] if line["protocol"] else "",
            )
            for line in csv.DictReader(file)
        )  # fmt: skip
    assert wanted - here == Counter()
    assert wanted.total() > 140


def test_the_published_tables_are_complete() -> None:
    """Every table that a reader would look for is there."""
    wanted = {
        "ResNet": [1, 3, 4, 6, 7, 8], "WRN": [8], "Pre-activation": [5], "ResNeXt": [1, 2, 3, 4, 5],
    }  # fmt: skip
    assert {f"{paper} Table {number}" for paper, numbers in wanted.items() for number in numbers} <= TABLES.keys()


def test_models_are_sorted_by_what_is_printed_and_those_without_it_come_last() -> None:
    names = ("resnet18", "resnet50", "resnext50_32x4d", "resnet101")
    found = compare(*names, protocol="single-crop-224", sort="top1_error", zoo=ZOO)
    assert [p.model for p in found.profiles] == ["resnet101", "resnext50_32x4d", "resnet50", "resnet18"]
    found = compare(*names, protocol="single-crop-224", sort="-top1_error", zoo=ZOO)
    assert [p.model for p in found.profiles] == ["resnet50", "resnext50_32x4d", "resnet101", "resnet18"]
    assert list(found.to_frame()["top1_error"])[:3] == [23.9, 22.2, 22.0]  # the best where there are several


def test_a_paper_that_prints_two_figures_for_a_model_says_what_each_is_of() -> None:
    found = compare("preact_resnet200", protocol="single-crop-320", zoo=ZOO)
    assert found.accuracy is not None
    printed = found.accuracy.published(found.profiles[0], "top1_error", "ImageNet-1K val")
    assert [(value, "aspect" in papers[0]) for value, papers in printed.items()] == [("20.7", False), ("20.1", True)]


def test_a_starter_claims_nothing_of_what_was_printed() -> None:
    text = starter(info("resnet50", ZOO).source)
    spec = read(Source("mine.yaml", text), zoo=ZOO)
    assert (spec.published, spec.expect) == ((), None)
    assert list(spec.stages) == ["conv1", "conv2_x", "conv3_x", "conv4_x", "conv5_x", "head"]


@pytest.mark.parametrize("words", ["drn", "1512", "bag", "yolo", "wide residual"])
def test_a_paper_is_found_by_the_beginning_of_a_word(words: str) -> None:
    assert paper_tables(words, zoo=ZOO)


def test_a_citation_of_two_papers_is_of_the_first() -> None:
    paper = ZOO.paper("He et al., arXiv:1512.03385, Table 7; Ren et al., arXiv:1506.01497")
    assert paper is not None
    assert paper.name == "ResNet"
    assert ZOO.paper("arXiv:1512.033851") is None


def test_a_list_states_what_is_counted_without_counting_it(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = {name: rc.profile(name) for name in ("googlenet", "resnext50_32x4d_b", "cifar_resnet20")}
    monkeypatch.setattr("resnetcli.plan.lower.lower", None)
    monkeypatch.setattr("resnetcli.reports.profile.lower", None)
    listed = {model.model: model for model in listing(zoo=ZOO).models}
    assert sorted(listed) == sorted(ZOO.files)
    for name, profile in counted.items():
        model, counts = listed[name], profile.counts
        assert (model.params, model.macs, model.depth) == (counts.params, counts.macs, counts.depth)
        assert (model.input, model.family) == (profile.plan.input, profile.family)


def test_a_model_without_exact_figures_or_with_an_invalid_header_is_read_whole(tmp_path: Path) -> None:
    folder = tmp_path / "family"
    folder.mkdir()
    (folder / "a.yaml").write_text("input: 3x8x8\ntable: {a: 3x3 4, b: [global avg, fc 10]}\n")
    (folder / "b.yaml").write_text("input: 3x8x8\ntable: {a: 3x3 4}\nexpect: {params: many}\n")
    found = listing(zoo=Zoo(tmp_path))
    assert [(model.model, model.params) for model in found.models] == [("a", 108 + 8 + 50)]
    assert [failure.label for failure in found.failed] == ["b"]
    assert "whole number" in found.failed[0].reason
