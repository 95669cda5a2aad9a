"""A LexMotion model with the interface of the retrieval evaluators of sentence-transformers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Array2D, Dataset, Features, Value
from scipy import sparse

from ..metrics.scores import ScoreParts, score_vectors
from .vectors import encode_captions, encode_motions, score_weights

TASKS = ("all-strict", "all-duplicates")


class _NoCard:
    """Receiver of the metrics that evaluators add to the model card of their own library."""

    def set_evaluation_metrics(self, *args: Any, **kwargs: Any) -> None:
        """Ignore the metrics: model cards here are made from results files."""


class RetrievalEncoder:
    """
    Captions and motions as tensors, for `InformationRetrievalEvaluator` and `SparseInformationRetrievalEvaluator`.

    Strings are captions, everything else is motions; either can be the query. The product of two vectors is the
    model's own score, segments and the dense part included; without these a vector is the unit vector of the words.
    Everything is computed in float32.

    Args:
        model: a `LexMotionModel` or a baseline.
        processor: its `LexMotionProcessor`.
        fps: frame rate of motions given as plain arrays; None uses the processor's.

    Example:
        >>> from sentence_transformers.sparse_encoder.evaluation import (  # doctest: +SKIP
        ...     SparseInformationRetrievalEvaluator,
        ... )
        >>> evaluator = SparseInformationRetrievalEvaluator(**retrieval_task(dataset["test"]))  # doctest: +SKIP
        >>> evaluator(RetrievalEncoder(model, processor))["dot_accuracy@1"]  # doctest: +SKIP
    """

    similarity_fn_name = "dot"
    max_active_dims = None
    model_card_data = _NoCard()

    def __init__(self, model: Any, processor: Any, fps: float | None = None):
        self.model, self.processor = model, processor
        self.fps = processor.feature_extractor.fps if fps is None else fps

    def encode(
        self,
        inputs: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = False,
        max_active_dims: int | None = None,
        truncate_dim: int | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """
        Encode captions or motions.

        Args:
            inputs: N captions; or N motions, each (T, J, 3) or (T, 3 J) joint positions in metres, or a row of a
                prepared split with `motion` and `fps`.
            batch_size, show_progress_bar: as in sentence-transformers; other arguments of its evaluators set the
                device of a tensor, which is the CPU here.

        Returns:
            (N, S) float32 on the CPU, sparse COO; a dense tensor for a dense baseline.

        Raises:
            ValueError: if a prompt, or a limit other than the model's own, is given.
        """
        if prompt is not None or prompt_name is not None:
            raise ValueError(f"prompt: got {prompt or prompt_name!r}, but the model has none; omit it")
        if max_active_dims is not None or truncate_dim is not None:
            raise ValueError(f"words: got a limit of {max_active_dims or truncate_dim}; call model.set_word_limits")
        if isinstance(inputs, str):
            inputs = [inputs]
        progress = bool(show_progress_bar)
        if all(isinstance(item, str) for item in inputs):
            parts = encode_captions(self.model, self.processor, list(inputs), batch_size, progress)
        else:
            parts = encode_motions(self.model, self.processor, self._rows(inputs), batch_size, progress)
        return self._vectors(parts)

    encode_query = encode_document = encode

    def similarity(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Compute the scores (N, M) of vectors (N, S) and (M, S)."""
        product = torch.sparse.mm(a, b.T) if a.is_sparse else a @ b.T
        return product.to_dense() if product.is_sparse else product

    @staticmethod
    def sparsity(embeddings: torch.Tensor) -> dict[str, float]:
        """
        Return `active_dims`, the mean number of non-zero entries per vector, and `sparsity_ratio`, the share of zeros.
        """
        active = float((embeddings.to_dense() != 0).sum(dim=-1).float().mean())
        return {"active_dims": active, "sparsity_ratio": 1.0 - active / embeddings.shape[-1]}

    def _rows(self, motions: Sequence[Any]) -> Dataset:
        rows = [motion if isinstance(motion, Mapping) else {"motion": motion, "fps": self.fps} for motion in motions]
        clips = [np.asarray(row["motion"], dtype=np.float32) for row in rows]
        clips = [clip.reshape(len(clip), -1) for clip in clips]
        features = Features({"motion": Array2D((None, clips[0].shape[1]), "float32"), "fps": Value("float32")})
        return Dataset.from_dict({"motion": clips, "fps": [row["fps"] for row in rows]}, features=features)

    def _vectors(self, parts: ScoreParts) -> torch.Tensor:
        vectors = score_vectors(parts, *score_weights(self.model))
        if not sparse.issparse(vectors):
            return torch.from_numpy(vectors)
        entries = vectors.tocoo()
        places = torch.from_numpy(np.stack([entries.row, entries.col]).astype(np.int64))
        values = torch.from_numpy(entries.data)
        return torch.sparse_coo_tensor(places, values, entries.shape, check_invariants=False).coalesce()


def retrieval_task(dataset: Any, protocol: str = "all-strict", motion_queries: bool = False) -> dict[str, Any]:
    """
    Return a prepared split as the arguments `queries`, `corpus` and `relevant_docs` of a retrieval evaluator.

    Args:
        dataset: a split with the columns `id`, `motion`, `fps` and `captions`, of which the first one is used.
        protocol: items that are relevant to a query: `"all-strict"`, its own pair, or `"all-duplicates"`, every pair
            with the identical caption. `accuracy@k` is then R@k of [`evaluate_retrieval`] if no scores are tied.
        motion_queries: search captions by motions, instead of motions by captions.

    Raises:
        ValueError: if the protocol is another one.
    """
    if protocol not in TASKS:
        raise ValueError(f"protocol: expected one of {', '.join(TASKS)}, got {protocol!r}")
    captions = {id: texts[0] for id, texts in zip(dataset["id"], dataset["captions"], strict=True)}
    rows = dataset.select_columns(["motion", "fps"]).with_format("numpy")
    motions = {id: rows[place] for place, id in enumerate(captions)}
    same: dict[str, set[str]] = {}
    for id, caption in captions.items():
        same.setdefault(caption if protocol == "all-duplicates" else id, set()).add(id)
    relevant = {id: same[caption if protocol == "all-duplicates" else id] for id, caption in captions.items()}
    queries, corpus = (motions, captions) if motion_queries else (captions, motions)
    return {"queries": queries, "corpus": corpus, "relevant_docs": relevant}
