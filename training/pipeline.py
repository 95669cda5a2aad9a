"""
A recipe from data to model: the phases in order, each from where the one before ended, restarted where it stopped.

```
output_dir/
  lexmlm/ cmmm/ lexmmm/ lexcmlp/    checkpoints, log.jsonl, best weights, model/, result.json when finished
  model/                            the trained model and its processor
  run.json                          the run record
```
"""

import dataclasses
import gc
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from accelerate import PartialState
from transformers import PreTrainedModel
from transformers.utils import logging

from lexmotion import LexMotionModel
from lexmotion.encoding_lexmotion import bind_processor
from lexmotion.evaluation.benchmarks.harness import machine
from lexmotion.processing.corpora.prepare import PrepareReport
from lexmotion.processing.processing_lexmotion import LexMotionProcessor

from .arguments import (
    PHASES,
    RunArguments,
    apply_overrides,
    load_recipe,
    parse_arguments,
    phase_values,
    run_arguments,
)
from .batches.corpus import (
    CaptionTable,
    TrainingCorpus,
    corpus_fingerprint,
    corpus_hashes,
    packed_frames,
    read_extra_captions,
    with_mirrored,
)
from .batches.packing import cached_batch, pack_clips, read_captions
from .checkpoints import file_hash, write_json
from .tasks.baselines import BaselineTrainer, build_baseline
from .tasks.cmmm import CMMMTrainer
from .tasks.initialization import (
    build_cmmm,
    build_lexcmlp,
    build_lexmlm,
    build_lexmmm,
    dual_encoder,
    join_towers,
    phase_model_folder,
    seed_weights,
)
from .tasks.lexcmlp import LexCMLPTrainer
from .tasks.lexmlm import LexMLMTrainer
from .tasks.lexmmm import LexMMMTrainer
from .trainer import PhaseTrainer

logger = logging.get_logger(__name__)

TRAINERS: dict[str, type[PhaseTrainer]] = {
    "lexmlm": LexMLMTrainer,
    "cmmm": CMMMTrainer,
    "lexmmm": LexMMMTrainer,
    "lexcmlp": LexCMLPTrainer,
    "baseline": BaselineTrainer,
}
BUILDERS: dict[str, Callable[[RunArguments, Any], PreTrainedModel]] = {
    "lexmlm": build_lexmlm,
    "cmmm": build_cmmm,
    "lexmmm": build_lexmmm,
    "lexcmlp": build_lexcmlp,
    "baseline": build_baseline,
}
# Where the result of a phase enters the later ones, and which those are: phases i and ii know nothing of each other.
HANDED_ON = {"lexmlm": "init_text", "cmmm": "init_motion", "lexmmm": "init_model"}
STARTS_FROM = {"lexmlm": (), "cmmm": (), "lexmmm": ("lexmlm", "cmmm"), "lexcmlp": ("lexmlm", "cmmm", "lexmmm")}
CORPUS_FACTS = ("source", "layout", "fingerprint", "skeleton", "fps", "options")  # of the report, kept in the record
RECORDED_PACKAGES = ("lexmotion", "torch", "transformers", "accelerate", "datasets", "numpy", "safetensors")


