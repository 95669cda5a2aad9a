"""A trained model in a small file: matrices as 8-bit integers with scales, or float16; unpacked into a cache.

A packed folder is that of a saved model, with `packed.safetensors` in place of `model.safetensors`. A matrix `W` is
stored as float16, or as `W` (int8) and `W.scale` (bfloat16), a scale for each 32 neighbours in a row: entries
are integer times scale, and none is wrong by more than about 1/250 of the largest of its 32. Small tensors and those
without rows are stored as they are.
"""

import contextlib
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ..checksums_lexmotion import CHECKSUMS, check_checksums, write_checksums
from ..common.files import full_disk_named, sha256_of
from ..common.pretrained import loading_from

PACKED, WEIGHTS = "packed.safetensors", "model.safetensors"
FORMAT = {"format": "lexmotion-int8", "version": "1"}
LEAST = 4096  # entries of a matrix that is stored with fewer bits
LEVELS, GROUP = 127, 32
SCALE = ".scale"
MOST_BYTES = 25_000_000
ABANDONED = 3600.0  # seconds, far more than unpacking takes
_UNPACKING = threading.Lock()


def is_packed(folder: str | os.PathLike) -> bool:
    """Return whether a folder contains a packed model, and not also an unpacked one."""
    return Path(folder, PACKED).is_file() and not Path(folder, WEIGHTS).is_file()


