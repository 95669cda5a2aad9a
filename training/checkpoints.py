"""
Crash-safe checkpoints: written to a temporary folder with a manifest of hashes, then renamed.

`checkpoint-<step>/` contains `model.safetensors`, `optimizer.safetensors`, `ema.safetensors` if weights are averaged,
`trainer_state.json` and `manifest.json`. A folder whose files do not match its manifest is skipped with a warning in
favour of the previous one.
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from lexmotion.common.files import full_disk_named, read_json, remove_leftovers, sha256_of, write_json

logger = logging.get_logger(__name__)

MANIFEST = "manifest.json"
_NAME = re.compile(r"checkpoint-(\d+)")


def phase_model_folder(folder: str | os.PathLike) -> Path:
    """Return the model folder of a task's output folder (`<task>/model`), or the folder itself if it has a model."""
    folder = Path(folder)
    for candidate in (folder / "model", folder):
        if (candidate / "config.json").is_file():
            return candidate
    raise FileNotFoundError(f"{folder}: no config.json or model/config.json; finish the task or pass another folder")


def unique_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the state dict on the CPU, with every tied tensor once."""
    state: dict[str, torch.Tensor] = {}
    seen: set[tuple] = set()
    for name, tensor in model.state_dict().items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.device)
        if tensor.numel() and key in seen:
            continue
        seen.add(key)
        state[name] = tensor.detach().cpu().contiguous()
    return state


def load_unique_state(model: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    """
    Load the result of `unique_state` in place, which keeps ties; raise a ValueError if the names of weights differ.
    """
    expected = set(unique_state(model))
    if expected != set(state):
        differing = sorted(expected ^ set(state))[:5]
        raise ValueError(f"checkpoint: {differing} differ from the model's weights; pass another output_dir")
    model.load_state_dict(state, strict=False)


def commit_folder(aside: Path, target: Path) -> None:
    """Move a finished folder into place, replacing an existing one."""
    if target.exists():
        old = target.with_name(f".{target.name}.{os.getpid()}.old")
        os.replace(target, old)
        os.replace(aside, target)
        shutil.rmtree(old)
    else:
        os.replace(aside, target)


class CheckpointFolder:
    """
    The checkpoints of one run.

    Args:
        root: output folder of the run.
        limit: number of newest checkpoints to keep.
    """

    def __init__(self, root: str | os.PathLike, limit: int = 2):
        self.root, self.limit = Path(root), limit

    def steps(self) -> list[int]:
        """Return the steps with a checkpoint, intact or not, oldest first."""
        if not self.root.is_dir():
            return []
        matches = (_NAME.fullmatch(entry.name) for entry in self.root.iterdir() if entry.is_dir())
        return sorted(int(match.group(1)) for match in matches if match)

    def path(self, step: int) -> Path:
        return self.root / f"checkpoint-{step}"

    def save(
        self,
        step: int,
        state: dict[str, Any],
        model: dict[str, torch.Tensor],
        optimizer: dict[str, Any] | None = None,
        average: dict[str, torch.Tensor] | None = None,
    ) -> Path:
        """
        Write the checkpoint of a step and delete the oldest ones.

        Raises:
            DiskFullError: if there is no space for it; the earlier checkpoints stay.
        """
        aside = self.root / f".checkpoint-{step}.{os.getpid()}.tmp"
        with full_disk_named(self.path(step)):
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            try:
                save_file(model, aside / "model.safetensors")
                if optimizer is not None:
                    save_optimizer(optimizer, aside)
                if average is not None:
                    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in average.items()}
                    save_file(tensors, aside / "ema.safetensors")
                write_json(aside / "trainer_state.json", state)
                for file in aside.iterdir():
                    with open(file, "rb") as handle:
                        os.fsync(handle.fileno())
                write_json(aside / MANIFEST, {file.name: sha256_of(file) for file in sorted(aside.iterdir())})
                commit_folder(aside, self.path(step))
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        for old in self.steps()[: -self.limit]:
            shutil.rmtree(self.path(old))
        return self.path(step)

    def fault(self, step: int) -> str | None:
        """Return why a checkpoint cannot be used, or None if it is intact."""
        folder = self.path(step)
        try:
            manifest = read_json(folder / MANIFEST)
        except (OSError, ValueError) as error:
            return f"no readable {MANIFEST} ({error})"
        if "optimizer.pt" in manifest:
            return "optimizer.pt is a pickle of an earlier version, which is no longer supported"
        for name, digest in manifest.items():
            if not (folder / name).is_file():
                return f"{name} is missing"
            if sha256_of(folder / name) != digest:
                return f"{name} does not match its hash"
        return None if "trainer_state.json" in manifest else "trainer_state.json is missing"

    def latest(self) -> Path | None:
        """Return the newest intact checkpoint, or None."""
        for step in reversed(self.steps()):
            fault = self.fault(step)
            if fault is None:
                return self.path(step)
            logger.warning(f"{self.path(step)}: {fault}; trying the previous checkpoint")
        return None

    def discard_after(self, step: int) -> None:
        """Delete the checkpoints of later steps."""
        for later in self.steps():
            if later > step:
                shutil.rmtree(self.path(later))

    def clean(self) -> None:
        """Delete the temporary files of interrupted writes."""
        remove_leftovers(self.root)


def read_state(folder: Path) -> dict[str, Any]:
    return read_json(folder / "trainer_state.json")


def read_tensors(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / name)


def save_optimizer(state: dict[str, Any], folder: Path) -> None:
    """
    Write `torch.optim.Optimizer.state_dict()` to `optimizer.safetensors` in a folder.

    Tensors are named `<parameter>.<name>`; everything else is JSON in the header.
    """
    tensors, plain = {}, {}
    for parameter, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{parameter}.{name}"] = value.detach().cpu().contiguous()
            else:
                plain[f"{parameter}.{name}"] = value
    header = {"param_groups": json.dumps(state["param_groups"]), "plain": json.dumps(plain)}
    save_file(tensors, folder / "optimizer.safetensors", metadata=header)


def read_optimizer(folder: Path) -> dict[str, Any]:
    """Read the state dict written by `save_optimizer`, on the CPU."""
    with safe_open(folder / "optimizer.safetensors", framework="pt") as file:
        header = file.metadata()
        values = json.loads(header["plain"]) | {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    state: dict[int, dict[str, Any]] = {}
    for key, value in values.items():
        parameter, name = key.split(".", 1)
        state.setdefault(int(parameter), {})[name] = value
    return {"state": state, "param_groups": json.loads(header["param_groups"])}
