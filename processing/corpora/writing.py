"""The files of a prepared corpus: Parquet data, the text-only corpus, and the counts of the report."""

import itertools
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from transformers.utils import logging

from lexmotion.common.files import full_disk_named

from ..text_mirroring import mirror_caption
from .blocks import block_rows, spread
from .columns import TEXT_FEATURES
from .extra_motion import EXTRA_MOTION
from .folders import CorpusFolder, base_id_of, read_caption_rows
from .plan import Plan, split_files
from .report import PrepareReport

logger = logging.get_logger(__name__)

FILE_BYTES = 256 * 2**20  # of rows in memory, from which a data file is closed


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a folder that replaces `target` when it is complete, and is removed after an error."""
    with full_disk_named(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            yield temporary
            _put_in_place(temporary, target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _put_in_place(temporary: Path, output_dir: Path) -> None:
    """Replace `output_dir` by `temporary`; an interruption leaves the old or the new folder, never a mixture."""
    os.chmod(temporary, 0o755)
    if not output_dir.exists():
        os.replace(temporary, output_dir)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{output_dir.name}.old.", dir=output_dir.parent))
    os.replace(output_dir, old / output_dir.name)
    os.replace(temporary, output_dir)
    shutil.rmtree(old, ignore_errors=True)


def count_blocks(blocks: Dataset, folder: CorpusFolder, report: PrepareReport) -> dict[str, list[str]]:
    """Count the read and skipped motions in the report, and return the training captions by base motion."""
    captions_of: dict[str, list[str]] = {}
    counts: dict[str, Counter[str]] = {split: Counter() for split in folder.splits}
    groups: dict[str, tuple[set[str], set[str]]] = {split: (set(), set()) for split in folder.splits}
    columns = ("base_id", "source_clip", "mirrored", "num_frames", "captions", "mirrored_captions")
    for block in blocks:
        split = block["split"][0].as_py()
        if split == EXTRA_MOTION:
            continue
        counts[split].update(listed=block["listed"][0].as_py())
        report.skipped += block["skipped"][0].as_py()
        base_ids, clips = groups[split]
        for row in block_rows(block, columns).to_pylist():
            texts, base_id = row["captions"], row["base_id"]
            counts[split].update(motions=1, mirrored=row["mirrored"], captions=len(texts), frames=row["num_frames"])
            base_ids.add(base_id)
            clips.add(row["source_clip"])
            if split == "train":
                texts = row["mirrored_captions"] if row["mirrored"] else texts
                known = captions_of.setdefault(base_id, [])
                if not (row["mirrored"] and known):
                    known += [caption for caption in texts if caption not in known]
    for split, count in counts.items():
        report.splits[split] = {
            "file": split_files(folder.splits[split]),
            **{name: count[name] for name in ("listed", "motions", "mirrored", "captions", "frames")},
            "seconds": round(count["frames"] / folder.skeleton.fps, 2),
        }
    report.skipped_by_reason = dict(sorted(Counter(item["reason"] for item in report.skipped).items()))
    report.shared = _shared(groups)
    return captions_of


def count_extra_motion(blocks: Dataset, plan: Plan, report: PrepareReport) -> list[tuple[str, list[str]]]:
    """Count the read and skipped extra motions in the report, and return their base ids and captions."""
    if not plan.extra:
        return []
    captions, count = [], Counter[str]()
    for block in _blocks_of(blocks, EXTRA_MOTION):
        count.update(listed=block["listed"][0].as_py())
        report.skipped += block["skipped"][0].as_py()
        columns = ("base_id", "mirrored", "num_frames", "captions", "mirrored_captions")
        for row in block_rows(block, columns).to_pylist():
            count.update(motions=1, captions=len(row["captions"]), frames=row["num_frames"])
            captions.append((row["base_id"], row["mirrored_captions" if row["mirrored"] else "captions"]))
    report.motion = {
        **{name: count[name] for name in ("listed", "motions", "captions", "frames")},
        "seconds": round(count["frames"] / plan.folder.skeleton.fps, 2),
        **plan.omitted,
    }
    report.skipped_by_reason = dict(sorted(Counter(item["reason"] for item in report.skipped).items()))
    return captions


def _blocks_of(blocks: Dataset, split: str) -> Iterator[pa.Table]:
    return (block for block in blocks if block["split"][0].as_py() == split)


def _shared(groups: Mapping[str, tuple[set[str], set[str]]]) -> dict[str, dict[str, int]]:
    """Count the base motions and source clips that each pair of splits has in common."""
    shared = {}
    for first, second in itertools.combinations(groups, 2):
        motions, clips = (len(a & b) for a, b in zip(groups[first], groups[second], strict=True))
        if motions or clips:
            shared[f"{first} and {second}"] = {"base_ids": motions, "source_clips": clips}
    return shared


def check_readable(folder: CorpusFolder, report: PrepareReport) -> None:
    """Remove splits of which nothing could be read from the report, and warn of splits that share motions.

    Raises:
        ValueError: if nothing of the training split, or of all splits, could be read.
    """
    empty = [split for split, counts in report.splits.items() if not counts["motions"]]
    for split in empty:
        skipped = [item for item in report.skipped if item["split"] == split]
        reasons = Counter(item["reason"] for item in skipped).most_common(3)
        why = ", ".join(f"{count} {reason}" for reason, count in reasons) or "nothing is listed"
        example = next((f" ({item['id']}: {item['detail']})" for item in skipped if item["detail"]), "")
        files = ", ".join(map(str, folder.splits[split]))
        what = f"split {split!r} ({files}): no motion could be read, {why}{example}"
        if split == "train" or len(empty) == len(report.splits):
            raise ValueError(f"{what}; check that {folder.source} has the layout {folder.layout.name!r} (layout=...)")
        logger.warning("%s; the split is left out", what)
        report.skipped.append({"split": split, "id": "", "reason": "split without readable motions", "detail": why})
    report.splits = {split: counts for split, counts in report.splits.items() if split not in empty}
    report.skipped_by_reason = dict(sorted(Counter(item["reason"] for item in report.skipped).items()))
    for pair, numbers in report.shared.items():
        if numbers["base_ids"]:
            logger.warning("%s share %d base motions: scores on these are not held out", pair, numbers["base_ids"])


def write_data(blocks: Dataset, output: Path, workers: int, progress: bool) -> None:
    """Write the rows of every split to Parquet files of about `FILE_BYTES`, with one row group per block."""
    output.mkdir()
    files: list[dict[str, Any]] = []
    size = total = 0
    for position, block in enumerate(blocks):
        split, num_bytes = block["split"][0].as_py(), block["num_bytes"][0].as_py()
        if not num_bytes or split == EXTRA_MOTION:
            continue
        if not files or files[-1]["split"] != split or size >= FILE_BYTES:
            number = sum(file["split"] == split for file in files)
            files.append({"split": split, "number": number, "blocks": []})
            size = 0
        files[-1]["blocks"].append(position)
        size += num_bytes
        total += num_bytes
    of_split = Counter(file["split"] for file in files)
    for file in files:
        file["path"] = str(output / f"{file['split']}-{file['number']:05d}-of-{of_split[file['split']]:05d}.parquet")
    # One worker writes one file, and only full files are worth starting a worker.
    spread(_write_file, files, max(1, min(workers, total // FILE_BYTES)), "writing files", progress, blocks=blocks)


def _write_file(file: Mapping[str, Any], blocks: Dataset) -> None:
    _write_tables((block_rows(blocks[position]) for position in file["blocks"]), file["path"])


def _write_tables(tables: Iterator[pa.Table], path: str | Path) -> None:
    """Write tables, at least one, to a Parquet file, with one row group per table."""
    first = next(tables)
    with pq.ParquetWriter(path, first.schema, compression="zstd", use_dictionary=False) as writer:
        for table in itertools.chain([first], tables):
            writer.write_table(table, row_group_size=len(table))


def write_extra_motion(blocks: Dataset, folder: Path, report: PrepareReport) -> None:
    """Write the extra motions to `motion/train.parquet` in `folder`, if any could be read."""
    if not report.motion:
        return
    if not report.motion["motions"]:
        why = ", ".join(
            f"{report.motion[name]} {name.replace('_', ' ')}" for name in ("listed", "left_out", "repeated")
        )
        logger.warning("extra_motion: no motion could be read (%s); report.json has the reasons", why)
        return
    path = folder / f"{EXTRA_MOTION}.parquet"
    path.parent.mkdir()
    tables = (block_rows(block) for block in _blocks_of(blocks, EXTRA_MOTION) if block["num_bytes"][0].as_py())
    _write_tables(tables, path)


def warn_of_unknown_ids(plan: Plan, report: PrepareReport) -> None:
    """Warn of ids of `leave_out` that occur nowhere: in no split, extra captions or motions, and without a file."""
    found = {plan.folder.key_of(motion_id) for ids in report.left_out.values() for motion_id in ids}
    missing = [
        motion_id
        for key, motion_id in plan.leave_out.items()
        if key not in found and not any(folder.has_files(motion_id) for folder in plan.folders)
    ]
    if missing:
        logger.warning("leave_out: %s occurs nowhere in the corpus; check the ids", _some(missing))


def _some(ids: list[str]) -> str:
    more = f" and {len(ids) - 1} more of its ids" if len(ids) > 1 else ""
    return f"{ids[0]!r}{more}"


def text_corpus(
    plan: Plan,
    train_captions: Mapping[str, list[str]],
    extra_motion: Sequence[tuple[str, list[str]]],
    report: PrepareReport,
) -> dict[str, list[str]]:
    """Return training captions by motion with the extra ones of motions that are not held out; fill in the report.

    Args:
        plan: the plan.
        train_captions: captions of the training motions.
        extra_motion: base ids and captions of the extra motions, none of which is held out.
        report: the report.
    """
    corpus = {motion_id: list(captions) for motion_id, captions in train_captions.items()}
    left_out, unwanted = 0, []
    for base_id, captions in extra_motion:
        known = corpus.setdefault(base_id, [])
        known += [caption for caption in captions if caption not in known]
    for file in plan.options.extra_captions:
        for motion_id, captions in read_caption_rows(Path(file)):
            base_id = base_id_of(motion_id)
            if plan.folder.key_of(motion_id) in plan.leave_out:
                unwanted.append(motion_id)
                continue
            if base_id in plan.held_out:
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
    if unwanted:
        report.left_out["extra captions"] = list(dict.fromkeys(unwanted))
    return corpus


def write_text_corpus(output: Path, corpus: Mapping[str, list[str]], row_group_size: int) -> None:
    """Write captions by motion, with their mirror images, to the folder `output`."""
    output.mkdir()
    mirrored = [[mirror_caption(caption) for caption in captions] for captions in corpus.values()]
    columns = {"id": list(corpus), "captions": list(corpus.values()), "mirrored_captions": mirrored}
    table = pa.Table.from_pydict(columns, schema=TEXT_FEATURES.arrow_schema)
    pq.write_table(table, output / "train.parquet", compression="zstd", row_group_size=16 * row_group_size)
