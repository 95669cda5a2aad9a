"""The one loop that encodes captions and motions of a corpus, and the vectors made with it.

Everything is computed in float32 on every machine, since published numbers must not depend on the hardware.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from tqdm.auto import tqdm

from lexmotion.baselines.retriever import RetrieverModel
from lexmotion.common.pretrained import loading_from
from lexmotion.encoding_lexmotion import LinearMaps, longest_first, usable_threads
from lexmotion.processing.text_mirroring import mirror_caption
from lexmotion.views_lexmotion import as_vocabulary, average_views, mirrored_columns, views_of

from ..metrics.retrieval import ScoreRows, unit_rows
from ..metrics.scores import ScoreParts, blend


@torch.inference_mode()
def encode_batches(
    model: torch.nn.Module,
    encode: Callable[[np.ndarray], tuple[Any, ...]],
    lengths: np.ndarray,
    batch_size: int = 64,
    description: str = "items",
    progress: bool = False,
) -> tuple[Any, ...]:
    """
    Run a corpus through a model in evaluation mode, in batches of similar length.

    Args:
        model: the model, whose training mode is restored afterwards.
        encode: function from positions (B,) of a batch in the corpus to arrays or sparse matrices of B rows each, or
            None.
        lengths: lengths of the items in any unit (N,); items of equal length stay in the order of the corpus.
        batch_size: items at a time.
        description: label of the progress bar.

    Returns:
        Outputs of `encode`, with N rows in the order of the corpus.
    """
    found: list[tuple[Any, ...]] = []
    batches = list(longest_first(lengths, batch_size))
    was_training = model.training
    model.eval()
    try:
        with (
            LinearMaps(torch.float32),
            usable_threads(),
            tqdm(total=len(lengths), desc=description, disable=not progress, leave=False) as bar,
        ):
            for places in batches:
                found.append(encode(places))
                bar.update(len(places))
    finally:
        model.train(was_training)
    order = np.concatenate(batches).argsort()

    def joined(parts: Sequence[Any]) -> Any:
        if parts[0] is None:
            return None
        return sparse.vstack(parts, format="csr")[order] if sparse.issparse(parts[0]) else np.concatenate(parts)[order]

    return tuple(map(joined, zip(*found, strict=True)))


def has_parts(model: Any) -> bool:
    """Return whether the model's score is more than the cosine of its vectors."""
    return not isinstance(model, RetrieverModel) and (
        model.config.num_segments > 1 or model.config.dense_size is not None
    )


def has_dense_vectors(model: Any) -> bool:
    """Return whether the model's score uses a dense vector, alone or besides its words."""
    if isinstance(model, RetrieverModel):
        return not model.config.is_lexical
    return model.config.dense_size is not None


def encode_captions(
    model: Any, processor: Any, texts: Sequence[str], batch_size: int = 64, progress: bool = False, views: int = 1
) -> ScoreParts:
    """
    Encode N captions with a `LexMotionModel` or a baseline and its `LexMotionProcessor`.

    Args:
        views: those of the motions to compare with, see `encode_motions`.
    """
    if views > 1 and has_dense_vectors(model):
        mirrored = [mirror_caption(text) for text in texts]
        new = [place for place, text in enumerate(texts) if mirrored[place] != text]
        parts = encode_captions(model, processor, [*texts, *(mirrored[place] for place in new)], batch_size, progress)
        own, twins = np.arange(len(texts)), np.arange(len(texts))
        twins[new] = len(texts) + np.arange(len(new))
        dense = parts.words if parts.dense is None else parts.dense
        both = _side_by_side(dense[own], dense[twins])
        if parts.dense is None:
            return ScoreParts(both)
        return ScoreParts(parts.words[own], None if parts.segments is None else parts.segments[own], both)
    if not has_parts(model) and not isinstance(model, RetrieverModel):
        options = {"processor": processor, "batch_size": batch_size, "precision": "fp32", "progress": progress}
        return ScoreParts(model.encode_text(texts, **options))

    def encode(places: np.ndarray) -> tuple[Any, ...]:
        tokens = processor(text=[texts[place] for place in places], return_tensors="pt").to(model.device)
        return _parts(model, model.get_text_features(tokens["input_ids"], tokens["attention_mask"]), "text")

    return ScoreParts(*encode_batches(model, encode, _lengths(texts), batch_size, "texts", progress))


