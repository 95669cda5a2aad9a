"""
A prepared corpus -> sparse vectors in Parquet shards, by one process or by many.

    data/{split}-00000-of-0000N.parquet    one row per motion, then one per caption of these motions, see `SCHEMA`
    index.json                             corpus, model and shards; written last

A shard is `shard_size` motions of a split. Shard k is written by process k modulo the number of processes, on any
node, in one step: a stopped run continues with the missing shards. Every shard names its model and data, so that runs
cannot be mixed.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, parse_flag_from_env
from scipy import sparse
from tqdm.auto import tqdm

from lexmotion.common.files import atomic_path, read_json, write_json
from lexmotion.common.text import counted
from lexmotion.encoding_lexmotion import encoding_dtype
from lexmotion.processing.corpora.prepare import PrepareReport, load_prepared
from lexmotion.views_lexmotion import views_of

from ..loading import name_of, ready_model

FORMAT_VERSION = 1
KINDS = ("motion", "text")
INDEX = "index.json"
METADATA = b"lexmotion"
SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # of the motion
        ("kind", pa.string()),
        ("caption", pa.string()),  # null for a motion
        ("indices", pa.list_(pa.int32())),  # vocabulary ids, ascending
        ("values", pa.list_(pa.float32())),
    ]
)


@dataclass
class EncodeReport:
    """
    Content of an output folder; saved as `index.json`.

    Args:
        identity: everything that the vectors depend on: `model_fingerprint`, `dataset_fingerprint`, `lexicon_hash`,
            `statistics_hash`, `vocab_size`, `kinds`, `precision`, `shard_size`, `views` (if more than one).
        model: folder or Hub name that the model was loaded from.
        shards: per shard `file`, `split`, `motions`, `captions` (rows of either kind) and `active_words` (in total).
        written, kept: number of shards of this run and of earlier ones; not saved.
    """

    identity: dict[str, Any]
    model: str
    shards: list[dict[str, Any]] = field(default_factory=list)
    written: int = 0
    kept: int = 0

    def total(self, name: str) -> int:
        """Sum `motions`, `captions` or `active_words` over the shards."""
        return sum(shard[name] for shard in self.shards)

    @property
    def views(self) -> int:
        """Number of views per motion, see `encode_motion`."""
        return self.identity.get("views", 1)

    def summary(self) -> str:
        """Describe the content of the folder in one line."""
        motions, captions, words = (self.total(name) for name in ("motions", "captions", "active_words"))
        mean = words / max(motions + captions, 1)
        vectors = f"{counted(motions, 'motion')} and {counted(captions, 'caption')}"
        shards = counted(len(self.shards), "shard")
        views = f", {self.views} views per motion" if self.views > 1 else ""
        return f"{vectors} in {shards}, {mean:.1f} words per vector, {self.identity['precision']}{views}"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as it is saved."""
        values = asdict(self)
        del values["written"], values["kept"]
        return {"format_version": FORMAT_VERSION, **values}

    @classmethod
    def load(cls, folder: str | Path) -> "EncodeReport":
        """Read the index of a finished folder."""
        path = Path(folder) / INDEX
        if not path.is_file():
            raise FileNotFoundError(f"{folder} contains no finished vectors (no {INDEX}); run `lexmotion encode`")
        values = read_json(path)
        version = values.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise ValueError(f"{path}: format version {version}, expected {FORMAT_VERSION}; encode again")
        return cls(**values)


