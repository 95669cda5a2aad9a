"""The plan of `prepare`: its input, checked before anything is read, and the identity of the result."""

import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lexmotion.common.files import sha256_of

from ..feature_extraction_lexmotion import LexMotionFeatureExtractor
from ..recordings.options import ReadingOptions
from .blocks import Shard, hash_blocks, plan_blocks
from .folders import HUMANML3D, KIT_ML, CorpusFolder, FolderLayout, base_id_of, read_ids
from .motion_files import MOTION_FILES, MotionFilesFolder
from .options import CORPUS_TEXT_MODEL, PrepareOptions
from .report import Identity, PrepareReport
from .text_models import resolve_text_model

READERS: tuple[tuple[FolderLayout, type[CorpusFolder]], ...]
READERS = ((HUMANML3D, CorpusFolder), (KIT_ML, CorpusFolder), (MOTION_FILES, MotionFilesFolder))
LAYOUTS = {layout.name: (layout, reader) for layout, reader in READERS}


@dataclass(frozen=True)
class Plan:
    """A corpus, or one shard of it, that can be prepared.

    Args:
        options: options of the preparation.
        folder: reader of the corpus.
        ids: motions of each split.
        excluded: motions of `exclude_ids`.
        identity: input that determines the result, except the motions and their texts.
        blocks: blocks to read, see `plan_blocks`.
    """

    options: PrepareOptions
    folder: CorpusFolder
    ids: Mapping[str, list[str]]
    excluded: frozenset[str]
    identity: Identity
    blocks: list[dict]

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
            hashed = hash_blocks(self.blocks, Path(cache), self.folder, workers, progress)
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
    for name, paths in (("extra_captions", options.extra_captions), ("exclude_ids", options.exclude_ids)):
        for path in paths:
            if not Path(path).is_file():
                raise FileNotFoundError(f"{name}: no file {str(path)!r}; check the path")
    excluded = {base_id_of(motion_id) for path in options.exclude_ids for motion_id in read_ids(Path(path))}
    ids = {split: folder.ids(split) for split in folder.splits}
    _check_splits(ids)
    identity = _identity(folder, options)
    blocks = plan_blocks(folder, ids, options.row_group_size, shard or Shard())
    return Plan(options, folder, ids, frozenset(excluded), identity.of_shard(shard) if shard else identity, blocks)


def _open_folder(source: str | Path, options: PrepareOptions) -> CorpusFolder:
    if options.layout not in LAYOUTS:
        raise ValueError(f"layout: got {options.layout!r}; choose one of {', '.join(LAYOUTS)}")
    layout, reader = LAYOUTS[options.layout]
    limits = options.skip_shorter_than, options.skip_longer_than
    reading = ReadingOptions(units=options.units, up=options.up)
    return reader(source, layout, options.splits, options.mirror, *limits, options.source_name, reading)


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


def _identity(folder: CorpusFolder, options: PrepareOptions) -> Identity:
    recorded: dict[str, Any]
    recorded = {field.name.removesuffix("_name"): getattr(options, field.name) for field in fields(options)}
    recorded |= {
        "source": folder.name,
        "splits": {split: path.name for split, path in folder.splits.items()},
        "processor": options.processor is not None,
        "fps": options.fps or folder.skeleton.fps,
        **{name: [Path(path).name for path in recorded[name]] for name in ("extra_captions", "exclude_ids")},
    }
    # Corpora prepared without these options keep their fingerprint.
    later = {"units": None, "up": None, "whole_words": 0}
    recorded = {name: value for name, value in recorded.items() if name not in later or value != later[name]}
    before = [(os.path.relpath(path, folder.source), path) for path in folder.listing_files()]
    after = [(f"held-out/{name}", path) for name, path in folder.held_out_files().items()]
    extra = [*options.extra_captions, *options.exclude_ids]
    after += [(f"extra/{number}", Path(path)) for number, path in enumerate(extra)]
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


def _folder_files(label: str, folder: Path, patterns: Sequence[str]) -> Iterator[tuple[str, Path]]:
    found = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    return ((f"{label}/{path.name}", path) for path in found)


def _hashed(files: Iterable[tuple[str, Path]]) -> list[tuple[str, str]]:
    return [(name, sha256_of(path)) for name, path in files]
