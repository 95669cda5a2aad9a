"""What of a model or of a prepared corpus goes to the Hub, and how: in one commit, which may be repeated.

A model takes its weights, processor (feature statistics and lexicon included), card and recipe; on request also the
code it is read with, so that `trust_remote_code=True` is all another machine needs. A prepared corpus takes its
Parquet files, processor and card. Both go by a list of names: nothing else in the folder leaves the machine.
"""

import fnmatch
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError

from .dataset_card import DatasetCard
from .licenses import chosen, license_of
from .model_card import RECIPE, RECORD, ModelCard

WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
PROCESSOR = (
    *("processor_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.txt", "chat_template.jinja"),
)
CARD = ("README.md", RECORD, RECIPE, "*.png", "*.svg", "LICENSE*")
MODEL_FILES = ("config.json", "generation_config.json", *WEIGHTS, *PROCESSOR, *CARD)
DATASET_FILES = (
    "data/*.parquet",
    "text/*.parquet",
    *(f"processor/{name}" for name in PROCESSOR),
    "report.json",
    *CARD,
)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
# Left over from an earlier push, these would be read instead of, or beside, the new ones.
STALE = {"model": WEIGHTS, "dataset": ("data/*.parquet", "text/*.parquet")}
# Model type -> configuration and model, by the names under which `lexmotion` exports them.
REMOTE_CLASSES = {
    "lexmotion": ("LexMotionConfig", "LexMotionModel"),
    "lexmotion_text": ("LexMotionTextConfig", "LexMotionTextModel"),
    "lexmotion_motion": ("LexMotionMotionConfig", "LexMotionMotionModel"),
}
ATTEMPTS, PAUSE = 3, 2.0  # seconds, longer each time


