"""The documentation is true: examples run, commands and options exist, figures agree, links lead somewhere."""

import doctest
import importlib
import importlib.util
import pkgutil
import re
import shlex
import shutil
from functools import cache
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

import lexmotion
from lexmotion import cli, shipped

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("processing", "training", "evaluation", "hub_cards")
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
PAGES += sorted(f"docs/{page.name}" for page in ROOT.glob("docs/*.md"))
PAGES += ["docs/galleries/README.md"]
WRITTEN_BY_COMPARE = "docs/results.md"
NO_PYTHON_HERE = "docs/drop_in.md"  # tests/modeling/test_conditioning_generators.py runs its blocks
README_LINES = 130
# Private vocabulary and idioms that readers from the field would stumble over.
AVOIDED = re.compile(
    r"\b(rooms?|doors?|travell?ers?|daggers?|lit|told|spoken|(is|are) there|deaf|"
    r"(frames|bytes|steps|words|minutes|seconds|GB|kB|ms) an? (clip|row|frame|second|caption|motion|step|item))\b",
    re.IGNORECASE,
)


@cache
def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page, language):
    """(first line, code, whether it can run) of each block; `<!-- needs ... -->` above a block says that it cannot."""
    pattern = rf"^(<!-- needs .*?-->\n)?```{language}\n(.*?)^```"
    return [
        (text_of(page)[: match.start(2)].count("\n") + 1, match[2], match[1] is None)
        for match in re.finditer(pattern, text_of(page), re.DOTALL | re.MULTILINE)
    ]


def without_blocks(page):
    return re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


def prose(page):
    """A page without code."""
    return re.sub(r"`[^`\n]*`", "", without_blocks(page))


def commands(page):
    """The shell commands of a page as words, comments left out and continued lines joined."""
    found = []
    for _, code, _ in blocks(page, "bash"):
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                found.append(words)
    return found


ALL_COMMANDS = [
    pytest.param(words, id=f"{page.removesuffix('.md')}: {' '.join(words)[:80]}")
    for page in PAGES
    for words in commands(page)
]


def module_names():
    """Every module of the package."""
    packages = [lexmotion, *(importlib.import_module(f"lexmotion.{room}") for room in ROOMS)]
    names = {
        module.name
        for package in packages
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    }
    return sorted(name for name in names if not name.endswith("__main__"))


@pytest.mark.parametrize("name", module_names())
def test_docstring_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    result = doctest.testmod(importlib.import_module(name), optionflags=flags)
    assert result.failed == 0


# ---- commands -------------------------------------------------------------------------------------------------------


def check_lexmotion(words):
    """The verb exists, its options exist and have values of the right type, and nothing required is missing."""
    command, words = get_command(cli.app), list(words)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context(command.name, words)


def check_module(name, words):
    """`python -m NAME WORDS`; a training task also parses its flags."""
    if name == "lexmotion":
        return check_lexmotion(words)
    if name == "lexmotion.training":
        pytest.importorskip("lexmotion.training.__main__", reason="not merged yet").parse_arguments(
            words[0], words[1:]
        )
    assert importlib.util.find_spec(name) is not None, name


def check_pip(words):
    """Extras exist."""
    known = set(re.findall(r'^    "(\w+)": \[', text_of("setup.py"), flags=re.MULTILINE)) | {"dev"}
    for word in words:
        for extras in re.findall(r"(?:^\.|lexmotion)\[([\w,-]+)\]", word):
            assert set(extras.split(",")) <= known, word


def check_make(words):
    target = words[0]
    assert re.search(rf"^{target}:", text_of("Makefile"), flags=re.MULTILINE), f"the Makefile has no target {target!r}"


