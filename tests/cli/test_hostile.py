"""What others wrote reaches a terminal, a log, Markdown, CSV, JSON and pictures as text, never as anything obeyed."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt

from tests.support.cli import run
from tests.support.thin import thinned
from tests.support.trained import CONFIG, a_run, falling, points

REST = (
    '<img src=x onerror="alert(1)"> | `code` [link](http://evil.example) ![i](u) &lt; ##[error]old ##vso[task]b '
    "\x1b[31mred\x1b[0m \x9b31m \u202eevil zero\u200bwidth [red]markup[/red] *b* _i_ $m$ ~~s~~ \\| www.evil.example"
)
STARTS = ("::error file=x,line=1::", "=cmd|' /C calc'!A0 ", "-1+2 ", "# ")
FORMATS = ("table", "md", "csv", "json")
TAGS = {"p", "br", "table", "thead", "tbody", "tr", "th", "td", "strong", "code"}
CODE = re.compile(r"resnet-cli [\w ./*+:-]+|--[\w-]+")
"""What may be code in Markdown: commands of ours."""


def spec(text: str) -> str:
    quoted = json.dumps(text)
    return f"""\
name: {quoted}
cite: {quoted}
about: {quoted}
deviations: [{quoted}]
input: 3x8x8
classes: 10
let: {{n: 1}}
published:
  - {{params: 1K, macs: 1K, source: {quoted}, table: {quoted}, note: {quoted}, label: {quoted}, detail: {quoted}}}
  - {{top1_error: 9.1, dataset: {quoted}, protocol: test, source: {quoted}, table: {quoted}, detail: {quoted}}}
table:
  conv1: 3x3 4 /2
  conv2: [residual x n: [3x3 4, 3x3 4]]
  head: [global avg, fc classes]
"""


class Tags(HTMLParser):
    """The tags of a page, and what its code is."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.code: list[str] = []
        self._within = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        self._within = tag == "code"

    def handle_endtag(self, tag: str) -> None:
        self._within = False

    def handle_data(self, data: str) -> None:
        if self._within:
            self.code.append(data)


def check_log(text: str) -> None:
    """Nothing that a terminal obeys, reorders or hides, and no line that is a command to a workflow's runner."""
    for line in text.split("\n"):
        assert line.replace("\t", "").isprintable(), repr(line)
        assert not line.strip().startswith("::"), line
    assert not re.search(r"##\w*\[", text)


def check_format(format: str, text: str) -> None:
    if format == "json":
        json.loads(text)
    elif format == "csv":
        rows = list(csv.reader(io.StringIO(text)))
        assert len({len(row) for row in rows}) == 1
        assert len(set(rows[0])) == len(rows[0])
        for entry in (entry for row in rows for entry in row if len(entry) > 1):
            assert entry[0] not in "=@\t", entry
            assert entry[0] not in "+-" or re.fullmatch(r"[+-][0-9.]+(e[+-][0-9]+)?%?", entry), entry
    elif format == "md":
        page = Tags(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text))
        assert page.tags <= TAGS, page.tags - TAGS
        assert all(CODE.fullmatch(code) for code in page.code), page.code
        for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
            assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1


