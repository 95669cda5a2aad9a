"""Upload of a model or prepared corpus to the Hub in one commit, which can safely be repeated.

A model is uploaded with its weights, processor (including feature statistics and lexicon), card and recipe; on request
also with the code that loads it, so that another machine needs only `trust_remote_code=True`. A prepared corpus is
uploaded with its Parquet files, processor and card. Only files on an allow list are uploaded.
"""

import fnmatch
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, metadata_load
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import validate_repo_id

from lexmotion.common.files import read_json
from lexmotion.common.pretrained import loading_from
from lexmotion.processing.corpora.report import PrepareReport, sealed

from .dataset_card import DatasetCard
from .licenses import chosen, license_of
from .model_card import RECIPE, RECORD, ModelCard, without_folders

WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
PROCESSOR = (
    *("processor_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.txt", "chat_template.jinja"),
)
CHECKSUMS = "checksums.json"
CARD = ("README.md", RECORD, RECIPE, "*.png", "*.svg", "LICENSE*")
MODEL_FILES = ("config.json", "generation_config.json", CHECKSUMS, *WEIGHTS, *PROCESSOR, *CARD)
DATASET_FILES = (
    "data/*.parquet",
    "text/*.parquet",
    *(f"processor/{name}" for name in PROCESSOR),
    "report.json",
    *CARD,
)
PLACES = ("_name_or_path", "name_or_path")  # local folder a part was loaded from; must not be published
WITH_AUTO_MAP = ("config.json", "processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
# Files of an earlier push that would be loaded instead of, or in addition to, the new ones.
STALE = {
    "model": ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
    "dataset": ("data/*.parquet", "text/*.parquet"),
}
# Model type -> names of configuration and model class in `lexmotion`.
REMOTE_CLASSES = {
    "lexmotion": ("LexMotionConfig", "LexMotionModel"),
    "lexmotion_text": ("LexMotionTextConfig", "LexMotionTextModel"),
    "lexmotion_motion": ("LexMotionMotionConfig", "LexMotionMotionModel"),
}
# Model type -> pipelines uploaded with its code.
REMOTE_PIPELINES = {
    "lexmotion": ("MotionFeatureExtractionPipeline", "ZeroShotMotionClassificationPipeline"),
    "lexmotion_text": (),
    "lexmotion_motion": ("MotionFeatureExtractionPipeline",),
}
WITH_PLACES = (*WITH_AUTO_MAP, "report.json")  # files that can contain local paths
ATTEMPTS, PAUSE = 3, 2.0  # the pause, in seconds, grows with each attempt
LONGEST_PAUSE = 30.0  # if the Hub asks for a longer one


@dataclass
class Parcel:
    """
    Files of a push.

    Args:
        repo_type: `"model"` or `"dataset"`.
        files: path in the repository -> local file, or its content.
        left: files of the folder that are not uploaded.
        notes: hints for the user, one sentence each.
        restricted: reason why the files must not be public; they can then only be pushed to private repositories.
    """

    repo_type: str
    files: dict[str, Path | bytes] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    restricted: str | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """Size of every file in bytes, sorted by path."""
        return {
            path: len(content) if isinstance(content, bytes) else content.stat().st_size
            for path, content in sorted(self.files.items())
        }


@dataclass(frozen=True)
class Pushed:
    """
    Result of a push.

    Args:
        url: URL of the repository at its revision.
        commit: hash of the latest commit in the repository.
        changed: False if the repository was already up to date and no commit was made.
        deleted: files of an earlier push that were deleted.
    """

    url: str
    commit: str
    changed: bool
    deleted: tuple[str, ...] = ()


def check_repo_id(repo_id: str) -> None:
    """
    Check the name of a repository offline.

    Raises:
        ValueError: if it is not `user/name` in characters the Hub allows.
    """
    if repo_id.count("/") != 1 or not all(repo_id.split("/")):
        raise ValueError(f"repository: got {repo_id!r}; pass a name like USER/NAME")
    validate_repo_id(repo_id)


def pack(folder: str | os.PathLike, name: str, include_code: bool = False, license: str | None = None) -> Parcel:
    """
    Collect the files to push, offline.

    Args:
        folder: folder of a saved model with its processor, or one written by `lexmotion prepare`.
        name: future name `user/name`, shown on the card.
        include_code: whether to add the code of model and processor, and the `auto_map` that transformers needs.
        license: licence id that replaces the one derived from the corpus.

    Raises:
        FileNotFoundError: if the folder is neither a model nor a prepared corpus.
        ValueError: if weights are damaged or not in safetensors format, or if model and processor do not match.
    """
    folder = Path(folder)
    if (folder / "report.json").is_file() and not (folder / "config.json").is_file():
        if include_code:
            raise ValueError(f"{folder}: a prepared corpus has no code; push it without --include-code")
        return _pack_dataset(folder, name, license)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{folder}: neither a model (config.json) nor a prepared corpus (report.json); pass the folder "
            "OUTPUT_DIR/model written by `lexmotion train`"
        )
    return _pack_model(folder, name, include_code, license)


