"""Processor for motion and text: feature extractor, tokenizer and lexicon in one saved folder."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from transformers import BatchFeature
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, TextKwargs
from transformers.utils import logging

from .feature_extraction_lexmotion import LexMotionMotionKwargs
from .lexicon import Lexicon
from .text_mirroring import mirrored_places

logger = logging.get_logger(__name__)

MOTION_TRUNCATIONS = ("start", "center")


class NoKwargs(TypedDict, total=False):
    """Arguments of modalities that this processor does not support."""


class LexMotionProcessorKwargs(ProcessingKwargs, total=False):  # type: ignore[call-arg]
    """Arguments of calling [`LexMotionProcessor`], by modality; motion takes the place of audio in transformers."""

    text_kwargs: TextKwargs
    images_kwargs: NoKwargs
    videos_kwargs: NoKwargs
    audio_kwargs: LexMotionMotionKwargs
    _defaults = {
        "text_kwargs": {"padding": True, "truncation": True, "return_token_type_ids": False},
        "audio_kwargs": {"padding": True, "truncation": "start"},
        "common_kwargs": {"return_tensors": "pt"},
    }


class LexMotionProcessor(ProcessorMixin):
    """Processor that prepares motion and text for LexMotion, and decodes its vectors to words.

    Args:
        feature_extractor: [`LexMotionFeatureExtractor`], fitted on the training motions.
        tokenizer: WordPiece tokenizer of the text tower.
        lexicon: [`Lexicon`] or its saved dictionary; None if vectors are not decoded.

    Raises:
        ValueError: if the lexicon belongs to another tokenizer.

    Example:

        >>> processor = LexMotionProcessor.from_pretrained("folder")  # doctest: +SKIP
        >>> inputs = processor(text="a person jumps", motion=positions, fps=20.0)  # doctest: +SKIP
        >>> processor.top_words(model(**inputs).motion_embeds, k=3)  # doctest: +SKIP
        [[('jump', 2.1), ('hop', 1.4), ('up', 0.9)]]
    """

    valid_processor_kwargs = LexMotionProcessorKwargs

    def __init__(self, feature_extractor: Any, tokenizer: Any, lexicon: Lexicon | dict | None = None, **kwargs: Any):
        super().__init__(feature_extractor, tokenizer, **kwargs)
        # ProcessorMixin saves `self.lexicon`; to_dict converts it to a dictionary.
        self.lexicon = Lexicon.from_dict(lexicon, tokenizer) if isinstance(lexicon, dict) else lexicon

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load as in transformers, but never ask whether to run code from the folder."""
        kwargs.setdefault("trust_remote_code", False)
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:
        """Save as in transformers; checksums of a processor that was in a model's folder are dropped."""
        saved = super().save_pretrained(save_directory, *args, **kwargs)
        record = Path(save_directory, "checksums.json")
        if record.is_file():
            digests = json.loads(record.read_bytes())
            of_model = {name: digests[name] for name in digests if name == "config.json" or ".safetensors" in name}
            record.write_text(json.dumps(of_model, indent=2) + "\n", encoding="utf-8")
        return saved

    def to_dict(self) -> dict[str, Any]:
        output = super().to_dict()
        output["lexicon"] = None if self.lexicon is None else self.lexicon.to_dict()
        return output

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", *self.feature_extractor.model_input_names]

    @property
    def mirrored_ids(self) -> np.ndarray:
        """
        (V,) id of the word that describes the mirror image: left <-> right, clockwise <-> counterclockwise; its own id
        for other words and for those whose counterpart is not in the vocabulary.
        """
        tokens = self.tokenizer.convert_ids_to_tokens(list(range(len(self.tokenizer))))
        return np.array(mirrored_places(tuple(str(token) for token in tokens)), dtype=np.int64)

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        motion: Any = None,
        fps: float | Sequence[float] | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Tokenize captions, prepare motions, or both.

        Args:
            text: one or several captions.
            motion: one or several motions, also of `load_motion`, see [`LexMotionFeatureExtractor`].
            fps: frames per second of the motions, one number or one per motion; None uses that of a loaded motion, or
                of the extractor.
            kwargs: `return_tensors` (default `"pt"`), `padding` and `truncation` apply to both; a truncation of
                `"start"` or `"center"` applies to motion only. `max_length` and other tokenizer arguments apply to
                text; `max_frames`, `kind`, ... to motion. `text_kwargs` and `motion_kwargs` apply to one modality.

        Returns:
            [`BatchFeature`] with `input_ids`, `attention_mask` for text, `motion_values`, `motion_attention_mask` for
            motion; pass it to the model as `model(**inputs)`.

        Raises:
            ValueError: if neither text nor motion is given, text is empty or not a string, or a motion is invalid.
        """
        if text is None and motion is None:
            raise ValueError("text, motion: got None for both; pass text, motion or both")
        given = {**kwargs.pop("audio_kwargs", {}), **kwargs.pop("motion_kwargs", {})}
        fps = given.pop("fps", None) if fps is None else fps
        kwargs["audio_kwargs"] = given
        truncation = kwargs.get("truncation")
        if isinstance(truncation, str):
            modality = "audio_kwargs" if truncation in MOTION_TRUNCATIONS else "text_kwargs"
            kwargs[modality] = {**kwargs.get(modality, {}), "truncation": kwargs.pop("truncation")}
        options = self._merge_kwargs(
            LexMotionProcessorKwargs, tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs
        )
        text_options = options["text_kwargs"]
        if text_options.get("max_length"):  # may come from a tokenizer that was saved after use
            text_options["max_length"] = min(text_options["max_length"], self.tokenizer.model_max_length)
        data: dict[str, Any] = {}
        if text is not None:
            captions = text if isinstance(text, str) else list(text)
            if not isinstance(captions, str) and not all(isinstance(caption, str) for caption in captions):
                wrong = next(caption for caption in captions if not isinstance(caption, str))
                raise ValueError(f"text: got {wrong!r}; pass a string or a list of strings")
            if not captions and not isinstance(captions, str):
                raise ValueError("text: got an empty list; pass at least 1 caption")
            data.update(self.tokenizer(captions, **options["text_kwargs"]))
            self._note_cut_captions(captions, data["input_ids"], options["text_kwargs"])
        if motion is not None:
            motion_options = {
                k: v for k, v in options["audio_kwargs"].items() if k in LexMotionMotionKwargs.__annotations__
            }
            if fps is not None:
                motion_options["fps"] = fps
            data.update(self.feature_extractor(motion, **motion_options))
        return BatchFeature(data)

    def _note_cut_captions(self, captions: str | list[str], ids: Any, options: dict[str, Any]) -> None:
        """Warn if captions have more tokens than were kept of them."""
        limit = options.get("max_length") or self.tokenizer.model_max_length
        kept = [ids] if isinstance(ids[0], int) else ids
        if not options.get("truncation") or max(map(len, kept)) < limit:
            return
        captions = [captions] if isinstance(captions, str) else captions
        longest = max(map(len, self.tokenizer(captions, verbose=False)["input_ids"]))
        if longest > limit:
            logger.warning(
                f"captions are too long, and the model reads their first {limit} tokens (the longest has {longest}); "
                "shorten them"
            )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.feature_extractor}, {type(self.tokenizer).__name__} of "
            f"{len(self.tokenizer)} tokens, {self.lexicon})"
        )

    def with_representation(
        self,
        representation: str,
        motions: Iterable[Any],
        fps: float | Iterable[float] | None = None,
        mirror: bool = False,
    ) -> "LexMotionProcessor":
        """Return a new processor with another motion representation, and the same lexicon and frame settings.

        Args:
            representation: see [`LexMotionFeatureExtractor`].
            motions, fps, mirror: training motions to fit its statistics on, see [`LexMotionFeatureExtractor.fit`].

        Raises:
            ValueError: if the representation is unknown or not supported by the skeleton, or a motion is invalid.
        """
        own = self.feature_extractor
        extractor = type(own)(
            representation=representation,
            skeleton=own.skeleton,
            fps=own.fps,
            max_frames=own.max_frames,
            min_frames=own.min_frames,
            target_skeleton=own.target_skeleton,
        )
        return type(self)(extractor.fit(motions, fps, mirror), self.tokenizer, self.lexicon)

    def top_words(
        self, embeds: torch.Tensor | np.ndarray, k: int = 10, skip_stop_words: bool = False
    ) -> list[list[tuple[str, float]]]:
        """Return the words with the largest weights in lexical vectors, see [`Lexicon.top_words`].

        Args:
            embeds: (B, V) or (V,) `text_embeds` or `motion_embeds`.
            k: maximum number of words per vector.
            skip_stop_words: whether to exclude function words and subjects.

        Returns:
            (word, weight) pairs per vector, largest weight first.

        Raises:
            ValueError: if the processor has no lexicon, or the vectors do not match it.
        """
        if self.lexicon is None:
            raise ValueError("lexicon: got None; pass one built with `Lexicon.from_corpus(captions, tokenizer)`")
        return self.lexicon.top_words(embeds, k, skip_stop_words)