def encode_motions(
    model: Any, processor: Any, dataset: Any, batch_size: int = 64, progress: bool = False, views: int = 1
) -> ScoreParts:
    """
    Encode the N motions of a prepared split.

    Args:
        model, processor: as in `encode_captions`.
        views: number of views per motion, see `LexMotionModel.encode_motion`; words of segments are averaged in the
            same way. A dense vector has no words to swap for the mirror image. Instead, the mirrored caption is
            compared with the mirrored motion, and the score is the mean of both: vectors of motion and mirror image,
            each the average of its views, side by side, as are those of the captions encoded with the same `views`.
    """
    if not has_parts(model) and not isinstance(model, RetrieverModel):
        options = {"processor": processor, "batch_size": batch_size, "precision": "fp32", "progress": progress}
        return ScoreParts(model.encode_motion(dataset, views=views, **options))
    extractor, count, seen = processor.feature_extractor, len(dataset), views_of(views)

    def encode(places: np.ndarray) -> tuple[Any, ...]:
        motions, fps = split_motions(dataset, places % count)
        shown = [seen[place // count] for place in places]
        values = extractor(motions, fps=fps, return_tensors="pt", views=shown).to(model.device)
        return _parts(model, model.get_motion_features(**values), "motion")

    lengths = np.zeros(len(seen) * count)
    parts = ScoreParts(*encode_batches(model, encode, lengths, batch_size, "motions", progress))
    return parts if views == 1 else _averaged(parts, model, processor, [view.mirrored for view in seen])


def _averaged(parts: ScoreParts, model: Any, processor: Any, mirrored: Sequence[bool]) -> ScoreParts:
    """Average the parts of all views of N motions: those of the first view, of the second, ..."""

    def sides(vectors: np.ndarray) -> np.ndarray:
        views = unit_rows(vectors).reshape(len(mirrored), -1, vectors.shape[1])
        return _side_by_side(views[~np.array(mirrored)].mean(axis=0), views[np.array(mirrored)].mean(axis=0))

    if not sparse.issparse(parts.words):
        return ScoreParts(sides(parts.words))
    is_baseline, segments = isinstance(model, RetrieverModel), parts.segments
    active = (model.motion_readout.head if is_baseline else model.motion_model.lexical_head).active_ids.cpu().numpy()
    columns = mirrored_columns(processor.mirrored_ids, active)
    if segments is not None:
        each = average_views(segments.reshape(-1, len(active)).tocsr(), mirrored, columns)
        number = segments.shape[1] // len(active)
        segments = sparse.csr_matrix(unit_rows(each).reshape(-1, segments.shape[1])) / np.float32(number**0.5)
    words = average_views(parts.words, mirrored, as_vocabulary(columns, active, parts.words.shape[1]))
    return ScoreParts(words, segments, None if parts.dense is None else sides(parts.dense))


def _side_by_side(own: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
    """Return vectors (N, 2 d) of length 1 whose products are the mean cosines of two pairs of vectors (N, d)."""
    return np.hstack([unit_rows(own), unit_rows(mirrored)]) / np.float32(2**0.5)


def _parts(model: Any, output: Any, side: str) -> tuple[Any, ...]:
    """Return words, segments and dense vectors of a batch."""
    if isinstance(model, RetrieverModel):
        embeds = output.float().cpu().numpy()
        return sparse.csr_matrix(embeds) if model.config.is_lexical else embeds, None, None
    words = sparse.csr_matrix(output[f"{side}_embeds"].float().cpu().numpy())
    segments = dense = None
    if output.segment_scores is not None:
        head = (model.text_model if side == "text" else model.motion_model).lexical_head
        weights = torch.nn.functional.normalize(head.weigh(output.segment_scores).float(), dim=-1)  # (B, K, A)
        segments = sparse.csr_matrix((weights / weights.shape[1] ** 0.5).flatten(1).cpu().numpy())
    if output.dense_embeds is not None:
        dense = torch.nn.functional.normalize(output.dense_embeds.float(), dim=-1).cpu().numpy()
    return words, segments, dense


def sentence_vectors(texts: Sequence[str], path: str, batch_size: int = 64, progress: bool = False) -> np.ndarray:
    """
    Encode captions with an independent text model, for the protocol `threshold` (TMR uses all-mpnet-base-v2).

    Args:
        texts: N captions.
        path: folder or Hub name of an encoder whose mean-pooled states are sentence vectors.

    Returns:
        (N, d) float32 unit vectors.
    """
    from transformers import AutoModel, AutoTokenizer

    with loading_from(path):
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        model = AutoModel.from_pretrained(path, use_safetensors=True, trust_remote_code=False)

    def encode(places: np.ndarray) -> tuple[np.ndarray]:
        batch = [texts[place] for place in places]
        tokens = tokenizer(batch, padding=True, truncation=True, return_tensors="pt")
        weight = tokens["attention_mask"][..., None].float()
        states = model(**tokens).last_hidden_state
        return (torch.nn.functional.normalize((states * weight).sum(1) / weight.sum(1), dim=-1).numpy(),)

    return encode_batches(model, encode, _lengths(texts), batch_size, "sentences", progress)[0]


def _lengths(texts: Sequence[str]) -> np.ndarray:
    return np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))


def split_motions(dataset: Any, places: Any = slice(None)) -> tuple[list[np.ndarray], list[float]]:
    """
    Return motions of a prepared split, all or those at `places`, as (T, J, 3) float32 arrays, and their frame rates.
    """
    rows = dataset.select_columns(["motion", "fps"]).with_format("numpy")[places]
    return [motion.reshape(len(motion), -1, 3) for motion in rows["motion"]], rows["fps"].tolist()


@dataclass
class EncodedSplit:
    """
    A prepared split in word space; row i of every field is motion i.

    Args:
        ids: ids of the motions (N).
        captions: the first caption of each motion (N).
        all_captions: all captions of each motion (N).
        texts, motions: parts of the model's own score, see `similarity`.
        segment_weight, hybrid_weight: the model's weights of segments and dense vectors.
        views: number of views per motion, see `encode_motions`.
    """

    ids: list[str]
    captions: list[str]
    all_captions: list[list[str]]
    texts: ScoreParts
    motions: ScoreParts
    segment_weight: float
    hybrid_weight: float
    views: int = 1

    @property
    def text_embeds(self) -> Any:
        """Vectors of the captions: (N, V) float32 CSR; an (N, D) array for a dense baseline."""
        return self.texts.words

    @property
    def motion_embeds(self) -> Any:
        """Vectors of the motions, as `text_embeds`."""
        return self.motions.words


def encode_dataset(
    model: Any, processor: Any, dataset: Any, batch_size: int = 64, progress: bool = False, views: int = 1
) -> EncodedSplit:
    """Encode a prepared split: every motion, and the first caption of each; see `encode_motions`."""
    all_captions = [list(captions) for captions in dataset["captions"]]
    captions = [texts[0] for texts in all_captions]
    motions = encode_motions(model, processor, dataset, batch_size, progress, views)
    texts = encode_captions(model, processor, captions, batch_size, progress, views)
    return EncodedSplit(list(dataset["id"]), captions, all_captions, texts, motions, *score_weights(model), views)


def every_caption_similarity(
    model: Any, processor: Any, encoded: EncodedSplit, batch_size: int = 64, progress: bool = False
) -> ScoreRows:
    """Score all C captions of a split, those of a motion side by side: (C, N) float32, computed when it is read."""
    captions = [text for texts in encoded.all_captions for text in texts]
    texts = encode_captions(model, processor, captions, batch_size, progress, encoded.views)
    return blend(texts, encoded.motions, encoded.segment_weight, encoded.hybrid_weight)


def score_weights(model: Any) -> tuple[float, float]:
    """Return the weights of segments and of dense vectors in the model's own score; 0 if it has none."""
    return getattr(model.config, "segment_weight", 0.0), getattr(model.config, "hybrid_weight", 0.0)


def score_rows(
    encoded: EncodedSplit, segment_weight: float | None = None, hybrid_weight: float | None = None
) -> ScoreRows:
    """
    Score a split, captions x motions, as the model does: (N, N) float32, computed when it is read.

    Args:
        segment_weight, hybrid_weight: replace the model's; 0 and 0 leave the cosine of the word vectors.
    """
    w = encoded.segment_weight if segment_weight is None else segment_weight
    h = encoded.hybrid_weight if hybrid_weight is None else hybrid_weight
    return blend(encoded.texts, encoded.motions, w, h)


def similarity(
    encoded: EncodedSplit, segment_weight: float | None = None, hybrid_weight: float | None = None
) -> np.ndarray:
    """Compute the scores of [`score_rows`] at once: (N, N) float32."""
    return score_rows(encoded, segment_weight, hybrid_weight).matrix()