@dataclass
class Parcel:
    """
    The files of a push.

    Args:
        repo_type (`str`): `"model"` or `"dataset"`.
        files (`dict[str, Path | bytes]`): path in the repository -> file here, or its content.
        left (`list[str]`): files of the folder that stay here.
        notes (`list[str]`): what the user should know, a sentence each.
        restricted (`str`, *optional*): why not everybody may have it; it then goes to private repositories alone.
    """

    repo_type: str
    files: dict[str, Path | bytes] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    restricted: str | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of every file, in the order of their paths."""
        return {
            path: len(content) if isinstance(content, bytes) else content.stat().st_size
            for path, content in sorted(self.files.items())
        }


@dataclass(frozen=True)
class Pushed:
    """
    What became of a push.

    Args:
        url (`str`): of the repository at its revision. commit (`str`): the newest one there.
        changed (`bool`): False: everything was there already, and no commit was made.
    """

    url: str
    commit: str
    changed: bool


def pack(folder: str | os.PathLike, name: str, include_code: bool = False, license: str | None = None) -> Parcel:
    """
    Collect what a push sends, without a network.

    Args:
        folder: a saved model with its processor, or a folder written by `lexmotion prepare`.
        name: `user/name` it will have; the card shows it.
        include_code: add the code of model and processor, and the `auto_map` by which transformers finds it.
        license: id of the licence, in place of the one that goes with the corpus.

    Raises:
        FileNotFoundError: the folder is neither.
        ValueError: weights that are no safetensors or damaged, or a model and a processor that do not belong together.
    """
    folder = Path(folder)
    if (folder / "report.json").is_file() and not (folder / "config.json").is_file():
        if include_code:
            raise ValueError(f"{folder} is a prepared corpus: there is no code to include")
        return _pack_dataset(folder, name, license)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{folder} holds neither a model (config.json) nor a prepared corpus (report.json); `lexmotion train` "
            "writes a model as OUTPUT_DIR/model"
        )
    return _pack_model(folder, name, include_code, license)


def _collect(folder: Path, repo_type: str, patterns: tuple[str, ...]) -> Parcel:
    parcel = Parcel(repo_type)
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        path = file.relative_to(folder).as_posix()
        # fnmatch's * also matches slashes, so a pattern must have as many as the path.
        if any(path.count("/") == name.count("/") and fnmatch.fnmatch(path, name) for name in patterns):
            parcel.files[path] = file
        else:
            parcel.left.append(path)
    return parcel


def _pack_model(folder: Path, name: str, include_code: bool, license: str | None) -> Parcel:
    parcel = _collect(folder, "model", MODEL_FILES)
    pickled = [path for path in parcel.left if any(fnmatch.fnmatch(path, pattern) for pattern in PICKLES)]
    weights = [path for path in parcel.files if path.endswith(".safetensors")]
    if not weights:
        found = f"only {pickled[0]}, whose format can run code when it is read" if pickled else "no weights"
        raise ValueError(f"{folder} has {found}; save the model with save_pretrained, which writes model.safetensors")
    for path in weights:
        _check_weights(folder / path)
    _check_processor(folder)
    config = _without_paths(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    parcel.files["config.json"] = _json(_add_code(parcel, folder, config) if include_code else config)
    card = ModelCard.of_folder(folder)
    if "README.md" in parcel.files and (card is None or not card.is_in(folder)):
        parcel.notes.append("README.md was written or changed by hand: it goes as it is")
    else:
        if card is None or "README.md" not in parcel.files:
            card = ModelCard.collect(folder, name)
            parcel.notes.append(f"there is no card yet: `lexmotion card {folder}` adds results and pictures")
        card = card.renamed(name, include_code)
        if license is not None:
            card = card.relicensed(license)
        parcel.files |= {path: text.encode() for path, text in card.files().items()}
    return parcel


def _pack_dataset(folder: Path, name: str, license: str | None) -> Parcel:
    parcel = _collect(folder, "dataset", DATASET_FILES)
    parcel.left = [path for path in parcel.left if not path.startswith("cache/")]  # made anew wherever it is needed
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    missing = sorted(set(report["files"]) - set(parcel.files))
    if missing:
        raise ValueError(f"{folder} lacks {missing[0]}, which its report.json names; run `lexmotion prepare` again")
    if "README.md" not in parcel.files:
        parcel.files["README.md"] = DatasetCard.from_report(report, name, license).render().encode()
    terms = chosen(license, license_of(report))
    if not terms.publishable:
        parcel.restricted = f"its licence is {terms.text!r}"
    return parcel


def _without_paths(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the folders its parts were loaded from, which are this machine's own affair."""
    return {
        name: _without_paths(part) if isinstance(part, dict) else part
        for name, part in config.items()
        if name != "_name_or_path"
    }


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def _check_weights(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged ({error}); save the model again") from error


def _check_processor(folder: Path) -> None:
    """Load the processor, which checks its own hashes, and compare them with those the model was trained with."""
    from transformers import AutoConfig

    from lexmotion import LexMotionProcessor
    from lexmotion.encoding_lexmotion import check_processor

    if not (folder / "processor_config.json").is_file():
        raise ValueError(f"{folder} has no processor; save it there too: processor.save_pretrained({str(folder)!r})")
    check_processor(AutoConfig.from_pretrained(folder), LexMotionProcessor.from_pretrained(folder))


# -------------------------------------------------------------------------------------------------------- remote code


def _add_code(parcel: Parcel, folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Add the files of model and processor, flat, and return the configuration with its `auto_map`."""
    import lexmotion

    if config.get("model_type") not in REMOTE_CLASSES:
        raise ValueError(
            f"the code of a {config.get('model_type')!r} model stays in the package, only that of "
            f"{', '.join(REMOTE_CLASSES)} travels: push it without --include-code"
        )
    mapped = _with_auto_map(config)
    architecture = (config.get("architectures") or [None])[0]
    if architecture not in (None, mapped["auto_map"]["AutoModel"].split(".")[1]):
        mapped["auto_map"]["AutoModelForPreTraining"] = _reference(architecture)
    processor = json.loads((folder / "processor_config.json").read_text(encoding="utf-8"))
    auto_map = {"AutoProcessor": _reference("LexMotionProcessor")}
    processor["auto_map"] = auto_map
    processor["feature_extractor"]["auto_map"] = auto_map | {
        "AutoFeatureExtractor": _reference("LexMotionFeatureExtractor")
    }
    parcel.files["processor_config.json"] = _json(processor)
    for file in _code_files([lexmotion.LexMotionModel, lexmotion.LexMotionProcessor]):
        parcel.files[file.name] = file
    return mapped


def _with_auto_map(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration, and those of the towers in it, with the classes that read them."""
    mapped = {name: _with_auto_map(part) if _is_tower(part) else part for name, part in config.items()}
    names = REMOTE_CLASSES[config["model_type"]]
    return mapped | {"auto_map": dict(zip(("AutoConfig", "AutoModel"), map(_reference, names), strict=True))}


def _is_tower(part: Any) -> bool:
    return isinstance(part, dict) and part.get("model_type") in REMOTE_CLASSES


def _reference(name: str) -> str:
    """`LexMotionModel` -> `modeling_lexmotion.LexMotionModel`, as an `auto_map` names it."""
    import lexmotion

    return f"{getattr(lexmotion, name).__module__.rsplit('.', 1)[1]}.{name}"


def _code_files(classes: list[type]) -> list[Path]:
    """The files that define these classes, and all siblings they import."""
    from transformers.dynamic_module_utils import get_relative_import_files

    own = [Path(str(sys.modules[cls.__module__].__file__)) for cls in classes]
    return sorted({*own, *(Path(file) for start in own for file in get_relative_import_files(start))})


# --------------------------------------------------------------------------------------------------------------- push


def push(
    parcel: Parcel,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    api: HfApi | None = None,
) -> Pushed:
    """
    Send a parcel in one commit.

    Files that are there already are not sent, and a push of nothing new makes no commit. An upload that breaks off is
    tried again, and one that failed goes on, when pushed again, with the files that had not arrived.

    Args:
        parcel: of [`pack`]. repo_id: `user/name`; made when it does not exist.
        private: whether only you can see it; None as your account has it. Of a repository that exists, unchanged.
        revision: branch; made when it does not exist. None: `main`.
        api: client to use, with its endpoint and token.

    Raises:
        PermissionError: nobody is logged in, or the account may not write there.
        ConnectionError: the Hub cannot be reached.
        ValueError: the parcel is restricted and the repository would be public.
    """
    if parcel.restricted and not private:
        raise ValueError(
            f"{repo_id!r} would be public, and {parcel.restricted}: push with --private, or name with --license the "
            "licence that lets you publish it"
        )
    api = api or HfApi()
    message = commit_message or f"Upload {parcel.repo_type}"
    try:
        return _retried(lambda: _push_once(parcel, repo_id, private, revision, message, api))
    except HfHubHTTPError as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise PermissionError(
                f"the Hub refused the upload to {repo_id!r} (status {status}): log in with `hf auth login` or set "
                "HF_TOKEN to a token that may write there"
            ) from error
        raise


def _push_once(
    parcel: Parcel, repo_id: str, private: bool | None, revision: str | None, message: str, api: HfApi
) -> Pushed:
    kind = {"repo_id": repo_id, "repo_type": parcel.repo_type}
    url = api.create_repo(**kind, private=private, exist_ok=True)
    if revision is not None:
        api.create_branch(**kind, branch=revision, exist_ok=True)
    before = api.repo_info(**kind, revision=revision)
    if parcel.restricted and not before.private:
        raise ValueError(f"the repository {repo_id!r} is public already, and {parcel.restricted}: make it private")
    stale = [
        file.rfilename
        for file in before.siblings or ()
        if file.rfilename not in parcel.files
        and any(fnmatch.fnmatch(file.rfilename, pattern) for pattern in STALE[parcel.repo_type])
    ]
    operations = [
        *(CommitOperationDelete(path_in_repo=path) for path in stale),
        *(CommitOperationAdd(path, content) for path, content in sorted(parcel.files.items())),
    ]
    commit = api.create_commit(**kind, operations=operations, commit_message=message, revision=revision)
    place = str(url) if revision is None else f"{url}/tree/{revision}"
    return Pushed(place, commit.oid, changed=commit.oid != before.sha)


def _retried(act: Callable[[], Pushed]) -> Pushed:
    """What `act` returns; where the connection breaks it is called again, which repeats nothing that had arrived."""
    attempt = 1
    while True:
        try:
            return act()
        except Exception as error:
            if not _is_broken_connection(error):
                raise
            if attempt == ATTEMPTS:
                raise ConnectionError(
                    f"the connection to the Hub broke {ATTEMPTS} times ({error}); push again to go on where it stopped"
                ) from error
        time.sleep(PAUSE * attempt)
        attempt += 1


def _is_broken_connection(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, came from the transport and not from the Hub's answer."""
    while error is not None:
        library = type(error).__module__.split(".")[0]
        if isinstance(error, HfHubHTTPError):
            return False
        if isinstance(error, ConnectionError) or library in ("httpx", "httpx2", "requests", "urllib3"):
            return True
        error = error.__cause__
    return False
