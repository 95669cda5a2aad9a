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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, metadata_load
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import validate_repo_id

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
PLACES = ("_name_or_path",)  # the folder a part was loaded from, which is this machine's own affair
WITH_AUTO_MAP = ("config.json", "processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
# Left over from an earlier push, these would be read instead of, or beside, the new ones.
STALE = {
    "model": ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
    "dataset": ("data/*.parquet", "text/*.parquet"),
}
# Model type -> configuration and model, by the names under which `lexmotion` exports them.
REMOTE_CLASSES = {
    "lexmotion": ("LexMotionConfig", "LexMotionModel"),
    "lexmotion_text": ("LexMotionTextConfig", "LexMotionTextModel"),
    "lexmotion_motion": ("LexMotionMotionConfig", "LexMotionMotionModel"),
}
# Model type -> the pipelines that its code brings.
REMOTE_PIPELINES = {
    "lexmotion": ("MotionFeatureExtractionPipeline", "ZeroShotMotionClassificationPipeline"),
    "lexmotion_text": (),
    "lexmotion_motion": ("MotionFeatureExtractionPipeline",),
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
        deleted (`tuple[str, ...]`): files of an earlier push that are there no more.
    """

    url: str
    commit: str
    changed: bool
    deleted: tuple[str, ...] = ()


def check_repo_id(repo_id: str) -> None:
    """
    Check the name of a repository without asking the Hub.

    Raises:
        ValueError: it is not `user/name` in the Hub's letters.
    """
    if repo_id.count("/") != 1 or not all(repo_id.split("/")):
        raise ValueError(f"a repository is named USER/NAME, got {repo_id!r}")
    validate_repo_id(repo_id)


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


def _is_named(path: str, patterns: tuple[str, ...]) -> bool:
    """Whether a path matches; fnmatch's * also matches slashes, so a pattern must have as many as the path."""
    return any(path.count("/") == name.count("/") and fnmatch.fnmatchcase(path, name) for name in patterns)


def _collect(folder: Path, repo_type: str, patterns: tuple[str, ...]) -> Parcel:
    parcel = Parcel(repo_type)
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        path = file.relative_to(folder).as_posix()
        if _is_named(path, patterns):
            parcel.files[path] = file
        else:
            parcel.left.append(path)
    return parcel


def _license_in(folder: Path) -> str | None:
    """What the head of a folder's own README.md says."""
    return (metadata_load(folder / "README.md") or {}).get("license")


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
    config = without(PLACES, json.loads((folder / "config.json").read_text(encoding="utf-8")))
    if include_code:
        parcel.files["config.json"] = _json(_add_code(parcel, folder, config))
    else:
        parcel.files["config.json"] = _json(config)
        _leave_out_auto_map(parcel)
    card = ModelCard.of_folder(folder)
    if "README.md" in parcel.files and (card is None or not card.is_in(folder)):
        parcel.notes.append("README.md was written or changed by hand: it goes as it is")
        if license is not None and _license_in(folder) != license:
            parcel.notes.append(f"--license {license} is not in it: write `license: {license}` into its head")
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
    if "README.md" in parcel.files and license is not None and _license_in(folder) != license:
        raise ValueError(
            f"{folder / 'README.md'} has the licence {_license_in(folder)!r}, --license says {license!r}: write "
            f"`license: {license}` into its head, or delete it, and a card is made"
        )
    if "README.md" not in parcel.files:
        parcel.files["README.md"] = DatasetCard.from_report(report, name, license).render().encode()
    terms = chosen(license, license_of(report))
    if not terms.publishable:
        parcel.restricted = f"its licence is {terms.text!r}"
    return parcel


def without(names: tuple[str, ...], config: dict[str, Any]) -> dict[str, Any]:
    """A configuration, and those nested in it, without some of its entries."""
    return {
        name: without(names, part) if isinstance(part, dict) else part
        for name, part in config.items()
        if name not in names
    }


def _leave_out_auto_map(parcel: Parcel) -> None:
    """A model that was loaded with its code names files that do not go: it could then not be loaded at all."""
    for path in (path for path in WITH_AUTO_MAP if path in parcel.files):
        content = parcel.files[path]
        config = json.loads(content if isinstance(content, bytes) else content.read_bytes())
        cleaned = without(("auto_map", "custom_pipelines"), config)
        if cleaned != config:
            parcel.files[path] = _json(cleaned)
            parcel.notes.append(f"{path} goes without its auto_map, whose code stays here; --include-code sends both")


def to_json(content: dict[str, Any]) -> str:
    """A configuration as `save_pretrained` writes it."""
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def _json(content: dict[str, Any]) -> bytes:
    return to_json(content).encode()


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
    pipelines = [getattr(lexmotion, name) for name in REMOTE_PIPELINES[config["model_type"]]]
    if pipelines:
        mapped["custom_pipelines"] = {
            task: {"impl": _reference(pipeline.__name__), "pt": ["AutoModel"], "type": "multimodal"}
            for pipeline in pipelines
            for task in [pipeline.task_name]
        }
    classes = [getattr(lexmotion, reference.split(".")[1]) for reference in mapped["auto_map"].values()]
    for file in _code_files([lexmotion.LexMotionModel, lexmotion.LexMotionProcessor, *classes, *pipelines]):
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
        private: whether only you can see it; None as your account has it. A repository that exists stays as it is:
            where it is public and this is True, nothing is sent.
        revision: branch; made when it does not exist. None: `main`.
        api: client to use, with its endpoint and token.

    Raises:
        PermissionError: nobody is logged in, or the account may not write there.
        ConnectionError: the Hub cannot be reached.
        ValueError: the parcel is restricted or `private`, and the repository would be, or is, public.
    """
    if parcel.restricted and not private:
        raise ValueError(
            f"{repo_id!r} would be public, and {parcel.restricted}: push with --private, or name with --license the "
            "licence that lets you publish it"
        )
    api = api or HfApi()
    message = commit_message or f"Upload {parcel.repo_type}"
    deleted: set[str] = set()  # over all attempts: the answer to one that succeeded may be lost
    try:
        sent = _retried(lambda: _push_once(parcel, repo_id, private, revision, message, api, deleted))
        return replace(sent, deleted=tuple(sorted(deleted)))
    except HfHubHTTPError as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise PermissionError(
                f"the Hub refused the upload to {repo_id!r} (status {status}): log in with `hf auth login` or set "
                "HF_TOKEN to a token that may write there"
            ) from error
        raise


def would_delete(
    parcel: Parcel, repo_id: str, revision: str | None = None, api: HfApi | None = None
) -> list[str] | None:
    """Files that [`push`] would delete there; None where the repository cannot be asked. It waits 10 s at most."""
    api = api or HfApi()
    for asked in dict.fromkeys((revision, None)):  # a branch that is not there is made of main
        try:
            found = api.repo_info(repo_id, repo_type=parcel.repo_type, revision=asked, timeout=10)
        except RevisionNotFoundError:
            continue
        except RepositoryNotFoundError:
            return []
        except Exception as error:
            if isinstance(error, HfHubHTTPError) or _is_broken_connection(error):
                return None
            raise
        return _stale(parcel, found)
    return []


def _stale(parcel: Parcel, found: Any) -> list[str]:
    """Files of a repository that would be read instead of, or beside, those of the parcel."""
    paths = (file.rfilename for file in found.siblings or ())
    return [path for path in paths if path not in parcel.files and _is_named(path, STALE[parcel.repo_type])]


def _push_once(
    parcel: Parcel,
    repo_id: str,
    private: bool | None,
    revision: str | None,
    message: str,
    api: HfApi,
    deleted: set[str],
) -> Pushed:
    kind = {"repo_id": repo_id, "repo_type": parcel.repo_type}
    url = api.create_repo(**kind, private=private, exist_ok=True)
    before = api.repo_info(**kind)
    if private and not before.private:
        reason = f", and {parcel.restricted}" if parcel.restricted else "; --private makes only new ones private"
        raise ValueError(
            f"the repository {repo_id!r} is public already{reason}: make it private in its settings on the Hub, or "
            "choose another name; nothing was sent"
        )
    if revision is not None:
        api.create_branch(**kind, branch=revision, exist_ok=True)
        before = api.repo_info(**kind, revision=revision)
    stale = _stale(parcel, before)
    deleted.update(stale)
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
