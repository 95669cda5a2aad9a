"""The processor of a prepared corpus: fitted on the training split, or taken from another corpus."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoTokenizer

from lexmotion.common.pretrained import loading_from

from ..feature_extraction_lexmotion import LexMotionFeatureExtractor
from ..lexicon import Lexicon
from ..processing_lexmotion import LexMotionProcessor
from ..skeletons import Skeleton
from ..text_mirroring import mirror_caption
from .blocks import block_moments
from .options import CORPUS_TEXT_MODEL, PrepareOptions
from .text_models import resolve_text_model
from .whole_words import add_whole_words, whole_words
from .word_tokenizer import train_tokenizer

_WORD = re.compile("[a-z]+")


def given_processor(folder: str | Path, skeleton: Skeleton) -> LexMotionProcessor:
    """Load the processor of another corpus, which must have the same skeleton."""
    with loading_from(folder):
        processor = LexMotionProcessor.from_pretrained(folder, trust_remote_code=False)
    theirs = processor.feature_extractor.skeleton
    if theirs != skeleton.name:
        remedy = f"pass one for the corpus's skeleton {skeleton.name!r}"
        raise ValueError(f"processor {str(folder)!r}: got the skeleton {theirs!r}; {remedy}")
    return processor


def fit_processor(
    extractor: LexMotionFeatureExtractor, blocks: Dataset, corpus: Mapping[str, list[str]], options: PrepareOptions
) -> LexMotionProcessor:
    """Fit a processor.

    Args:
        extractor: feature extractor, fitted in place on the moments of the blocks.
        blocks: the blocks of the corpus.
        corpus: training captions by motion, for the tokenizer and the lexicon.
        options: text model and filter of the lexicon.
    """
    extractor.fit_moments(term for block in blocks for term in block_moments(block))
    captions = [caption for texts in corpus.values() for caption in texts]
    mirrored = [mirror_caption(caption) for caption in captions]
    tokenizer = _load_tokenizer(options.text_model, [*captions, *mirrored])
    if options.whole_words:
        add_whole_words(tokenizer, captions, mirrored, options.whole_words)
    lexicon = caption_lexicon(captions, mirrored, tokenizer, options.vocabulary_filter, options.min_document_frequency)
    return LexMotionProcessor(feature_extractor=extractor, tokenizer=tokenizer, lexicon=lexicon.to_dict())


def caption_lexicon(
    captions: Sequence[str],
    mirrored_captions: Sequence[str],
    tokenizer: Any,
    vocabulary_filter: str,
    min_document_frequency: int,
) -> Lexicon:
    """Build the lexicon of training captions, see [`Lexicon.from_corpus`].

    Words that occur only in mirrored captions ("left" if every caption has "right") are also part of the space.
    """
    words, mirrored_words = (
        {word for caption in texts for word in _WORD.findall(caption.lower())}
        for texts in (captions, mirrored_captions)
    )
    return Lexicon.from_corpus(
        captions,
        tokenizer,
        vocabulary_filter=vocabulary_filter,
        min_document_frequency=min_document_frequency,
        extra_words=sorted(mirrored_words - words),
    )


def _load_tokenizer(text_model: str, captions: Iterable[str]):
    if text_model == CORPUS_TEXT_MODEL:
        return train_tokenizer(captions)
    name = resolve_text_model(text_model)
    try:
        with loading_from(name):
            return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except OSError as error:
        remedy = "pass a folder, an accessible Hub name, 'minilm', or 'corpus' to build one from the captions"
        raise OSError(f"text_model: the tokenizer of {text_model!r} cannot be loaded; {remedy}") from error


def describe_processor(processor: LexMotionProcessor, fitted: bool) -> dict[str, Any]:
    """Return the entry of a processor in the report."""
    lexicon = processor.lexicon
    if lexicon is None:
        raise ValueError("processor: got one without a lexicon; pass the folder 'processor' of a prepared corpus")
    added = len(whole_words(processor.tokenizer))
    return {
        "fitted": fitted,
        "statistics_hash": processor.feature_extractor.statistics_hash,
        "lexicon_hash": lexicon.hash,
        "vocab_size": len(processor.tokenizer),
        "active_words": int(lexicon.active.sum()),
        **({"whole_words": added} if added else {}),
    }
