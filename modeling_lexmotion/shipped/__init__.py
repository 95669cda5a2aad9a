"""What comes with the package: trained weights by name, and sample motions with their captions."""

from __future__ import annotations

import csv
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from ..common.files import files_moved_in

logger = logging.getLogger(__name__)

DEFAULT = "small"  # the model of a command without --model
WEIGHTS = Path(__file__).with_name("weights")
SAMPLES = Path(__file__).with_name("samples")


@dataclass(frozen=True)
class Sample:
    """A sample motion.

    Args:
        name: its action, for example `"kick"`.
        path: BVH file, for `lexmotion.load_motion` and every command that reads motion files.
        captions: its captions.
        id: its id in HumanML3D.
    """

    name: str
    path: Path
    captions: tuple[str, ...]
    id: str


def names() -> list[str]:
    """Return the names of the models that this installation contains."""
    from .packed import is_packed

    return sorted(folder.name for folder in WEIGHTS.iterdir() if is_packed(folder)) if WEIGHTS.is_dir() else []


def pretrained(name: str | os.PathLike = DEFAULT) -> str:
    """Return the folder of a trained model that comes with the package, for `from_pretrained` and every command.

    The model is stored compactly, and unpacked into the cache of the Hugging Face libraries when it is first used
    (environment variables HF_ASSETS_CACHE or HF_HOME). Nothing is downloaded.

    Args:
        name: one of the names of the package, or a folder that `lexmotion compact` wrote.

    Returns:
        A folder with config.json, model.safetensors and the processor.

    Raises:
        FileNotFoundError: if there is no such model.
        OSError: if the cache cannot be written.
        ValueError: if the stored model is damaged.

    Example:
        >>> from transformers import AutoModel, AutoProcessor
        >>> import lexmotion
        >>> model = AutoModel.from_pretrained(lexmotion.pretrained("small")).eval()  # doctest: +SKIP
        >>> processor = AutoProcessor.from_pretrained(lexmotion.pretrained("small"))  # doctest: +SKIP
    """
    from .packed import is_packed, unpacked

    name = os.fspath(name)
    for folder in (WEIGHTS / name if name and Path(name).name == name else Path(name), Path(name)):
        if is_packed(folder):
            return str(unpacked(folder))
    found = names()
    if not found:
        raise FileNotFoundError(
            f"no model {name!r}: this lexmotion was built without weights; pass a model folder, or install a release"
        )
    raise FileNotFoundError(f"no model {name!r} in the package; choose {', '.join(found)}, or pass a model folder")


def resolved(name: str | os.PathLike) -> str:
    """Return the folder of a model of the package or of `lexmotion compact`, and other names unchanged.

    A folder of the user is preferred to a model of the package with the same name.

    Args:
        name: folder, Hub name, or name of a model of the package.

    Raises:
        FileNotFoundError, OSError, ValueError: see [`pretrained`].
    """
    from .packed import is_packed

    name = os.fspath(name)
    if Path(name).is_dir():
        if name in names():
            logger.warning(
                "using the folder %r in %s, not the model of that name in the package",
                name,
                Path(name).parent.resolve(),
            )
        return pretrained(name if os.path.isabs(name) else os.path.join(".", name)) if is_packed(Path(name)) else name
    return pretrained(name) if name == DEFAULT or name in names() else name


def portable(name: str) -> str:
    """Return the name in the package of a model that was unpacked into the cache, and other names unchanged.

    It is stored in indexes and vectors, which then work after the cache is emptied, and on other machines.
    """
    from .packed import cached_place

    return next((known for known in names() if str(cached_place(WEIGHTS / known)) == name), name)


def samples() -> list[Sample]:
    """Return twelve recordings of different actions with their captions, which no shipped model was trained on.

    Motions are of the CMU motion capture database, captions of HumanML3D; README.md beside them has their licences.

    Example:
        >>> import lexmotion
        >>> kick = next(sample for sample in lexmotion.samples() if sample.name == "kick")
        >>> kick.captions[0], lexmotion.load_motion(kick.path).positions.shape
        ('a person crouches then lunges forward with a kick.', (199, 22, 3))
    """
    found: dict[tuple[str, str], list[str]] = {}
    with (SAMPLES / "captions.csv").open(encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table):
            found.setdefault((row["file"], row["id"]), []).append(row["caption"])
    return [Sample(Path(file).stem, SAMPLES / file, tuple(texts), id) for (file, id), texts in found.items()]


def copy_samples(folder: str | os.PathLike) -> list[Path]:
    """
    Copy the sample motions, their captions and licences into a folder, and return the motion files.

    Raises:
        FileExistsError: if the folder is not empty.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder}: not empty; choose another folder, or remove it")
    with files_moved_in(folder) as aside:
        for file in sorted(SAMPLES.iterdir()):
            if file.is_file():
                shutil.copyfile(file, aside / file.name)
    return [folder / sample.path.name for sample in samples()]


__all__ = ["DEFAULT", "Sample", "copy_samples", "names", "portable", "pretrained", "resolved", "samples"]
