"""What `prepare` is going to read, checked before anything is read, and what identifies the result."""

import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lexmotion.common.files import sha256_of

from ..feature_extraction_lexmotion import LexMotionFeatureExtractor
from .blocks import Shard, hash_blocks, plan_blocks
from .folders import HUMANML3D, KIT_ML, CorpusFolder, FolderLayout, base_id_of, read_ids
from .motion_files import MOTION_FILES, MotionFilesFolder
from .options import CORPUS_TEXT_MODEL, PrepareOptions
from .report import Identity, PrepareReport
from .text_models import resolve_text_model

# Name -> layout and its reader.
LAYOUTS: dict[str, tuple[FolderLayout, type[CorpusFolder]]] = {
    HUMANML3D.name: (HUMANML3D, CorpusFolder),
    KIT_ML.name: (KIT_ML, CorpusFolder),
    MOTION_FILES.name: (MOTION_FILES, MotionFilesFolder),
}


@dataclass(frozen=True)
class Plan:
    """
    A corpus, or one shard of it, that can be prepared.

    Args:
        options: As given.
        folder: The corpus.
        ids: Motions of each split.
        excluded: Motions whose extra captions are left out on request.
        identity: What decides the result besides the motions and their texts.
        blocks: What is to be read, see `plan_blocks`.
    """

    options: PrepareOptions
    folder: CorpusFolder
    ids: Mapping[str, list[str]]
    excluded: frozenset[str]
    identity: Identity
    blocks: list[dict]

    @property
    def num_ids(self) -> int:
        """Listed motions in these blocks."""
        return sum(len(block["ids"]) for block in self.blocks)

    def extractor(self) -> LexMotionFeatureExtractor | None:
        """A feature extractor to fit; None if a fitted processor is given."""
        options, skeleton = self.options, self.folder.skeleton
        if options.processor is not None:
            return None
        return LexMotionFeatureExtractor(
            representation=options.representation,
            skeleton=skeleton.name,
            fps=options.fps or skeleton.fps,
            max_frames=options.max_frames,
        )

    def difference(self, found: PrepareReport, workers: int, progress: bool) -> str | None:
        """How a finished folder was made, if not as planned; every file of the corpus is hashed to find out."""
        option = self.identity.differing_option(found)
        if option is not None:
            return f"with {option}"
        with tempfile.TemporaryDirectory() as cache:
            hashed = hash_blocks(self.blocks, Path(cache), self.folder, workers, progress)
            same = found.fingerprint == self.identity.fingerprint(hashed)
        return None if same else "from other input"


def make_plan(source: str | Path, options: PrepareOptions, shard: Shard | None) -> Plan:
    """
    Check options and input files, and list what is to be read.

    Args:
        source: Folder of the corpus. options: What to make of it. shard: Part to read; None: all of it.

    Raises:
        FileNotFoundError: the source, a split file, a file of ids or captions, or the processor is missing.
        ValueError: an option has no such value, an id is in two splits, or nothing can fit the processor.
    """
    if options.row_group_size < 1:
        raise ValueError(f"row_group_size must be at least 1, got {options.row_group_size}.")
    folder = _open_folder(source, options)
    _check_processor(folder, options)
    missing = [str(path) for path in options.extra_captions if not Path(path).is_file()]
    if missing:
        raise FileNotFoundError(f"There is no file of extra captions {missing[0]!r}: check the path.")
    excluded = _read_id_files(options.exclude_ids)
    ids = {split: folder.ids(split) for split in folder.splits}
    _check_splits(ids)
    identity = _identity(folder, options)
    blocks = plan_blocks(folder, ids, options.row_group_size, shard or Shard())
    return Plan(options, folder, ids, excluded, identity.of_shard(shard) if shard else identity, blocks)


def _open_folder(source: str | Path, options: PrepareOptions) -> CorpusFolder:
    if options.layout not in LAYOUTS:
        raise ValueError(f"Unknown layout {options.layout!r}: choose one of {', '.join(LAYOUTS)}.")
    layout, reader = LAYOUTS[options.layout]
    return reader(
        source,
        layout,
        options.splits,
        options.mirror,
        options.skip_shorter_than,
        options.skip_longer_than,
        options.source_name,
    )


def _check_processor(folder: CorpusFolder, options: PrepareOptions) -> None:
    if options.processor is None:
        if "train" not in folder.splits:
            raise ValueError(
                f"The splits {', '.join(folder.splits)} cannot fit a processor, statistics come from train only: give "
                "the one of the training corpus with `--processor PREPARED/processor`."
            )
    elif not Path(options.processor).is_dir():
        raise FileNotFoundError(
            f"There is no processor folder {str(options.processor)!r}: give the `processor` of a prepared corpus."
        )


def _read_id_files(paths: Sequence[str | Path]) -> frozenset[str]:
    ids: set[str] = set()
    for path in paths:
        if not Path(path).is_file():
            raise FileNotFoundError(f"There is no file of ids to exclude {str(path)!r}: check the path.")
        ids.update(base_id_of(motion_id) for motion_id in read_ids(Path(path)))
    return frozenset(ids)


def _check_splits(ids: Mapping[str, list[str]]) -> None:
    for first, second in itertools.combinations(ids, 2):
        both = set(ids[first]) & set(ids[second])
        if both:
            raise ValueError(
                f"{len(both)} ids are in both the {first!r} and the {second!r} split (for example {min(both)!r}): "
                f"name a split file without them, for example `--split {first}=other.txt`."
            )


def _identity(folder: CorpusFolder, options: PrepareOptions) -> Identity:
    recorded = {
        "layout": options.layout,
        "source": folder.name,
        "splits": {split: path.name for split, path in folder.splits.items()},
        "text_model": options.text_model,
        "processor": options.processor is not None,
        "representation": options.representation,
        "max_frames": options.max_frames,
        "fps": options.fps or folder.skeleton.fps,
        "vocabulary_filter": options.vocabulary_filter,
        "min_document_frequency": options.min_document_frequency,
        "extra_captions": [Path(path).name for path in options.extra_captions],
        "exclude_ids": [Path(path).name for path in options.exclude_ids],
        "mirror": options.mirror,
        "skip_shorter_than": options.skip_shorter_than,
        "skip_longer_than": options.skip_longer_than,
        "row_group_size": options.row_group_size,
    }
    before = [(os.path.relpath(path, folder.source), path) for path in folder.listing_files()]
    after = [(f"held-out/{name}", path) for name, path in folder.held_out_files().items()]
    extra = [*options.extra_captions, *options.exclude_ids]
    after += [(f"extra/{number}", Path(path)) for number, path in enumerate(extra)]
    if options.processor is not None:
        after += _folder_files("processor", Path(options.processor), ("*", "*/*"))
    elif options.text_model != CORPUS_TEXT_MODEL:
        text_folder = Path(resolve_text_model(options.text_model))
        # A folder counts by its content, a short name or hub name by itself.
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
