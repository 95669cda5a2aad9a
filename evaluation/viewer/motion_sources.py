"""Sources of the joint positions of an index's items: a prepared corpus, one compact file, or motion files."""

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from lexmotion.common.files import atomic_path
from lexmotion.processing.corpora.prepare import load_prepared
from lexmotion.processing.recordings.options import ReadingOptions
from lexmotion.processing.recordings.reading import Motion, load_motion, split_key

logger = logging.getLogger(__name__)

STORED = "motions.safetensors"
FILE, READ = "file", "read"  # in the metadata of items that are motion files

Clip = tuple[np.ndarray, float]  # positions (T, J, 3) float32 in metres, Y up; frames per second


class MotionSource(Protocol):
    """An object that returns motions by the ids of an index."""

    def get(self, id: Any, metadata: Mapping[str, Any]) -> Clip | None:
        """Return the motion of an item, None if this source does not have it."""


class DatasetMotions:
    """
    Motions of a prepared corpus, read from its memory-mapped file on demand.

    Args:
        dataset: folder written by `lexmotion prepare`.
        splits: splits to read; None reads all.
    """

    def __init__(self, dataset: str | os.PathLike, splits: Sequence[str] | None = None):
        self.rows: dict[Any, tuple[Any, int]] = {}
        for split in load_prepared(Path(dataset), splits=splits).values():
            motions = split.select_columns(["motion", "fps"]).with_format("numpy")
            self.rows |= {id: (motions, number) for number, id in enumerate(split["id"])}

    def get(self, id: Any, metadata: Mapping[str, Any]) -> Clip | None:
        if id not in self.rows:
            return None
        split, number = self.rows[id]
        row = split[number]
        return row["motion"].reshape(len(row["motion"]), -1, 3), float(row["fps"])


class StoredMotions:
    """
    Motions of one file written by `save`: roots in float32, other joints relative to them in float16, to a millimetre.
    """

    def __init__(self, file: str | os.PathLike):
        self.file = safe_open(file, framework="np")
        facts = self.file.metadata() or {}
        if "lexmotion_motion_ids" not in facts:
            raise ValueError(f"{file} contains no motions; write it with `lexmotion demo --export FOLDER`")
        self.rows = {id: number for number, id in enumerate(json.loads(facts["lexmotion_motion_ids"]))}
        self.starts, self.fps = self.file.get_tensor("starts"), self.file.get_tensor("fps")

    @staticmethod
    def save(file: str | os.PathLike, clips: Iterable[tuple[Any, Clip]]) -> int:
        """
        Write (id, (positions, fps)) of motions of one skeleton in one step; return their number, ValueError if it is
        0.
        """
        ids, roots, joints, fps = [], [], [], []
        for id, (positions, rate) in clips:
            ids.append(id)
            fps.append(rate)
            roots.append(positions[:, 0].astype(np.float32))
            joints.append((positions - positions[:, :1]).astype(np.float16))
        if not ids:
            raise ValueError("no motions to store; pass the corpus of the index with dataset=...")
        tensors: dict[str, np.ndarray] = {
            "roots": np.concatenate(roots),
            "joints": np.concatenate(joints),
            "starts": np.cumsum([0, *map(len, roots)]).astype(np.int64),
            "fps": np.array(fps, np.float32),
        }
        with atomic_path(file) as aside:
            save_file(tensors, aside, metadata={"lexmotion_motion_ids": json.dumps(ids)})
        return len(ids)

    def get(self, id: Any, metadata: Mapping[str, Any]) -> Clip | None:
        number = self.rows.get(id)
        if number is None:
            return None
        span = slice(int(self.starts[number]), int(self.starts[number + 1]))
        roots = self.file.get_slice("roots")[span]
        joints = self.file.get_slice("joints")[span].astype(np.float32)
        return joints + roots[:, None], float(self.fps[number])


class FileMotions:
    """
    Motions that `lexmotion index add` took from files, if these still exist, read with the same options.

    Args:
        skeleton: skeleton of the model.
        fps: frame rate of files that contain none.
    """

    def __init__(self, skeleton: str, fps: float):
        self.skeleton, self.fps = skeleton, fps

    def get(self, id: Any, metadata: Mapping[str, Any]) -> Clip | None:
        found = self.read(metadata)
        return None if found is None else (found[0].positions, found[1])

    def read(self, metadata: Mapping[str, Any]) -> tuple[Motion, float] | None:
        """Read the motion of an item's file and its frame rate; None, with a warning, if it cannot be read."""
        file, saved = metadata.get(FILE), metadata.get(READ) or {}
        if not isinstance(file, str) or not Path(file).is_file():
            return None
        try:
            options = {field.name: saved[field.name] for field in fields(ReadingOptions) if field.name in saved}
            motion = load_motion(file, ReadingOptions(**options), self.skeleton)
        except (ValueError, OSError, ImportError) as error:
            logger.warning("%s cannot be shown: %s", file, error)
            return None
        return motion, motion.fps if motion.fps_is_known else self.fps


def file_metadata(file: str | os.PathLike, options: ReadingOptions) -> dict[str, Any]:
    """
    Return the metadata that `FileMotions` needs to read a motion file again, from any working directory.

    Args:
        options: how the file was read; options that are None are omitted.
    """
    file, key = split_key(Path(file))
    used = {name: value for name, value in {**vars(options), "key": key or options.key}.items() if value is not None}
    if "body_model" in used:
        used["body_model"] = os.path.abspath(used["body_model"])
    if os.path.isfile(used.get("mapping", "")):  # else the name of a built-in one
        used["mapping"] = os.path.abspath(used["mapping"])
    metadata: dict[str, Any] = {FILE: os.path.abspath(file)}
    return metadata | ({READ: used} if used else {})
