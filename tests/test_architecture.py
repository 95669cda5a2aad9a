"""The doors between the rooms, enforced by reading the imports of every file.

* `modeling -> nothing`, `processing -> nothing`, `evaluation -> modeling, processing`,
  `hub_cards -> modeling, processing`, `training -> all four`. Only the facade may cross.
* `hub_cards/space/` is an application, not a library: it puts everything on a page and nothing imports it but the
  facade. It may use evaluation besides, where search and explanations are; the cards around it may not.
* Files directly in `modeling_lexmotion/` and `processing/` travel to the Hub with a checkpoint: they import public
  libraries and their own siblings, nothing else, and no two of them share a name.
* No file or folder is named after a dependency: a script started inside that folder would import it instead.
"""

import ast
import functools
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "modeling_lexmotion"
ROOMS = (PACKAGE, "processing", "training", "evaluation", "hub_cards")
TRAVELLING_ROOMS = (PACKAGE, "processing")
APPLICATIONS = {"hub_cards/space/": {"evaluation"}}
FACADE = {f"{PACKAGE}/__init__.py", f"{PACKAGE}/__main__.py"}
COMMON = "lexmotion.common"
FACADE_FOLDER = f"{PACKAGE}/cli/"
DOORS = {
    PACKAGE: set(),
    "processing": set(),
    "evaluation": {PACKAGE, "processing"},
    "hub_cards": {PACKAGE, "processing"},
    "training": {PACKAGE, "processing", "evaluation", "hub_cards"},
}
REQUIREMENT = re.compile(r'"([A-Za-z0-9-]+)[<>=]=')
DEPENDENCIES = {name.replace("-", "_").lower() for name in REQUIREMENT.findall((ROOT / "setup.py").read_text())} | {
    "yaml"
}
# The loader of remote code finds siblings with a regular expression, docstrings included.
RELATIVE_IMPORT_LINE = re.compile(r"^\s*(?:from\s+\.\S*\s+import|import\s+\.\S+)", re.MULTILINE)


