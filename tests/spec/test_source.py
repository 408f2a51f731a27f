"""Text to nodes: what is kept, where it stands, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from resnetcli.errors import Source, SpecError, UsageError
from resnetcli.spec.source import MAX_BYTES, MAX_DEPTH, Map, Node, Seq, Text, parse, read_source
from resnetcli.spec.zoo import Zoo
from tests.support.strategies import specs


def test_a_limit_of_libyaml_s_own_is_reported_as_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def limited(text: str, Loader: object) -> object:
        mark = yaml.Mark("", 1000, 0, 1000, None, 0)
        raise yaml.MarkedYAMLError(problem="exceeded maximum nesting depth", problem_mark=mark)

    monkeypatch.setattr(yaml, "parse", limited)
    with pytest.raises(SpecError) as raised:
        parse(Source("deep.yaml", "[" * 30_000))
    [problem] = raised.value.problems
    assert problem.message == f"nested more than {MAX_DEPTH} deep"
    assert problem.at is not None
    assert (problem.at.line, problem.at.column, problem.hint) == (1, MAX_DEPTH + 1, "")


def nodes(node: Node) -> list[Node]:
    """The node and all below it."""
    match node:
        case Text():
            return [node]
        case Seq(items=items):
            return [node, *(inner for item in items for inner in nodes(item))]
        case Map(pairs=pairs):
            return [node, *(inner for pair in pairs for part in pair for inner in nodes(part))]


def plain(node: Node) -> object:
    """Lists, dicts and strings."""
    match node:
        case Text(value=value):
            return value
        case Seq(items=items):
            return [plain(item) for item in items]
        case Map(pairs=pairs):
            return {key.value: plain(value) for key, value in pairs}


TEXTS = [path.read_text(encoding="utf-8") for path in Zoo().files.values()]


@pytest.mark.parametrize("text", TEXTS, ids=list(Zoo().files))
def test_the_nodes_are_yaml_s_own_and_every_scalar_is_text(text: str) -> None:
    assert plain(parse(Source("net.yaml", text))) == yaml.load(text, yaml.BaseLoader)


@given(specs())
def test_the_nodes_of_any_spec_are_yaml_s_own(text: str) -> None:
    assert plain(parse(Source("net.yaml", text))) == yaml.load(text, yaml.BaseLoader)


@given(specs(), st.sampled_from(["\n", "\r\n", "\r", "\x85"]))
def test_a_scalar_stands_where_its_place_says(text: str, ending: str) -> None:
    source = Source("net.yaml", text.replace("\n", ending))
    for node in nodes(parse(source)):
        if isinstance(node, Text) and node.value:
            line = source.line(node.at.line)
            assert line[node.at.column - 1 :][: node.at.length] == node.value
            assert source.text[node.start : node.end] == node.value
            assert source.at(node.start) == node.at.part(0, 1)


@pytest.mark.parametrize(
    ("text", "value", "place"),
    [
        ("a: 7x7 64", "7x7 64", "7x7 64"),
        ("a: '7x7 64'", "7x7 64", "7x7 64"),
        ('a: "7x7 64"', "7x7 64", "7x7 64"),
        ("a: 5", "5", "5"),
        ("a: yes", "yes", "yes"),
        ("a: null", "null", "null"),
        ("a: 7×7, 64", "7×7, 64", "7×7, 64"),
        ("a: 'it''s'", "it's", "'it''s'"),
        ('a: "\\x37x7"', "7x7", '"\\x37x7"'),
        ("a: 7x7 # the stem", "7x7", "7x7"),
        ("a: |\n  7x7 64\n", "7x7 64\n", "|"),
        ("a:", "", ""),
    ],
)
def test_a_scalar_has_a_value_and_a_place(text: str, value: str, place: str) -> None:
    node = parse(Source("net.yaml", text)).get("a")
    assert isinstance(node, Text)
    assert node.value == value
    assert Source("net.yaml", text).line(1)[node.at.column - 1 :][: node.at.length] == place


def test_words_of_a_scalar_have_places_unless_it_is_written_in_escapes() -> None:
    for text, column, length in (('a: "x 3x3"', 7, 3), ('a: "\\x78 3x3"', 4, 10)):
        node = parse(Source("net.yaml", text)).get("a")
        assert isinstance(node, Text)
        at = node.word(2, 3)
        assert (at.column, at.length) == (column, length)


def test_keys_keep_their_order_and_lists_know_their_style() -> None:
    root = parse(Source("net.yaml", "b: [1, 2]\na:\n  - 1\n"))
    assert [key.value for key, _ in root.pairs] == ["b", "a"]
    assert [isinstance(value, Seq) and value.flow for _, value in root.pairs] == [True, False]
    assert root.get("c") is None


def test_no_scalar_is_ever_anything_but_text() -> None:
    text = "a: [0x10, 1e3, 2001-01-01, true, ~, 010, .inf, 1_000]\n"
    assert plain(parse(Source("net.yaml", text))) == {
        "a": ["0x10", "1e3", "2001-01-01", "true", "~", "010", ".inf", "1_000"]
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("# nothing\n", "the file is empty"),
        ("---\n", "a spec is a mapping"),
        ("a", "a spec is a mapping"),
        ("[a]", "a spec is a mapping"),
        ("a: &x 1", "anchor `&x`"),
        ("a: *x", "alias `*x`"),
        ("a: !x 1", "tag `!x`"),
        ("a: !!int 1", "tag `!!int`"),
        ("a: !<tag:yaml.org,2002:str> 1", "tag `!<tag:yaml.org,2002:str>`"),
        ("&x a: 1", "anchor `&x`"),
        ("a: &x [1]", "anchor `&x`"),
        ("a: 1\n---\nb: 1", "a second begins here"),
        ("a: 1\na: 1", "duplicate key `a`"),
        ("a: 1\n'a': 1", "duplicate key `a`"),
        ("a: {b: 1, c: 1, b: 1}", "duplicate key `b`"),
        ("[a]: 1", "a key must be one word or phrase"),
        ("{a: 1}: 1", "a key must be one word or phrase"),
        ("a: 1\n\tb: 1", "not YAML"),
        ("a: \x07", "not YAML"),
        ("a: \ud800", "not YAML"),
        ("a: [1, 2", "not YAML: unclosed bracket"),
        ("a: 'b", "not YAML"),
        ("a: @b", "not YAML"),
        ("a: %b", "not YAML"),
        ("a: b: c", "not YAML"),
        ("a: " + "[" * MAX_DEPTH, f"nested more than {MAX_DEPTH} deep"),
        ("- " * 30_000, f"nested more than {MAX_DEPTH} deep"),
    ],
)
def test_what_is_no_plain_mapping_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError) as raised:
        parse(Source("net.yaml", text))
    assert message in raised.value.problems[0].message


def test_every_problem_of_the_yaml_is_reported_at_once() -> None:
    with pytest.raises(SpecError) as raised:
        parse(Source("net.yaml", "a: &x 1\nb: *x\na: !!int 2\n"))
    assert [problem.at.line for problem in raised.value.problems if problem.at] == [1, 2, 3, 3]


def test_a_list_may_be_as_deep_as_is_allowed() -> None:
    parse(Source("net.yaml", "a: " + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)))


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_file_is_called_by_its_label_or_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_bytes("\ufeffname: café\r\n".encode())
    assert read_source(path) == Source(str(path), "name: café\r\n", str(path))
    assert read_source(path, "mine").label == "mine"


def test_a_file_may_be_as_large_as_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_bytes(b"#" * MAX_BYTES)
    assert len(read_source(path).text) == MAX_BYTES
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(UsageError, match="larger than 64 KiB"):
        read_source(path)
    with pytest.raises(UsageError, match="larger than 64 KiB"):
        parse(Source("net.yaml", "#" * (MAX_BYTES + 1)))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.yaml", "no such file: `missing.yaml`"),
        ("folder", "`folder` is a directory, not a spec"),
        ("pipe", "`pipe` is not a regular file"),
        ("loop", "cannot read `loop`"),
        ("secret.yaml", "cannot read `secret.yaml`: Permission denied"),
        ("secret.yaml/inside.yaml", "cannot read `secret.yaml/inside.yaml`: Not a directory"),
        ("n" * 300, "cannot read `nnn"),
        ("a\0b", "cannot read `a"),
        ("/dev/zero", "`/dev/zero` is not a regular file"),
        ("/dev/null", "`/dev/null` is not a regular file"),
    ],
)
def test_what_is_no_readable_file_is_refused(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "secret.yaml").write_text("a: 1")
    (tmp_path / "secret.yaml").chmod(0)
    os.mkfifo(tmp_path / "pipe")
    if name == "secret.yaml" and os.access(name, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(UsageError) as raised:
        read_source(Path(name))
    assert raised.value.message.startswith(message)


@pytest.mark.parametrize(
    ("data", "line", "column"),
    [(b"\xff", 1, 1), (b"a: caf\xe9", 1, 7), ("é\r\né".encode() + b"\x80", 2, 2), (b"\xc3", 1, 1)],
)
def test_bytes_that_are_no_utf_8_are_pointed_at(data: bytes, line: int, column: int, tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_bytes(data)
    with pytest.raises(SpecError) as raised:
        read_source(path)
    (problem,) = raised.value.problems
    assert problem.at is not None
    assert (problem.at.line, problem.at.column) == (line, column)
    assert problem.message.startswith("not UTF-8 text: byte 0x")
