"""
The transformers pipelines `motion-feature-extraction` and `zero-shot-motion-classification`.

`import lexmotion` registers both. A checkpoint that was pushed with its code names them in its configuration, so
`pipeline(..., trust_remote_code=True)` finds them without the package.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import Pipeline
from transformers.utils import ModelOutput


class MotionPipeline(Pipeline):
    """Base of the pipelines here, which takes a motion or a list of motions."""

    task_name: str  # name of the task in `pipeline(task)` and in configurations

    _load_processor = True
    _load_tokenizer = _load_feature_extractor = _load_image_processor = False

    def preprocess(self, motion: Any, fps: float | None = None) -> dict[str, torch.Tensor]:
        if isinstance(motion, dict):
            motion, fps = motion["motion"], motion.get("fps", fps)
        return self.processor(motion=np.asarray(motion), fps=fps, return_tensors="pt")

    def motion_features(self, inputs: dict[str, torch.Tensor]) -> ModelOutput:
        """Return the motion tower's output for a batch, for models with or without a text tower."""
        encode: Any = getattr(self.model, "get_motion_features", self.model)
        return encode(inputs["motion_values"], inputs["motion_attention_mask"])


class MotionFeatureExtractionPipeline(MotionPipeline):
    """
    Encodes a motion as a sparse vector over words.

    Example:

    ```python
    >>> from transformers import pipeline  # doctest: +SKIP
    >>> encode = pipeline("motion-feature-extraction", model="user/lexmotion-small")  # doctest: +SKIP
    >>> encode(positions, fps=20, top_k=3)  # doctest: +SKIP
    [{'word': 'kicks', 'score': 2.1}, {'word': 'leg', 'score': 1.7}, {'word': 'left', 'score': 1.2}]

    ```
    """

    task_name = "motion-feature-extraction"

    def __call__(self, motions: Any, **kwargs: Any) -> Any:
        """
        Encode one motion or a list of motions.

        Args:
            motions: joint positions (frames, joints, 3) in metres, Y up, or the features that the model was trained
                on; a list of such arrays; or `{"motion": array, "fps": number}` if motions differ in frame rate.
            fps: frame rate of the motions in Hz; None for the model's own.
            top_k: number of words; None for the complete vector.
            batch_size: motions per forward pass.

        Returns:
            Per motion, (V,) float32 word weights or, with `top_k`, `[{"word": str, "score": float}]`, heaviest first.
        """
        return super().__call__(motions, **kwargs)

    def _sanitize_parameters(self, fps: float | None = None, top_k: int | None = None):
        return ({} if fps is None else {"fps": fps}), {}, ({} if top_k is None else {"top_k": top_k})

    def _forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"motion_embeds": self.motion_features(inputs).motion_embeds}

    def postprocess(self, outputs: dict[str, torch.Tensor], top_k: int | None = None) -> Any:
        vector = outputs["motion_embeds"][0].float()
        if top_k is None:
            return vector.numpy()
        return [{"word": word, "score": score} for word, score in self.processor.top_words(vector, k=top_k)[0]]


class ZeroShotMotionClassificationPipeline(MotionPipeline):
    """
    Classifies motions with labels that are passed to each call.

    Example:

    ```python
    >>> from transformers import pipeline  # doctest: +SKIP
    >>> classify = pipeline("zero-shot-motion-classification", model="user/lexmotion-small")  # doctest: +SKIP
    >>> classify(positions, candidate_labels=["kicks", "walks", "sits down"], fps=20)  # doctest: +SKIP
    [{'score': 0.91, 'label': 'kicks'}, {'score': 0.06, 'label': 'walks'}, {'score': 0.03, 'label': 'sits down'}]

    ```
    """

    task_name = "zero-shot-motion-classification"
    labels: tuple[tuple[str, ...], torch.Tensor] | None = None  # sentences of the last call, and their vectors

    def __call__(self, motions: Any, candidate_labels: Sequence[str] | None = None, **kwargs: Any) -> Any:
        """
        Score each label for one motion or a list of motions.

        Args:
            motions, fps, batch_size: see [`MotionFeatureExtractionPipeline`].
            candidate_labels: the labels to choose from.
            hypothesis_template: sentence with `{}` in place of the label; `"{}"` if the labels are sentences.

        Returns:
            Per motion, `[{"score": float, "label": str}]`, best first; scores are a softmax over the labels.

        Raises:
            ValueError: if there are no labels, a label is empty or repeated, or the template has no `{}`.
        """
        return super().__call__(motions, candidate_labels=candidate_labels, **kwargs)

    def _sanitize_parameters(
        self,
        candidate_labels: Sequence[str] | None = None,
        hypothesis_template: str = "a person {}",
        fps: float | None = None,
    ):
        preprocess = {} if fps is None else {"fps": fps}
        if candidate_labels is None:
            return preprocess, {}, {}
        labels, sentences = self._sentences(candidate_labels, hypothesis_template)
        return preprocess, {"sentences": sentences}, {"labels": labels}

    def _sentences(self, labels: Sequence[str], template: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        names = tuple([labels] if isinstance(labels, str) else labels)
        for name in names:
            if not isinstance(name, str) or not name.strip() or names.count(name) > 1:
                raise ValueError(f"candidate_labels: {name!r} is empty, repeated or not a text; pass each label once")
        if not names:
            raise ValueError("candidate_labels: no label; pass at least one, such as ['walks', 'kicks']")
        if "{}" not in template:
            raise ValueError(f"hypothesis_template: {template!r} has no {{}}; put {{}} in place of the label")
        return names, tuple(template.replace("{}", name) for name in names)

    def label_vectors(self, sentences: tuple[str, ...]) -> torch.Tensor:
        """Return the labels' unit vectors, (labels, D), computed once for all motions with these sentences."""
        if self.labels is None or self.labels[0] != sentences:
            inputs = self.processor(text=list(sentences), padding=True, return_tensors="pt").to(self.device)
            output = self.model.get_text_features(inputs["input_ids"], inputs["attention_mask"])
            self.labels = (sentences, self.model.score_vectors(output))
        return self.labels[1]

    def _forward(self, inputs: dict[str, torch.Tensor], sentences: tuple[str, ...] = ()) -> dict[str, torch.Tensor]:
        if not sentences:
            raise ValueError("candidate_labels: no label; pass at least one, such as ['walks', 'kicks']")
        vectors = self.model.score_vectors(self.motion_features(inputs))  # (B, D)
        return {"logits": vectors @ self.label_vectors(sentences).T / self.model.config.temperature}  # (B, labels)

    def postprocess(self, outputs: dict[str, torch.Tensor], labels: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        scores = outputs["logits"][0].float().softmax(dim=0).tolist()
        ranked = sorted(zip(scores, labels, strict=True), key=lambda pair: -pair[0])
        return [{"score": score, "label": label} for score, label in ranked]


PIPELINES = (MotionFeatureExtractionPipeline, ZeroShotMotionClassificationPipeline)

__all__ = ["PIPELINES", "MotionFeatureExtractionPipeline", "ZeroShotMotionClassificationPipeline"]