@dataclasses.dataclass
class PreparedData:
    """
    A prepared folder, shared by the phases.

    Args:
        splits: the Parquet files of each split.
        hashes: of every file, see `corpus_hashes`. fingerprint: of them all.
    """

    folder: Path
    processor: Any
    splits: dict[str, list[Path]]
    hashes: dict[str, str]
    fingerprint: str
    corpora: dict[tuple[str, int], TrainingCorpus] = dataclasses.field(default_factory=dict)
    processors: dict[str, LexMotionProcessor] = dataclasses.field(default_factory=dict)

    @classmethod
    def read(cls, folder: str | os.PathLike) -> "PreparedData":
        folder = Path(folder)
        hashes = corpus_hashes(folder)
        processor = LexMotionProcessor.from_pretrained(folder / "processor")
        names = PrepareReport.load(folder).splits
        splits = {name: sorted((folder / "data").glob(f"{name}-*.parquet")) for name in names}
        return cls(folder, processor, splits, hashes, corpus_fingerprint(hashes))

    def corpus(self, split: str | None, max_text_length: int) -> Any:
        """A split, memory-mapped; None when no split is asked for."""
        if split is None:
            return None
        if split not in self.splits:
            raise ValueError(
                f"{self.folder} has no split {split!r}, only {', '.join(self.splits)}; prepare it, or set train_split "
                "and eval_split (null: no evaluation)"
            )
        key = (split, max_text_length)
        if key not in self.corpora:
            files = self.splits[split]
            captions = self.caption_table(
                f"{split}-captions", self.split_hashes(split), lambda: read_captions(files), max_text_length
            )
            self.corpora[key] = TrainingCorpus.from_batch(self.clips(split), captions)
        return self.corpora[key]

    def split_hashes(self, split: str) -> list[str]:
        """Hashes of a split's files."""
        return [self.hashes[file.relative_to(self.folder).as_posix()] for file in self.splits[split]]

    def clips(self, split: str) -> pa.RecordBatch:
        """The clips of a split without their captions, memory-mapped; see `pack_clips`."""
        return cached_batch(
            self.folder,
            f"{split}-clips",
            digest(self.split_hashes(split)),
            lambda scratch: pack_clips(self.splits[split], scratch),
        )

    def processor_for(self, representation: str | None) -> LexMotionProcessor:
        """
        The processor that makes `representation` of a motion: the folder's own, or it with a feature extractor fitted
        anew on the motions of the split `train` and their mirror images, as `prepare` fits it.

        Args:
            representation: see `LexMotionFeatureExtractor`; None for the own one.

        Raises:
            ValueError: an unknown representation, or there is no split `train` to fit on.
        """
        if representation in (None, self.processor.feature_extractor.representation):
            return self.processor
        if representation not in self.processors:
            if "train" not in self.splits:
                raise ValueError(
                    f"{self.folder} has no split 'train' to fit {representation!r} on; set representation to null, or "
                    "prepare the folder with the training split"
                )
            clips = self.clips("train")
            motions = packed_frames(clips).split(pc.list_value_length(clips["motion"]).to_pylist())
            self.processors[representation] = self.processor.with_representation(
                representation, motions, clips["fps"].to_pylist(), mirror=True
            )
        return self.processors[representation]

    def captions(self, arguments: RunArguments) -> CaptionTable:
        """What phase i reads: the folder's text corpus, else the training captions, and `extra_captions`."""
        data = arguments.data
        text = self.folder / "text" / "train.parquet"  # held-out motions were left out when it was written
        extra = None
        if data.extra_captions is not None:
            extra = read_extra_captions(data.extra_captions, self.held_out_ids(data.train_split))
        elif not text.is_file():
            return self.corpus(data.train_split, data.max_text_length).captions

        def read() -> tuple[Sequence[str], Sequence[str]]:
            texts, mirrored = read_captions([text] if text.is_file() else self.splits[data.train_split])
            return (texts, mirrored) if extra is None else with_mirrored(texts, mirrored, extra)

        source = [self.fingerprint, data.train_split, extra]
        return self.caption_table("text-captions", source, read, data.max_text_length)

    def caption_table(
        self,
        name: str,
        source: list[Any],
        read: Callable[[], tuple[Sequence[str], Sequence[str]]],
        max_text_length: int,
    ) -> CaptionTable:
        """Captions, tokenised once: memory-mapped, kept for this `source`, processor and length."""
        tokenizer = self.processor.tokenizer
        processor = {file: value for file, value in self.hashes.items() if file.startswith("processor/")}
        batch = cached_batch(
            self.folder,
            name,
            digest([source, processor, max_text_length]),
            lambda _: CaptionTable.pack(*read(), tokenizer, max_text_length),
        )
        return CaptionTable.from_batch(batch, tokenizer)

    def held_out_ids(self, train_split: str) -> set[str]:
        """Ids and base ids of every split but the one trained on."""
        others = [str(file) for split, files in self.splits.items() if split != train_split for file in files]
        if not others:
            return set()
        return {name for column in pq.read_table(others, columns=["id", "base_id"]) for name in column.to_pylist()}


def digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def folder_fingerprint(folder: str | os.PathLike) -> str:
    """Of a finished phase: from its result, else from its weights."""
    result = Path(folder) / "result.json"
    if result.is_file():
        return json.loads(result.read_text(encoding="utf-8"))["fingerprint"]
    model = phase_model_folder(folder)
    return digest([file_hash(file) for file in sorted(model.glob("*.safetensors"))])


