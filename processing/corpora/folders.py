"""
The folder layout that HumanML3D and KIT-ML share.

    new_joints/<id>.npy        (T, J, 3) joint positions
    new_joint_vecs/<id>.npy    (T, F) features; read when there is no joint file
    texts/<id>.txt             one caption a line: `caption#word/POS word/POS ...#start#end`
    train.txt val.txt test.txt one id a line
    meta.csv or index.csv      optional: the recording each motion was cut from

`start` and `end` are seconds; both 0.0 (or nan) mean the whole motion, anything else a crop that is a motion of its
own. Ids that start with `M` are mirrored motions, either stored or derived from the motion without the letter.
"""

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..motion_features import features_to_positions, mirror_positions
from ..skeletons import Skeleton, get_skeleton
from .options import MIN_FRAMES
from .records import MotionRecord, Skipped
from .text_mirroring import mirror_caption

DEFAULT_SPLITS = {"train": "train.txt", "validation": "val.txt", "test": "test.txt"}
MIRROR_MODES = ("listed", "derive", "none")


@dataclass(frozen=True)
class FolderLayout:
    """What differs between the corpora that share the layout: the skeleton, and with it joint count, unit and fps."""

    name: str
    skeleton_name: str

    @property
    def skeleton(self) -> Skeleton:
        return get_skeleton(self.skeleton_name)


HUMANML3D = FolderLayout(name="humanml3d", skeleton_name="humanml3d")  # Guo et al., CVPR 2022
KIT_ML = FolderLayout(name="kit-ml", skeleton_name="kit-ml")  # KIT Motion-Language as Guo et al. publish it


@dataclass(frozen=True)
class CaptionLine:
    """One parsed line of a text file; `start == end == 0` means the whole motion."""

    caption: str
    start: float
    end: float


def parse_caption_line(line: str) -> CaptionLine:
    """
    Parse `caption#word/POS ...#start#end`.

    Args:
        line (`str`): one line of a text file.

    Returns:
        `CaptionLine`: with nan read as 0.0.

    Raises:
        ValueError: fewer than four fields, or times that are not numbers, are negative or end before they start.

    Example:

        >>> parse_caption_line("a man walks.#a/DET man/NOUN walk/VERB#nan#nan")
        CaptionLine(caption='a man walks.', start=0.0, end=0.0)
    """
    fields = line.strip().split("#")
    if len(fields) < 4:
        raise ValueError(f"{len(fields)} field(s) separated by '#' where 4 are due: {line.strip()[:80]!r}")
    try:
        start, end = (float(value) for value in fields[2:4])
    except ValueError:
        raise ValueError(f"start and end must be seconds, got {fields[2]!r} and {fields[3]!r}") from None
    start, end = (0.0 if math.isnan(value) else value for value in (start, end))
    if (start, end) != (0.0, 0.0) and not 0.0 <= start < end < math.inf:
        raise ValueError(f"the range from {start:g} s to {end:g} s is empty")
    return CaptionLine(" ".join(fields[0].split()), start, end)


def resolve_splits(source: Path, splits: Mapping[str, str | None] | None = None) -> dict[str, Path]:
    """
    Find the split files of a corpus folder.

    Args:
        source (`Path`): the folder.
        splits (`Mapping`, *optional*): split name -> file name in `source` (or a path), `None` for
            the usual file of that split. Without it, every usual file that exists is used. HumanML3D's `val` is
            `validation`.

    Returns:
        `dict[str, Path]`: split name -> file, train first.

    Raises:
        FileNotFoundError: a split file, or all of them, are missing.
    """
    if not splits:
        found = {name: source / file for name, file in DEFAULT_SPLITS.items() if (source / file).is_file()}
        if not found:
            raise FileNotFoundError(
                f"{source} has none of {', '.join(DEFAULT_SPLITS.values())}: add one, or name another split file, "
                "for example `--split test=my_ids.txt`."
            )
        return found
    found = {}
    for name, file in splits.items():
        name = "validation" if name == "val" else name
        if not name.isidentifier():
            raise ValueError(f"The split name {name!r} must be letters, digits and underscores.")
        if file is None and name not in DEFAULT_SPLITS:
            raise ValueError(
                f"The split {name!r} has no usual file: give one, for example `--split {name}={name}.txt`."
            )
        path = source / (file or DEFAULT_SPLITS[name])
        if file is not None and not path.is_file() and Path(file).is_file():
            path = Path(file)
        if not path.is_file():
            at_hand = ", ".join(sorted(p.name for p in source.glob("*.txt"))) or "none"
            raise FileNotFoundError(
                f"There is no split file {path} for {name!r}; text files in the folder: {at_hand}."
            )
        found[name] = path
    return dict(sorted(found.items(), key=lambda item: (item[0] != "train", list(found).index(item[0]))))


