"""Checksums of a saved model: written with it, and compared when it is loaded from a folder."""

import functools
import hashlib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

CHECKSUMS = "checksums.json"
MODEL_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json")
PROCESSOR_FILES = ("*processor_config.json", "*token*.json", "vocab.txt")
MOST_FILES = 1000


def write_checksums(folder: str | os.PathLike, patterns: Sequence[str] = MODEL_FILES + PROCESSOR_FILES) -> None:
    """
    Write the SHA-256 of the files of a model folder to its `checksums.json`; README.md and others are not covered.

    Args:
        folder: where model, and possibly processor, have been saved.
        patterns: names of the files to cover; earlier entries of other names are kept.
    """
    folder = Path(folder)
    names = sorted({path.name for pattern in patterns for path in folder.glob(pattern)} - {CHECKSUMS})
    try:
        kept = {name: digest for name, digest in _read(folder).items() if (folder / name).is_file()}
    except (OSError, ValueError):
        kept = {}
    content = kept | {name: _digest(folder / name) for name in names}
    aside = folder / f".checksums.{os.getpid()}.partial.json"
    aside.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(aside, folder / CHECKSUMS)


def check_checksums(folder: str | os.PathLike) -> None:
    """
    Compare the files of a model folder with its `checksums.json`. Folders without one, of older versions or of other
    programs, pass.

    Raises:
        ValueError: if a file is missing or has changed.
    """
    folder = Path(folder)
    if not (folder / CHECKSUMS).is_file():
        return
    for name, digest in _read(folder).items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{path}: missing, but listed in {CHECKSUMS}; restore it, or save the model again")
        if _digest(path) != digest:
            raise ValueError(
                f"{path}: differs from what was saved; restore a copy or save the model again. If you edited it, "
                f"delete {folder / CHECKSUMS}"
            )


def check_weights(model: nn.Module, name: str | os.PathLike) -> None:
    """
    Check that all weights are finite.

    Args:
        name: folder or Hub name of the model, for the message.

    Raises:
        ValueError: if a weight is NaN or infinite.
    """
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.is_meta and not math.isfinite(tensor.float().sum().item()):
            wrong = (~torch.isfinite(tensor)).sum().item()
            if wrong:
                raise ValueError(
                    f"{name}: damaged weights, {wrong} of {tensor.numel()} values of {key} are NaN or infinite; "
                    "restore a copy, or train the model again"
                )


def _read(folder: Path) -> dict[str, str]:
    path = folder / CHECKSUMS
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged, no JSON; restore a copy, or save the model again") from error
    if (
        not isinstance(content, dict)
        or len(content) > MOST_FILES
        or not all(isinstance(digest, str) and Path(name).name == name for name, digest in content.items())
    ):
        raise ValueError(f"{path}: damaged, no list of file names; restore a copy, or save the model again")
    return content


def _digest(path: Path) -> str:
    status = path.stat()
    return _digest_of(str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


@functools.lru_cache(maxsize=256)  # command and model both check
def _digest_of(path: str, *_identity: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