def _is_named(path: str, patterns: tuple[str, ...]) -> bool:
    """Return whether a path matches a pattern with as many slashes (the * of fnmatch also matches slashes)."""
    return any(path.count("/") == name.count("/") and fnmatch.fnmatchcase(path, name) for name in patterns)


def _collect(folder: Path, repo_type: str, patterns: tuple[str, ...]) -> Parcel:
    """Sort the files of a folder; a ValueError if one to upload is a link to a file outside the folder."""
    parcel, inside = Parcel(repo_type), folder.resolve()
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        path = file.relative_to(folder).as_posix()
        if file.name.startswith(".") or not _is_named(path, patterns):  # hidden: what a killed writer left
            parcel.left.append(path)
        elif file.resolve().is_relative_to(inside):
            parcel.files[path] = file
        else:
            raise ValueError(
                f"{file}: a link to {file.resolve()}, outside the folder; replace it by a copy, or delete it"
            )
    return parcel


def _leave_out_places(parcel: Parcel) -> None:
    """Remove the local folders that parts were loaded from, and reduce other local paths to their last part."""
    for path, content in parcel.files.items():
        if path.rsplit("/", 1)[-1] in WITH_PLACES:
            config = json.loads(content if isinstance(content, bytes) else content.read_bytes())
            cleaned = without_folders(without(PLACES, config))
            if cleaned != config:
                parcel.files[path] = _json(cleaned)


def _license_in(folder: Path) -> str | None:
    """Return the licence in the YAML header of the folder's README.md."""
    return (metadata_load(folder / "README.md") or {}).get("license")


def _pack_model(folder: Path, name: str, include_code: bool, license: str | None) -> Parcel:
    parcel = _collect(folder, "model", MODEL_FILES)
    pickled = [path for path in parcel.left if any(fnmatch.fnmatch(path, pattern) for pattern in PICKLES)]
    weights = [path for path in parcel.files if path.endswith(".safetensors")]
    if not weights:
        found = f"only {pickled[0]}, a format that can run code when loaded" if pickled else "no weights"
        raise ValueError(f"{folder}: found {found}; save the model with save_pretrained, as model.safetensors")
    for path in weights:
        _check_weights(folder / path)
    _check_processor(folder)
    config = without(PLACES, read_json(folder / "config.json"))
    if include_code:
        parcel.files["config.json"] = _json(_add_code(parcel, folder, config))
    else:
        parcel.files["config.json"] = _json(config)
        _leave_out_auto_map(parcel)
    _leave_out_places(parcel)
    card = ModelCard.of_folder(folder)
    if "README.md" in parcel.files and (card is None or not card.is_in(folder)):
        parcel.notes.append("README.md was edited by hand; it is pushed unchanged")
        if license is not None and _license_in(folder) != license:
            parcel.notes.append(f"README.md lacks --license {license}; add `license: {license}` to its YAML header")
    else:
        if card is None or "README.md" not in parcel.files:
            card = ModelCard.collect(folder, name)
            parcel.notes.append(f"no card found; `lexmotion card {folder}` writes one with results and pictures")
        card = card.renamed(name, include_code)
        if license is not None:
            card = card.relicensed(license)
        parcel.files |= {path: text.encode() for path, text in card.files().items()}
    if CHECKSUMS in parcel.files:
        parcel.files[CHECKSUMS] = _json(_digests(parcel, read_json(folder / CHECKSUMS)))
    return parcel


def _digests(parcel: Parcel, recorded: dict[str, Any]) -> dict[str, Any]:
    """Return recorded digests of a folder's files, those of changed contents computed again."""
    kept = {path: digest for path, digest in recorded.items() if path in parcel.files}
    changed = {path: content for path, content in parcel.files.items() if isinstance(content, bytes) and path in kept}
    return kept | {path: hashlib.sha256(content).hexdigest() for path, content in changed.items()}