def read_ids(path: Path) -> list[str]:
    """Ids of a split file, one a line, repeated ones once; raises `ValueError` on a file without any."""
    ids = list(dict.fromkeys(path.read_text(encoding="utf-8").split()))
    if not ids:
        raise ValueError(
            f"The split file {path} lists no ids: fill it, remove it, or leave the split out with `--split`."
        )
    return ids


def read_source_clips(source: Path) -> dict[str, str]:
    """
    The recording each motion was cut from, where the corpus tells it.

    Reads `meta.csv` (columns `id`, `source_clip`) or HumanML3D's own `index.csv` (`new_name`, `source_path`).
    """
    for file, key, value in (("meta.csv", "id", "source_clip"), ("index.csv", "new_name", "source_path")):
        path = source / file
        if not path.is_file():
            continue
        with path.open(encoding="utf-8", newline="") as stream:
            rows = csv.DictReader(stream)
            if rows.fieldnames is not None and {key, value} <= set(rows.fieldnames):
                return {row[key].removesuffix(".npy"): row[value] for row in rows if row[value]}
    return {}


def base_id_of(motion_id: str) -> str:
    """The id of the motion that a mirrored one was made from; other ids unchanged."""
    return motion_id[1:] if motion_id.startswith("M") else motion_id


def _find(motion_id: str, folders: list[Path], suffix: str) -> tuple[Path, bool] | None:
    """File of a motion, or of the one it is the mirror image of, and whether it is the latter."""
    for candidate in dict.fromkeys((motion_id, base_id_of(motion_id))):
        for folder in folders:
            if (path := folder / f"{candidate}{suffix}").is_file():
                return path, candidate != motion_id
    return None