@pytest.fixture(params=STARTS, ids=[start.strip()[:6] for start in STARTS])
def hostile(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A directory with hostile.yaml; what its texts are."""
    text: str = request.param + REST
    (tmp_path / "hostile.yaml").write_text(spec(text), encoding="utf-8")
    (tmp_path / "other.yaml").write_text(spec(text + " other").replace("3x3 4 /2", "3x3 8 /2"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return text


COMMANDS = (
    "info ./hostile.yaml",
    "show ./hostile.yaml ./other.yaml ./hostile.yaml",
    "profile ./hostile.yaml --by layer",
    "compare ./hostile.yaml ./other.yaml --accuracy --baseline ./hostile.yaml",
    "diff ./hostile.yaml ./other.yaml",
    "verify ./hostile.yaml",
    "max-batch ./hostile.yaml --memory 1GB",
    "reconcile ./hostile.yaml 1K",
    "explain ./hostile.yaml --vs ./other.yaml --device-profile v100",
    "estimate ./hostile.yaml --device-profile v100",
)


@pytest.mark.parametrize("command", thinned(COMMANDS, 2), ids=lambda command: command.split()[0])
def test_a_specs_texts_are_text_in_every_format(hostile: str, command: str) -> None:
    for format in FORMATS:
        result = run(f"{command} --format {format}", GITHUB_ACTIONS="true")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert result.stdout, result.stderr
        check_log(result.stdout)
        check_log(result.stderr)
        check_format(format, result.stdout)


def test_a_checked_specs_texts_are_text(hostile: str) -> None:
    Path("hostile.yaml").write_text(spec(hostile).replace("n: 1}", "n: 0}"), encoding="utf-8")
    for command in ("check ./hostile.yaml", "check ./other.yaml", "fmt --check ./other.yaml"):
        result = run(command)
        check_log(result.stdout + result.stderr)


NAMES = (
    "::error::x.yaml", "x\n::error::y.yaml", "\x1b[31mx.yaml", "a|<img src=x>`b`.yaml", "=1+2.yaml", "\u202ex.yaml",
    "[red]x.yaml", "##[error]x.yaml",
)  # fmt: skip


@pytest.mark.parametrize("name", thinned(NAMES, 4))
def test_a_files_name_is_text_in_every_format(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(spec("plain"), encoding="utf-8")
    for words in (
        ["profile", name],
        ["compare", name, name, "n=2"],
        ["info", name],
        ["max-batch", name, "--memory", "1GB"],
    ):
        for format in FORMATS:
            result = run([*words, "--format", format], GITHUB_ACTIONS="true")
            assert result.exit_code == 0, result.output
            check_log(result.stdout)
            check_format(format, result.stdout)
    for words in (["check", name], ["fmt", "--check", name], ["diff", name, "none.yaml"], ["profile", name, "x=1"],
                  ["check", f"{name}.none"], ["info", f"./{name}none"]):  # fmt: skip
        result = run(words)
        check_log(result.stdout + result.stderr)


def test_a_broken_file_with_a_name_like_a_command_is_one_annotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("::error::x.yaml").write_text("input: 3x8x8\ntable: {conv1: 3x3 rellu}\n", encoding="utf-8")
    result = run(["check", "::error::x.yaml"], GITHUB_ACTIONS="true")
    assert [line for line in result.stdout.splitlines() if line.strip().startswith("::")] == [
        line for line in result.stdout.splitlines() if line.startswith("::error file=%3A%3Aerror%3A%3Ax.yaml,line=2,")
    ]
    check_log(result.stderr)


def test_a_devices_name_is_text_in_every_format_and_picture(hostile: str) -> None:
    from resnetcli.roofline.profiles import device_profile_record, read_profile

    record = device_profile_record(read_profile("v100"))
    record["name"] = hostile[:60]
    record["conditions"] = {"measured": hostile[:60], hostile[:40]: hostile[:40]}
    record["source"] = "measured"
    Path("device.json").write_text(json.dumps(record), encoding="utf-8")
    for command in ("estimate ./hostile.yaml", "explain ./hostile.yaml --roofline roof.svg"):
        for format in FORMATS:
            result = run(f"{command} --device-profile device.json --format {format}")
            assert result.exit_code == 0, result.output
            check_log(result.stdout + result.stderr)
            check_format(format, result.stdout)
    assert not {element.tag.rpartition("}")[2] for element in ElementTree.parse("roof.svg").iter()} - {
        "svg", "rect", "text", "line", "polyline", "circle", "title", "path"
    }  # fmt: skip


def test_a_runs_texts_are_text_in_every_format_and_picture(hostile: str) -> None:
    text = hostile.replace("/", "")[:100]
    folders = [
        a_run(Path(name), points(CONFIG, falling(90, 4, 4000), falling(90, 9, 4000), every=4000), title=text,
              data_text=text, model=text)
        for name in ("plain", "::error::run", "x\n::error::y")
    ]  # fmt: skip
    for format in FORMATS:
        result = run(["curves", *map(str, folders), "--format", format])
        assert result.exit_code == 0, result.output
        check_log(result.stdout + result.stderr)
        if format != "md":  # whose plot is in a block of its own
            check_format(format, result.stdout)
    result = run(["curves", *map(str, folders), "-o", "x.svg", "--format", "md"])
    check_log(result.stdout + result.stderr)
    check_format("md", result.stdout)
    tags = {element.tag.rpartition("}")[2] for element in ElementTree.parse("x.svg").iter()}
    assert not tags & {"img", "script", "a", "image"}
