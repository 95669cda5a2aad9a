"""What is installed and what is read: one package name, no pickles, safetensors alone, no network at import."""

import ast
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lexmotion import LexMotionModel

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("modeling_lexmotion", "processing", "training", "evaluation", "hub_cards")
PICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
LOADERS = {"torch.load", "torch.save", "numpy.load", "np.load", "pandas.read_pickle", "pd.read_pickle"}
TRANSFORMERS_MODELS = ("AutoModelForMaskedLM", "AutoModelForTextEncoding", "AutoModelForCausalLM")


def unsafe_reads(source):
    """Lines that could run code of a file they read."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [name.name for name in node.names]
            found += [(node.lineno, name) for name in names if name.split(".")[0] in PICKLING]
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if name in LOADERS and options.get("allow_pickle") != "False":
                found.append((node.lineno, name))
            if name.endswith(tuple(f"{auto}.from_pretrained" for auto in TRANSFORMERS_MODELS)):
                found += [] if options.get("use_safetensors") == "True" else [(node.lineno, name)]
            if options.get("use_safetensors") == "False" or options.get("weights_only") == "False":
                found.append((node.lineno, name))
            if name in ("eval", "exec"):
                found.append((node.lineno, name))
    return found


def test_nothing_in_the_package_reads_a_pickle():
    sources = [file for room in ROOMS for file in sorted((ROOT / room).rglob("*.py"))]
    found = {file: unsafe_reads(file.read_text(encoding="utf-8")) for file in sources}
    assert len(sources) > 60 and {file: lines for file, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path, weights_only=True)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "AutoModelForMaskedLM.from_pretrained(path)",
        "Model.from_pretrained(path, use_safetensors=False)",
        "eval(text)",
    ],
)
def test_a_planted_pickle_is_found(line):
    assert unsafe_reads(line)


class Trap:
    """Loading it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_weights_that_are_pickles_are_not_read(tmp_path):
    sys.path.insert(0, str(ROOT / "tests" / "modeling"))
    from tiny import dual_model

    dual_model().save_pretrained(tmp_path / "model")
    state = load_file(tmp_path / "model" / "model.safetensors")
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save({**state, "trap": Trap(tmp_path / "sprung")}, tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises((OSError, ValueError), match="model.safetensors"):
        LexMotionModel.from_pretrained(tmp_path / "model")
    assert not (tmp_path / "sprung").exists()


# ------------------------------------------------------------------------------------------------------ what is built


def data_files():
    """Files of the rooms that are not code, as they are called once installed."""
    files = [file for room in ROOMS for file in (ROOT / room).rglob("*") if file.is_file()]
    names = [file.relative_to(ROOT).as_posix() for file in files if "__pycache__" not in file.parts]
    return {
        "lexmotion/" + name.removeprefix("modeling_lexmotion/")
        for name in names
        if not name.endswith((".py", ".partial")) and not Path(name).name.startswith(".")
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of this checkout to build from, so that nothing is left in it."""
    root = tmp_path_factory.mktemp("build")
    for room in ROOMS:
        shutil.copytree(ROOT / room, root / "source" / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, root / "source" / name)
    return root / "source"


@pytest.fixture(scope="module")
def wheel(source):
    """The wheel of this checkout."""
    root = source.parent
    words = ["wheel", "--no-deps", "--no-index", "--no-build-isolation", "--quiet", "--wheel-dir", str(root), "."]
    built = subprocess.run(
        [sys.executable, "-m", "pip", *words], cwd=source, capture_output=True, text=True, timeout=300
    )
    if "BackendUnavailable" in built.stderr or "No module named" in built.stderr:
        pytest.skip(f"the build backend (setuptools) is not installed here: {built.stderr.strip().splitlines()[-1]}")
    assert built.returncode == 0, built.stderr
    return next(root.glob("lexmotion-*.whl"))


def test_the_wheel_holds_one_name_and_all_data(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"lexmotion"}
    wanted = data_files()
    assert any(name.endswith("recipes/tiny.yaml") for name in wanted) and not wanted - set(names)
    assert {"lexmotion/shipped/samples/kick.bvh", "lexmotion/shipped/samples/README.md"} <= wanted
    assert not [name for name in names if "/tests/" in name or name.endswith((".pt", ".pkl", ".npy"))]


def test_the_source_distribution_holds_all_data(source):
    pytest.importorskip("setuptools", reason="the build backend is not installed here")
    code = "from setuptools.build_meta import build_sdist; build_sdist('..')"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True, timeout=300)
    with tarfile.open(next(source.parent.glob("lexmotion-*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    folders = tuple(f"lexmotion/{room}/" for room in ROOMS)
    wanted = {
        name.removeprefix("lexmotion/") if name.startswith(folders) else f"modeling_{name}" for name in data_files()
    }
    assert "modeling_lexmotion/shipped/samples/kick.bvh" in wanted and not wanted - names


def test_the_wheel_works_where_the_checkout_is_not(wheel, tmp_path):
    target = tmp_path / "site"
    words = ["install", "--no-deps", "--no-index", "--quiet", "--target", str(target), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, capture_output=True, timeout=300)
    code = (
        "import sys, lexmotion\n"
        "from lexmotion.hub_cards.model_card import ModelCard\n"
        "from lexmotion.training.recipe import load_recipe\n"
        f"assert lexmotion.__file__.startswith({str(target)!r}), lexmotion.__file__\n"
        "assert load_recipe('tiny')['phases'] and 'Not evaluated' in ModelCard('a/b', 'r', 'c', 'd').render()\n"
        "assert not {'processing', 'training', 'evaluation', 'modeling_lexmotion'} & set(sys.modules)\n"
        "kick = lexmotion.load_motion(next(one.path for one in lexmotion.samples() if one.name == 'kick'))\n"
        "assert kick.positions.shape == (199, 22, 3)\n"
        "print(lexmotion.LexMotionModel.__name__)\n"
    )
    # -S passes over what installs this checkout; its other packages come by PYTHONPATH.
    path = os.pathsep.join([str(target), sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"]])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 and done.stdout.strip() == "LexMotionModel", done.stderr
    assert sorted(entry.name for entry in target.iterdir() if not entry.name.endswith(".dist-info")) in (
        ["bin", "lexmotion"],
        ["lexmotion"],
    )
