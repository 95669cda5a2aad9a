"""The folder layout of HumanML3D and KIT-ML.

    new_joints/<id>.npy        (T, J, 3) joint positions
    new_joint_vecs/<id>.npy    (T, F) features; read if the joint file is missing
    texts/<id>.txt             one caption per line: `caption#word/POS word/POS ...#start#end`
    train.txt val.txt test.txt one id per line
    meta.csv or index.csv      optional: the source recording of each motion

`start` and `end` are seconds; both 0.0 (or nan) select the whole motion, other values a sub-range that becomes a
separate motion. Ids that start with `M` are mirrored motions, either stored or derived from the motion without `M`.
"""

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from ..motion_features import features_to_positions, mirror_positions
from ..recordings.arrays import load_array
from ..recordings.detection import FURTHEST, are_normalised
from ..recordings.options import ReadingOptions
from ..skeletons import Skeleton, get_skeleton
from ..text_mirroring import mirror_caption
from .options import MIN_FRAMES
from .records import MotionRecord, Skipped

DEFAULT_SPLITS = {"train": "train.txt", "validation": "val.txt", "test": "test.txt"}
JOINTS, FEATURES, TEXTS = "new_joints", "new_joint_vecs", "texts"  # folders of a corpus
SplitFiles = Mapping[str, str | Sequence[str] | None]
MIRROR_MODES = ("listed", "derive", "none")


@dataclass(frozen=True)
class FolderLayout:
    """A corpus with this layout, defined by its skeleton and with it joint count, unit and frame rate."""

    name: str
    skeleton_name: str

    @property
    def skeleton(self) -> Skeleton:
        return get_skeleton(self.skeleton_name)


HUMANML3D = FolderLayout(name="humanml3d", skeleton_name="humanml3d")  # Guo et al., CVPR 2022
KIT_ML = FolderLayout(name="kit-ml", skeleton_name="kit-ml")  # KIT Motion-Language as Guo et al. publish it


@dataclass(frozen=True)
class CaptionLine:
    """A parsed line of a text file; `start == end == 0` selects the whole motion."""

    caption: str
    start: float
    end: float


def parse_caption_line(line: str) -> CaptionLine:
    """Parse `caption#word/POS ...#start#end`, with nan as 0.0.

    Raises:
        ValueError: if there are fewer than four fields, or the times are not numbers, negative or in reverse order.

    Example:
        >>> parse_caption_line("a man walks.#a/DET man/NOUN walk/VERB#nan#nan")
        CaptionLine(caption='a man walks.', start=0.0, end=0.0)
    """
    fields = line.strip().split("#")
    if len(fields) < 4:
        raise ValueError(f"got {len(fields)} field(s) separated by '#', expected 4: {line.strip()[:80]!r}")
    try:
        start, end = (float(value) for value in fields[2:4])
    except ValueError:
        raise ValueError(f"start and end must be seconds, got {fields[2]!r} and {fields[3]!r}") from None
    start, end = (0.0 if math.isnan(value) else value for value in (start, end))
    if (start, end) != (0.0, 0.0) and not 0.0 <= start < end < math.inf:
        raise ValueError(f"the range from {start:g} s to {end:g} s is empty")
    return CaptionLine(" ".join(fields[0].split()), start, end)