def module_name(path: str) -> str:
    """`processing/corpora/prepare.py` -> `lexmotion.processing.corpora.prepare`."""
    parts = list(Path(path).with_suffix("").parts)
    parts = ["lexmotion", *parts[1:]] if parts[0] == PACKAGE else ["lexmotion", *parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """Room of an absolute module name inside `lexmotion`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else PACKAGE


def imports_of(path: str, tree: ast.AST) -> list[tuple[int, str]]:
    """(line, absolute module) of every import of `lexmotion`, wherever it stands in the file.

    `from lexmotion import processing` names a room, so each imported name is appended to the module.
    """
    package = module_name(path).split(".")
    if not path.endswith("__init__.py"):
        package = package[:-1]
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: max(1, len(package) - node.level + 1)] if node.level else []  # never above lexmotion
            module = ".".join([*base, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            found += [
                (node.lineno, absolute_name(name.value, ".".join(package)))
                for name in node.args[:1]
                if isinstance(name, ast.Constant) and isinstance(name.value, str)
            ]
    return [(line, module) for line, module in found if str(module).split(".")[0] == "lexmotion"]


def absolute_name(name: str, package: str) -> str:
    """The module that `import_module(name, package)` imports; a name without leading dots is absolute already."""
    level = len(name) - len(name.lstrip("."))
    if not level:
        return name
    base = package.split(".")[: max(1, package.count(".") + 2 - level)]  # never above lexmotion
    return ".".join([*base, *filter(None, [name[level:]])])


@functools.cache
def parsed(path: str, source: str) -> tuple[ast.AST, list[tuple[int, str]]]:
    """The syntax tree of a file and its imports of `lexmotion`, kept: most tests change one file of a few hundred."""
    tree = ast.parse(source, filename=path)
    return tree, imports_of(path, tree)


def breaches(house: dict[str, str]) -> list[str]:
    """Every rule broken in a house of `path: source`, one line each; empty when it is in order."""
    found: list[str] = []
    travellers: dict[str, str] = {}
    siblings = {
        room: frozenset(Path(path).stem for path in house if Path(path).parent == Path(room)) for room in ROOMS
    }
    for path, source in house.items():
        file, room = Path(path), path.split("/")[0]
        tree, imported = parsed(path, source)
        if {file.stem, *file.parent.parts} & DEPENDENCIES:
            found.append(f"{path}: named after a dependency, which it would hide")
        if path in FACADE or path.startswith(FACADE_FOLDER):
            continue
        doors = DOORS[room].union(*(more for place, more in APPLICATIONS.items() if path.startswith(place)))
        for line, module in imported:
            target = room_of(module)
            if target != room and target not in doors and not module.startswith(COMMON):
                found.append(f"{path}:{line}: {room} has no door to {target} ({module})")
        if path.startswith(f"{PACKAGE}/common/"):
            found += [
                f"{path}:{line}: common imports the standard library alone ({name})"
                for line, name in all_imports(tree)
                if name.split(".")[0] not in sys.stdlib_module_names
            ]
        if room in TRAVELLING_ROOMS and file.parent == Path(room) and file.name != "__init__.py":
            found += traveller_breaches(path, source, siblings[room])
            if file.name in travellers:
                found.append(f"{path}: same file name as the traveller {travellers[file.name]}")
            travellers[file.name] = path
    return found


def all_imports(tree: ast.AST) -> list[tuple[int, str]]:
    """(line, module as written) of every import statement; a relative one starts with dots."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.lineno, "." * node.level + (node.module or "")))
    return found


@functools.cache
def traveller_breaches(path: str, source: str, siblings: frozenset[str]) -> list[str]:
    """The rules of a file that is copied, with its siblings, into one flat folder."""
    found = []
    for node in ast.walk(parsed(path, source)[0]):
        if isinstance(node, ast.ImportFrom) and node.level:
            if node.level > 1 or node.module is None or "." in node.module:
                found.append(f"{path}:{node.lineno}: a traveller imports siblings as `from .name import thing` only")
            elif node.module not in siblings:
                found.append(f"{path}:{node.lineno}: {node.module} is no sibling file, so it would stay at home")
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [
                f"{path}:{node.lineno}: a traveller never imports lexmotion by name, not even for type checking"
                for name in names
                if name and name.split(".")[0] == "lexmotion"
            ]
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and RELATIVE_IMPORT_LINE.search(node.value)
        ):
            found.append(f"{path}:{node.lineno}: a line of this text would be read as a relative import")
    found += [
        f"{path}: comment reads as a relative import: {line.strip()}"
        for line in source.splitlines()
        if line.lstrip().startswith("#") and RELATIVE_IMPORT_LINE.search(line.lstrip("# "))
    ]
    return found


@pytest.fixture
def house():
    """The source of every file of the package by its path."""
    files = (file for room in ROOMS for file in sorted((ROOT / room).rglob("*.py")))
    return {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in files}


def test_every_door_is_respected(house):
    assert breaches(house) == []