def run_phase(
    phase: str, arguments: RunArguments, data: PreparedData, reuse: Sequence[str | os.PathLike] = ()
) -> dict[str, Any]:
    """
    Train one phase, or return the result it already has.

    Args:
        phase, arguments, data: what to train.
        reuse: output folders of phases; one that finished the same training is copied instead of trained again.

    Returns:
        The content of `<output_dir>/result.json`: `phase`, `fingerprint`, `arguments`, `training`, `acceptance`.

    Raises:
        ValueError: output_dir holds the finished phase of another run.
    """
    output_dir = Path(str(arguments.phase.output_dir))
    inherited = {
        name: folder_fingerprint(folder)
        for name in HANDED_ON.values()
        if (folder := getattr(arguments.model, name)) is not None
    }
    options = {}
    if phase == "lexmlm":
        options["captions"] = data.captions(arguments)
        inherited["captions"] = digest(list(options["captions"].texts))
    start = digest([data.fingerprint, inherited])
    fingerprint = digest([start, arguments.defining()])
    result_path = output_dir / "result.json"
    if arguments.phase.resume:
        if result_path.is_file():
            result = json.loads(result_path.read_text(encoding="utf-8"))
            if result["fingerprint"] == fingerprint:
                logger.info(f"{phase} is finished already")
                return result
            raise ValueError(
                f"{output_dir} holds {phase} finished under other arguments, data or initial weights. Delete the "
                "folder to train the phase again, or choose another output_dir."
            )
        if (twin := finished_twin(reuse, fingerprint)) is not None:
            logger.info(f"{phase} is finished already in {twin}")
            return copy_phase(twin, output_dir)
    train_corpus = data.corpus(arguments.data.train_split, arguments.data.max_text_length)
    eval_corpus = data.corpus(arguments.data.eval_split, arguments.data.max_text_length)
    processor = data.processor_for(arguments.data.representation)
    model = BUILDERS[phase](arguments, processor)
    bind_processor(model, processor)
    trainer = TRAINERS[phase](
        model,
        arguments,
        processor,
        train_corpus,
        eval_corpus,
        start,
        **options,
    )
    training = trainer.train()
    acceptance = trainer.acceptance() if eval_corpus is not None else {}
    result = {
        "phase": phase,
        "fingerprint": fingerprint,
        "processes": trainer.world,
        "device": str(trainer.device),
        "rows": len(trainer.order.lengths),
        "training": training,
        "acceptance": acceptance,
        "arguments": arguments.to_dict(),
    }
    if trainer.accelerator.is_main_process:
        trainer.finished_model().cpu().save_pretrained(output_dir / "model")
        processor.save_pretrained(output_dir / "model")
        write_json(result_path, result)
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.free_memory()
    del trainer
    gc.collect()
    return result


def finished_twin(folders: Sequence[str | os.PathLike], fingerprint: str) -> Path | None:
    """The first of these output folders of phases whose training was the same and whose model is still there."""
    for folder in map(Path, folders):
        result = folder / "result.json"
        if not result.is_file() or not (folder / "model").is_dir():
            continue
        if json.loads(result.read_text(encoding="utf-8"))["fingerprint"] == fingerprint:
            return folder
    return None


def copy_phase(finished: Path, output_dir: Path) -> dict[str, Any]:
    """Copy a finished phase, its result last: a copy that was cut off is no finished phase. Returns the result."""
    state = PartialState()
    state.wait_for_everyone()  # every process has looked before there is a result to be found
    result = json.loads((finished / "result.json").read_text(encoding="utf-8"))
    if state.is_main_process:
        output_dir.mkdir(parents=True, exist_ok=True)
        shutil.copytree(finished / "model", output_dir / "model", dirs_exist_ok=True)
        if (finished / "log.jsonl").is_file():
            shutil.copy2(finished / "log.jsonl", output_dir / "log.jsonl")
        write_json(output_dir / "result.json", result)
    state.wait_for_everyone()
    return result