class CorpusFolder:
    """
    Read one corpus folder, motion by motion.

    Args:
        source (`str` or `Path`): folder in the layout described at the top of this file.
        layout ([`FolderLayout`]): which corpus it is.
        splits (`Mapping`, *optional*): see [`resolve_splits`].
        mirror (`str`): `"listed"` reads or derives the `M` ids that a split file lists; `"derive"` adds the mirrored
            twin of every training motion that lists none; `"none"` leaves out every `M` id.
        min_frames, max_frames (`int`): motions and crops outside are skipped and reported. The published loaders drop
            motions below 40 (HumanML3D) or 24 (KIT-ML) and from 200 frames up; here only the lower bound 8 is preset.
        name (`str`, *optional*): name of the corpus in the records, the folder's name by default.

    Attributes:
        skipped (`list[Skipped]`): filled while `records` runs.

    Raises:
        FileNotFoundError: the folder, its `texts` or both motion folders are missing.
    """

    def __init__(
        self,
        source: str | Path,
        layout: FolderLayout,
        splits: Mapping[str, str | None] | None = None,
        mirror: str = "listed",
        min_frames: int = MIN_FRAMES,
        max_frames: int | None = None,
        name: str | None = None,
    ):
        self.source = Path(source)
        self.layout = layout
        self.skeleton = layout.skeleton
        if mirror not in MIRROR_MODES:
            raise ValueError(f"Unknown mirror mode {mirror!r}: choose one of {', '.join(MIRROR_MODES)}.")
        self.mirror = mirror
        self.min_frames = min_frames
        self.max_frames = max_frames
        if not self.source.is_dir():
            raise FileNotFoundError(f"There is no corpus folder {self.source}: check the path.")
        self.name = name or self.source.resolve().name
        self.source_clips: dict[str, str] = {}
        self.skipped: list[Skipped] = []
        self.splits = self._open(splits)

    def _open(self, splits: Mapping[str, str | None] | None) -> dict[str, Path]:
        """Find what the folder holds; returns the file of each split."""
        layout = self.layout
        self.texts = self.source / "texts"
        if not self.texts.is_dir():
            raise FileNotFoundError(f"{self.source} has no folder 'texts': is it really laid out as {layout.name!r}?")
        self.motion_folders = [p for p in (self.source / "new_joints", self.source / "new_joint_vecs") if p.is_dir()]
        if not self.motion_folders:
            raise FileNotFoundError(
                f"{self.source} has neither 'new_joints' nor 'new_joint_vecs': is it really laid out as "
                f"{layout.name!r}?"
            )
        self.source_clips = read_source_clips(self.source)
        return resolve_splits(self.source, splits)

    def __getstate__(self) -> dict[str, Any]:
        # A worker is told the recording of each motion it reads; the names of a million others are not sent along.
        return self.__dict__ | {"source_clips": {}}

    def ids(self, split: str) -> list[str]:
        """Ids of one split, with the mirrored ones that the mirror mode asks for."""
        ids = read_ids(self.splits[split])
        if self.mirror == "none":
            ids = [motion_id for motion_id in ids if not motion_id.startswith("M")]
        elif self.mirror == "derive" and split == "train":
            known = set(ids)
            ids += [f"M{motion_id}" for motion_id in ids if motion_id[0] != "M" and f"M{motion_id}" not in known]
        return ids

    def listing_files(self) -> Iterator[Path]:
        """The files that say what the corpus consists of, in a fixed order."""
        yield from (self.source / name for name in ("meta.csv", "index.csv") if (self.source / name).is_file())
        yield from self.splits.values()

    def held_out_files(self) -> dict[str, Path]:
        """The folder's own `val.txt` and `test.txt`, whether they are prepared or not."""
        paths = {name: self.source / file for name, file in DEFAULT_SPLITS.items() if name != "train"}
        return {name: path for name, path in paths.items() if path.is_file()}

    def files_of(self, motion_id: str) -> list[Path]:
        """The motion and the text file that [`read`] opens, as far as they exist."""
        found = (self._motion_path(motion_id), self._text_path(motion_id))
        return [path for path, _ in filter(None, found)]

    def source_clip(self, motion_id: str) -> str:
        """The recording that a motion was cut from where the corpus says so, otherwise its base id."""
        base_id = base_id_of(motion_id)
        return self.source_clips.get(motion_id) or self.source_clips.get(base_id) or base_id

    def records(self, split: str) -> Iterator[MotionRecord]:
        """
        Yield the motions of a split in the order of its file, sub-ranges after the whole motion.

        Args:
            split (`str`): one of `self.splits`.

        Yields:
            [`MotionRecord`]: what could be read; the rest is added to `self.skipped`.
        """
        for motion_id in self.ids(split):
            yield from self.read(motion_id, split, self.source_clip(motion_id))

    def read(self, motion_id: str, split: str, source_clip: str) -> Iterator[MotionRecord]:
        """One motion of [`records`], with the recording it comes from."""
        motion_file = self._motion_path(motion_id)
        text_file = self._text_path(motion_id)
        if motion_file is None or text_file is None:
            missing = "motion" if motion_file is None else "text"
            return self._skip(split, motion_id, f"missing {missing} file")
        crops = self._read_captions(motion_id, split, *text_file)
        if not crops:
            return self._skip(split, motion_id, "no caption")
        positions = self._read_positions(motion_id, split, *motion_file)
        if positions is None:
            return None
        fps = self.skeleton.fps
        base_id = base_id_of(motion_id)
        for (start, end), captions in crops.items():
            whole = (start, end) == (0.0, 0.0)
            # The published loaders cut at int(seconds * fps); times beyond the end stop at the end.
            crop = positions if whole else positions[int(start * fps) : int(end * fps)]
            record_id = motion_id if whole else f"{motion_id}@{start:g}-{end:g}"
            if len(crop) < self.min_frames:
                self._skip(split, record_id, "too short", f"{len(crop)} frames, at least {self.min_frames} are needed")
                continue
            if self.max_frames is not None and len(crop) > self.max_frames:
                self._skip(split, record_id, "too long", f"{len(crop)} frames, at most {self.max_frames} are taken")
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

    def _motion_path(self, motion_id: str) -> tuple[Path, bool] | None:
        """File of a motion and whether it must still be mirrored."""
        return _find(motion_id, self.motion_folders, ".npy")

    def _text_path(self, motion_id: str) -> tuple[Path, bool] | None:
        """File of the captions and whether they must still be mirrored."""
        return _find(motion_id, [self.texts], ".txt")

    def _skip(self, split: str, motion_id: str, reason: str, detail: str = "") -> None:
        self.skipped.append(Skipped(split, motion_id, reason, detail))

    def _read_captions(
        self, motion_id: str, split: str, path: Path, mirror: bool
    ) -> dict[tuple[float, float], list[str]]:
        """Captions by range, the whole motion first."""
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
        """Joint positions (T, J, 3) float32 in metres, or `None` with the reason noted."""
        skeleton = self.skeleton
        try:
            array = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            return self._skip(split, motion_id, "unreadable motion file", f"{path.name}: {error}")
        is_features = path.parent.name == "new_joint_vecs"
        expected = (skeleton.num_features,) if is_features else (skeleton.num_joints, 3)
        if array.ndim != 1 + len(expected) or array.shape[1:] != expected:
            shape = " x ".join(str(size) for size in ("T", *expected))
            return self._skip(split, motion_id, "wrong shape", f"{array.shape} where {shape} is due")
        if len(array) == 0:
            return self._skip(split, motion_id, "too short", "0 frames")
        if not np.issubdtype(array.dtype, np.number):
            return self._skip(split, motion_id, "unreadable motion file", f"values of type {array.dtype}")
        finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
        if not finite.all():
            return self._skip(split, motion_id, "NaN or infinite values", f"first in frame {int(np.argmin(finite))}")
        if is_features or mirror:
            tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
            tensor = features_to_positions(tensor, skeleton) if is_features else tensor
            array = (mirror_positions(tensor, skeleton) if mirror else tensor).numpy()
        if skeleton.metres_per_unit != 1.0:
            array = array * np.float32(skeleton.metres_per_unit)
        return np.ascontiguousarray(array, dtype=np.float32)
