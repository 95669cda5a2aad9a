"""One call from a model and a prepared split to every retrieval row and lexical figure."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .acceptance import evaluate_lexical_space
from .encoding.vectors import EncodedSplit, encode_dataset, sentence_vectors, similarity
from .metrics.lexical import caption_coverage
from .metrics.retrieval import evaluate_retrieval
from .metrics.scores import has_parts


def content_words(captions: Iterable[Sequence[str]], lexicon: Any) -> list[list[int]]:
    """For each list of captions their content words: sorted ids, each once."""
    return [sorted({word for text in texts for word in lexicon.content_ids(text)}) for texts in captions]


def report_model(
    model: Any,
    processor: Any,
    dataset: Any,
    protocols: str | Iterable[str] = "all",
    sentence_model: str | None = None,
    dissimilar_ids: Sequence[str] | None = None,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = False,
) -> tuple[dict[str, Any], EncodedSplit]:
    """
    Retrieval and lexical figures of a model on one prepared split.

    Args:
        model: a `LexMotionModel`. processor: its `LexMotionProcessor`.
        dataset: a split of a prepared `DatasetDict`; the first caption of each motion is the query.
        protocols: names of `lexmotion.evaluation.metrics.retrieval.PROTOCOLS`, or `"all"` that can run.
        sentence_model: folder or Hub name of a sentence encoder, for the protocol `threshold`.
        dissimilar_ids: gallery of the protocol `dissimilar`.
        batch_size: motions or captions encoded at a time. seed: of the protocols that draw.

    Returns:
        `{"retrieval": {protocol: figures}, "lexical": figures}`, JSON-safe, and the vectors they were measured on.
        Retrieval is by the model's own score; where that is more than the cosine of the word vectors (segments, dense
        vectors), `"retrieval_words"` is by this cosine alone, what an inverted index answers with.
        `caption_coverage_top10` counts the content words of the query caption alone, `coverage_*` those of all.

    Raises:
        ValueError: a protocol lacks what it needs.
    """
    encoded = encode_dataset(model, processor, dataset, batch_size, progress)
    text_similarity = None
    if sentence_model is not None:
        vectors = sentence_vectors(encoded.captions, sentence_model, batch_size, progress)
        text_similarity = vectors @ vectors.T

    def retrieval_by(scores: np.ndarray) -> dict[str, Any]:
        return evaluate_retrieval(
            scores,
            encoded.ids,
            encoded.captions,
            protocols,
            text_similarity=text_similarity,
            dissimilar_ids=dissimilar_ids,
            seed=seed,
        )

    report = {"retrieval": retrieval_by(similarity(encoded))}
    if has_parts(model):
        report["retrieval_words"] = retrieval_by(similarity(encoded, segment_weight=0.0, hybrid_weight=0.0))
    lexicon = processor.lexicon
    lexical = evaluate_lexical_space(
        encoded.text_embeds, encoded.motion_embeds, content_words(encoded.all_captions, lexicon), lexicon
    )
    first = content_words([[caption] for caption in encoded.captions], lexicon)
    lexical["caption_coverage_top10"] = caption_coverage(encoded.motion_embeds, first, k=10)
    return report | {"lexical": lexical}, encoded