PLANTED = [
    ("processing/planted.py", "from ..training import trainer", "no door to training"),
    ("processing/planted.py", "from ..evaluation.retrieval import ranks", "siblings as"),
    ("processing/planted.py", "import lexmotion.training", "no door to training"),
    ("processing/planted.py", "from lexmotion.processing.skeletons import Skeleton", "by name"),
    ("processing/planted.py", "if False:\n    from lexmotion import processing", "by name"),
    ("processing/planted.py", "def late():\n    from . import skeletons", "siblings as"),
    ("processing/planted.py", "from .corpora import prepare", "stay at home"),
    ("processing/planted.py", "from .corpora.prepare import prepare", "siblings as"),
    ("processing/planted.py", '"""Example:\n\n    from .skeletons import Skeleton\n"""', "read as a relative import"),
    ("processing/corpora/planted.py", "from lexmotion import LexMotionModel", "no door to modeling_lexmotion"),
    ("processing/corpora/planted.py", "from lexmotion import training", "no door to training"),
    ("processing/datasets.py", "", "named after a dependency"),
    ("processing/evaluate/planted.py", "", "named after a dependency"),
    ("modeling_lexmotion/planted.py", "from lexmotion.processing import lexicon", "no door to processing"),
    ("modeling_lexmotion/baselines/planted.py", "from ...evaluation import retrieval", "no door to evaluation"),
    ("modeling_lexmotion/baselines/planted.py", "from ..processing.lexicon import Lexicon", "no door to processing"),
    ("modeling_lexmotion/conditioning/planted.py", "from ...evaluation import retrieval", "no door to evaluation"),
    ("modeling_lexmotion/conditioning/planted.py", "from ..processing import lexicon", "no door to processing"),
    ("modeling_lexmotion/planted.py", "from .conditioning.text_conditioner import OUTPUTS", "siblings as"),
    ("evaluation/planted.py", "from lexmotion.training.trainer import Trainer", "no door to training"),
    ("evaluation/planted.py", "from ..hub_cards import model_card", "no door to hub_cards"),
    ("evaluation/planted.py", 'importlib.import_module("lexmotion.training")', "no door to training"),
    (
        "evaluation/planted.py",
        'import importlib\nimportlib.import_module("..training.trainer", __package__)',
        "no door to training",
    ),
    ("modeling_lexmotion/common/planted.py", "import torch", "standard library alone"),
    ("modeling_lexmotion/common/planted.py", "from ..lexical_head import saturate", "standard library alone"),
    ("hub_cards/planted.py", "from lexmotion.evaluation import retrieval", "no door to evaluation"),
    ("hub_cards/space/planted.py", "from lexmotion.training import pipeline", "no door to training"),
    ("hub_cards/space_planted.py", "from lexmotion.evaluation import demo", "no door to evaluation"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "code", "message"), PLANTED, ids=[f"{p}-{c[:30]!r}" for p, c, _ in PLANTED])
def test_a_planted_breach_is_found(house, path, code, message):
    found = breaches(house | {path: code + "\n"})
    assert found and all(line.startswith(path) for line in found)
    assert any(message in line for line in found)


ALLOWED = [
    ("modeling_lexmotion/cli/planted.py", "from lexmotion.training import pipeline"),
    ("training/planted.py", "from lexmotion import LexMotionModel\nfrom ..hub_cards import model_card"),
    ("evaluation/planted.py", "from lexmotion.processing.lexicon import Lexicon"),
    ("hub_cards/planted.py", "from ..processing.lexicon import Lexicon\nfrom lexmotion import LexMotionModel"),
    ("hub_cards/space/planted.py", "from lexmotion.evaluation.viewer.demo import open_demo"),
    ("processing/corpora/planted.py", "from ..skeletons import get_skeleton\nfrom .prepare import prepare"),
    ("modeling_lexmotion/conditioning/planted.py", "from ..modeling_lexmotion import LexMotionTextModel"),
    ("processing/corpora/planted.py", "from lexmotion.common.files import write_text"),
    ("modeling_lexmotion/index/planted.py", "from ..common.files import sha256_of"),
    ("modeling_lexmotion/planted.py", "import torch\nfrom transformers import PreTrainedModel"),
]


@pytest.mark.parametrize(("path", "code"), ALLOWED, ids=[p for p, _ in ALLOWED])
def test_an_open_door_is_open(house, path, code):
    assert breaches(house | {path: code + "\n"}) == []


def test_two_travellers_of_one_name_are_found(house):
    planted = {f"{room}/planted.py": "" for room in TRAVELLING_ROOMS}
    assert [line for line in breaches(house | planted) if "same file name" in line]


def test_files_outside_folders_are_those_that_travel_with_the_code():
    """All public classes that are pushed with their code need all flat files, and no others."""
    import lexmotion
    from lexmotion.hub_cards.push import _code_files

    flat = {
        module_name(file.relative_to(ROOT).as_posix()).removeprefix("lexmotion."): file.name
        for room in TRAVELLING_ROOMS
        for file in (ROOT / room).glob("*.py")
        if file.name not in ("__init__.py", "__main__.py")
    }
    family = [getattr(lexmotion, name) for name, home in lexmotion._HOME.items() if home in flat]
    assert {file.name for file in _code_files(family)} == set(flat.values())
