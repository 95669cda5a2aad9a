"""The plan of `prepare`: its input, checked before anything is read, and the identity of the result."""

import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from lexmotion.common.files import sha256_of

from ..feature_extraction_lexmotion import LexMotionFeatureExtractor
from ..recordings.options import ReadingOptions
from .blocks import Shard, hash_blocks, plan_blocks
from .extra_motion import EXTRA_MOTION, ExtraMotionFolder
from .folders import (
    HUMANML3D,
    KIT_ML,
    CorpusFolder,
    FolderLayout,
    base_id_of,
    read_id_list,
    read_replacement_captions,
)
from .motion_files import MOTION_FILES, MotionFilesFolder
from .options import CORPUS_TEXT_MODEL, PrepareOptions
from .report import Identity, PrepareReport
from .text_models import resolve_text_model

READERS: tuple[tuple[FolderLayout, type[CorpusFolder]], ...]
READERS = ((HUMANML3D, CorpusFolder), (KIT_ML, CorpusFolder), (MOTION_FILES, MotionFilesFolder))
LAYOUTS = {layout.name: (layout, reader) for layout, reader in READERS}
ID_LISTS = ("exclude_ids", "leave_out")  # options with files of ids
LATER_OPTIONS = ("units", "up", "captions", "whole_words", "leave_out", "overlay", "extra_motion")


@dataclass(frozen=True)
class Plan:
    """A corpus, or one shard of it, that can be prepared.

    Args:
        options: options of the preparation.
        folder: reader of the corpus.
        ids: motions of each split.
        held_out: motions whose extra captions and extra motions are omitted.
        identity: input that determines the result, except the motions and their texts.
        extra: readers of the extra motions.
        blocks: blocks to read, see `plan_blocks`; their readers are `folder`, then `extra`.
        leave_out: keys of the motions of `leave_out` (see `CorpusFolder.key_of`), with their ids.
        left_out: those that the splits and the extra motions list, by split.
        omitted: numbers of extra motions that are held out (`left_out`), or listed before (`repeated`).
    """

    options: PrepareOptions
    folder: CorpusFolder
    ids: Mapping[str, list[str]]
    held_out: frozenset[str]
    identity: Identity
    extra: list[ExtraMotionFolder]
    blocks: list[dict]
    leave_out: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, list[str]] = field(default_factory=dict)
    omitted: Mapping[str, int] = field(default_factory=dict)

    @property
    def folders(self) -> list[CorpusFolder]:
        """Readers of the blocks."""
        return [self.folder, *self.extra]

    @property
    def block_splits(self) -> list[str]:
        """Splits of the blocks, in order."""
        return [*self.folder.splits, *([EXTRA_MOTION] if self.extra else [])]

    @property
    def num_ids(self) -> int:
        """Number of listed motions in these blocks."""
        return sum(len(block["ids"]) for block in self.blocks)

    def extractor(self) -> LexMotionFeatureExtractor | None:
        """Create the feature extractor to fit; None if a fitted processor is given."""
        options, skeleton = self.options, self.folder.skeleton
        if options.processor is not None:
            return None
        fps, kind = options.fps or skeleton.fps, options.representation
        return LexMotionFeatureExtractor(kind, skeleton=skeleton.name, fps=fps, max_frames=options.max_frames)

    def difference(self, found: PrepareReport, workers: int, progress: bool) -> str | None:
        """Describe how a finished folder differs from this plan, if it does; hashes every file of the corpus."""
        option = self.identity.differing_option(found)
        if option is not None:
            return f"with {option}"
        with tempfile.TemporaryDirectory() as cache:
            hashed = hash_blocks(self.blocks, Path(cache), self.folders, workers, progress)
            same = found.fingerprint == self.identity.fingerprint(hashed)
        return None if same else "from other input"


