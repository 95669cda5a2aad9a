"""
The common tests of transformers: a suite nobody here wrote, which every model of that library has to pass.

They are no part of the installed package, only of its source distribution, and are not ours to redistribute: the
distribution of the installed version is downloaded once into a cache folder (`LEXMOTION_CACHE`, else
`~/.cache/lexmotion`), and the test files are taken out of it. The four modules they import besides, which the
distribution lacks, are written next to them with the little that is used.
"""

import contextlib
import functools
import importlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import transformers
from filelock import FileLock

PACKAGE = "transformers_common_tests"
FILES = (
    "test_configuration_common",
    "test_feature_extraction_common",
    "test_modeling_common",
    "test_processing_common",
)
STUBS = {
    f"{PACKAGE}/__init__.py": "",
    f"{PACKAGE}/exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    f"{PACKAGE}/generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    f"{PACKAGE}/utils/test_configuration_utils.py": (
        "config_common_kwargs = {\n"
        '    "return_dict": False,\n    "output_hidden_states": True,\n    "output_attentions": True,\n'
        '    "dtype": "float16",\n    "chunk_size_feed_forward": 5,\n    "architectures": ["BertModel"],\n'
        '    "id2label": {0: "label"},\n    "label2id": {"label": "0"},\n    "problem_type": "regression",\n}\n'
    ),
    "utils/fetch_hub_objects_for_ci.py": "def url_to_local_path(url, return_url_if_not_found=True):\n    return url\n",
}


BARE_MODELS = {"lexmotion_text": "LexMotionTextModel", "lexmotion_motion": "LexMotionMotionModel"}


class RegistryUnreachableError(RuntimeError):
    """The source distribution could not be downloaded."""


def cache_folder() -> Path:
    """Where the test files of the installed version are kept."""
    root = os.environ.get("LEXMOTION_CACHE") or Path.home() / ".cache" / "lexmotion"
    return Path(root) / f"transformers-{transformers.__version__}-common-tests"


def download(version: str, folder: Path) -> Path:
    """
    The source distribution of transformers, by pip and from whatever registry pip is set to.

    Raises:
        RegistryUnreachableError: pip found none, with its last words.
    """
    options = ["--no-deps", "--no-binary", "transformers", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", *options, f"transformers=={version}"]
    try:
        done = subprocess.run([*command, "--dest", str(folder)], capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired as error:
        raise RegistryUnreachableError("pip download took more than five minutes") from error
    archives = list(folder.glob("*.tar.gz"))
    if done.returncode or not archives:
        last = done.stderr.strip().splitlines()[-1:] or ["pip download left no source distribution"]
        raise RegistryUnreachableError(last[0])
    return archives[0]


def extract(archive: Path, version: str, folder: Path) -> None:
    """
    Write the test files of `archive`, and the stubs beside them, into `folder`.

    Raises:
        ValueError: the archive is of another version, or lacks one of the files.
    """
    top = f"transformers-{version}"
    with tarfile.open(archive) as content:

        def text(name: str) -> str:
            try:
                member = content.extractfile(f"{top}/{name}")
            except KeyError:
                member = None
            if member is None:
                raise ValueError(f"{archive.name} has no {top}/{name}: its layout changed, see {__file__}")
            return member.read().decode("utf-8")

        stated = next(line for line in text("PKG-INFO").splitlines() if line.startswith("Version: "))
        if stated != f"Version: {version}":
            raise ValueError(f"{archive.name} says {stated!r}, expected version {version}, the installed one")
        sources = {f"{PACKAGE}/{name}.py": text(f"tests/{name}.py") for name in FILES}
    for name, source in (STUBS | sources).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")


def fetch() -> Path:
    """
    The cache folder, filled when it was not; one process at a time, and all of it or nothing.

    Raises:
        RegistryUnreachableError, ValueError: as `download` and `extract` say.
    """
    folder = cache_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent) as work:
                archive = download(transformers.__version__, Path(work))
                extract(archive, transformers.__version__, Path(work, "ready"))
                shutil.move(Path(work, "ready"), folder)
    return folder


@functools.cache
def common_tests() -> SimpleNamespace:
    """The mixins of transformers; without them the test file that asks is skipped, and says why."""
    pytest.importorskip("parameterized", reason="the common tests of transformers need the package parameterized")
    try:
        folder = fetch()
    except RegistryUnreachableError as error:
        reason = f"the source distribution of transformers {transformers.__version__} is not to be had: {error}"
        pytest.skip(reason, allow_module_level=True)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    configuration, features, modeling, processing = (importlib.import_module(f"{PACKAGE}.{name}") for name in FILES)
    # Models without a loss are told by their names; ours stand in no list of transformers.
    modeling.MODEL_MAPPING_NAMES = dict(modeling.MODEL_MAPPING_NAMES) | BARE_MODELS

    class ModelTesterMixin(modeling.ModelTesterMixin):
        # A sub-test for every parameter, or for the one model of a class, has a result of its own under pytest; a
        # failure without sub-tests fails the test, which says as much and is far quicker.
        def subTest(self, *args, **kwargs):  # noqa: N802
            return contextlib.nullcontext()

    return SimpleNamespace(
        ConfigTester=configuration.ConfigTester,
        FeatureExtractionSavingTestMixin=features.FeatureExtractionSavingTestMixin,
        ModelTesterMixin=ModelTesterMixin,
        ProcessorTesterMixin=processing.ProcessorTesterMixin,
    )