def train(
    recipe: str | os.PathLike | dict[str, Any],
    dataset: str | os.PathLike,
    output_dir: str | os.PathLike,
    overrides: dict[str, Any] | list[str] | None = None,
    on_phase: Callable[[str, dict[str, Any]], None] | None = None,
    reuse: Sequence[str | os.PathLike] = (),
) -> dict[str, Any]:
    """
    Run all phases of a recipe in order; finished ones are kept, an interrupted one goes on at its last checkpoint.

    Args:
        recipe: `tiny`, `small`, `base`, a YAML file, or its content.
        dataset: folder written by `prepare`.
        output_dir: see the module's docstring.
        overrides: see `apply_overrides`.
        on_phase: called with each phase's name and result, finished earlier or now.
        reuse: other output_dirs; a phase that one of them finished, the same to its seed and to the weights it began
            with, is copied instead of trained again.

    Returns:
        The run record, also in `output_dir/run.json`.

    Raises:
        ValueError: an unknown argument, or an output_dir of another run.
        NonFiniteLossError: a loss became NaN or infinite.
    """
    output_dir = Path(output_dir)
    content = apply_overrides(load_recipe(recipe), overrides)
    content.setdefault("name", "recipe")
    if "phases" not in content:
        raise ValueError("the recipe has no section `phases`; see the recipes in lexmotion/training/recipes")
    phase_arguments: dict[str, RunArguments] = {}
    for phase in PHASES:
        values = phase_values(content, phase)
        if values is not None:
            values = {**values, "dataset": str(dataset), "output_dir": str(output_dir / phase)}
            phase_arguments[phase] = run_arguments(phase, values)  # all are checked before the first one runs
    if not phase_arguments:
        raise ValueError(f"the recipe {content['name']!r} skips every phase")
    data, report = PreparedData.read(dataset), PrepareReport.load(Path(dataset))
    started = datetime.now(UTC).isoformat(timespec="seconds")
    record: dict[str, Any] = {
        "format": 1,
        "recipe": content,
        "seed": content.get("seed", 0),
        "dataset": {
            "folder": str(dataset),
            "fingerprint": data.fingerprint,
            "report": {name: getattr(report, name) for name in CORPUS_FACTS},
            "rows": {
                split: sum(pq.read_metadata(file).num_rows for file in files) for split, files in data.splits.items()
            },
        },
        "versions": versions(),
        "commit": commit(),
        "machine": machine(),
        "started": started,
        "finished": None,
        "phases": {},
    }
    main_process = PartialState().is_main_process
    previous = output_dir / "run.json"
    if previous.is_file():
        record["started"] = json.loads(previous.read_text(encoding="utf-8")).get("started", started)
    if main_process:
        output_dir.mkdir(parents=True, exist_ok=True)
    done: dict[str, str] = {}
    for phase, arguments in phase_arguments.items():
        for earlier in STARTS_FROM[phase]:
            name = HANDED_ON[earlier]
            if earlier in done and getattr(arguments.model, name) is None:
                setattr(arguments.model, name, done[earlier])
        result = run_phase(phase, arguments, data, [Path(folder) / phase for folder in reuse])
        done[phase] = str(output_dir / phase)
        record["phases"][phase] = result
        if main_process:
            write_json(previous, record)
        if on_phase is not None and main_process:
            on_phase(phase, result)
    if main_process:
        processor = data.processor_for(phase_arguments[list(done)[-1]].data.representation)
        model = final_model(done, phase_arguments, processor)
        bind_processor(model, processor)
        model.save_pretrained(output_dir / "model")
        processor.save_pretrained(output_dir / "model")
        record["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(previous, record)
    PartialState().wait_for_everyone()
    return record


def final_model(done: dict[str, str], arguments: dict[str, RunArguments], processor: Any) -> LexMotionModel:
    """The dual encoder of the last phase that made one, else the towers so far, joined."""
    if "lexcmlp" in done:
        return LexMotionModel.from_pretrained(phase_model_folder(done["lexcmlp"]))
    last = list(done)[-1]
    run = arguments[last]
    if "lexmmm" in done:
        run.model.init_model = done["lexmmm"]
        return dual_encoder(run, processor)
    run.model.init_text = done.get("lexmlm", run.model.init_text)
    run.model.init_motion = done.get("cmmm", run.model.init_motion)
    seed_weights(run, "lexcmlp")
    return join_towers(run, processor)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a run."""
    found = {"python": platform.python_version()}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Commit of the code, `-dirty` appended when files differ from it; None outside a checkout."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def run_phase_command(phase: str, argv: list[str] | None = None) -> dict[str, Any]:
    """`accelerate launch -m lexmotion.training.<phase>`: one phase from the command line."""
    arguments = parse_arguments(phase, argv)
    for name, owner in (("dataset", arguments.data), ("output_dir", arguments.phase)):
        if getattr(owner, name) is None:
            raise SystemExit(f"--{name} is required: set it on the command line or in the recipe")
    return run_phase(phase, arguments, PreparedData.read(str(arguments.data.dataset)))