def make_plan(source: str | Path, options: PrepareOptions, shard: Shard | None) -> Plan:
    """Check options and input files, and list the blocks to read; errors are those of `prepare`.

    Args:
        source: folder of the corpus.
        options: options of the preparation.
        shard: part to read; None: the complete corpus.
    """
    folder = _open_folder(source, options)
    _check_processor(folder, options)
    for name in ("extra_captions", *ID_LISTS):
        for path in getattr(options, name):
            _check_file(name, path)
    excluded, unwanted = (
        {motion_id for path in getattr(options, name) for motion_id in read_id_list(Path(path))} for name in ID_LISTS
    )
    leave_out = {folder.key_of(motion_id): motion_id for motion_id in sorted(unwanted)}
    listed = {split: _captioned(folder, split, folder.ids(split), options) for split in folder.splits}
    left_out: dict[str, list[str]] = {}
    ids = {split: _without(leave_out, folder, split, names, left_out) for split, names in listed.items()}
    empty = next((split for split, names in ids.items() if not names and listed[split]), None)
    if empty is not None:
        raise ValueError(f"leave_out: names all {len(listed[empty])} ids of the split {empty!r}; keep one of them")
    _check_splits(ids)
    held_out = _held_out(folder, listed, excluded)
    extra = _open_extra_motion(folder, options)
    further, omitted = _extra_ids(extra, leave_out, left_out, held_out, listed.get("train", ()))
    identity = _identity(folder, extra, options)
    parts = [(split, 0, names) for split, names in ids.items()]
    parts += [(EXTRA_MOTION, number, names) for number, names in enumerate(further, start=1)]
    blocks = plan_blocks([folder, *extra], parts, options.row_group_size, shard or Shard())
    identity = identity.of_shard(shard) if shard else identity
    return Plan(options, folder, ids, held_out, identity, extra, blocks, leave_out, left_out, omitted)


def _without(
    leave_out: Mapping[str, str],
    folder: CorpusFolder,
    split: str,
    ids: Sequence[str],
    left_out: dict[str, list[str]],
) -> list[str]:
    """Return the ids that are not left out; those that are go to `left_out[split]`."""
    kept: list[str] = []
    gone: list[str] = []
    for motion_id in ids:
        (gone if folder.key_of(motion_id) in leave_out else kept).append(motion_id)
    if gone:
        left_out[split] = left_out.get(split, []) + gone
    return kept


def _held_out(folder: CorpusFolder, ids: Mapping[str, Sequence[str]], excluded: Iterable[str]) -> frozenset[str]:
    """Return the motions whose extra captions and extra motions are omitted."""
    listed = (motion_id for split, names in ids.items() if split != "train" for motion_id in names)
    usual = (path.read_text(encoding="utf-8").split() for path in folder.held_out_files().values())
    held_out = {base_id_of(motion_id) for motion_id in itertools.chain(listed, *usual)}
    # The training split may be a file that is usually held out; its motions are then not held out.
    held_out -= {base_id_of(motion_id) for motion_id in ids.get("train", ())}
    return frozenset(held_out | {base_id_of(motion_id) for motion_id in excluded})


def _open_extra_motion(folder: CorpusFolder, options: PrepareOptions) -> list[ExtraMotionFolder]:
    if options.extra_motion and "train" not in folder.splits:
        raise ValueError("extra_motion: got it without a split 'train', which it adds to; prepare that split, too")
    layout = KIT_ML if folder.skeleton == KIT_ML.skeleton else HUMANML3D
    limits = options.skip_shorter_than, options.skip_longer_than
    return [ExtraMotionFolder(path, layout, *limits) for path in options.extra_motion]


def _extra_ids(
    extra: Sequence[ExtraMotionFolder],
    leave_out: Mapping[str, str],
    left_out: dict[str, list[str]],
    held_out: frozenset[str],
    train: Iterable[str],
) -> tuple[list[list[str]], dict[str, int]]:
    """Return the motions to read from each folder of extra motions, and the numbers of those that are omitted."""
    known = {base_id_of(motion_id) for motion_id in train}
    further, omitted = [], {"left_out": 0, "repeated": 0}
    for folder in extra:
        chosen = []
        for motion_id in _without(leave_out, folder, "extra motion", folder.ids(), left_out):
            base_id = base_id_of(motion_id)
            if base_id in held_out or motion_id in held_out:
                omitted["left_out"] += 1
            elif base_id in known:
                omitted["repeated"] += 1
            else:
                chosen.append(motion_id)
                known.add(base_id)
        further.append(chosen)
    return further, omitted


def _check_file(name: str, path: str | Path) -> None:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{name}: no file {str(path)!r}; check the path")


def _captioned(folder: CorpusFolder, split: str, ids: list[str], options: PrepareOptions) -> list[str]:
    """Return the ids of a split, those with an entry in `captions` if it is given."""
    if options.captions is None:
        return ids
    kept = [motion_id for motion_id in ids if folder.replacement(motion_id)]
    if not kept:
        remedy = f"pass the captions of {split_files(folder.splits[split])}, or leave the split out with splits=..."
        raise ValueError(
            f"captions: {str(options.captions)!r} has none of the {len(ids)} ids of split {split!r}; {remedy}"
        )
    return kept