def _pack_dataset(folder: Path, name: str, license: str | None) -> Parcel:
    parcel = _collect(folder, "dataset", DATASET_FILES)
    parcel.left = [path for path in parcel.left if not path.startswith("cache/")]  # rebuilt when needed
    report = PrepareReport.load(folder).to_dict()
    missing = sorted(set(report["files"]) - set(parcel.files))
    if missing:
        raise ValueError(f"{folder}: {missing[0]}, listed in report.json, not found; run `lexmotion prepare` again")
    _leave_out_places(parcel)
    parcel.files["report.json"] = _json(_sealed_again(parcel, report))
    if "README.md" in parcel.files and license is not None and _license_in(folder) != license:
        raise ValueError(
            f"{folder / 'README.md'}: licence {_license_in(folder)!r} differs from --license {license!r}; set "
            f"`license: {license}` in its YAML header, or delete the file to have a card written"
        )
    if "README.md" not in parcel.files:
        parcel.files["README.md"] = DatasetCard.from_report(report, name, license).render().encode()
    terms = chosen(license, license_of(report))
    if not terms.publishable:
        parcel.restricted = f"the licence is {terms.text!r}"
    return parcel


def _sealed_again(parcel: Parcel, report: dict[str, Any]) -> dict[str, Any]:
    """Return the report of a prepared corpus for its files as they are pushed."""
    content = parcel.files["report.json"]
    cleaned = json.loads(content) if isinstance(content, bytes) else report
    for path, content in parcel.files.items():
        if isinstance(content, bytes) and path in cleaned["files"]:
            cleaned["files"][path] = len(content)
    return sealed(cleaned | {"sha256": _digests(parcel, cleaned.get("sha256", {}))})


