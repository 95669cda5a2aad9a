"""A folder of motion files, of any format that [`load_motion`] reads, with their captions in one table.

    captions.csv     columns `file`, `caption`, optionally `split`, `start`, `end`; one row per caption
    captions.jsonl   or rows {"file": "...", "captions": ["...", ...], "split": "..."}
    mapping.json     optional, or .yaml: mapping of the joints, see [`match_rig`]

`file` is a path inside the folder; `results.npy#3` is motion 3 of a file with several motions. A `start` without `end`
selects the rest of the motion. Without `split`, 80 % of the motions are for training and 10 % each for validation and
test, by a hash of their names. Motions are converted to HumanML3D's joints and frame rate, metres and Y up. Unit and
up axis are inferred from all files of the same format and rig together.
"""

import csv
import hashlib
import json
import math
import os
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from datasets import Features, List, Value

from ..motion_features import mirror_positions, resample_positions
from ..recordings.options import ReadingOptions
from ..recordings.orientation import Decision, Traits, decide_sources
from ..recordings.reading import NAMED, read_motion, read_traits, split_key
from ..text_mirroring import mirror_caption
from .blocks import spread
from .folders import CorpusFolder, FolderLayout, SplitFiles, base_id_of, is_file

MOTION_FILES = FolderLayout(name="files", skeleton_name="humanml3d")
CAPTION_FILES = ("captions.csv", "captions.jsonl")
MAPPING_FILES = ("mapping.json", "mapping.yaml", "mapping.yml")
_SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
_TRAIN, _VALIDATION = 0.8, 0.9
MAX_SURVEYED, _SURVEYED_AT_ONCE = 512, 32  # files from which unit and axis are decided
_SURVEYED = Features({"split": Value("string"), "number": Value("int32"), "traits": List(Value("string"))})


