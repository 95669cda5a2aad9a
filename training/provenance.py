"""Provenance of a result: machine, versions, commit, and digests of its inputs."""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from lexmotion.common.files import read_json, sha256_of
from lexmotion.evaluation.benchmarks.harness import machine

from .checkpoints import phase_model_folder

RECORDED_PACKAGES = ("lexmotion", "torch", "transformers", "accelerate", "datasets", "numpy", "safetensors")


def provenance() -> dict[str, Any]:
    """Return `versions`, `commit` and `machine` of this process."""
    return {"versions": versions(), "commit": commit(), "machine": machine()}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect results."""
    found = {"python": platform.python_version()}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Return the commit of the code, with `-dirty` appended if files differ from it; None outside a checkout."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def digest(content: Any) -> str:
    """Return the SHA-256 of JSON-safe content as hexadecimal, independent of the order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def read_result(folder: str | os.PathLike) -> dict[str, Any]:
    """Return the result of a finished task, `<folder>/result.json`; a ValueError names the file if it is damaged."""
    path = Path(folder) / "result.json"
    result = read_json(path)
    expected = {"fingerprint": str, "training": dict, "acceptance": dict}
    missing = [name for name, kind in expected.items() if not isinstance(result.get(name), kind)]
    if missing:
        raise ValueError(f"{path}: damaged, no {' and '.join(missing)}; restore a copy, or delete {folder}")
    return result


def folder_fingerprint(folder: str | os.PathLike) -> str:
    """Return the fingerprint of a finished task, from its result if it has one, else from its weights."""
    if (Path(folder) / "result.json").is_file():
        return read_result(folder)["fingerprint"]
    model = phase_model_folder(folder)
    return digest([sha256_of(file) for file in sorted(model.glob("*.safetensors"))])