def without(names: tuple[str, ...], config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration, including nested ones, without the given entries."""
    return {
        name: without(names, part) if isinstance(part, dict) else part
        for name, part in config.items()
        if name not in names
    }


def _leave_out_auto_map(parcel: Parcel) -> None:
    """Remove the `auto_map` entries: they refer to code files that are not uploaded, so loading would fail."""
    for path in (path for path in WITH_AUTO_MAP if path in parcel.files):
        content = parcel.files[path]
        config = json.loads(content if isinstance(content, bytes) else content.read_bytes())
        cleaned = without(("auto_map", "custom_pipelines"), config)
        if cleaned != config:
            parcel.files[path] = _json(cleaned)
            parcel.notes.append(f"{path} is pushed without its auto_map; --include-code pushes it with the code")


def _json(content: dict[str, Any]) -> bytes:
    """Return a configuration as JSON, formatted as by `save_pretrained`."""
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def _check_weights(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: damaged ({error}); save the model again with save_pretrained") from error


def _check_processor(folder: Path) -> None:
    """Load the processor, which checks its own hashes, and compare them with those stored in the model."""
    from transformers import AutoConfig

    from lexmotion import LexMotionProcessor
    from lexmotion.checksums_lexmotion import check_checksums
    from lexmotion.encoding_lexmotion import check_processor

    if not (folder / "processor_config.json").is_file():
        raise ValueError(f"{folder}: no processor found; save it with processor.save_pretrained({str(folder)!r})")
    check_checksums(folder)
    with loading_from(folder):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        processor = LexMotionProcessor.from_pretrained(folder, trust_remote_code=False)
    check_processor(config, processor)


# -------------------------------------------------------------------------------------------------------- remote code


def _add_code(parcel: Parcel, folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Add the source files of model and processor, flat, and return the configuration with an `auto_map`."""
    import lexmotion

    if config.get("model_type") not in REMOTE_CLASSES:
        raise ValueError(
            f"model_type: the code of {config.get('model_type')!r} cannot be pushed, only that of "
            f"{', '.join(REMOTE_CLASSES)}; push without --include-code"
        )
    mapped = _with_auto_map(config)
    architecture = (config.get("architectures") or [None])[0]
    if architecture not in (None, mapped["auto_map"]["AutoModel"].split(".")[1]):
        mapped["auto_map"]["AutoModelForPreTraining"] = _reference(architecture)
    processor = read_json(folder / "processor_config.json")
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
    """Return a configuration with an `auto_map` in itself and in the configurations of its towers."""
    mapped = {name: _with_auto_map(part) if _is_tower(part) else part for name, part in config.items()}
    names = REMOTE_CLASSES[config["model_type"]]
    return mapped | {"auto_map": dict(zip(("AutoConfig", "AutoModel"), map(_reference, names), strict=True))}


def _is_tower(part: Any) -> bool:
    return isinstance(part, dict) and part.get("model_type") in REMOTE_CLASSES


def _reference(name: str) -> str:
    """Return the `auto_map` reference of a class: `LexMotionModel` -> `modeling_lexmotion.LexMotionModel`."""
    import lexmotion

    return f"{getattr(lexmotion, name).__module__.rsplit('.', 1)[1]}.{name}"


def _code_files(classes: list[type]) -> list[Path]:
    """Return the files that define these classes, and all sibling files they import."""
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
    Upload a parcel in one commit.

    Unchanged files are not uploaded again, and no commit is made if nothing changed. An interrupted upload is retried,
    as is one that the Hub is too busy for (status 429 or 5xx); pushing again after a failure resumes with the files
    that are still missing.

    Args:
        parcel: result of [`pack`].
        repo_id: `user/name`; created if it does not exist.
        private: whether a new repository is private; None uses the default of your account. An existing repository
            keeps its visibility: if it is public and this is True, nothing is uploaded.
        revision: branch, created if it does not exist; None is `main`.
        commit_message: message of the commit.
        api: client with endpoint and token.

    Raises:
        PermissionError: if not logged in, or if the account has no write access.
        ConnectionError: if the Hub cannot be reached, or remains too busy.
        OSError: if the Hub refuses the upload for another reason.
        ValueError: if the parcel is restricted or `private`, and the repository is, or would be, public.
    """
    if parcel.restricted and not private:
        raise ValueError(
            f"{repo_id!r}: would be public, but {parcel.restricted}; push with --private, or pass --license with the "
            "licence that allows you to publish it"
        )
    api = api or HfApi()
    message = commit_message or f"Upload {parcel.repo_type}"
    deleted: set[str] = set()  # over all attempts, as the response to a successful one may be lost
    try:
        sent = _retried(lambda: _push_once(parcel, repo_id, private, revision, message, api, deleted))
        return replace(sent, deleted=tuple(sorted(deleted)))
    except (HfHubHTTPError, RuntimeError) as error:  # the client wraps the error of a large file
        status = _status(error)
        if status in (401, 403):
            raise PermissionError(
                f"{repo_id!r}: the Hub refused the upload (status {status}); log in with `hf auth login` or set "
                "HF_TOKEN to a token with write access"
            ) from error
        if status is None:
            raise
        reason = " ".join(str(error.__cause__ if isinstance(error, RuntimeError) else error).split())
        raise OSError(f"{repo_id!r}: the Hub refused the upload (status {status}); {reason}") from error


def would_delete(
    parcel: Parcel, repo_id: str, revision: str | None = None, api: HfApi | None = None
) -> list[str] | None:
    """Return the files that [`push`] would delete; None if the Hub does not answer within 10 s."""
    api = api or HfApi()
    for asked in dict.fromkeys((revision, None)):  # a new branch starts from main
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
    """Return the files of a repository that would be loaded instead of, or in addition to, those of the parcel."""
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
        reason = f"but {parcel.restricted}" if parcel.restricted else "and --private only applies to new ones"
        raise ValueError(
            f"{repo_id!r}: the repository is public, {reason}, so nothing was uploaded; make it private in its "
            "settings on the Hub, or choose another name"
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
    """
    Return the result of `act`, called again if the connection breaks or the Hub is too busy; uploaded files are not
    sent again.
    """
    attempt = 1
    while True:
        try:
            return act()
        except Exception as error:
            status = _status(error)
            busy = status is not None and (status == 429 or status >= 500)
            if not busy and not _is_broken_connection(error):
                raise
            if attempt == ATTEMPTS:
                what = f"answered with status {status}" if busy else f"broke the connection ({error})"
                message = f"the Hub {what} {ATTEMPTS} times; push again later to resume the upload"
                raise ConnectionError(message) from error
            pause = max(PAUSE * attempt, _pause_asked(error))
        time.sleep(min(pause, LONGEST_PAUSE))
        attempt += 1


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, its cause, the cause of that, and so on."""
    while error is not None:
        yield error
        error = error.__cause__


def _response(error: BaseException) -> Any:
    """Return the response of the Hub that an error, or its cause, reports; None if there was none."""
    answered = (cause.response for cause in _causes(error) if isinstance(cause, HfHubHTTPError))
    return next(answered, None)


def _status(error: BaseException) -> int | None:
    return getattr(_response(error), "status_code", None)


def _pause_asked(error: BaseException) -> float:
    """Return the seconds for which the Hub asks to wait; 0 if it does not."""
    asked = (getattr(_response(error), "headers", None) or {}).get("retry-after", "")
    return float(asked) if asked.isdigit() else 0.0  # else a date


def _is_broken_connection(error: BaseException) -> bool:
    """Return whether an error, or its cause, comes from the connection and not from a response of the Hub."""
    for cause in _causes(error):
        library = type(cause).__module__.split(".")[0]
        if isinstance(cause, HfHubHTTPError):
            return False
        if isinstance(cause, ConnectionError) or library in ("httpx", "httpx2", "requests", "urllib3"):
            return True
    return False
