"""The layout shows the flow: text -> spec -> plan -> readers -> command line, and imports follow it one way."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = "resnetcli"
ROOT = Path(__file__).resolve().parent.parent
LAYERS: tuple[tuple[str, ...], ...] = (
    ("cgroup", "errors", "failures", "files", "frozen", "ops", "quantities", "structure", "table"),
    ("spec", "data"),
    ("plan",),
    ("net", "recipes"),
    ("bench", "counting", "runs"),
    ("reports",),
    ("roofline", "train"),
    ("parallel",),
    ("",),  # resnetcli itself: the names of the library
    ("cli", "__main__"),
)
"""The parts of the package, a layer each line; a part imports from its own layer and from those above it here."""
WITH_TORCH = (
    "net", "bench", "train", "parallel", "counting.tools", "ops.modules", "roofline.layers", "roofline.calibrate",
    "runs.checkpoint", "runs.tensorboard",
)  # fmt: skip
"""Parts and modules that may import torch when they are imported. None imports pandas then."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted((ROOT / PACKAGE).rglob("*.py"))}


def may_load_torch(name: str) -> bool:
    return name.partition(".")[2].startswith(WITH_TORCH)


def part_of(name: str) -> str:
    """`resnetcli.spec.read` is of the part `spec`, `resnetcli` itself of none."""
    return name.split(".")[1] if "." in name else ""


def layer_of(name: str) -> int:
    return next((index for index, parts in enumerate(LAYERS) if part_of(name) in parts), -1)


@cache
def imports_of(name: str) -> frozenset[str]:
    """The package's modules that a module imports, wherever in it the import stands."""
    return frozenset(_imports(name))


def _imports(name: str) -> Iterator[str]:
    path = FILES[name]
    for node in ast.walk(ast.parse(path.read_text("utf-8"), path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES)
        elif isinstance(node, ast.ImportFrom):
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                found = f"{base}.{alias.name}"
                if found in FILES:
                    yield found
                elif base in FILES:
                    yield base


def test_every_part_has_its_layer_and_imports_point_one_way() -> None:
    unknown = {part_of(name) for name in FILES if layer_of(name) < 0}
    assert not unknown, "LAYERS does not say what these may import"
    backwards = [
        f"{name} imports {other}" for name in FILES for other in imports_of(name) if layer_of(other) > layer_of(name)
    ]
    assert not backwards


def test_no_module_imports_itself_by_way_of_others() -> None:
    left = {name: set(imports_of(name)) for name in FILES}
    while free := [name for name, needed in left.items() if not needed & left.keys()]:
        for name in free:
            del left[name]
    circles = {name: needed & left.keys() for name, needed in left.items()}
    assert not circles


def test_no_part_imports_another_that_imports_it() -> None:
    parts = {
        (part_of(name), part_of(other))
        for name in FILES
        for other in imports_of(name)
        if part_of(name) != part_of(other)
    }
    assert not [pair for pair in parts if pair[::-1] in parts]


def test_a_module_has_one_purpose_and_says_it_in_its_first_line() -> None:
    drawers = {"util", "utils", "helpers", "common", "misc"}
    assert not [name for name in FILES if drawers & set(name.split("."))]
    texts = {name: path.read_text("utf-8") for name, path in FILES.items()}
    assert not [name for name, text in texts.items() if text.strip() and not ast.get_docstring(ast.parse(text))]


def loaded_by(code: str) -> set[str]:
    """The top-level modules a fresh interpreter holds after running the code."""
    report = "\nimport json, sys\nprint(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    answer = subprocess.run(
        [sys.executable, "-c", code + report], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    return set(json.loads(answer.stdout.splitlines()[-1]))


SLOW_TO_IMPORT = {"torch", "pandas", "numpy", "torchvision", "fvcore", "thop", "matplotlib"}


def test_importing_the_package_loads_nothing_slow() -> None:
    loaded = loaded_by("import resnetcli")
    assert "resnetcli" in loaded
    assert not loaded & (SLOW_TO_IMPORT | {"yaml", "rich", "typer"})


def test_only_the_modules_named_load_torch_when_they_are_imported() -> None:
    names = [name for name in FILES if not may_load_torch(name) and part_of(name) != "__main__"]
    assert len(names) > 15
    assert not loaded_by("\n".join(f"import {name}" for name in names)) & SLOW_TO_IMPORT


def test_modules_that_load_torch_do_not_load_pandas() -> None:
    names = [name for name in FILES if may_load_torch(name)]
    loaded = loaded_by("\n".join(f"import {name}" for name in names))
    assert "torch" in loaded
    assert not loaded & {"pandas", "torchvision", "fvcore", "thop", "tensorboard"}


def test_reading_lowering_and_counting_every_spec_loads_nothing_slow() -> None:
    loaded = loaded_by("""
from resnetcli.plan.count import count
from resnetcli.plan.lower import lower
from resnetcli.spec.read import read
from resnetcli.spec.zoo import Zoo

zoo = Zoo()
assert all(count(lower(read(name, zoo=zoo))).macs for name in zoo.files)
""")
    assert "yaml" in loaded
    assert not loaded & (SLOW_TO_IMPORT | {"rich", "typer"})


def test_no_test_patches_torch_by_a_path_that_would_import_it() -> None:
    """Patching "torch.some.module.name" imports the module, and would hide that the code does not import it itself."""
    patched = re.compile(r"setattr\(\s*[\"']torch\.")
    assert not [path for path in (ROOT / "tests").rglob("*.py") if patched.search(path.read_text("utf-8"))]


MAX_LINES = 450


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    files = [*FILES.values(), *(ROOT / "tests").rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in files}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_a_public_name_means_one_thing_in_the_package() -> None:
    """Top-level functions and classes; a command's function in `cli` may have the name of what it calls."""
    places: dict[str, list[str]] = {}
    for name, path in FILES.items():
        for node in ast.parse(path.read_text("utf-8")).body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            if not any(".command" in ast.unparse(decorator) for decorator in node.decorator_list):
                places.setdefault(node.name, []).append(name)
    assert {name: modules for name, modules in places.items() if len(set(modules)) > 1} == {}


def test_no_test_imports_another() -> None:
    """What tests share is in `tests/support`."""
    imports = re.compile(r"^\s*(?:from|import) tests\.(?:\w+\.)*test_\w+", re.MULTILINE)
    paths = sorted((ROOT / "tests").rglob("*.py"))
    assert {path.name: found for path in paths if (found := imports.findall(path.read_text("utf-8")))} == {}