def quantized(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return 8-bit integers in the shape of `matrix` (R, ...), and the scales (R, groups), bfloat16."""
    groups = _grouped(matrix.detach().float())
    scale = (groups.abs().amax(dim=2) / LEVELS).clamp(min=torch.finfo(torch.bfloat16).tiny).bfloat16()
    levels = (groups / scale.float()[..., None]).round().clamp(-LEVELS, LEVELS)
    return levels.to(torch.int8).view_as(matrix), scale


def restored(levels: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return the float32 matrix of [`quantized`]; raise a ValueError if the shapes do not fit."""
    wanted = _grouped(levels).shape[:2] if levels.ndim > 1 else "those of a matrix"
    if scale.shape != wanted:  # other shapes could be expanded to any size
        raise ValueError(f"scales: got shape {tuple(scale.shape)} for {tuple(levels.shape)} integers")
    return (_grouped(levels.float()) * scale.float()[..., None]).view_as(levels)


def _grouped(matrix: torch.Tensor) -> torch.Tensor:
    """Return (R, groups, entries); a row whose length is no multiple of the size of a group is a single group."""
    rows = matrix.flatten(1)
    return rows.reshape(len(rows), -1, GROUP) if rows.shape[1] % GROUP == 0 else rows[:, None]


def pack(folder: str | os.PathLike, most_bytes: int = MOST_BYTES) -> float:
    """
    Replace the weights of a saved model by packed ones, and write the checksums.

    Args:
        folder: folder of a saved model.
        most_bytes: size of the weights up to which matrices are float16: first the word embeddings and the motion
            tower, whose errors change words the most, then the layers of the text encoder.

    Returns:
        The largest error of a weight relative to the largest weight of its matrix.
    """
    folder = Path(folder)
    tensors = load_file(folder / WEIGHTS)
    large = [name for name, tensor in tensors.items() if is_large(tensor)]
    size = sum(tensor.nbytes for name, tensor in tensors.items() if name not in large)
    size += sum(_integer_bytes(tensors[name]) for name in large)
    packed = {name: tensor for name, tensor in tensors.items() if name not in large}
    worst = 0.0
    for name in sorted(large, key=_is_text_layer):
        tensor, more = tensors[name], 2 * tensors[name].numel() - _integer_bytes(tensors[name])
        peak = float(tensor.abs().max())
        if size + more <= most_bytes and peak <= torch.finfo(torch.float16).max:
            size += more
            packed[name] = tensor.half()
            error = packed[name].float() - tensor
        else:
            packed[name], packed[name + SCALE] = quantized(tensor)
            error = restored(packed[name], packed[name + SCALE]) - tensor
        worst = max(worst, float(error.abs().max()) / peak if peak else 0.0)
    save_file(packed, folder / PACKED, metadata=FORMAT)
    (folder / PACKED).chmod(0o644)  # safetensors writes files that only their owner can read
    (folder / WEIGHTS).unlink()
    (folder / CHECKSUMS).unlink(missing_ok=True)
    write_checksums(folder)
    return worst


def is_large(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is stored with fewer bits."""
    return tensor.is_floating_point() and tensor.ndim > 1 and tensor.numel() >= LEAST


def _integer_bytes(matrix: torch.Tensor) -> int:
    return matrix.numel() + 2 * _grouped(matrix).shape[:2].numel()


def _is_text_layer(name: str) -> bool:
    return "text_model.encoder." in name and ".embeddings." not in name


def unpack(source: str | os.PathLike, folder: str | os.PathLike) -> None:
    """
    Write a packed model as a normal one.

    Args:
        source: packed folder, whose checksums are compared.
        folder: existing folder to write to.

    Raises:
        ValueError: if a file is damaged or of a later format.
    """
    source, folder = Path(source), Path(folder)
    check_checksums(source)
    with loading_from(source / PACKED):
        with safe_open(source / PACKED, framework="pt") as file:
            found = file.metadata() or {}
        if found != FORMAT:
            raise ValueError(f"{source / PACKED}: got format {found}, expected {FORMAT}; install a newer lexmotion")
        packed = load_file(source / PACKED)
        scales = {name for name in packed if name.endswith(SCALE) and name.removesuffix(SCALE) in packed}
        tensors = {
            name: _matrix_of(source, name, tensor, packed[name + SCALE])
            if name + SCALE in scales
            else _widened(tensor)
            for name, tensor in packed.items()
            if name not in scales
        }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    for file in source.iterdir():
        if file.is_file() and file.name not in (PACKED, CHECKSUMS):
            shutil.copyfile(file, folder / file.name)
    write_checksums(folder)


def _matrix_of(source: Path, name: str, levels: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    try:
        return restored(levels, scale)
    except ValueError as error:
        raise ValueError(f"{source / PACKED}: {name}: {error}; restore the file, or write the folder again") from error


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype == torch.float16 else tensor


def cache_folder() -> Path:
    """Return the folder of unpacked models in the cache of the Hugging Face libraries."""
    from huggingface_hub import constants

    return Path(constants.HF_ASSETS_CACHE, "lexmotion", "weights")


def cached_place(source: str | os.PathLike) -> Path:
    """
    Return the folder in the cache for a packed folder. It is named after a digest, so that other versions have others.

    Raises:
        FileNotFoundError: if the packed folder has no checksums.
    """
    source = Path(source).resolve()
    if not (source / CHECKSUMS).is_file():
        raise FileNotFoundError(f"{source}: no {CHECKSUMS}; restore the file, or write the folder again")
    return cache_folder() / f"{source.name}-{sha256_of(source / CHECKSUMS)[:16]}"


def unpacked(source: str | os.PathLike) -> Path:
    """
    Return the unpacked model of a packed folder from the cache, unpacking it if it is new or damaged there.

    The folder appears complete, by a rename; if two processes unpack the same model, one of the equal results is kept.

    Args:
        source: packed folder.

    Raises:
        OSError: if the cache cannot be written.
        ValueError: if the packed model is damaged.
    """
    source, place = Path(source).resolve(), cached_place(source)
    with _UNPACKING:
        if is_whole(place):
            return place
        try:
            with full_disk_named(place.parent):
                place.parent.mkdir(parents=True, exist_ok=True)
                _remove_abandoned(place)
                work = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".partial", dir=place.parent))
                try:
                    unpack(source, work)
                    work.chmod(0o755)
                    _move_in(work, place)
                finally:
                    shutil.rmtree(work, ignore_errors=True)
        except OSError as error:
            reason = "no space is left" if "disk or quota is full" in str(error) else error.strerror or error
            raise OSError(
                f"{place.parent}: the model {source.name!r} cannot be unpacked there ({reason}); set HF_HOME to a "
                "folder with 100 MB of free space that you can write to"
            ) from error
    return place


def is_whole(folder: Path) -> bool:
    """Return whether a model in the cache has all its files as they were written."""
    if not (folder / CHECKSUMS).is_file() or not (folder / WEIGHTS).is_file():
        return False
    try:
        check_checksums(folder)
    except (OSError, ValueError):
        return False
    return True


def _remove_abandoned(place: Path) -> None:
    """Remove what killed processes left beside a folder of the cache."""
    for folder in place.parent.glob(f".{place.name}.*.partial"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > ABANDONED:
                shutil.rmtree(folder, ignore_errors=True)


def _move_in(work: Path, place: Path) -> None:
    """Rename a finished folder; what is at its place is removed, unless another process just put a whole one there."""
    for _ in range(10):
        try:
            os.replace(work, place)
            return
        except OSError:
            if not place.exists():
                raise
        if is_whole(place):
            return
        damaged = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".partial", dir=place.parent))
        try:
            os.replace(place, damaged / "damaged")
        except FileNotFoundError:  # another process moved it
            pass
        finally:
            shutil.rmtree(damaged, ignore_errors=True)
    raise OSError(f"{place}: in use by other processes; try again")
