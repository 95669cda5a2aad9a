"""
The ridge floor: the retrieval that a linear map from motion statistics to caption words reaches, as a lower bound.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from scipy import linalg, sparse

from lexmotion.processing.skeletons import get_skeleton
from lexmotion.processing.text_mirroring import mirror_caption

# A statistic that varies less than this over the training motions is constant, such as the root relative to itself.
_CONSTANT = 1e-8


def motion_statistics(positions: Any) -> np.ndarray:
    """
    Describe a motion by averages over time.

    Args:
        positions: joint positions (T, J, 3), Y up.

    Returns:
        (12 * J,) float64: mean, then standard deviation of the joints relative to the root, mean absolute joint
        velocity in units per frame, displacement of every joint from the first frame to the last. A one-frame motion
        has velocity 0.

    Raises:
        ValueError: if the shape is another one, or a position is NaN or infinite (the message gives the first frame).
    """
    positions = np.asarray(positions, dtype=np.float64)
    if positions.ndim != 3 or positions.shape[-1] != 3 or 0 in positions.shape:
        raise ValueError(f"motion: expected shape (frames, joints, 3), got {positions.shape}")
    broken = ~np.isfinite(positions).all(axis=(1, 2))
    if broken.any():
        raise ValueError(f"frame {int(broken.argmax())}: got NaN or infinite positions; repair or drop the motion")
    relative = positions - positions[:, :1]
    speed = np.abs(np.diff(positions, axis=0)).sum(axis=0) / max(len(positions) - 1, 1)
    parts = (relative.mean(axis=0), relative.std(axis=0), speed, positions[-1] - positions[0])
    return np.concatenate([part.ravel() for part in parts])


class TowerTokens:
    """
    Describe a motion by the mean tokens of a motion tower.

    Args:
        encoder: encoder of the tower, a `LexMotionMotionEncoder`.
        extractor: the `LexMotionFeatureExtractor` of its input.

    Called with positions (T, J, 3), it returns float64 (P * D,): the mean over time of the tokens of each body part.
    """

    def __init__(self, encoder: Any, extractor: Any) -> None:
        self.encoder, self.extractor = encoder.eval(), extractor

    def __call__(self, positions: Any) -> np.ndarray:
        import torch

        inputs = self.extractor([positions], fps=self.extractor.fps, return_tensors="pt")
        with torch.inference_mode():
            states, seen, _, shape = self.encoder(inputs["motion_values"], inputs["motion_attention_mask"])
        grid, seen = states[0].unflatten(0, shape), seen[0].unflatten(0, shape)[..., None]  # (Nt, P, D), (Nt, P, 1)
        return ((grid * seen).sum(dim=0) / seen.sum(dim=0).clamp(min=1)).flatten().double().numpy()


class UntrainedTower(TowerTokens):
    """
    Describe a motion by the mean tokens of a motion tower with random weights.

    Args:
        extractor: a `LexMotionFeatureExtractor`.
        seed: seed of the weights.
        config: configuration of the tower; None: the size of the recipe `small`.
    """

    def __init__(self, extractor: Any, seed: int = 0, config: Any = None) -> None:
        import torch

        from lexmotion import LexMotionMotionConfig, LexMotionMotionModel

        if config is None:
            config = LexMotionMotionConfig(
                num_features=extractor.num_features,
                num_frames=extractor.max_frames,
                parts=extractor.parts,
                hidden_size=192,
                num_hidden_layers=6,
                num_attention_heads=6,
                intermediate_size=768,
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            super().__init__(LexMotionMotionModel(config).encoder, extractor)


class RidgeFloor:
    """
    Ridge regression from a description of a motion to the mean TF-IDF vector of its captions.

    A caption's vector marks its word pieces, weighted by `log(number of captions / captions with the piece)`, at
    length 1; a motion's target is the mean over its captions. Statistics are standardised, targets centred. The score
    of a pair is the centred caption vector times the unit-length prediction.

    Args:
        penalty: weight of the squared coefficients.
        tokenizer: a tokenizer of `transformers`, or a function from a list of captions to lists of hashable tokens. If
            None, captions are lower-cased and split at everything but letters, digits and apostrophes.
        skeleton: joint layout, for mirroring.
        describe: function from positions (T, J, 3) to a vector; [`motion_statistics`] or [`TowerTokens`].
        min_count: minimum number of occurrences of a piece in the training captions, mirrored ones included.

    `pieces` lists the word pieces in the order of the vectors.

    Example:
        >>> motions = list(np.random.default_rng(0).normal(size=(4, 20, 22, 3)))
        >>> captions = [["a man walks"], ["a man jumps"], ["he walks"], ["he jumps"]]
        >>> floor = RidgeFloor(penalty=300.0).fit(motions, captions)
        >>> floor.similarity(["a man jumps"], motions).shape
        (1, 4)
    """

    def __init__(
        self,
        penalty: float = 300.0,
        tokenizer: Any = None,
        skeleton: str = "humanml3d",
        min_count: int = 2,
        describe: Callable[[Any], np.ndarray] = motion_statistics,
    ) -> None:
        if not penalty > 0:
            raise ValueError(f"penalty: got {penalty}; pass a positive number")
        self.penalty = float(penalty)
        self.tokenize = _tokenize_function(tokenizer)
        self.skeleton, self.describe = get_skeleton(skeleton), describe
        self.min_count = min_count
        self.pieces: list | None = None

    def fit(
        self,
        motions: Iterable[Any],
        captions: Iterable[Sequence[str]],
        mirrored_captions: Iterable[Sequence[str]] | None = None,
        mirror: bool = True,
    ) -> RidgeFloor:
        """
        Fit the map and return the floor; keeps statistics and sparse caption vectors, and one motion at a time.

        Args:
            motions: N motions (T, J, 3).
            captions: captions of each motion, at least one.
            mirrored_captions: captions of each mirrored motion; if None, made from `captions`.
            mirror: whether to add every motion's mirror image; switch off if the motions already have their twins.

        Raises:
            ValueError: if numbers of motions and captions differ, a motion has no caption, or no piece is frequent
                enough.
        """
        texts = [list(group) for group in captions]
        statistics = self._statistics(motions, mirror)
        if mirror:
            if mirrored_captions is None:
                mirrored_captions = [[mirror_caption(text) for text in group] for group in texts]
            texts += [list(group) for group in mirrored_captions]
        if len(texts) != len(statistics):
            halves = 2 if mirror else 1
            raise ValueError(
                f"captions: got {len(statistics) // halves} motions, but {len(texts) / halves:g} lists of captions; "
                "pass one list per motion"
            )
        owner = np.repeat(np.arange(len(texts)), [len(group) for group in texts])
        per_motion = np.bincount(owner, minlength=len(texts))
        if not per_motion.all():
            raise ValueError(f"motion {int(per_motion.argmin())}: no caption; drop it or add one")
        tokens = self.tokenize([text for group in texts for text in group])
        counts = Counter(token for row in tokens for token in row)
        document_counts = Counter(token for row in tokens for token in set(row))
        self.pieces = sorted(token for token, count in counts.items() if count >= self.min_count)
        if not self.pieces:
            raise ValueError(f"no word piece occurs {self.min_count} times in {len(tokens)} captions; lower min_count")
        self._column = {piece: column for column, piece in enumerate(self.pieces)}
        frequency = np.array([document_counts[piece] for piece in self.pieces], dtype=np.float64)
        self.idf = np.log(len(tokens) / frequency)
        average = sparse.csr_array(
            (1.0 / per_motion[owner], (owner, np.arange(len(owner)))), shape=(len(texts), len(owner))
        )
        targets = average @ self._vectors(tokens)  # (N, V)
        self.mean_target = np.asarray(targets.mean(axis=0)).ravel()
        self.mean, std = statistics.mean(axis=0), statistics.std(axis=0)
        self.scale = np.where(std > _CONSTANT, std, 1.0)
        inputs = (statistics - self.mean) / self.scale  # (N, F)
        # The columns of `inputs` sum to zero, so centred targets would give the same result.
        covariance = inputs.T @ inputs + self.penalty * np.eye(inputs.shape[1])
        self.weight = linalg.solve(covariance, (targets.T @ inputs).T, assume_a="pos")  # (F, V)
        return self

    def encode_motion(self, motions: Iterable[Any]) -> np.ndarray:
        """
        Predict word vectors of N motions (T, J, 3): (N, V) float64 at length 1; 0 for a motion exactly like the
        average.
        """
        self._check_fitted()
        prediction = (self._statistics(motions, mirror=False) - self.mean) / self.scale @ self.weight
        return prediction / np.maximum(np.linalg.norm(prediction, axis=1, keepdims=True), 1e-12)

    def encode_text(self, captions: Sequence[str]) -> np.ndarray:
        """Return the vectors of N captions, centred at the mean of the training targets: (N, V) float64."""
        self._check_fitted()
        return self._vectors(self.tokenize(list(captions))).toarray() - self.mean_target

    def similarity(self, captions: Sequence[str], motions: Iterable[Any]) -> np.ndarray:
        """Return scores (num_captions, num_motions) for `evaluate_retrieval`."""
        return self.encode_text(captions) @ self.encode_motion(motions).T

    def _check_fitted(self) -> None:
        if self.pieces is None:
            raise ValueError("ridge floor: not fitted; call `fit` first")

    def _statistics(self, motions: Iterable[Any], mirror: bool) -> np.ndarray:
        plain, mirrored = [], []
        for motion in motions:
            positions = np.asarray(motion)
            plain.append(self.describe(positions))
            if mirror:
                if positions.shape[1] != self.skeleton.num_joints:
                    raise ValueError(
                        f"joints: a motion has {positions.shape[1]}, the skeleton {self.skeleton.name!r} has "
                        f"{self.skeleton.num_joints}; pass the skeleton of the motions or mirror=False"
                    )
                twin = positions[:, self.skeleton.mirror_permutation] * np.array([-1.0, 1.0, 1.0])
                mirrored.append(self.describe(twin))
        if not plain:
            raise ValueError("motions: got none; pass at least one")
        return np.stack(plain + mirrored)

    def _vectors(self, tokens: Sequence[Sequence[Any]]) -> sparse.csr_array:
        """Return unit TF-IDF rows (len(tokens), V); a caption without known pieces is 0."""
        columns = [sorted({self._column[token] for token in row if token in self._column}) for row in tokens]
        indptr = np.concatenate([[0], np.cumsum([len(row) for row in columns])]).astype(np.int64)
        indices = np.fromiter((column for row in columns for column in row), dtype=np.int64, count=int(indptr[-1]))
        weights = self.idf[indices]
        rows = np.repeat(np.arange(len(columns)), np.diff(indptr))
        norms = np.sqrt(np.bincount(rows, weights=weights**2, minlength=len(columns)))
        weights = weights / np.maximum(norms[rows], 1e-12)
        return sparse.csr_array((weights, indices, indptr), shape=(len(columns), len(self._column)))


def _tokenize_function(tokenizer: Any) -> Callable[[list[str]], Sequence[Sequence[Any]]]:
    if tokenizer is None:
        return _split_words
    if hasattr(tokenizer, "convert_ids_to_tokens"):
        return lambda captions: tokenizer(captions, add_special_tokens=False)["input_ids"]
    return tokenizer


def _split_words(captions: list[str]) -> list[list[str]]:
    return [re.findall(r"[a-z0-9']+", caption.lower()) for caption in captions]
