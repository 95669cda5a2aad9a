"""
From a corpus folder to what training reads: Parquet splits and the fitted processor.

    data/{train,validation,test}-00000-of-0000N.parquet    one row a motion, see `corpus_features`
    text/train.parquet                                     captions for text-only training, with the extra ones
    processor/                                             tokenizer, motion statistics and lexicon, from train only
    report.json                                            what was read, what was skipped and why, fingerprint

Motions are stored as joint positions in metres, flattened joint by joint. The folder appears complete or not at all;
the same input and options give the same bytes, and a folder that already holds them is left alone.

A large corpus can be read in parts, on as many machines: each leaves `shards/00002-of-00008/` in the folder, and
merging them gives the bytes that one run would.
"""

import itertools
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict, IterableDatasetDict, load_dataset
from transformers import AutoTokenizer
from transformers.utils import logging

from ..feature_extraction_lexmotion import LexMotionFeatureExtractor
from ..lexicon import Lexicon
from ..processing_lexmotion import LexMotionProcessor
from ..skeletons import Skeleton
from .blocks import (
    Shard,
    block_moments,
    block_rows,
    count_workers,
    hash_blocks,
    open_blocks,
    plan_blocks,
    read_blocks,
    sha256_of,
    spread,
)
from .columns import TEXT_FEATURES, corpus_features
from .folders import DEFAULT_SPLITS, MIN_FRAMES, CorpusFolder, FolderLayout, base_id_of, read_ids
from .humanml3d import HUMANML3D
from .kit_ml import KIT_ML
from .motion_files import MOTION_FILES, MotionFilesFolder
from .report import Identity, PrepareReport, intact
from .text_mirroring import mirror_caption
from .text_models import resolve_text_model
from .word_tokenizer import train_tokenizer

logger = logging.get_logger(__name__)

LAYOUTS: dict[str, FolderLayout] = {layout.name: layout for layout in (HUMANML3D, KIT_ML, MOTION_FILES)}

# Trains a tokenizer on the captions of the corpus.
CORPUS_TEXT_MODEL = "corpus"

# Folder of the shards that wait to be merged.
SHARDS = "shards"
BLOCKS = "blocks"

_FILE_BYTES = 256 * 2**20
_WORD = re.compile("[a-z]+")


def _hashed(files: Iterable[tuple[str, Path]]) -> list[tuple[str, str]]:
    return [(name, sha256_of(path)) for name, path in files]


def _folder_files(label: str, folder: Path, patterns: Sequence[str] = ("*",)) -> Iterator[tuple[str, Path]]:
    found = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    return ((f"{label}/{path.name}", path) for path in found)


def _read_id_files(paths: Sequence[str | Path]) -> set[str]:
    ids: set[str] = set()
    for path in paths:
        if not Path(path).is_file():
            raise FileNotFoundError(f"There is no file of ids to exclude {str(path)!r}: check the path.")
        ids.update(base_id_of(motion_id) for motion_id in read_ids(Path(path)))
    return ids