def resolve_splits(source: Path, splits: SplitFiles | None = None) -> dict[str, list[Path]]:
    """Find the split files of a corpus folder.

    Args:
        source: the folder.
        splits: split name -> file name in `source` (or a path), or several, None for the standard file of that split.
            By default every standard file that exists. HumanML3D's `val` is `validation`.

    Returns:
        Split name -> files, train first.

    Raises:
        FileNotFoundError: if a split file, or all of them, are missing.
        ValueError: if the name of a split is invalid, or a split without a standard file has no file.
    """
    if not splits:
        found = {name: [source / file] for name, file in DEFAULT_SPLITS.items() if (source / file).is_file()}
        if not found:
            remedy = "add one, or pass another file, for example splits={'test': 'my_ids.txt'}"
            raise FileNotFoundError(f"{source}: no split file {', '.join(DEFAULT_SPLITS.values())}; {remedy}")
        return found
    found = {}
    given = ((name, [files] if isinstance(files, str | None) else files) for name, files in splits.items())
    for name, file in ((name, file) for name, files in given for file in files):
        name = "validation" if name == "val" else name
        if not name.isidentifier():
            raise ValueError(f"split name: got {name!r}; use letters, digits and underscores")
        if file is None and name not in DEFAULT_SPLITS:
            example = {name: f"{name}.txt"}
            raise ValueError(f"split {name!r}: no standard file; pass one, for example splits={example}")
        path = source / (file or DEFAULT_SPLITS[name])
        if file is not None and not path.is_file() and Path(file).is_file():
            path = Path(file)
        if not path.is_file():
            present = ", ".join(sorted(p.name for p in source.glob("*.txt"))) or "your own"
            raise FileNotFoundError(f"split {name!r}: no file {path}; pass one of {present}")
        found.setdefault(name, []).append(path)
    return dict(sorted(found.items(), key=lambda item: (item[0] != "train", list(found).index(item[0]))))


def read_ids(path: Path) -> list[str]:
    """
    Read the ids of a split file, without repetitions.

    Raises:
        ValueError: if there are none, or one names a file outside its folder.
    """
    ids = _ids_of(path.read_text(encoding="utf-8-sig", errors="replace").split(), path)
    if not ids:
        raise ValueError(f"{path}: the file lists no ids; fill it, remove it, or select other splits with splits=...")
    return ids


def read_id_list(path: Path) -> list[str]:
    """
    Read ids from a text file, one a line, or from the column `id` of a `.csv`, without repetitions.

    Raises:
        ValueError: if there are none, the `.csv` has no such column, or an id names a file outside its folder.
    """
    if path.suffix.lower() != ".csv":
        listed = path.read_text(encoding="utf-8-sig", errors="replace").split()
    else:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            rows = csv.DictReader(stream, skipinitialspace=True)
            try:
                if "id" not in (rows.fieldnames or ()):
                    header = ", ".join(rows.fieldnames or ()) or "nothing"
                    raise ValueError(f"{path}: no column 'id' in its first line ({header[:80]}); add it")
                listed = [row["id"].strip() for row in rows if row["id"] and row["id"].strip()]
            except csv.Error as error:
                raise ValueError(f"{path}, line {rows.line_num}: malformed ({error}); close its quotes") from error
    if not listed:
        raise ValueError(f"{path}: the file lists no ids; fill it, or do not pass it")
    return _ids_of(listed, path)


def _ids_of(listed: Iterable[str], path: Path) -> list[str]:
    # 000001 and ./000001 are one motion.
    ids = list(dict.fromkeys(PurePosixPath(key).as_posix() if "/" in key else key for key in listed))
    outside = next((key for key in ids if key.startswith("/") or ".." in PurePosixPath(key).parts), None)
    if outside is not None:
        raise ValueError(f"{path}: got the id {outside!r}, a path outside the folder; remove it")
    return ids


def read_source_clips(source: Path) -> dict[str, str]:
    """Read the source recording of each motion, if given by the corpus.

    The files are `meta.csv` (columns `id`, `source_clip`) or HumanML3D's `index.csv` (`new_name`, `source_path`).
    """
    for file, key, value in (("meta.csv", "id", "source_clip"), ("index.csv", "new_name", "source_path")):
        path = source / file
        if not path.is_file():
            continue
        with path.open(encoding="utf-8", newline="") as stream:
            rows = csv.DictReader(stream)
            if rows.fieldnames is not None and {key, value} <= set(rows.fieldnames):
                return {row[key].removesuffix(".npy"): row[value] for row in rows if row[key] and row[value]}
    return {}


