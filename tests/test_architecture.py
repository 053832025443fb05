"""The shape of the code itself: direction of imports, lengths, what may not appear."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "resnet_cifar100"
SOURCES = sorted(PACKAGE.rglob("*.py"))
ALL_SOURCES = [*SOURCES, *sorted((ROOT / "tests").rglob("*.py")), *sorted(ROOT.glob("*.py"))]
ALL_SOURCES += sorted((ROOT / "benchmarks").rglob("*.py"))
LAYERS = (  # each may import from the lines above it, and from its own folder
    ("constants", "errors"),
    ("limits", "markdown", "description"),
    ("config",),
    ("recipes", "parallel", "storage"),
    ("kernels",),
    ("runtime",),
    ("data", "models"),
    ("bundle",),
    ("judge",),
    ("engine",),
    ("analysis",),
    ("export",),
    ("serve",),
    ("cli",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported_layers(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("resnet_cifar100."):
            yield node.module.split(".")[1]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_point_one_way(path):
    layer = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if layer.startswith("__"):
        return
    for imported in imported_layers(ast.parse(path.read_text())):
        assert RANK[imported] < RANK[layer] or imported == layer, f"{layer} imports {imported}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_the_package_is_imported_by_full_module_names(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("resnet_cifar100") for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            if node.module == "resnet_cifar100":
                assert [alias.name for alias in node.names] == ["__version__"]


@pytest.mark.parametrize("path", ALL_SOURCES, ids=name_of)
def test_files_and_functions_stay_short(path):
    text = path.read_text()
    assert text.count("\n") <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno + 1 <= 60, node.name


@pytest.mark.parametrize("path", ALL_SOURCES, ids=name_of)
def test_no_module_is_an_attic(path):
    banned = {"utils", "helpers", "misc", "common", "manager", "base"}
    assert path.stem not in banned


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_unpickles_but_the_reader_of_the_data_set(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in {("pickle", "load"), ("pickle", "loads")}
            if node.value.id == "pickle" and node.attr in {"Unpickler", "_Unpickler"}:
                assert path.name == "cifar100.py"
        if isinstance(node, ast.keyword) and node.arg == "weights_only":
            assert isinstance(node.value, ast.Constant)
            assert node.value.value is True
