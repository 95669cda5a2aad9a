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

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import DatasetDict, IterableDatasetDict, load_dataset
from transformers.utils import logging

from lexmotion.common.files import write_json

from ..skeletons import get_skeleton
from .blocks import Shard, count_workers, open_blocks, read_blocks
from .columns import corpus_features
from .fitting import describe_processor, fit_processor, given_processor
from .options import PrepareOptions
from .plan import Plan, make_plan
from .report import PrepareReport, intact
from .writing import check_readable, count_blocks, new_folder, text_corpus, write_data, write_text_corpus

logger = logging.get_logger(__name__)

SHARDS = "shards"  # folder of the shards that wait to be merged
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
    """
    Prepare a motion-caption corpus for training and evaluation.

    Args:
        source: Folder of the corpus.
        output_dir: Folder to write; see the top of this file for what is in it.
        options: What to make of the corpus; None: the defaults of [`PrepareOptions`].
        num_workers: Processes that read and write; None: one for each core at hand, as far as there are 256 motions
            for each. It does not change the result.
        shard: `"2/8"` reads the second of eight parts of every split, and leaves it in `output_dir/shards`.
        merge_shards: Make the corpus of this many shards instead of reading it; they are removed.
        overwrite: Replace a folder that is not a prepared corpus, or a shard of another one.
        progress: Show progress bars on a terminal.
        fields: Fields of [`PrepareOptions`] by name, in place of those of `options`.

    Returns:
        [`PrepareReport`]: of what was read, the whole or the shard; with `reused` set when it was already there.

    Raises:
        FileNotFoundError: source, split files, text model folder, processor or shards are missing.
        ValueError: unknown layout; a split that lists or leaves no motion; an id in two splits; no processor without
        train. FileExistsError: the output folder holds something else.

    Example:

        >>> report = prepare("HumanML3D", "prepared", layout="humanml3d", text_model="minilm")  # doctest: +SKIP
        >>> load_prepared("prepared")["train"][0]["captions"]  # doctest: +SKIP
    """
    if shard is not None and merge_shards is not None:
        raise ValueError("Make a shard with `--shard` or merge them with `--merge-shards`, not both in one command.")
    if merge_shards is not None and merge_shards < 1:
        raise ValueError(f"merge_shards must be at least 1, got {merge_shards}.")
    part = None if shard is None else Shard.parse(shard)
    plan = make_plan(source, replace(options or PrepareOptions(), **fields), part)
    output_dir = Path(output_dir)
    target = output_dir if part is None else output_dir / SHARDS / part.name
    workers = count_workers(num_workers, plan.num_ids)
    found = intact(target)
    # To merge shards that wait is not the moment to read every motion for a look at what they replace.
    if found is not None and (merge_shards is None or not _waiting_shards(output_dir)):
        difference = plan.difference(found, workers, progress)
        if difference is None:
            logger.info("%s already holds this corpus", target)
            return found
        if part is not None and not overwrite:
            raise FileExistsError(
                f"{target} was made {difference}: choose another folder, or replace it with `--overwrite`."
            )
    shards = [] if merge_shards is None else _complete_shards(output_dir, merge_shards, plan)
    if not overwrite:
        _refuse_to_replace(output_dir, sharded=part is not None or merge_shards is not None)
    with new_folder(target) as folder:
        return _fill(folder, plan, shards, part is None, workers, progress)


def _fill(
    folder: Path, plan: Plan, shards: Sequence[Path], whole: bool, workers: int, progress: bool
) -> PrepareReport:
    """Read the corpus, or the blocks of its shards, into an empty folder; without `whole` the blocks are all."""
    extractor = plan.extractor()
    if shards:
        blocks = open_blocks([path / BLOCKS for path in shards], list(plan.folder.splits))
    else:
        blocks = read_blocks(plan.blocks, folder / BLOCKS, plan.folder, extractor, workers, progress)
    report = PrepareReport(
        fingerprint=plan.identity.fingerprint(blocks),
        layout=plan.options.layout,
        source=plan.folder.name,
        skeleton=plan.folder.skeleton.name,
        fps=plan.folder.skeleton.fps,
        options=plan.identity.options,
    )
    captions = count_blocks(blocks, plan.folder, report)
    if whole:
        check_readable(plan.folder, report)
        write_data(blocks, folder / "data", workers, progress)
        corpus: dict[str, list[str]] = {}
        if "train" in plan.ids:
            corpus = text_corpus(plan, captions, report)
            write_text_corpus(folder / "text", corpus, plan.options.row_group_size)
        if extractor is None:
            processor = given_processor(str(plan.options.processor), plan.folder.skeleton)
        else:
            processor = fit_processor(extractor, blocks, corpus, plan.options)
        report.processor = describe_processor(processor, fitted=extractor is not None)
        processor.save_pretrained(folder / "processor")
        shutil.rmtree(folder / BLOCKS, ignore_errors=True)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    report.files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    write_json(folder / "report.json", report.to_dict())
    return report


def _waiting_shards(output_dir: Path) -> list[str]:
    """Names of the shards that wait to be merged, unfinished ones included."""
    return sorted(path.name for path in (output_dir / SHARDS).glob("*"))


def _refuse_to_replace(output_dir: Path, sharded: bool) -> None:
    if not output_dir.is_dir():
        return
    if not sharded and _waiting_shards(output_dir):
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


def _complete_shards(output_dir: Path, count: int, plan: Plan) -> list[Path]:
    """Folders of all shards; an error says which are missing, damaged or of another corpus, and what to do."""
    folders, missing, splits = [], [], list(plan.folder.splits)
    for shard in (Shard(number, count) for number in range(1, count + 1)):
        folder, own = output_dir / SHARDS / shard.name, plan.identity.of_shard(shard)
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
            f"{', '.join(_waiting_shards(output_dir)[:8]) or 'none'}): make them with the same command and "
            f"{', '.join(missing[:8])}{' ...' * (len(missing) > 8)} in place of `--merge-shards {count}`."
        )
    return folders


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
        features=corpus_features(get_skeleton(report.skeleton)),
        streaming=streaming,
        cache_dir=None if cache_dir is None else str(cache_dir),
    )
