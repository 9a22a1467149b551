"""Imports go one way: the shared ground, the method on it, conversions and evaluation beside each other above, then
benchmarks, reports and the command line. Imports inside functions count too."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "nnunet_attenscribble"
#: By layer, what it may import besides itself; the longest matching name is a module's layer.
ALLOWED = {
    "common": {"errors"},
    "errors": set(),
    "method": {"common", "errors"},
    "trainers": {"method", "common", "errors"},
    "dataset_conversion": {"method", "common", "errors"},
    "evaluation": {"common", "errors"},
    "evaluation.benchmark": {"evaluation", "common", "errors", "method.plans", "method.settings"},
    "evaluation.report": {"evaluation", "common", "errors"},
    "cli": {
        "evaluation.benchmark",
        "evaluation.report",
        "evaluation",
        "dataset_conversion",
        "method",
        "common",
        "errors",
    },
}


def name_module(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == PACKAGE else (PACKAGE, *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def find_layer(module: str) -> str:
    inner = module.removeprefix(PACKAGE).strip(".")
    layers = [layer for layer in ALLOWED if inner == layer or inner.startswith(f"{layer}.")]
    return max(layers, key=len) if layers else "method"


def list_imports(file: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            found += (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module in PACKAGES else [node.module]
            )
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] == PACKAGE]
    return found


FILES = [
    file
    for folder in (PACKAGE, "trainers", "dataset_conversion", "evaluation")
    for file in (ROOT / folder).rglob("*.py")
]
PACKAGES = {name_module(file) for file in FILES if file.name == "__init__.py"}


def may_import(layer: str, imported: str) -> bool:
    other = find_layer(imported)
    if imported.removeprefix(f"{PACKAGE}.") == "__version__" or other == layer:
        return True
    exact = "method." + imported.removeprefix(f"{PACKAGE}.").split(".")[0]
    return other in ALLOWED[layer] or (other == "method" and exact in ALLOWED[layer])


@pytest.mark.parametrize("layer", ALLOWED)
def test_imports_go_one_way(layer):
    wrong = [
        f"{module} imports {imported}"
        for file in FILES
        if find_layer(module := name_module(file)) == layer
        for imported in list_imports(file)
        if not may_import(layer, imported)
    ]
    assert not wrong, "\n".join(wrong)


def test_a_wrong_import_would_be_seen():
    assert not may_import("evaluation", f"{PACKAGE}.dataset_conversion.splits")
    assert not may_import("evaluation", f"{PACKAGE}.evaluation.report.build")
    assert not may_import("common", f"{PACKAGE}.losses.masked_crf")
    assert not may_import("evaluation.benchmark", f"{PACKAGE}.network")
    assert may_import("evaluation.benchmark", f"{PACKAGE}.plans")


def test_there_are_no_circles():
    graph = {name_module(file): set(list_top_imports(file)) for file in FILES}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module in done:
            return
        for other in graph.get(module, ()):
            visit(other, (*path, module))
        done.add(module)

    for module in graph:
        if module not in PACKAGES:
            visit(module, ())


def list_top_imports(file: Path) -> list[str]:
    """What is imported when the module is, packages aside (they gather what is in them)."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    modules = [node.module for node in tree.body if isinstance(node, ast.ImportFrom) and node.module]
    return [module for module in modules if module.split(".")[0] == PACKAGE and module not in PACKAGES]
