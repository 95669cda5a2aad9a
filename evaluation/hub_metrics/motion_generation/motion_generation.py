"""Motion generation as a metric of `evaluate`: `evaluate.load("<this folder>")`."""

from typing import Any

import datasets
import evaluate
import numpy as np

from lexmotion.evaluation.metrics.generation import evaluate_generation

_CITATION = """\
@inproceedings{guo2022t2m, title={Generating Diverse and Natural 3D Human Motions from Text}, author={Guo, Chuan and
Zou, Shihao and Zuo, Xinxin and Wang, Sen and Ji, Wei and Li, Xingyu and Cheng, Li}, booktitle={CVPR}, year={2022}}
@inproceedings{heusel2017gans, title={{GANs} Trained by a Two Time-Scale Update Rule Converge to a Local {Nash}
Equilibrium}, author={Heusel, Martin and Ramsauer, Hubert and Unterthiner, Thomas and Nessler, Bernhard and Hochreiter,
Sepp}, booktitle={NeurIPS}, year={2017}}
"""

_DESCRIPTION = """\
FID, R-precision, multimodal distance, diversity and multimodality of generated motion, each as the mean over
replications with its 95 % interval. The inputs are embeddings of an evaluator of your own: figures of two evaluators
cannot be compared, so report which one you used.
"""

_KWARGS_DESCRIPTION = """
Args:
    text_embeds (`list[list[float]]`): the embedding of each caption.
    generated (`list[list[float]]` or `list[list[list[float]]]`): the embedding of the motion generated for each
        caption, or a list of them, one per replication.
    real (`list[list[float]]`): the embedding of the recorded motion of each caption.
    multimodality_embeds (`list`, *optional*): several motions for each of some texts (texts, samples, dimensions).
    pool_size (`int`, *optional*), top_k (`int`, *optional*): of the R-precision, 32 and 3.
    pairs (`int`, *optional*), multimodality_pairs (`int`, *optional*): 300 for diversity, 10 for multimodality.
    replications (`int`, *optional*): the number of sets in `generated`, or 20 for one.
    seed (`int`, *optional*): replication `r` draws with `seed + r`.
    ties (`str`, *optional*): position of a motion among equally distant ones: `"average"`, `"expected"`,
        `"optimistic"` or `"pessimistic"`.

Returns:
    `FID`, `R_precision_top_1`, ... (from 0 to 1), `MM_Dist`, `Diversity`, `MultiModality`, those of the recorded
    motions under `real/`, half of each 95 % interval under `NAME/ci95`, and the protocol.

Examples:

    >>> metric = evaluate.load("motion_generation")  # doctest: +SKIP
    >>> embeds = np.random.default_rng(0).normal(size=(64, 8))  # doctest: +SKIP
    >>> metric.compute(text_embeds=embeds, generated=embeds, real=embeds, pairs=32)["FID"]  # doctest: +SKIP
    0.0
"""

_VECTOR = datasets.Sequence(datasets.Value("float64"))


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class MotionGeneration(evaluate.Metric):
    """Takes embeddings, never models."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=[
                datasets.Features({"text_embeds": _VECTOR, "generated": generated, "real": _VECTOR})
                for generated in (_VECTOR, datasets.Sequence(_VECTOR))
            ],
        )

    def add_batch(self, **inputs: Any) -> None:
        """Add rows of `text_embeds`, `generated` and `real`, all three at once."""
        absent = [name for name in self._feature_names() if inputs.get(name) is None]
        if absent:
            raise ValueError(f"inputs: expected {', '.join(self._feature_names())}; pass the missing {absent} too")
        super().add_batch(**inputs)

    def _compute(self, text_embeds: Any, generated: Any, real: Any, **protocol: Any) -> dict[str, Any]:
        texts, motions, recorded = (
            _as_array(name, rows)
            for name, rows in (("text_embeds", text_embeds), ("generated", generated), ("real", real))
        )
        if motions.ndim == 3:
            motions = motions.swapaxes(0, 1)
        return evaluate_generation(texts, motions, recorded, **protocol)


def _as_array(name: str, rows: Any) -> np.ndarray:
    try:
        return np.asarray(rows, dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"{name}: the rows differ in length; embed all with one evaluator") from error
