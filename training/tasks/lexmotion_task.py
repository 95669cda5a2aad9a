"""Shared by LexMotion's phases and the baselines: a prepared corpus, learning rates per tower, the vocabulary."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..arguments import DataArguments, ModelArguments, RunArguments, TaskArguments, argument
from ..batches.clips import ClipSampler
from ..batches.corpus import CaptionTable
from ..batches.vocabulary import compact_vocabulary
from ..data import PreparedData
from ..dropout import use_byte_dropout
from ..trainer import Trainer
from .base import Task

ACCEPTANCE_ROWS = 512  # clips of a phase's acceptance test; more would only narrow the confidence interval

PEAK, FROZEN = "Peak learning rate of", "0: frozen. None: learning_rate."  # of help texts

# The first match wins. The rates of the groups are `text_learning_rate` and so on.
PARAMETER_GROUPS = (
    (
        "decoder",
        re.compile(
            r"(^|\.)(text_decoder|motion_decoder|feature_decoder|feature_output|projector|predictor|bottleneck_projection"
            r"|patch_states)\."
        ),
    ),
    ("head", re.compile(r"(^|\.)lexical_head\.|(^|\.)motion_model\.projection|(^|\.)(text|motion)_readout\.")),
    ("motion", re.compile(r"(^|\.)motion_(model|encoder)\.")),
    ("text", re.compile(r"(^|\.)text_(model|encoder)\.")),
)


def parameter_group(name: str) -> str:
    """Return the group of a parameter by its name: `text`, `motion`, `head`, `decoder` or `other`."""
    return next((group for group, pattern in PARAMETER_GROUPS if pattern.search(name)), "other")


@dataclass
class LexMotionArguments(TaskArguments):
    """Training of a text and a motion tower, each with its own learning rate."""

    text_learning_rate: float | None = argument(None, f"{PEAK} the text encoder. {FROZEN}")
    motion_learning_rate: float | None = argument(None, f"{PEAK} the motion encoder. {FROZEN}")
    head_learning_rate: float | None = argument(None, f"{PEAK} the lexical heads. {FROZEN}")
    decoder_learning_rate: float | None = argument(None, f"{PEAK} the auxiliary decoders and projectors. {FROZEN}")


class LexMotionTrainer(Trainer):
    """Train towers on a prepared corpus, restricted to the words that occur in its captions or are active."""

    undecayed = ("mask_token", "_embeddings")

    def prepare_weights(self) -> None:
        """Adapt the initial weights to the data, as a pure function of both since it is repeated on resume."""

    def caption_tables(self) -> list[CaptionTable]:
        """Return all captions the model will read; embeddings of words that are in none are not trained."""
        return [corpus.captions for corpus in (self.train_corpus, self.eval_corpus) if corpus is not None]

    def row_names(self, rows: Tensor) -> list[str]:
        return [self.train_corpus.ids[row] for row in rows.tolist()]

    def parameter_groups(self) -> dict[str, tuple[str, float | None]]:
        rates = {group: getattr(self.args, f"{group}_learning_rate") for group, _ in PARAMETER_GROUPS}
        groups = {name: parameter_group(name) for name, _ in self.model.named_parameters()}
        return {name: (group, rates.get(group)) for name, group in groups.items()}

    @contextmanager
    def training_context(self) -> Iterator[None]:
        if self.device.type == "cpu":
            # For so few tokens, the fused CPU attention of torch 2.13 is slower than two products, above all in bf16.
            self.model.set_attn_implementation("eager")
            use_byte_dropout(self.model)
        self.prepare_weights()
        used_ids = torch.cat([table.tokens.unique() for table in self.caption_tables()])
        special_ids = torch.tensor(self.processor.tokenizer.all_special_ids)
        with compact_vocabulary(self.model, torch.cat([used_ids, special_ids])):
            yield

    def clip_sampler(self, frame_multiple: int = 1) -> ClipSampler:
        """Return the augmentation of `DataArguments` for this processor's feature extractor."""
        return ClipSampler(
            self.processor.feature_extractor,
            self.data.mirror_probability,
            self.data.crop_ratio,
            self.data.speed_range,
            self.data.position_jitter,
            frame_multiple,
            self.data.feature_noise,
        )


def read_prepared(arguments: RunArguments) -> PreparedData:
    """Open the prepared folder of the arguments."""
    return PreparedData.read(arguments.data.dataset)


@dataclass(frozen=True)
class LexMotionTask(Task):
    """A task that trains towers on a prepared corpus."""

    read: Callable[[RunArguments], Any] = read_prepared
    arguments: type[Any] = LexMotionArguments
    model_arguments: type = ModelArguments
    data_arguments: type = DataArguments
    card: str = "model_card.md"