def _open_folder(source: str | Path, options: PrepareOptions) -> CorpusFolder:
    if options.layout not in LAYOUTS:
        raise ValueError(f"layout: got {options.layout!r}; choose one of {', '.join(LAYOUTS)}")
    layout, reader = LAYOUTS[options.layout]
    limits = options.skip_shorter_than, options.skip_longer_than
    reading = ReadingOptions(units=options.units, up=options.up)
    captions = None
    if options.captions is not None:
        _check_file("captions", options.captions)
        captions = read_replacement_captions(Path(options.captions))
    name, overlays = options.source_name, options.overlay
    return reader(source, layout, options.splits, options.mirror, *limits, name, reading, captions, overlays)


def _check_processor(folder: CorpusFolder, options: PrepareOptions) -> None:
    if options.processor is None:
        if "train" not in folder.splits:
            remedy = "pass the processor of the training corpus with processor='PREPARED/processor'"
            raise ValueError(f"no split 'train' among {', '.join(folder.splits)} to fit a processor; {remedy}")
    elif not Path(options.processor).is_dir():
        raise FileNotFoundError(
            f"processor: no folder {str(options.processor)!r}; pass the folder 'processor' of a prepared corpus"
        )


def _check_splits(ids: Mapping[str, list[str]]) -> None:
    for first, second in itertools.combinations(ids, 2):
        both = set(ids[first]) & set(ids[second])
        if both:
            example = {first: "other.txt"}
            raise ValueError(
                f"{len(both)} ids are in both the {first!r} and the {second!r} split (for example {min(both)!r}); "
                f"pass a split file without them, for example splits={example}"
            )


def _identity(folder: CorpusFolder, extra: Sequence[ExtraMotionFolder], options: PrepareOptions) -> Identity:
    recorded: dict[str, Any]
    recorded = {field.name.removesuffix("_name"): getattr(options, field.name) for field in fields(options)}
    recorded |= {
        "source": folder.name,
        "splits": {split: split_files(paths) for split, paths in folder.splits.items()},
        "processor": options.processor is not None,
        "fps": options.fps or folder.skeleton.fps,
        **{name: [Path(path).name for path in recorded[name]] for name in ("extra_captions", *ID_LISTS)},
        **{name: [Path(path).resolve().name for path in recorded[name]] for name in ("overlay", "extra_motion")},
    }
    if options.captions is not None:
        recorded["captions"] = Path(options.captions).name
    # Corpora prepared without these options keep their fingerprint.
    recorded = {name: value for name, value in recorded.items() if name not in LATER_OPTIONS or value}
    before = [(os.path.relpath(path, folder.source), path) for path in folder.listing_files()]
    after = [(f"held-out/{name}", path) for name, path in folder.held_out_files().items()]
    files = [*options.extra_captions, *options.exclude_ids]
    after += [(f"extra/{number}", Path(path)) for number, path in enumerate(files)]
    after += [(f"leave-out/{number}", Path(path)) for number, path in enumerate(options.leave_out)]
    after += [] if options.captions is None else [("captions", Path(options.captions))]
    after += folder.overlay_files()
    for number, reader in enumerate(extra, start=1):
        after += [(f"{number}/{path.name}", path) for path in reader.listing_files()]
    if options.processor is not None:
        after += _folder_files("processor", Path(options.processor), ("*", "*/*"))
    elif options.text_model != CORPUS_TEXT_MODEL:
        text_folder = Path(resolve_text_model(options.text_model))
        # A folder is identified by its content, a short name or Hub name by itself.
        if text_folder.is_dir():
            if Path(options.text_model).is_dir():
                recorded["text_model"] = text_folder.name
            after += _folder_files("tokenizer", text_folder, ("tokenizer*", "vocab*", "special_tokens*", "merges*"))
    return Identity(recorded, _hashed(before), _hashed(after))


def split_files(paths: Sequence[Path]) -> str | list[str]:
    """Return the name of the file of a split, or the names of several, for the report."""
    names = [path.name for path in paths]
    return names[0] if len(names) == 1 else names


def _folder_files(label: str, folder: Path, patterns: Sequence[str]) -> Iterator[tuple[str, Path]]:
    found = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    return ((f"{label}/{path.name}", path) for path in found)


def _hashed(files: Iterable[tuple[str, Path]]) -> list[tuple[str, str]]:
    return [(name, sha256_of(path)) for name, path in files]
