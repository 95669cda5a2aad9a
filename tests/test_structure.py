"""Limits that keep the code easy to find one's way in: sizes, parameters, import circles."""

import ast
import inspect
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from test_architecture import PACKAGE, ROOMS, imports_of, module_name  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(file.relative_to(ROOT).as_posix() for room in ROOMS for file in (ROOT / room).rglob("*.py"))
TREES = {path: ast.parse((ROOT / path).read_text(encoding="utf-8")) for path in FILES}

VERB_LINES, CLASS_METHODS, MAIN_LINES, FORWARD_PARAMETERS, FILE_LINES = 60, 30, 10, 9, 900


def lines_of(node: ast.FunctionDef) -> int:
    start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return (node.end_lineno or start) - start + 1


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or through others (Tarjan's components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def import_graph(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Module -> the modules it imports anywhere in its file; `lexmotion` itself, which is lazy, is left out."""
    modules = {module_name(path) for path in trees} - {"lexmotion"}
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for path, tree in trees.items():
        module = module_name(path)
        if module not in graph:
            continue
        for _, name in imports_of(path, tree):
            target = name if name in modules else name.rpartition(".")[0]
            if target in modules and target != module:
                graph[module].add(target)
    return graph


def test_no_modules_import_each_other():
    assert circles(import_graph(TREES)) == []


def test_a_planted_circle_is_found():
    planted = {
        "training/a.py": ast.parse("from . import b"),
        "training/b.py": ast.parse("def late():\n    from .c import thing"),
        "training/c.py": ast.parse('import importlib\nimportlib.import_module(".a", __package__)'),
        "training/d.py": ast.parse("from . import a"),
    }
    graph = import_graph(planted)
    assert circles(graph) == [["lexmotion.training.a", "lexmotion.training.b", "lexmotion.training.c"]]


def test_the_command_line_is_small():
    assert len((ROOT / PACKAGE / "__main__.py").read_text(encoding="utf-8").splitlines()) <= MAIN_LINES
    long = {
        f"{path}: {node.name}": lines_of(node)
        for path, tree in TREES.items()
        if path.startswith(f"{PACKAGE}/cli/")
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and lines_of(node) > VERB_LINES
    }
    assert long == {}


def test_no_class_has_too_many_methods():
    large = {
        f"{path}: {node.name}": sum(isinstance(part, ast.FunctionDef) for part in node.body)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and not node.name.endswith("Config")
    }
    assert {name: count for name, count in large.items() if count > CLASS_METHODS} == {}


@pytest.mark.parametrize(
    ("name", "limit"),
    [("LexMotionModel.forward", FORWARD_PARAMETERS + 1), ("prepare", 9)],  # forward: and self
)
def test_what_users_call_has_few_parameters(name, limit):
    import lexmotion

    thing = lexmotion
    for part in name.split("."):
        thing = getattr(thing, part)
    assert len(inspect.signature(inspect.unwrap(thing)).parameters) <= limit


def test_no_file_is_too_long():
    lengths = {path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {path: length for path, length in lengths.items() if length > FILE_LINES} == {}
