"""Preparation of a corpus folder for training: Parquet splits and the fitted processor.

    data/{train,validation,test}-00000-of-0000N.parquet    one row per motion, see `corpus_features`
    text/train.parquet                                     captions for text-only training, with the extra ones
    motion/train.parquet                                   extra motions for phase ii, if there are any
    processor/                                             tokenizer, motion statistics and lexicon, from train only
    report.json                                            counts, skipped motions with reasons, fingerprint

Motions are stored as joint positions in metres, flattened joint by joint. The folder is either complete or absent. The
same input and options give the same bytes, and a folder that already contains them is not rewritten.

A large corpus can be read in shards, on several machines: each run writes `shards/00002-of-00008/` in the folder, and
merging all of them gives the same bytes as a single run.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import DatasetDict, IterableDatasetDict, load_dataset
from datasets.config import HF_DATASETS_CACHE
from datasets.exceptions import DatasetsError
from transformers.utils import logging

from lexmotion.common.files import write_json
from lexmotion.common.options import merge_options

from ..skeletons import get_skeleton
from .blocks import Shard, count_workers, open_blocks, read_blocks
from .columns import corpus_features
from .fitting import describe_processor, fit_processor, given_processor
from .options import PrepareOptions
from .plan import Plan, make_plan
from .report import PrepareReport, intact
from .writing import (
    check_readable,
    count_blocks,
    count_extra_motion,
    new_folder,
    text_corpus,
    warn_of_unknown_ids,
    write_data,
    write_extra_motion,
    write_text_corpus,
)

logger = logging.get_logger(__name__)

SHARDS = "shards"  # folder of the shards that are not merged yet
BLOCKS = "blocks"


def prepare(
    source: str | Path,
    output_dir: str | Path,
    options: PrepareOptions | None = None,
    *,
    num_workers: int | None = None,
    shard: str | None = None,
    merge_shards: int | None = None,
    overwrite: bool = False,
    progress: bool = False,
    **fields: Any,
) -> PrepareReport:
    """Prepare a motion-caption corpus for training and evaluation.

    Args:
        source: folder of the corpus.
        output_dir: folder to write, see the top of this file.
        options: options of the preparation; None: the defaults of [`PrepareOptions`].
        num_workers: processes that read and write; None: one per core, at most one per 256 motions. The number does
            not change the result.
        shard: `"2/8"` reads the second of eight parts of every split into `output_dir/shards`.
        merge_shards: merge this many shards instead of reading the corpus; the shards are removed.
        overwrite: replace a folder that is not a prepared corpus, or a shard of another corpus.
        progress: show progress bars on a terminal.
        fields: fields of [`PrepareOptions`] by name, which replace those of `options`.

    Returns:
        The report of the corpus or of the shard, with `reused` set if it already existed.

    Raises:
        FileNotFoundError: if the source, a split file, the text model, the processor, a shard, an overlay, extra
            motions or a list of ids is missing.
        FileExistsError: if the output folder contains something else or is a file.
        TypeError: if an option is unknown.
        ValueError: if the layout is unknown, a split lists or keeps no motion, an id is in two splits or names a file
            outside its folder, an overlay is empty, or no processor is given without a training split.

    Example:
        >>> report = prepare("HumanML3D", "prepared", layout="humanml3d", text_model="minilm")  # doctest: +SKIP
        >>> load_prepared("prepared")["train"][0]["captions"]  # doctest: +SKIP
    """
    _check_sharding(shard, merge_shards)
    part = None if shard is None else Shard.parse(shard)
    plan = make_plan(source, merge_options(PrepareOptions, options, fields), part)
    output_dir = Path(output_dir)
    if output_dir.is_file():
        raise FileExistsError(f"{output_dir}: is a file; pass a folder to write")
    target = output_dir if part is None else output_dir / SHARDS / part.name
    workers = count_workers(num_workers, plan.num_ids)
    # A merge replaces an older corpus without reading every motion to compare with it.
    merging = merge_shards is not None and _unmerged_shards(output_dir)
    found = None if merging else intact(target)
    difference = None if found is None else plan.difference(found, workers, progress)
    if found is not None and difference is None:
        logger.info("%s already contains this corpus", target)
        return found
    shards = [] if merge_shards is None else _complete_shards(output_dir, merge_shards, plan)
    if not overwrite:
        _refuse_to_replace(target, output_dir, difference, sharded=part is not None or merge_shards is not None)
    with new_folder(target) as folder:
        return _fill(folder, plan, shards, part is None, workers, progress)


def _check_sharding(shard: str | None, merge_shards: int | None) -> None:
    if shard is not None and merge_shards is not None:
        raise ValueError(f"got shard={shard!r} and merge_shards={merge_shards}; pass only one of them at a time")
    if merge_shards is not None and merge_shards < 1:
        raise ValueError(f"merge_shards: got {merge_shards}; pass at least 1")


def _fill(
    folder: Path, plan: Plan, shards: Sequence[Path], whole: bool, workers: int, progress: bool
) -> PrepareReport:
    """Read the corpus, or the blocks of its shards, into an empty folder; unless `whole`, write only the blocks."""
    extractor = plan.extractor()
    if shards:
        decided = PrepareReport.load(shards[0]).decided
        blocks = open_blocks([path / BLOCKS for path in shards], plan.block_splits)
    else:
        decided = plan.folder.decide(workers, progress)
        blocks = read_blocks(plan.blocks, folder / BLOCKS, plan.folders, extractor, workers, progress)
    report = PrepareReport(
        fingerprint=plan.identity.fingerprint(blocks),
        layout=plan.options.layout,
        source=plan.folder.name,
        skeleton=plan.folder.skeleton.name,
        fps=plan.folder.skeleton.fps,
        options=plan.identity.options,
        decided=decided,
        left_out=dict(plan.left_out),
        overlays=plan.folder.overlay_use(motion_id for ids in plan.ids.values() for motion_id in ids),
    )
    captions = count_blocks(blocks, plan.folder, report)
    extra = count_extra_motion(blocks, plan, report)
    if whole:
        check_readable(plan.folder, report)
        write_data(blocks, folder / "data", workers, progress)
        corpus: dict[str, list[str]] = {}
        if "train" in plan.ids:
            corpus = text_corpus(plan, captions, extra, report)
            write_text_corpus(folder / "text", corpus, plan.options.row_group_size)
        write_extra_motion(blocks, folder, report)
        warn_of_unknown_ids(plan, report)
        if extractor is None:
            processor = given_processor(str(plan.options.processor), plan.folder.skeleton)
        else:
            processor = fit_processor(extractor, blocks, corpus, plan.options)
        report.processor = describe_processor(processor, fitted=extractor is not None)
        processor.save_pretrained(folder / "processor")
        shutil.rmtree(folder / BLOCKS, ignore_errors=True)
    report.record(folder, sorted(path for path in folder.rglob("*") if path.is_file()))
    write_json(folder / "report.json", report.to_dict())
    return report


def _unmerged_shards(output_dir: Path) -> list[str]:
    """Return the names of the shards that are not merged yet, including incomplete ones."""
    return sorted(path.name for path in (output_dir / SHARDS).glob("*"))


def _refuse_to_replace(target: Path, output_dir: Path, difference: str | None, sharded: bool) -> None:
    """Raise a `FileExistsError` if the output is a shard of another corpus, unmerged shards, or no corpus."""
    if target != output_dir and difference is not None:
        raise FileExistsError(f"{target}: made {difference}; choose another folder, or replace it with overwrite=True")
    if not sharded and _unmerged_shards(output_dir):
        remedy = "merge them with merge_shards=..., or replace them with overwrite=True"
        raise FileExistsError(f"{output_dir / SHARDS}: the folder contains unmerged shards; {remedy}")
    names = {path.name for path in output_dir.glob("*")} - {SHARDS}
    if names and "report.json" not in names:
        remedy = "choose another folder, or replace it with overwrite=True"
        raise FileExistsError(f"{output_dir}: the folder is not a prepared corpus; {remedy}")


def _complete_shards(output_dir: Path, count: int, plan: Plan) -> list[Path]:
    """Return the folders of all shards; an error lists those that are missing, damaged or of another corpus."""
    folders, missing, splits = [], [], plan.block_splits
    for shard in (Shard(number, count) for number in range(1, count + 1)):
        folder, own = output_dir / SHARDS / shard.name, plan.identity.of_shard(shard)
        report = intact(folder)
        if report is None:
            missing.append(f"shard={shard.argument!r}")
            continue
        differing = own.differing_option(report)
        if differing is not None or report.fingerprint != own.fingerprint(open_blocks([folder / BLOCKS], splits)):
            made = f"with {differing}" if differing else "from other ids, captions, tokenizer or processor"
            remedy = f"merge with the same input, or rewrite it with shard={shard.argument!r} and overwrite=True"
            raise ValueError(f"{folder}: made {made}; {remedy}")
        folders.append(folder)
    if missing:
        raise FileNotFoundError(
            f"{output_dir / SHARDS}: {len(missing)} of {count} shards are missing or damaged (present: "
            f"{', '.join(_unmerged_shards(output_dir)[:8]) or 'none'}); prepare the same corpus with "
            f"{', '.join(missing[:8])}{' ...' * (len(missing) > 8)} instead of merge_shards={count}"
        )
    return folders


def load_prepared(
    folder: str | Path,
    splits: Sequence[str] | None = None,
    streaming: bool = False,
    cache_dir: str | Path | None = None,
) -> DatasetDict | IterableDatasetDict:
    """Load a prepared corpus.

    Args:
        folder: output of [`prepare`].
        splits: splits to load, or the name of one; None: all. `val` is another name of `validation`.
        streaming: read row group by row group instead of through the local cache.
        cache_dir: folder of the memory-mapped copy that `datasets` keeps.

    Returns:
        Splits with the columns of [`corpus_features`], without a format; `.with_format("numpy")` gives motions as
        (T, J * 3) arrays.

    Raises:
        FileNotFoundError: if the folder is not a prepared corpus.
        OSError: if it cannot be read, or the copy cannot be written.
        ValueError: if it does not have one of the splits, or a file is damaged; with `streaming`, only sizes are
            compared.
    """
    folder = Path(folder)
    report = PrepareReport.load(folder)
    splits = [splits] if isinstance(splits, str) else splits
    wanted = {split: split for split in (report.splits if splits is None else splits)}
    if "val" in wanted and "val" not in report.splits:
        wanted["val"] = "validation"
    unknown = [asked for asked, split in wanted.items() if split not in report.splits]
    if unknown:
        raise ValueError(f"{folder}: no split {unknown[0]!r}; choose from {', '.join(report.splits)}")
    files = {asked: sorted(map(str, (folder / "data").glob(f"{split}-*.parquet"))) for asked, split in wanted.items()}
    parts = tuple(f"data/{split}-" for split in wanted.values())
    report.check_files(folder, [name for name in report.files if name.startswith(parts)], contents=not streaming)
    features, cache = corpus_features(get_skeleton(report.skeleton)), None if cache_dir is None else str(cache_dir)
    try:
        return load_dataset("parquet", data_files=files, features=features, streaming=streaming, cache_dir=cache)
    except (OSError, pa.ArrowException, DatasetsError) as error:
        place = cache or HF_DATASETS_CACHE
        remedy = f"free space, or delete the copy in {place} if it is damaged"
        raise OSError(f"{folder}: cannot be read ({' '.join(str(error).split())}); {remedy}") from error