def read_caption_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Read the ids and captions of a `.jsonl` file with rows `{"id": ..., "captions": [...]}`.

    Raises:
        ValueError: if a line is not such a row.
    """
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                motion_id, captions = row["id"], row["captions"]
                captions = [captions] if isinstance(captions, str) else captions
                if isinstance(motion_id, bool) or not isinstance(motion_id, str | int):
                    raise TypeError
                if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
                    raise TypeError
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                expected = '{"id": "...", "captions": ["...", ...]}'
                raise ValueError(f"{path}, line {number}: got {line.strip()[:80]!r}; write {expected}") from error
            yield str(motion_id), [" ".join(caption.split()) for caption in captions if caption.strip()]


def read_replacement_captions(path: Path) -> dict[str, list[str]]:
    """Read captions by id, those of several rows of one id together; ids without any caption are left out."""
    found: dict[str, list[str]] = {}
    for motion_id, captions in read_caption_rows(path):
        known = found.setdefault(motion_id, [])
        known += [caption for caption in dict.fromkeys(captions) if caption not in known]
    return {motion_id: captions for motion_id, captions in found.items() if captions}


def base_id_of(motion_id: str) -> str:
    """Return the id of the original of a mirrored motion; other ids are unchanged."""
    return motion_id[1:] if motion_id.startswith("M") else motion_id


def is_file(path: Path) -> bool:
    """Whether a file exists; names that the file system refuses, as too long ones, do not."""
    try:
        return path.is_file()
    except OSError:
        return False


def _recording_files(folder: Path) -> Iterator[Path]:
    yield from (folder / name for name in ("meta.csv", "index.csv") if (folder / name).is_file())


def _find(motion_id: str, levels: list[list[Path]], suffix: str) -> tuple[Path, bool] | None:
    """
    Find the file of a motion or of its mirror image, and whether it is that of the mirror image.

    A mirror image in one level is found before the motion in a later one: an overlay also replaces stored twins.
    """
    for folders in levels:
        for candidate in dict.fromkeys((motion_id, base_id_of(motion_id))):
            for folder in folders:
                if is_file(path := folder / f"{candidate}{suffix}"):
                    return path, candidate != motion_id
    return None


class CorpusFolder:
    """Reader of a corpus folder, motion by motion.

    Args:
        source: folder in the layout described at the top of this file.
        layout: layout of the corpus.
        splits: see [`resolve_splits`].
        mirror: `"listed"` reads or derives the `M` ids of the split files; `"derive"` adds the mirrored twin of every
            training motion without one; `"none"` omits all `M` ids.
        min_frames: minimum frames of a motion or sub-range; shorter ones are skipped and reported. The published
            loaders drop motions below 40 (HumanML3D) or 24 (KIT-ML) frames.
        max_frames: maximum frames; None: unlimited. The published loaders drop motions from 200 frames up.
        name: name of the corpus in the records, by default the name of the folder.
        reading: facts that the motion files do not contain; only for layouts that do not define them.
        captions: id -> captions that replace those of the corpus, for whole motions; others have none. Those of a
            mirrored motion without an entry are derived.
        overlays: folders of the same layout whose files replace those of `source`, the last one first.

    Attributes:
        skipped: skipped items, filled while `records` runs.

    Raises:
        FileNotFoundError: if the folder, its `texts`, both motion folders, a split file or an overlay are missing.
        ValueError: if an overlay has no file.
    """

    def __init__(
        self,
        source: str | Path,
        layout: FolderLayout,
        splits: SplitFiles | None = None,
        mirror: str = "listed",
        min_frames: int = MIN_FRAMES,
        max_frames: int | None = None,
        name: str | None = None,
        reading: ReadingOptions | None = None,
        captions: Mapping[str, list[str]] | None = None,
        overlays: Sequence[str | Path] = (),
    ):
        self.replacements = captions
        self.source, self.layout, self.skeleton = Path(source), layout, layout.skeleton
        if mirror not in MIRROR_MODES:
            raise ValueError(f"mirror: got {mirror!r}; choose one of {', '.join(MIRROR_MODES)}")
        self.mirror, self.min_frames, self.max_frames = mirror, min_frames, max_frames
        if not self.source.is_dir():
            raise FileNotFoundError(f"{self.source}: no such corpus folder; check the path")
        self.name = name or self.source.resolve().name
        self.source_clips: dict[str, str] = {}
        self.skipped: list[Skipped] = []
        self.reading = reading or ReadingOptions()
        self.overlays = [Path(overlay) for overlay in overlays]
        self.splits = self._open(splits)

    def _open(self, splits: SplitFiles | None) -> dict[str, list[Path]]:
        """Find the content of the folder and return the files of each split."""
        if self.reading != ReadingOptions():
            remedy = "remove units=... and up=..., or pass layout='files'"
            raise ValueError(f"the layout {self.layout.name!r} defines unit and up axis; {remedy}")
        self._open_levels()
        if not self.texts[-1] or not self.motion_folders[-1]:
            missing = "'new_joints' or 'new_joint_vecs'" if self.texts[-1] else "'texts'"
            remedy = f"check that it has the layout {self.layout.name!r} (layout=...)"
            raise FileNotFoundError(f"{self.source}: no folder {missing}; {remedy}")
        return resolve_splits(self.source, splits)

    def _open_levels(self) -> None:
        """Find the folders of motions and texts, and the recordings, in the overlays and in `source`."""
        for overlay in self.overlays:
            if not overlay.is_dir():
                raise FileNotFoundError(f"overlay: no folder {str(overlay)!r}; check the path")
            patterns = (f"{JOINTS}/*.npy", f"{FEATURES}/*.npy", f"{TEXTS}/*.txt")
            if not any(True for pattern in patterns for _ in overlay.glob(pattern)):
                remedy = f"check that it has the layout {self.layout.name!r}, or do not pass it"
                raise ValueError(
                    f"overlay: no file in new_joints, new_joint_vecs or texts of {str(overlay)!r}; {remedy}"
                )
        levels = [*reversed(self.overlays), self.source]
        self.texts = [[path for path in (level / TEXTS,) if path.is_dir()] for level in levels]
        self.motion_folders = [[p for p in (level / JOINTS, level / FEATURES) if p.is_dir()] for level in levels]
        self.source_clips = {}
        for level in reversed(levels):
            self.source_clips |= read_source_clips(level)

    def overlay_use(self, motion_ids: Iterable[str]) -> list[dict[str, Any]]:
        """Return for each overlay its `name` and how many of these motions (`motions`) and `captions` files it has."""
        bases = {base_id_of(motion_id) for motion_id in motion_ids}
        used: list[dict[str, Any]] = []
        seen: dict[str, set[str]] = {".npy": set(), ".txt": set()}
        for number, overlay in enumerate(reversed(self.overlays)):
            counts = []
            for suffix, folders in ((".npy", self.motion_folders[number]), (".txt", self.texts[number])):
                own = {base_id_of(path.stem) for folder in folders for path in folder.glob(f"*{suffix}")} & bases
                counts.append(len(own - seen[suffix]))
                seen[suffix] |= own
            used.insert(0, {"name": overlay.resolve().name, "motions": counts[0], "captions": counts[1]})
        return used

    def __getstate__(self) -> dict[str, Any]:
        # Workers receive the recording of each motion they read, not the names of a million others.
        return self.__dict__ | {"source_clips": {}}

    def ids(self, split: str) -> list[str]:
        """Return the ids of one split, with mirrored ones according to the mirror mode."""
        ids = list(dict.fromkeys(motion_id for file in self.splits[split] for motion_id in read_ids(file)))
        if self.mirror == "none":
            ids = [motion_id for motion_id in ids if not motion_id.startswith("M")]
        elif self.mirror == "derive" and split == "train":
            known = set(ids)
            ids += [f"M{motion_id}" for motion_id in ids if motion_id[0] != "M" and f"M{motion_id}" not in known]
        return ids

    def listing_files(self) -> Iterator[Path]:
        """Yield the files that list the motions of the corpus, in a fixed order."""
        yield from _recording_files(self.source)
        yield from (file for files in self.splits.values() for file in files)

    def overlay_files(self) -> Iterator[tuple[str, Path]]:
        """Yield a name and the path of the files of the overlays that name the recordings, in a fixed order."""
        for number, overlay in enumerate(self.overlays):
            yield from ((f"overlay/{number}/{path.name}", path) for path in _recording_files(overlay))

    def key_of(self, motion_id: str) -> str:
        """Return what identifies the movement that a list of ids names, with that of its mirrored twin."""
        return base_id_of(motion_id)

    def has_files(self, motion_id: str) -> bool:
        """Whether there is a motion or text file of this id."""
        return bool(self.files_of(motion_id))

    def held_out_files(self) -> dict[str, Path]:
        """Return the own `val.txt` and `test.txt` of the folder and the overlays, even if they are not prepared."""
        paths = {name: self.source / file for name, file in DEFAULT_SPLITS.items() if name != "train"}
        for number, overlay in enumerate(self.overlays):
            paths |= {
                f"overlay/{number}/{file}": overlay / file for file in DEFAULT_SPLITS.values() if file != "train.txt"
            }
        return {name: path for name, path in paths.items() if path.is_file()}

    def files_of(self, motion_id: str) -> list[Path]:
        """Return the existing ones of the motion and text file that [`read`] opens."""
        found = (self._motion_path(motion_id), self._text_path(motion_id))
        return [path for path, _ in filter(None, found)]

    def source_clip(self, motion_id: str) -> str:
        """Return the source recording of a motion if given by the corpus, otherwise its base id."""
        base_id = base_id_of(motion_id)
        return self.source_clips.get(motion_id) or self.source_clips.get(base_id) or base_id

    def decide(self, workers: int, progress: bool) -> list[dict[str, Any]]:
        """Infer unit and up axis of all motion files before they are read, unless the layout defines them.

        Args:
            workers: number of processes.
            progress: show a progress bar on a terminal.

        Returns:
            The entry of the report, see [`Decision.to_dict`].
        """
        return []

    def records(self, split: str) -> Iterator[MotionRecord]:
        """Yield the motions of one of `self.splits` in the order of its file, sub-ranges after the whole motion.

        Motions that cannot be read are added to `self.skipped`.
        """
        for motion_id in self.ids(split):
            yield from self.read(motion_id, split, self.source_clip(motion_id))

    def read(self, motion_id: str, split: str, source_clip: str) -> Iterator[MotionRecord]:
        """Yield the records of one motion from the recording `source_clip`."""
        motion_file, text_file = self._motion_path(motion_id), self._text_path(motion_id)
        if motion_file is None or (text_file is None and self.replacements is None):
            missing = "motion" if motion_file is None else "text"
            return self._skip(split, motion_id, f"missing {missing} file")
        if self.replacements is not None:
            replacement = self.replacement(motion_id)
            crops = {(0.0, 0.0): replacement} if replacement else {}
        else:
            crops = self._read_captions(motion_id, split, *text_file)  # type: ignore[misc]
        if not crops:
            return self._skip(split, motion_id, "no caption")
        positions = self._read_positions(motion_id, split, *motion_file)
        if positions is None:
            return None
        fps = self.skeleton.fps
        base_id = base_id_of(motion_id)
        for (start, end), captions in crops.items():
            whole = (start, end) == (0.0, 0.0)
            # As in the published loaders, times are truncated to int(seconds * fps), and the end of the motion.
            crop = positions if whole else positions[int(start * fps) : int(min(end * fps, len(positions)))]
            record_id = motion_id if whole else f"{motion_id}@{start:g}-{'end' if end == math.inf else f'{end:g}'}"
            if not self._fits(record_id, split, len(crop)):
                continue
            yield MotionRecord(
                id=record_id,
                base_id=base_id,
                source_clip=source_clip,
                mirrored=base_id != motion_id,
                start=0.0 if whole else start,
                end=len(crop) / fps if whole else min(end, len(positions) / fps),
                positions=crop,
                fps=fps,
                skeleton=self.skeleton.name,
                captions=captions,
                mirrored_captions=[mirror_caption(caption) for caption in captions],
                split=split,
                source=self.name,
            )

    def replacement(self, motion_id: str) -> list[str] | None:
        """Return the captions that replace those of a motion, mirrored if only its original has some; else None."""
        if self.replacements is None or motion_id in self.replacements:
            return (self.replacements or {}).get(motion_id)
        original = self.replacements.get(base_id_of(motion_id))
        return None if original is None else [mirror_caption(caption) for caption in original]

    def _fits(self, record_id: str, split: str, frames: int) -> bool:
        """Whether a motion has a permitted number of frames; if not, add it to `skipped`."""
        if frames < self.min_frames:
            self._skip(split, record_id, "too short", f"{frames} frames, fewer than {self.min_frames}")
        elif self.max_frames is not None and frames > self.max_frames:
            self._skip(split, record_id, "too long", f"{frames} frames, more than {self.max_frames}")
        else:
            return True
        return False

    def _motion_path(self, motion_id: str) -> tuple[Path, bool] | None:
        """Find the file of a motion, and whether it must be mirrored."""
        return _find(motion_id, self.motion_folders, ".npy")

    def _text_path(self, motion_id: str) -> tuple[Path, bool] | None:
        """Find the file of the captions, and whether they must be mirrored."""
        return _find(motion_id, self.texts, ".txt")

    def _skip(self, split: str, motion_id: str, reason: str, detail: str = "") -> None:
        self.skipped.append(Skipped(split, motion_id, reason, detail))

    def _read_captions(
        self, motion_id: str, split: str, path: Path, mirror: bool
    ) -> dict[tuple[float, float], list[str]]:
        """Read captions by range, the whole motion first."""
        crops: dict[tuple[float, float], list[str]] = {}
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            if not line.strip():
                continue
            try:
                parsed = parse_caption_line(line)
            except ValueError as error:
                self._skip(split, motion_id, "malformed caption", f"line {number}: {error}")
                continue
            if not parsed.caption:
                self._skip(split, motion_id, "empty caption", f"line {number}")
                continue
            caption = mirror_caption(parsed.caption) if mirror else parsed.caption
            crops.setdefault((parsed.start, parsed.end), []).append(caption)
        return dict(sorted(crops.items(), key=lambda item: item[0]))

    def _read_positions(self, motion_id: str, split: str, path: Path, mirror: bool) -> np.ndarray | None:
        """Read joint positions (T, J, 3) float32 in metres, or return None and add the reason to `skipped`."""
        skeleton = self.skeleton
        try:
            array = load_array(path)
        except Exception as error:  # whatever is wrong with one file, the others are prepared
            return self._skip(split, motion_id, "unreadable motion file", str(error).replace(str(path), path.name))
        is_features = path.parent.name == "new_joint_vecs"
        expected = (skeleton.num_features,) if is_features else (skeleton.num_joints, 3)
        if array.ndim != 1 + len(expected) or array.shape[1:] != expected:
            shape = " x ".join(str(size) for size in ("T", *expected))
            return self._skip(split, motion_id, "wrong shape", f"got {array.shape}, expected {shape}")
        if len(array) == 0:
            return self._skip(split, motion_id, "too short", "0 frames")
        if array.dtype.kind not in "fiu":
            return self._skip(split, motion_id, "unreadable motion file", f"values of type {array.dtype}")
        with np.errstate(over="ignore"):
            finite = np.isfinite(array.astype(np.float32)).reshape(len(array), -1).all(axis=1)
        if not finite.all():
            return self._skip(split, motion_id, "NaN or infinite values", f"first in frame {int(np.argmin(finite))}")
        if is_features and are_normalised(array, skeleton):
            return self._skip(split, motion_id, "normalised features", "undo it with features * std + mean")
        if is_features or mirror:
            tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
            tensor = features_to_positions(tensor, skeleton) if is_features else tensor
            array = (mirror_positions(tensor, skeleton) if mirror else tensor).numpy()
        if skeleton.metres_per_unit != 1.0:
            array = array * np.float32(skeleton.metres_per_unit)
        if (furthest := float(np.abs(array).max())) > FURTHEST:
            return self._skip(split, motion_id, "impossible positions", f"{furthest:g} m from the origin")
        return np.ascontiguousarray(array, dtype=np.float32)