class MotionFilesFolder(CorpusFolder):
    """Reader of a folder of motion files, see the top of this file.

    The arguments are those of [`CorpusFolder`], except that `splits` has no files, since the table defines the splits.
    A missing table is a `FileNotFoundError`, a malformed table or an unknown split a `ValueError`.
    """

    def _open(self, splits: SplitFiles | None) -> dict[str, list[Path]]:
        if self.overlays:
            remedy = f"put its files into {self.source}, or pass layout='humanml3d' or 'kit-ml'"
            raise ValueError(f"overlay: got {str(self.overlays[0])!r} for the layout {self.layout.name!r}; {remedy}")
        captions_file = _first_of(self.source, CAPTION_FILES)
        if captions_file is None:
            raise FileNotFoundError(f"{self.source}: no {' or '.join(CAPTION_FILES)}; add one, or check the path")
        self.captions_file = captions_file
        self.mapping_file = mapping_in(self.source)
        self.paths: dict[str, Path] = {}
        self.decisions: dict[str, Decision] = {}
        self.captions: dict[str, dict[tuple[float, float], list[str]]] = {}
        self.malformed: dict[str, list[str]] = {}  # captions that are no text
        split_of: dict[str, str] = {}
        for row in _read_table(self.captions_file):
            self._add(row, split_of)
        self._check_aliases(split_of)
        self.ids_of = {split: [key for key, of in split_of.items() if of == split] for split in split_of.values()}
        for split, file in (splits or {}).items():
            if file is not None or split not in self.ids_of:
                given = f"splits={{{split!r}: {file!r}}}"
                remedy = f"remove it to prepare {', '.join(self.ids_of)}"
                raise ValueError(f"{given}: {self.captions_file} has the splits, in the column 'split'; {remedy}")
        order = [split for split in ("train", "validation", "test") if split in self.ids_of]
        return {split: [self.captions_file] for split in order if not splits or split in splits}

    def _add(self, row: Mapping[str, Any], split_of: dict[str, str]) -> None:
        where = f"{self.captions_file}, line {row['line']}"
        file, captions = str(row.get("file") or "").strip(), row.get("captions", row.get("caption"))
        if not file or captions is None:
            raise ValueError(f"{where}: a row needs 'file' and 'caption', got {', '.join(map(str, row))}")
        if None in row:
            raise ValueError(f"{where}: more cells than columns; put captions with commas in quotes")
        file = PurePosixPath(file).as_posix()  # a.bvh and ./a.bvh are one motion
        if Path(file).is_absolute() or ".." in Path(file).parts or "\0" in file:
            raise ValueError(f"{where}: got {file!r}; write a path inside the folder")
        # Ids that start with M are mirrored motions.
        key = f"./{file}" if file.startswith("M") else file
        split = str(row.get("split") or "").strip() or _split_by_hash(file)
        if split not in _SPLITS:
            raise ValueError(f"{where}: got the split {split!r}; choose one of train, validation, test")
        if split_of.setdefault(key, _SPLITS[split]) != _SPLITS[split]:
            raise ValueError(f"{where}: {file} is also in the split {split_of[key]!r}; use one split per motion")
        try:
            start, end = (float(row.get(name) or 0.0) for name in ("start", "end"))
            end = math.inf if start > 0 and row.get("end") in (None, "") else end
        except (TypeError, ValueError):
            got = f"{row.get('start')!r} and {row.get('end')!r}"
            raise ValueError(f"{where}: got start and end {got}; write seconds") from None
        if (start, end) != (0.0, 0.0) and not 0.0 <= start < end:
            raise ValueError(f"{where}: the range from {start:g} s to {end:g} s is empty; write start before end")
        texts = captions if isinstance(captions, list) else [captions]
        wrong = [text for text in texts if not isinstance(text, str)]
        if wrong:
            message = f"line {row['line']}: got {reprlib.repr(wrong[0])} for a caption; write text"
            self.malformed.setdefault(key, []).append(message)
            texts = [text for text in texts if isinstance(text, str)]
        known = self.captions.setdefault(key, {}).setdefault((start, end), [])
        known += [text for text in (" ".join(str(text).split()) for text in texts) if text]
        self.paths[key] = self.source / file

    def _check_aliases(self, split_of: Mapping[str, str]) -> None:
        """Refuse a motion that is in two splits under two names, as through links."""
        known: dict[str, str] = {}
        for key, split in split_of.items():
            other = known.setdefault(os.path.realpath(self.paths[key]), key)
            if split_of[other] != split:
                what = f"{key} ({split}) and {other} ({split_of[other]}) are the same file"
                raise ValueError(f"{self.captions_file}: {what}; use one split per motion")

    def ids(self, split: str) -> list[str]:
        ids = list(self.ids_of[split])
        return ids + [f"M{key}" for key in ids] if self.mirror == "derive" and split == "train" else ids

    def listing_files(self) -> Iterator[Path]:
        yield from (path for path in (self.captions_file, self.mapping_file) if path is not None)

    def key_of(self, motion_id: str) -> str:
        return (
            f"./{motion_id}" if motion_id.startswith("M") and f"./{motion_id}" in self.paths else base_id_of(motion_id)
        )

    def has_files(self, motion_id: str) -> bool:
        return self.key_of(motion_id) in self.paths

    def files_of(self, motion_id: str) -> list[Path]:
        found = self._motion_path(motion_id)
        return [] if found is None else [split_key(found[0])[0]]

    def decide(self, workers: int, progress: bool) -> list[dict[str, Any]]:
        """Infer unit and up axis of every rig from evenly spaced files of the table, at most `MAX_SURVEYED`."""
        if self.reading.units is not None and self.reading.up is not None:
            return []
        paths = sorted({str(path) for path in self.paths.values()})
        count = min(len(paths), MAX_SURVEYED)
        chosen = [paths[len(paths) * number // count] for number in range(count)]
        parts = [chosen[start : start + _SURVEYED_AT_ONCE] for start in range(0, len(chosen), _SURVEYED_AT_ONCE)]
        tasks = [{"split": "", "number": number, "paths": part} for number, part in enumerate(parts)]
        surveyed = spread(_survey, tasks, workers, "comparing files", progress, features=_SURVEYED, folder=self)
        found = [Traits(**json.loads(text)) for part in surveyed.data.column("traits").to_pylist() for text in part]
        self.decisions = decide_sources(found)
        return [decision.to_dict() for decision in self.decisions.values()]

    def _motion_path(self, motion_id: str) -> tuple[Path, bool] | None:
        path = self.paths[base_id_of(motion_id)]
        return (path, motion_id.startswith("M")) if is_file(split_key(path)[0]) else None

    def _text_path(self, motion_id: str) -> tuple[Path, bool] | None:
        return self.captions_file, motion_id.startswith("M")

    def _read_captions(
        self, motion_id: str, split: str, path: Path, mirror: bool
    ) -> dict[tuple[float, float], list[str]]:
        for detail in () if mirror else self.malformed.get(motion_id, ()):
            self._skip(split, motion_id, "malformed caption", f"{path.name}, {detail}")
        found = {crop: texts for crop, texts in sorted(self.captions[base_id_of(motion_id)].items()) if texts}
        return {crop: [mirror_caption(text) for text in texts] if mirror else texts for crop, texts in found.items()}

    def _read_positions(self, motion_id: str, split: str, path: Path, mirror: bool) -> np.ndarray | None:
        try:
            motion = read_motion(path, self._reading(path), self.skeleton.name, self.decisions)
        except Exception as error:  # whatever is wrong with one file, the others are prepared
            detail = str(error) or type(error).__name__
            return self._skip(split, motion_id, "unreadable motion file", self._without_folders(detail, path))
        for severity, reason in (("error", "unreadable motion file"), ("warning", "doubtful motion file")):
            problem = next((str(problem) for problem in motion.problems if problem.severity == severity), None)
            if problem is not None:
                return self._skip(split, motion_id, reason, self._without_folders(problem, path))
        positions = resample_positions(torch.from_numpy(motion.positions), motion.fps, self.skeleton.fps)
        changes = () if mirror else (str(p) for p in motion.problems if p.severity == "note" and not p.remedy)
        for change in changes:
            self._skip(split, motion_id, "changed while reading", self._without_folders(change, path))
        return (mirror_positions(positions, self.skeleton) if mirror else positions).numpy()

    def _without_folders(self, detail: str, path: Path) -> str:
        """Remove the folders of file names from a message, since the report may be published."""
        for file in (path, self.mapping_file):
            detail = detail if file is None else detail.replace(str(file), file.name)
        return detail

    def _reading(self, path: Path) -> ReadingOptions:
        """Return the options for a file; arrays have no joint names for a mapping."""
        return replace(self.reading, mapping=self.mapping_file if path.suffix.lower() in NAMED else None)


def _survey(task: Mapping[str, Any], folder: MotionFilesFolder) -> dict[str, list[str]]:
    """Return what the files of a task show; those that cannot be read are reported later."""
    found = []
    for path in map(Path, task["paths"]):
        try:
            traits = read_traits(path, folder._reading(path), folder.skeleton.name)
        except Exception:
            continue
        found += [] if traits is None else [json.dumps(asdict(traits))]
    return {"traits": found}


def captions_in(folder: Path) -> dict[str, list[str]]:
    """
    Return the captions of each file in a folder's table, see the top of this file; none without a table.

    Raises:
        ValueError: if the table is malformed.
    """
    table = _first_of(folder, CAPTION_FILES)
    found: dict[str, list[str]] = {}
    for row in () if table is None else _read_table(table):
        captions = row.get("captions", row.get("caption"))
        texts = captions if isinstance(captions, list) else [captions]
        name = PurePosixPath(str(row.get("file") or "").strip()).as_posix()
        found.setdefault(name, []).extend(" ".join(text.split()) for text in texts if isinstance(text, str))
    return found


def mapping_in(folder: Path) -> Path | None:
    """Return the mapping of the joints in a folder, see the top of this file."""
    return _first_of(folder, MAPPING_FILES)


def _first_of(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _split_by_hash(file: str) -> str:
    place = int.from_bytes(hashlib.sha256(file.encode()).digest()[:8]) / 2**64
    return "train" if place < _TRAIN else "validation" if place < _VALIDATION else "test"


def _read_table(path: Path) -> Iterator[dict[str, Any]]:
    """Read the rows of a table, with their `line`."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        if path.suffix == ".csv":
            reader = csv.DictReader(stream, skipinitialspace=True)
            try:
                for row in reader:
                    yield row | {"line": reader.line_num}
            except csv.Error as error:
                raise ValueError(f"{path}, line {reader.line_num}: malformed ({error}); close its quotes") from error
            return
        for number, line in enumerate(stream, start=1):
            if line.strip():
                try:
                    yield json.loads(line) | {"line": number}
                except (ValueError, TypeError, RecursionError) as error:
                    expected = '{"file": "...", "captions": ["..."]}'
                    raise ValueError(f"{path}, line {number}: expected {expected}, got {line[:60]!r}") from error