@pytest.mark.parametrize("words", ALL_COMMANDS)
def test_every_command_of_the_documentation_can_be_parsed(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/small", "docs/results.zip"):  # the options that want something that exists
        (tmp_path / folder).mkdir(parents=True)
    if words[0] == "taskset":
        words = words[3:]
    if words[:2] == ["accelerate", "launch"]:
        words = ["python", *words[words.index("-m") :]]
    program, arguments = words[0].removeprefix(".venv/bin/"), words[1:]
    if program == "lexmotion":
        check_lexmotion(arguments)
    elif program == "make":
        check_make(arguments)
    elif program == "pip":
        check_pip(arguments)
    elif program in ("python", "python3") and arguments[0] == "-m":
        check_module(arguments[1], arguments[2:])
    elif program == "python":
        assert (ROOT / arguments[0]).is_file(), arguments[0]
    else:
        pytest.fail(f"no check for the command {program!r}; add one here, or take the line out of the page")


def test_continuous_integration_runs_commands_of_the_readme():
    lines = [words for words in commands("README.md")]
    script = text_of(".ci/run")
    steps = re.search(r"for step in (.*?); do", script).group(1).split()
    assert steps == ["quality", "test", "docs"] and all(["make", step] in lines for step in steps)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md", "docs/search.md", "docs/pretrained.md"])
def test_commands_on_a_trained_model_run(page, workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    monkeypatch.delenv(cli.DEBUG_VARIABLE, raising=False)
    monkeypatch.setattr(shipped, "WEIGHTS", workplace / "weights")
    for folder in ("motions", "motions.index", "averaged.index", "my.index", "files.index"):  # of another page
        shutil.rmtree(workplace / folder, ignore_errors=True)
    ran = 0
    for program, *words in commands(page):
        verbs = ("samples", "inspect", "explain", "index", "search")
        if not program.endswith("lexmotion") or words[0] not in verbs or "--uri" in words:
            continue
        if "moved.index" in words:
            continue  # the rows of this one would be in Postgres
        with pytest.raises(SystemExit) as stop:
            cli.main(words)
        assert stop.value.code == 0, (words, capsys.readouterr().err)
        ran += 1
    assert ran


# ---- Python ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python") and page != NO_PYTHON_HERE])
def test_python_blocks_run(page, workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(shipped, "WEIGHTS", workplace / "weights")
    shutil.rmtree(workplace / "my.index", ignore_errors=True)  # of another page
    names = {"__name__": "documentation"}
    for line, code, runs in blocks(page, "python"):
        compiled = compile("\n" * (line - 1) + code, page, "exec")
        if runs:
            exec(compiled, names)
        else:
            exec("\n".join(found for found in code.splitlines() if found.startswith(("import ", "from "))), {})
        assert "print(" not in code or not runs or capsys.readouterr().out


# ---- pages ----------------------------------------------------------------------------------------------------------


def test_the_readme_is_short():
    assert len(text_of("README.md").splitlines()) <= README_LINES


@pytest.mark.parametrize("page", PAGES)
def test_pages_use_the_vocabulary_of_the_field(page):
    assert [match.group() for match in AVOIDED.finditer(prose(page))] == []


def test_the_help_of_make_uses_the_vocabulary_of_the_field():
    comments = "\n".join(line for line in text_of("Makefile").splitlines() if line.startswith("#"))
    assert [match.group() for match in AVOIDED.finditer(comments)] == []


def anchors(page):
    """Anchors of the headings, as Python-Markdown makes them."""
    headings = re.findall(r"^#+ (.*)$", without_blocks(page), flags=re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings)
    return {re.sub(r"[-\s]+", "-", heading) for heading in plain}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (ROOT / page).parent / file if file else ROOT / page
        name = target.resolve().relative_to(ROOT).as_posix()
        if not target.exists() or (anchor and anchor not in anchors(name)):
            broken.append(link)
    assert broken == []


def test_every_page_and_picture_is_used():
    nav = set(re.findall(r": (\w+\.md)$", text_of("mkdocs.yml"), flags=re.MULTILINE))
    assert nav == {page.name for page in ROOT.glob("docs/*.md")}
    pictures = {f"images/{picture.name}" for picture in (ROOT / "docs" / "images").iterdir()}
    everything = "".join(text_of(page) for page in PAGES)
    assert {picture for picture in pictures if picture not in everything} == set()


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_modules_named_on_a_page_exist(page):
    for name in sorted(set(re.findall(r"\blexmotion(?:\.\w+)+", text_of(page)))):
        module, _, item = name.rpartition(".")
        assert hasattr(importlib.import_module(module), item) or importlib.util.find_spec(name), name


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_files_named_on_a_page_exist(page):
    named = {name for name in re.findall(r"`([\w./-]+)`", text_of(page)) if "/" in name and not name.startswith("/")}
    assert named and {name for name in named - {"site/"} if not (ROOT / name).exists()} == set()


def test_the_tree_of_the_architecture_page_is_the_tree():
    block = re.search(r"^```text\n(.*?)^```", text_of("docs/architecture.md"), re.DOTALL | re.MULTILINE)[1]
    folder, missing = "", []
    for line in block.splitlines():
        names = re.split(r"\s{2,}", line.strip())[0].split()
        if not line.startswith(" "):
            folder = names[0] if len(names) == 1 else ""
            missing += [name for name in names if not (ROOT / name).exists()]
        elif names != ["*.py"]:
            missing += [folder + name for name in names if not (ROOT / folder / name).exists()]
    assert missing == []


def test_the_api_page_lists_every_public_name():
    listed = set(re.findall(r"^::: lexmotion\.(\w+)$", text_of("docs/api.md"), flags=re.MULTILINE))
    public = {name for name in lexmotion.__all__ if hasattr(lexmotion, name)} - {"register"}
    assert public - listed == set(), "add `::: lexmotion.NAME` to docs/api.md"
    assert listed - public == set()


def test_files_listed_as_slow_exist():
    listed = [line.split("#")[0].strip() for line in text_of("tests/slow_files.txt").splitlines()]
    assert [name for name in listed if name and not (ROOT / "tests" / name).is_file()] == []


# ---- facts ----------------------------------------------------------------------------------------------------------


def option_rows():
    """(option, default of the code, recipe `small`) of the table of options in docs/training.md."""
    section = text_of("docs/training.md").split("## Options of phase iv", 1)[1].split("\n## ", 1)[0]
    for options, _, default, small in re.findall(r"^\| (`.*?) \| (.*?) \| (.*?) \| (.*?) \|$", section, re.MULTILINE):
        for option in re.findall(r"`([^`]+)`", options):
            name = re.sub(r"^model_config: \{(\w+): .*\}$", r"\1", option).partition(":")[0]
            yield name, default.replace("*", ""), small


@pytest.mark.parametrize(("name", "default", "small"), [pytest.param(*row, id=row[0]) for row in option_rows()])
def test_the_table_of_options_says_what_is_on(name, default, small):
    from lexmotion.training.comparison.rows import recipe_value

    recipe = yaml.safe_load(text_of("training/recipes/small.yaml"))
    for said, values in ((default, {"phases": {"lexcmlp": {}}}), (small, recipe)):
        try:
            value = recipe_value(values, f"lexcmlp.{name}")
        except ValueError:  # an option of the architecture
            value = recipe_value(values, f"model_config.{name}")
        is_on = value != 1 if name in ("num_segments", "captions_per_motion") else bool(value)
        assert said.startswith("on") == is_on or said == str(value), (said, value)
        number = re.search(r"\((.*)\)", said)
        assert number is None or yaml.safe_load(number[1]) == value, said


def test_figures_of_the_readme_are_those_of_the_results_page():
    labels = {
        "LexMotion, four phases": "LexMotion",
        "LexMotion, alignment (phase iv) alone": "phases iv",
        "ridge regression (no network, one run)": "Ridge floor",
    }
    results = {}
    for line in text_of(WRITTEN_BY_COMPARE).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 15:
            results.setdefault(cells[0], cells)
    header = results[""]
    columns = [header.index(name) for name in ("t2m R@1", "t2m R@10", "m2t R@1", "m2t R@10", "Rsum")]
    rows = re.findall(r"^\| (.*?) \| ([\d. ±|]+) \|$", text_of("README.md"), re.MULTILINE)
    assert len(rows) == 7
    for label, figures in rows:
        cells = results[labels.get(label, label)]
        assert [cell.strip() for cell in figures.split("|")] == [cells[column] for column in columns], label


def test_the_changelog_names_every_module_that_moved():
    from lexmotion.common.moved import MOVED

    missing = [old for old, new in MOVED.items() if f"| `{old}` | `{new}` |" not in text_of("CHANGELOG.md")]
    assert missing == []