def model_fingerprint(model: torch.nn.Module) -> str:
    """Compute the sha256 (hex) of everything that a model's vectors depend on: its weights and its limits on words."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    for name, module in model.named_modules():
        if hasattr(module, "top_k"):
            digest.update(f"{name} {module.min_words} {module.top_k}\n".encode())
    return digest.hexdigest()


def encode(
    model: Any,
    dataset: str | Path,
    output_dir: str | Path,
    splits: Sequence[str] | None = None,
    kinds: Iterable[str] = KINDS,
    shard_size: int = 4096,
    batch_size: int | None = None,
    precision: str = "auto",
    processor: Any = None,
    progress: bool = False,
    views: int = 1,
) -> EncodeReport:
    """
    Encode a prepared corpus into Parquet shards; under `accelerate launch` or `torchrun`, with all processes.

    Args:
        model: folder or Hub name of a trained model, or a loaded `LexMotionModel` on the device of this process.
        dataset: folder written by `lexmotion prepare`.
        output_dir: folder of the shards.
        splits: splits to encode, all if None. Others can be added later.
        kinds: `"motion"`, `"text"` (every caption of every motion) or both.
        shard_size: motions per shard.
        batch_size, precision: as in `encode_text`; all processes use the precision that the first one chooses.
        processor: the model's; None loads the one saved beside it.
        progress: show progress bars.
        views: number of views per motion, as in `encode_motion`.

    Returns:
        Content of the folder, in every process. `load_encoded` reads the vectors.

    Raises:
        ValueError: if kinds, splits or the number of views are unknown, or the folder has vectors of another model,
            corpus or setting.

    Example:
        >>> encode("runs/small/model", "prepared/humanml3d", "vectors").summary()  # doctest: +SKIP
        >>> load_encoded("vectors").motion_embeds.shape  # doctest: +SKIP
    """
    kinds = [kinds] if isinstance(kinds, str) else kinds
    kinds = [kind for kind in KINDS if kind in set(kinds)] if set(kinds) <= set(KINDS) else list(kinds)
    if not kinds or not set(kinds) <= set(KINDS):
        raise ValueError(f"kinds: got {', '.join(kinds) or 'none'}; pass one or both of {', '.join(KINDS)}")
    if shard_size < 1:
        raise ValueError(f"shard_size: got {shard_size}; pass at least 1")
    views_of(views)
    state = process_state()
    model, processor = ready_model(model, processor, str(state.device))
    identity = _identity(model, processor, dataset, kinds, shard_size, precision)
    report = EncodeReport(identity | ({"views": views} if views > 1 else {}), name_of(model))
    data_dir = Path(output_dir) / "data"
    data_dir.mkdir(parents=True, exist_ok=True)
    _check_folder(Path(output_dir), report.identity)
    with state.local_main_process_first():  # it makes the memory-mapped copy
        corpus = load_prepared(dataset, splits=splits)
    tasks = list(_tasks(corpus, data_dir, shard_size))
    report.kept = sum(path.is_file() for path, _, _ in tasks)
    report.written = len(tasks) - report.kept
    state.wait_for_everyone()  # all processes have counted the shards of earlier runs
    mine = tasks[state.process_index :: state.num_processes]
    # Weights in half precision leave no choice.
    chosen = report.identity["precision"] if model.dtype == torch.float32 else "auto"
    options = {"processor": processor, "batch_size": batch_size, "precision": chosen}
    total = sum(len(rows) for _, _, rows in mine)
    with tqdm(total=total, desc="motions", leave=False, disable=not (progress and state.is_main_process)) as bar:
        for path, split, rows in mine:
            if not path.is_file():
                _encode_shard(model, split, corpus[split].select(rows), path, report, options)
            bar.update(len(rows))
    state.wait_for_everyone()
    report.shards = [_metadata(path)["shard"] for path in _shards(data_dir)]
    if state.is_main_process:
        write_json(Path(output_dir) / INDEX, report.to_dict())
    state.wait_for_everyone()
    return report


def process_state(cpu: bool = False) -> PartialState:
    """
    Return the state of this process under `accelerate launch` or `torchrun`; the model belongs on its `device`.

    Args:
        cpu: do not use GPUs.
    """
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    cpu = cpu or parse_flag_from_env("ACCELERATE_USE_CPU") or not (alone or torch.accelerator.is_available())
    # Processes end at different times, so the first must not time out waiting for the last.
    return PartialState(cpu=cpu, timeout=timedelta(days=7))


def _identity(model, processor, dataset_dir, kinds, shard_size, precision) -> dict[str, Any]:
    dtype = encoding_dtype(precision, model.device) if model.dtype == torch.float32 else model.dtype
    # Nodes may prefer different precisions, but a corpus is encoded in one.
    name = broadcast_object_list([str(dtype).removeprefix("torch.")])[0]
    lexicon = getattr(processor, "lexicon", None)
    return {
        "model_fingerprint": model_fingerprint(model),
        "dataset_fingerprint": PrepareReport.load(dataset_dir).fingerprint,
        "lexicon_hash": None if lexicon is None else lexicon.hash,
        "statistics_hash": processor.feature_extractor.statistics_hash,
        "vocab_size": model.config.text_config.vocab_size,
        "kinds": kinds,
        "precision": {"bfloat16": "bf16", "float32": "fp32"}.get(name, name),
        "shard_size": shard_size,
    }


def _check_folder(output_dir: Path, identity: dict[str, Any]) -> None:
    """Refuse a folder with files of another run."""
    found = [(path, _metadata(path)["identity"]) for path in _shards(output_dir / "data")]
    if (output_dir / INDEX).is_file():
        found.append((output_dir / INDEX, EncodeReport.load(output_dir).identity))
    for path, theirs in found:
        given, theirs = {"views": 1, **identity}, {"views": 1, **theirs}
        differing = [name for name, value in given.items() if theirs.get(name) != value]
        if differing:
            listed = ", ".join(f"{name} {theirs.get(name)!r}, not {given[name]!r}" for name in differing)
            raise ValueError(f"{path} is of another run ({listed}); use another output folder or delete this one")


def _shards(folder: Path) -> list[Path]:
    """List finished shards; unfinished ones have hidden names."""
    return sorted(folder.glob("[!.]*.parquet"))


def _tasks(corpus: Any, folder: Path, shard_size: int) -> Iterator[tuple[Path, str, range]]:
    """Yield file, split and rows of every shard."""
    for split, rows in corpus.items():
        starts = range(0, len(rows), shard_size)
        for number, start in enumerate(starts):
            name = f"{split}-{number:05d}-of-{len(starts):05d}.parquet"
            yield folder / name, split, range(start, min(start + shard_size, len(rows)))


def _encode_shard(
    model: Any, split: str, rows: Any, path: Path, report: EncodeReport, options: dict[str, Any]
) -> None:
    ids, parts, active_words = rows["id"], [], 0
    counts = dict.fromkeys(KINDS, 0)
    for kind in report.identity["kinds"]:
        captions: list[str | None]
        if kind == "motion":
            owners, captions = list(ids), [None] * len(ids)
            vectors = model.encode_motion(rows, views=report.views, **options)
        else:
            owners = [name for name, texts in zip(ids, rows["captions"], strict=True) for _ in texts]
            captions = [caption for texts in rows["captions"] for caption in texts]
            vectors = model.encode_text(captions, **options)
        counts[kind] = len(owners)
        active_words += int(vectors.nnz)
        offsets = pa.array(vectors.indptr, pa.int32())
        columns = [
            pa.array(owners, pa.string()),
            pa.array([kind] * len(owners), pa.string()),
            pa.array(captions, pa.string()),
            pa.ListArray.from_arrays(offsets, pa.array(vectors.indices, pa.int32())),
            pa.ListArray.from_arrays(offsets, pa.array(vectors.data, pa.float32())),
        ]
        parts.append(pa.Table.from_arrays(columns, schema=SCHEMA))
    shard = {"file": f"data/{path.name}", "split": split, "motions": counts["motion"], "captions": counts["text"]}
    shard |= {"active_words": active_words}
    content = {"identity": report.identity, "model": report.model, "shard": shard}
    table = pa.concat_tables(parts).replace_schema_metadata({METADATA: json.dumps(content)})
    with atomic_path(path) as aside:
        pq.write_table(table, aside, compression="zstd", write_page_checksum=True)


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Replace what goes wrong when a shard is read by a ValueError that names it."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: damaged ({reason}); delete it and run `lexmotion encode` again") from error


def _read_shard(path: Path) -> pa.Table:
    """Read a shard and compare the checksums of its pages, if it has any."""
    with _damage_named(path):
        return pq.read_table(path, schema=SCHEMA, page_checksum_verification=True)


def _metadata(path: Path) -> dict[str, Any]:
    """Read the metadata of a shard: `identity`, `model` and its entry of the index."""
    with _damage_named(path):
        found = (pq.read_schema(path).metadata or {}).get(METADATA)
    if found is None:
        raise ValueError(f"{path} was not written by `lexmotion encode`; use another output folder")
    return json.loads(found)


@dataclass
class EncodedCorpus:
    """
    Vectors of a finished folder.

    Args:
        motion_ids, motion_embeds: the motions (N) and their vectors (N, V), float32 CSR.
        text_ids, captions, text_embeds: id of the motion, text and vector (M, V), float32 CSR, of each of M captions.
        report: the folder's report.
    """

    motion_ids: list[str]
    motion_embeds: sparse.csr_matrix
    text_ids: list[str]
    captions: list[str]
    text_embeds: sparse.csr_matrix
    report: EncodeReport


def load_encoded(folder: str | Path, splits: Sequence[str] | None = None) -> EncodedCorpus:
    """
    Read the vectors written by [`encode`].

    Args:
        folder: its output folder.
        splits: splits to read, in the order of the corpus; all if None.

    Raises:
        FileNotFoundError: if the folder contains no finished run.
        ValueError: if it does not have a split.
    """
    report = EncodeReport.load(folder)
    splits = [splits] if isinstance(splits, str) else splits
    known = list(dict.fromkeys(shard["split"] for shard in report.shards))
    unknown = [split for split in splits or () if split not in known]
    if unknown:
        raise ValueError(f"{folder} has no vectors of split {unknown[0]!r}; use one of {', '.join(known)}")
    files = [Path(folder) / shard["file"] for shard in report.shards if splits is None or shard["split"] in splits]
    table = pa.concat_tables(map(_read_shard, files))

    def rows_of(kind: str) -> tuple[list[str], list[str], sparse.csr_matrix]:
        rows = table.filter(pc.equal(table["kind"], kind))
        ends = np.cumsum(pc.list_value_length(rows["indices"]).to_numpy())
        values, indices = (pc.list_flatten(rows[name]).to_numpy() for name in ("values", "indices"))
        entries, shape = (values, indices, np.concatenate([[0], ends])), (len(rows), report.identity["vocab_size"])
        return rows["id"].to_pylist(), rows["caption"].to_pylist(), sparse.csr_matrix(entries, shape=shape)

    motion_ids, _, motion_embeds = rows_of("motion")
    text_ids, captions, text_embeds = rows_of("text")
    return EncodedCorpus(motion_ids, motion_embeds, text_ids, captions, text_embeds, report)