def _read_extra_captions(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Rows of a `.jsonl` file with `id` and `captions`."""
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                motion_id, captions = str(row["id"]), row["captions"]
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise ValueError(
                    f'{path}, line {number}: expected {{"id": "...", "captions": ["...", ...]}}, got {line[:80]!r}'
                ) from error
            captions = [captions] if isinstance(captions, str) else captions
            yield motion_id, [" ".join(str(caption).split()) for caption in captions if str(caption).strip()]


def _load_tokenizer(text_model: str, captions: Iterable[str]):
    if text_model == CORPUS_TEXT_MODEL:
        return train_tokenizer(captions)
    name = resolve_text_model(text_model)
    try:
        return AutoTokenizer.from_pretrained(name)
    except OSError as error:
        raise OSError(
            f"The tokenizer of the text model {text_model!r} cannot be loaded: give a folder, a hub name that can be "
            "reached, 'minilm', or 'corpus' to build one from the captions."
        ) from error


def _check_splits(ids: Mapping[str, list[str]]) -> None:
    names = list(ids)
    for position, first in enumerate(names):
        for second in names[position + 1 :]:
            both = set(ids[first]) & set(ids[second])
            if both:
                raise ValueError(
                    f"{len(both)} ids are in both the {first!r} and the {second!r} split (for example {min(both)!r}): "
                    f"name a split file without them, for example `--split {first}=other.txt`."
                )


def _shared(groups: Mapping[str, tuple[set[str], set[str]]]) -> dict[str, dict[str, int]]:
    """How many base motions and source clips each pair of splits has in common."""
    shared = {}
    names = list(groups)
    for position, first in enumerate(names):
        for second in names[position + 1 :]:
            motions, clips = (len(a & b) for a, b in zip(groups[first], groups[second], strict=True))
            if motions or clips:
                shared[f"{first} and {second}"] = {"base_ids": motions, "source_clips": clips}
    return shared


def prepare(
    source: str | Path,
    layout: str,
    output_dir: str | Path,
    *,
    splits: Mapping[str, str | None] | None = None,
    text_model: str | None = None,
    processor: str | Path | None = None,
    representation: str = "positions",
    max_frames: int = 224,
    fps: float | None = None,
    vocabulary_filter: str = "corpus",
    min_document_frequency: int = 1,
    extra_captions: Sequence[str | Path] = (),
    exclude_ids: Sequence[str | Path] = (),
    mirror: str = "listed",
    skip_shorter_than: int = MIN_FRAMES,
    skip_longer_than: int | None = None,
    source_name: str | None = None,
    row_group_size: int = 64,
    num_workers: int | None = None,
    shard: str | None = None,
    merge_shards: int | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> PrepareReport:
    """
    Prepare a motion-caption corpus for training and evaluation.

    Args:
        source (`str` or `Path`): corpus folder.
        layout (`str`): `humanml3d` (also the synthetic corpus), `kit-ml`, or `files` for a folder of motion files of
            any format with a table of captions, see [`~processing.corpora.motion_files`].
        output_dir (`str` or `Path`): folder to write; see the top of this file for what is in it.
        splits (`Mapping[str, str | None]`, *optional*): split name -> file, only these are prepared; `None` as file
            for the usual one. Default: those of `train.txt`, `val.txt` (the split `validation`) and `test.txt` that
            exist.
        text_model (`str`, *optional*): whose tokenizer to use: `minilm`, a folder, a hub name, or `corpus` (default)
            for a small word-level one built from the training captions.
        processor (`str` or `Path`, *optional*): folder of a fitted processor to use as it is; needed without a
            training split.
        representation (`str`): what the processor makes of a motion: `positions`, `humanml3d` (263 / 251 features) or
            `joint_angles`, see [`LexMotionFeatureExtractor`].
        max_frames (`int`): frames the processor keeps of a motion.
        fps (`float`, *optional*): frame rate of the processor, by default the corpus's own. Stored motions keep
            theirs.
        vocabulary_filter (`str`): `corpus`, `words` or `all`: which word pieces become dimensions of the lexicon.
        min_document_frequency (`int`): captions a word must be in to count as seen by the filter `corpus`.
        extra_captions (`Sequence`): `.jsonl` files of `{"id", "captions"}` for the lexicon and the text-only corpus.
            Ids of the held-out splits are left out, those in the folder's own `val.txt` and `test.txt` included.
        exclude_ids (`Sequence`): files of further ids to leave out of the extra captions.
        mirror (`str`): `listed`, `derive` or `none`, see [`~processing.corpora.folders.CorpusFolder`].
        skip_shorter_than, skip_longer_than (`int`): frames outside which a motion or sub-range is skipped.
        source_name (`str`, *optional*): name of the corpus in the column `source`; the folder's name by default.
        row_group_size (`int`): listed motions of one Parquet row group, the unit of streaming and of the work.
        num_workers (`int`, *optional*): processes that read and write; by default one for each core at hand, as far as
            there are 256 motions for each. It does not change the result.
        shard (`str`, *optional*): `"2/8"` reads the second of eight parts of every split, and leaves it in
            `output_dir/shards`.
        merge_shards (`int`, *optional*): make the corpus of this many shards instead of reading it; they are removed.
        overwrite (`bool`): replace a folder that is not a prepared corpus, or a shard of another one.
        progress (`bool`): show progress bars on a terminal.

    Returns:
        [`PrepareReport`]: of what was read, the whole or the shard; with `reused` set when it was already there.

    Raises:
        FileNotFoundError: source, split files, text model folder, processor or shards are missing.
        ValueError: unknown layout; a split that lists or leaves no motion; an id in two splits; no processor without
        train. FileExistsError: the output folder holds something else.

    Example:

        >>> report = prepare("HumanML3D", "humanml3d", "prepared", text_model="minilm")  # doctest: +SKIP
        >>> load_prepared("prepared")["train"][0]["captions"]  # doctest: +SKIP
    """
    if layout not in LAYOUTS:
        raise ValueError(f"Unknown layout {layout!r}: choose one of {', '.join(LAYOUTS)}.")
    if row_group_size < 1:
        raise ValueError(f"row_group_size must be at least 1, got {row_group_size}.")
    if shard is not None and merge_shards is not None:
        raise ValueError("Make a shard with `--shard` or merge them with `--merge-shards`, not both in one command.")
    if merge_shards is not None and merge_shards < 1:
        raise ValueError(f"merge_shards must be at least 1, got {merge_shards}.")
    part = Shard() if shard is None else Shard.parse(shard)
    output_dir = Path(output_dir)
    reader = MotionFilesFolder if layout == MOTION_FILES.name else CorpusFolder
    folder = reader(source, LAYOUTS[layout], splits, mirror, skip_shorter_than, skip_longer_than, name=source_name)
    skeleton = folder.skeleton
    if "train" not in folder.splits and processor is None:
        raise ValueError(
            f"The splits {', '.join(folder.splits)} cannot fit a processor, statistics come from train only: give "
            "the one of the training corpus with `--processor PREPARED/processor`."
        )
    if processor is not None and not Path(processor).is_dir():
        raise FileNotFoundError(
            f"There is no processor folder {str(processor)!r}: give the `processor` of a prepared corpus."
        )
    missing = [str(path) for path in extra_captions if not Path(path).is_file()]
    if missing:
        raise FileNotFoundError(f"There is no file of extra captions {missing[0]!r}: check the path.")
    excluded = _read_id_files(exclude_ids)
    ids = {split: folder.ids(split) for split in folder.splits}
    _check_splits(ids)

    options = {
        "layout": layout,
        "source": folder.name,
        "splits": {split: path.name for split, path in folder.splits.items()},
        "text_model": text_model or CORPUS_TEXT_MODEL,
        "processor": processor is not None,
        "representation": representation,
        "max_frames": max_frames,
        "fps": fps or skeleton.fps,
        "vocabulary_filter": vocabulary_filter,
        "min_document_frequency": min_document_frequency,
        "extra_captions": [Path(path).name for path in extra_captions],
        "exclude_ids": [Path(path).name for path in exclude_ids],
        "mirror": mirror,
        "skip_shorter_than": skip_shorter_than,
        "skip_longer_than": skip_longer_than,
        "row_group_size": row_group_size,
    }
    before = [(os.path.relpath(path, folder.source), path) for path in folder.listing_files()]
    after = [(f"held-out/{name}", path) for name, path in _usual_held_out(folder).items()]
    after += [(f"extra/{number}", Path(path)) for number, path in enumerate([*extra_captions, *exclude_ids])]
    if processor is not None:
        after += _folder_files("processor", Path(processor), ("*", "*/*"))
    elif text_model not in (None, CORPUS_TEXT_MODEL):
        text_folder = Path(resolve_text_model(str(text_model)))
        # A folder counts by its content, a short name or hub name by itself.
        if text_folder.is_dir():
            options["text_model"] = str(text_model) if not Path(str(text_model)).is_dir() else text_folder.name
            after += _folder_files("tokenizer", text_folder, ("tokenizer*", "vocab*", "special_tokens*", "merges*"))
    identity, target = Identity(options, _hashed(before), _hashed(after)), output_dir
    if shard is not None:
        identity, target = identity.of_shard(part), output_dir / SHARDS / part.name

    plan = plan_blocks(folder, ids, row_group_size, part)
    workers = count_workers(num_workers, sum(len(block["ids"]) for block in plan))
    found = intact(target)
    # To merge shards that wait is not the moment to read every motion for a look at what they replace.
    if found is not None and (merge_shards is None or not _at_hand(output_dir)):
        differing = identity.differing_option(found)
        if differing is None:
            with tempfile.TemporaryDirectory() as cache:
                fingerprint = identity.fingerprint(hash_blocks(plan, Path(cache), folder, workers, progress))
            if found.fingerprint == fingerprint:
                logger.info("%s already holds this corpus", target)
                return found
        if shard is not None and not overwrite:
            raise FileExistsError(
                f"{target} was made {f'with {differing}' if differing else 'from other input'}: choose another "
                "folder, or replace it with `--overwrite`."
            )
    shards = [] if merge_shards is None else _complete_shards(output_dir, merge_shards, identity, list(folder.splits))
    if not overwrite:
        _refuse_to_replace(output_dir, sharded=shard is not None or merge_shards is not None)

    extractor = None
    if processor is None:
        extractor = LexMotionFeatureExtractor(
            representation=representation, skeleton=skeleton.name, fps=fps or skeleton.fps, max_frames=max_frames
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        if shards:
            blocks = open_blocks([path / BLOCKS for path in shards], list(folder.splits))
        else:
            blocks = read_blocks(plan, temporary / BLOCKS, folder, extractor, workers, progress)
        report = PrepareReport(
            fingerprint=identity.fingerprint(blocks),
            layout=layout,
            source=folder.name,
            skeleton=skeleton.name,
            fps=skeleton.fps,
            options=identity.options,
        )
        train_captions = _account(blocks, folder, report)
        if shard is None:
            _check_readable(folder, report)
            _write_files(blocks, temporary / "data", workers, progress)
            corpus: dict[str, list[str]] = {}
            if "train" in folder.splits:
                corpus = _text_corpus(folder, train_captions, ids, extra_captions, excluded, report)
                _write_text(temporary, corpus, row_group_size)
            if processor is not None:
                fitted = _given_processor(processor, skeleton)
            elif extractor is not None:
                extractor.fit_moments(term for block in blocks for term in block_moments(block))
                fitted = _fitted_processor(extractor, corpus, text_model, vocabulary_filter, min_document_frequency)
            report.processor = _describe(fitted, extractor is not None)
            fitted.save_pretrained(temporary / "processor")
            shutil.rmtree(temporary / BLOCKS, ignore_errors=True)
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        report.files = {path.relative_to(temporary).as_posix(): path.stat().st_size for path in files}
        text = json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n"
        (temporary / "report.json").write_text(text, encoding="utf-8")
        _put_in_place(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return report


def _usual_held_out(folder: CorpusFolder) -> dict[str, Path]:
    """The folder's own `val.txt` and `test.txt`, whether they are prepared or not."""
    paths = {name: folder.source / file for name, file in DEFAULT_SPLITS.items() if name != "train"}
    return {name: path for name, path in paths.items() if path.is_file()}


def _at_hand(output_dir: Path) -> list[str]:
    """Names of the shards that wait, unfinished ones included."""
    return sorted(path.name for path in (output_dir / SHARDS).glob("*"))


def _refuse_to_replace(output_dir: Path, sharded: bool) -> None:
    if not output_dir.is_dir():
        return
    if not sharded and _at_hand(output_dir):
        raise FileExistsError(
            f"{output_dir / SHARDS} holds shards: merge them with `--merge-shards`, or replace them by a corpus read "
            "at once with `--overwrite`."
        )
    names = {path.name for path in output_dir.iterdir()} - {SHARDS}
    if names and "report.json" not in names:
        raise FileExistsError(
            f"{output_dir} holds files that are not a prepared corpus: choose another folder, or overwrite it "
            "with `--overwrite`."
        )


def _complete_shards(output_dir: Path, count: int, identity: Identity, splits: Sequence[str]) -> list[Path]:
    """Folders of all shards; an error says which are missing, damaged or of another corpus, and what to do."""
    folders, missing = [], []
    for shard in (Shard(number, count) for number in range(1, count + 1)):
        folder, own = output_dir / SHARDS / shard.name, identity.of_shard(shard)
        report = intact(folder)
        if report is None:
            missing.append(f"`--shard {shard.argument}`")
            continue
        differing = own.differing_option(report)
        if differing is not None or report.fingerprint != own.fingerprint(open_blocks([folder / BLOCKS], splits)):
            made = f"with {differing}" if differing else "from other ids, captions, tokenizer or processor"
            raise ValueError(
                f"{folder} was made {made}: merge with what it was made with, or make it again with "
                f"`--shard {shard.argument} --overwrite`."
            )
        folders.append(folder)
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {count} shards are missing or damaged (in {output_dir / SHARDS}: "
            f"{', '.join(_at_hand(output_dir)[:8]) or 'none'}): make them with the same command and "
            f"{', '.join(missing[:8])}{' ...' * (len(missing) > 8)} in place of `--merge-shards {count}`."
        )
    return folders


def _account(blocks: Dataset, folder: CorpusFolder, report: PrepareReport) -> dict[str, list[str]]:
    """Count what was read and skipped into the report; returns the training captions by base motion."""
    captions_of: dict[str, list[str]] = {}
    counts: dict[str, Counter[str]] = {split: Counter() for split in folder.splits}
    groups: dict[str, tuple[set[str], set[str]]] = {split: (set(), set()) for split in folder.splits}
    columns = ("base_id", "source_clip", "mirrored", "num_frames", "captions", "mirrored_captions")
    for block in blocks:
        split = block["split"][0].as_py()
        counts[split].update(listed=block["listed"][0].as_py())
        report.skipped += block["skipped"][0].as_py()
        base_ids, clips = groups[split]
        for row in block_rows(block, columns).to_pylist():
            told, base_id = row["captions"], row["base_id"]
            counts[split].update(motions=1, mirrored=row["mirrored"], captions=len(told), frames=row["num_frames"])
            base_ids.add(base_id)
            clips.add(row["source_clip"])
            if split == "train":
                told = row["mirrored_captions"] if row["mirrored"] else told
                known = captions_of.setdefault(base_id, [])
                if not (row["mirrored"] and known):
                    known += [caption for caption in told if caption not in known]
    for split, count in counts.items():
        report.splits[split] = {
            "file": folder.splits[split].name,
            **{name: count[name] for name in ("listed", "motions", "mirrored", "captions", "frames")},
            "seconds": round(count["frames"] / folder.skeleton.fps, 2),
        }
    report.skipped_by_reason = dict(sorted(Counter(item["reason"] for item in report.skipped).items()))
    report.shared = _shared(groups)
    return captions_of


def _check_readable(folder: CorpusFolder, report: PrepareReport) -> None:
    for split, counts in report.splits.items():
        if not counts["motions"]:
            reasons = Counter(item["reason"] for item in report.skipped if item["split"] == split).most_common(3)
            why = ", ".join(f"{count} {reason}" for reason, count in reasons)
            raise ValueError(
                f"No motion of the split {split!r} ({folder.splits[split]}) could be read: "
                f"{why or 'nothing is listed'}. Is {folder.source} really laid out as {folder.layout.name!r}?"
            )
    for pair, numbers in report.shared.items():
        if numbers["base_ids"]:
            logger.warning("%s share %d base motions: scores on them are not held out", pair, numbers["base_ids"])


def _write_files(blocks: Dataset, output: Path, workers: int, progress: bool) -> None:
    """Write the rows of every split to Parquet files, a row group for each block; a file that is full is closed."""
    output.mkdir()
    files: list[dict[str, Any]] = []
    size = total = 0
    for position, block in enumerate(blocks):
        split, num_bytes = block["split"][0].as_py(), block["num_bytes"][0].as_py()
        if not num_bytes:
            continue
        if not files or files[-1]["split"] != split or size >= _FILE_BYTES:
            number = files[-1]["number"] + 1 if files and files[-1]["split"] == split else 0
            files.append({"split": split, "number": number, "blocks": []})
            size = 0
        files[-1]["blocks"].append(position)
        size += num_bytes
        total += num_bytes
    of_split = Counter(file["split"] for file in files)
    for file in files:
        file["path"] = str(output / f"{file['split']}-{file['number']:05d}-of-{of_split[file['split']]:05d}.parquet")
    # A file is the work of one worker, and only full ones are worth starting one.
    spread(_write_file, files, max(1, min(workers, total // _FILE_BYTES)), "writing files", progress, blocks=blocks)


def _write_file(file: Mapping[str, Any], blocks: Dataset) -> None:
    tables = (block_rows(blocks[position]) for position in file["blocks"])
    first = next(tables)
    with pq.ParquetWriter(file["path"], first.schema, compression="zstd", use_dictionary=False) as writer:
        for table in itertools.chain([first], tables):
            writer.write_table(table, row_group_size=len(table))


def _text_corpus(
    folder: CorpusFolder,
    train_captions: Mapping[str, list[str]],
    ids: Mapping[str, list[str]],
    extra_captions: Sequence[str | Path],
    excluded: set[str],
    report: PrepareReport,
) -> dict[str, list[str]]:
    """Training captions by motion, extra ones added unless their motion is held out."""
    held_out = {base_id_of(motion_id) for split, listed in ids.items() if split != "train" for motion_id in listed}
    for path in _usual_held_out(folder).values():
        held_out.update(base_id_of(motion_id) for motion_id in path.read_text(encoding="utf-8").split())
    # A training set may be made of a file that is usually held out; what it lists is then no secret.
    held_out -= {base_id_of(motion_id) for motion_id in ids["train"]}
    held_out |= excluded
    corpus = {motion_id: list(captions) for motion_id, captions in train_captions.items()}
    left_out = 0
    for file in extra_captions:
        for motion_id, captions in _read_extra_captions(Path(file)):
            base_id = base_id_of(motion_id)
            if base_id in held_out:
                left_out += 1
                continue
            if base_id != motion_id:
                captions = [mirror_caption(caption) for caption in captions]
            known = corpus.setdefault(base_id, [])
            known += [caption for caption in dict.fromkeys(captions) if caption not in known]
    corpus = {motion_id: captions for motion_id, captions in corpus.items() if captions}
    report.text = {
        "motions": len(corpus),
        "captions": sum(len(captions) for captions in corpus.values()),
        "extra_motions": len(corpus) - len(train_captions),
        "extra_motions_left_out": left_out,
    }
    return corpus


def _write_text(output: Path, corpus: Mapping[str, list[str]], row_group_size: int) -> None:
    (output / "text").mkdir()
    columns = {
        "id": list(corpus),
        "captions": list(corpus.values()),
        "mirrored_captions": [[mirror_caption(caption) for caption in captions] for captions in corpus.values()],
    }
    table = pa.Table.from_pydict(columns, schema=TEXT_FEATURES.arrow_schema)
    pq.write_table(table, output / "text" / "train.parquet", compression="zstd", row_group_size=16 * row_group_size)


def _given_processor(folder: str | Path, skeleton: Skeleton) -> LexMotionProcessor:
    processor = LexMotionProcessor.from_pretrained(folder)
    theirs = processor.feature_extractor.skeleton
    if theirs != skeleton.name:
        raise ValueError(
            f"The processor {str(folder)!r} is for the skeleton {theirs!r}, the corpus has {skeleton.name!r}."
        )
    return processor


def _fitted_processor(
    extractor: LexMotionFeatureExtractor,
    corpus: Mapping[str, list[str]],
    text_model: str | None,
    vocabulary_filter: str,
    min_document_frequency: int,
) -> LexMotionProcessor:
    """Tokenizer and lexicon of the training captions beside the fitted extractor."""
    spoken = [caption for captions in corpus.values() for caption in captions]
    mirrored = [mirror_caption(caption) for caption in spoken]
    tokenizer = _load_tokenizer(text_model or CORPUS_TEXT_MODEL, [*spoken, *mirrored])
    lexicon = caption_lexicon(spoken, mirrored, tokenizer, vocabulary_filter, min_document_frequency)
    return LexMotionProcessor(feature_extractor=extractor, tokenizer=tokenizer, lexicon=lexicon.to_dict())


def caption_lexicon(
    captions: Sequence[str],
    mirrored_captions: Sequence[str],
    tokenizer: Any,
    vocabulary_filter: str,
    min_document_frequency: int,
) -> Lexicon:
    """
    The lexicon of training captions, see [`Lexicon.from_corpus`].

    Words that only the mirrored captions hold ("left" where all is right) are part of the space as well.
    """
    words, mirrored_words = (
        {word for caption in texts for word in _WORD.findall(caption.lower())}
        for texts in (captions, mirrored_captions)
    )
    twins = tokenizer(" ".join(sorted(mirrored_words - words)), add_special_tokens=False)["input_ids"]
    return Lexicon.from_corpus(
        captions,
        tokenizer,
        vocabulary_filter=vocabulary_filter,
        min_document_frequency=min_document_frequency,
        extra_ids=sorted(set(twins) - set(tokenizer.all_special_ids)),
    )


def _describe(processor: LexMotionProcessor, fitted: bool) -> dict[str, Any]:
    lexicon = processor.lexicon
    if lexicon is None:
        raise ValueError("The processor has no lexicon: give the `processor` of a prepared corpus.")
    return {
        "fitted": fitted,
        "statistics_hash": processor.feature_extractor.statistics_hash,
        "lexicon_hash": lexicon.hash,
        "vocab_size": len(processor.tokenizer),
        "active_words": int(lexicon.active.sum()),
    }


def _put_in_place(temporary: Path, output_dir: Path) -> None:
    """Replace `output_dir` by `temporary`; an interruption leaves the old or the new folder, never a mixture."""
    os.chmod(temporary, 0o755)
    if output_dir.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{output_dir.name}.old.", dir=output_dir.parent))
        os.replace(output_dir, old / output_dir.name)
        os.replace(temporary, output_dir)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(temporary, output_dir)


def load_prepared(
    folder: str | Path,
    splits: Sequence[str] | None = None,
    streaming: bool = False,
    cache_dir: str | Path | None = None,
) -> DatasetDict | IterableDatasetDict:
    """
    Open a prepared corpus.

    Args:
        folder (`str` or `Path`): output of [`prepare`].
        splits (`Sequence[str]`, *optional*): only these; all by default.
        streaming (`bool`): read row group by row group instead of through the local cache.
        cache_dir (`str` or `Path`, *optional*): where `datasets` keeps its memory-mapped copy.

    Returns:
        `DatasetDict`: columns of [`corpus_features`], no format set; `.with_format("numpy")` gives motions as (T, J *
        3) arrays.

    Raises:
        FileNotFoundError: the folder is not a prepared corpus.
        ValueError: a split it does not have.
    """
    folder = Path(folder)
    report = PrepareReport.load(folder)
    wanted = list(report.splits) if splits is None else list(splits)
    unknown = [split for split in wanted if split not in report.splits]
    if unknown:
        raise ValueError(f"{folder} has no split {unknown[0]!r}, it has {', '.join(report.splits)}.")
    files = {split: sorted(str(path) for path in (folder / "data").glob(f"{split}-*.parquet")) for split in wanted}
    return load_dataset(
        "parquet",
        data_files=files,
        features=corpus_features(LAYOUTS[report.layout].skeleton),
        streaming=streaming,
        cache_dir=None if cache_dir is None else str(cache_dir),
    )
