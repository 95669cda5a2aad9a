"""Text-motion retrieval as a metric of `evaluate`: `evaluate.load("<this folder>")`."""

from typing import Any

import datasets
import evaluate
import numpy as np

from lexmotion.evaluation.metrics.retrieval import evaluate_retrieval, retrieval_metrics

_CITATION = """\
@inproceedings{guo2022t2m, title={Generating Diverse and Natural 3D Human Motions from Text}, author={Guo, Chuan and
Zou, Shihao and Zuo, Xinxin and Wang, Sen and Ji, Wei and Li, Xingyu and Cheng, Li}, booktitle={CVPR}, year={2022}}
@inproceedings{petrovich2023tmr, title={{TMR}: Text-to-Motion Retrieval Using Contrastive {3D} Human Motion Synthesis},
author={Petrovich, Mathis and Black, Michael J. and Varol, G{\\"u}l}, booktitle={ICCV}, year={2023}}
"""

_DESCRIPTION = """\
Recall at 1, 2, 3, 5 and 10 (percent) and median rank (from 1) of text-to-motion and motion-to-text retrieval, and the
sum of the ten recalls. R@1 of two protocols cannot be compared, so the result contains its protocol, its tie rule
and the size of its gallery.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list[list[float]]`): row i scores caption i against every motion; higher is nearer.
    references (`list[int]`): index of each caption's motion; several captions may share one.
    ties (`str`, *optional*): position of an item among those of equal score: `"average"`, `"expected"`,
        `"optimistic"` or `"pessimistic"`.
    captions (`list[str]`, *optional*): the texts, one per motion in the same order; `protocols` needs them.
    protocols (`str` or `list[str]`, *optional*): with captions, one or several of `"all-strict"` (only the pair is
        right), `"all-duplicates"` (every motion with the same caption is right) and `"small-batches"` (mean over
        pools of 32), or `"all"` that the gallery allows.

Returns:
    `t2m/R1`, ..., `t2m/R10`, `t2m/MedR`, the same under `m2t/`, `Rsum`, and `protocol`, `ties`, `gallery_size`,
    `num_captions`; with captions, each name begins with its protocol.

Examples:

    >>> metric = evaluate.load("motion_retrieval")  # doctest: +SKIP
    >>> metric.compute(predictions=[[0.9, 0.1], [0.2, 0.3]], references=[0, 1])["Rsum"]  # doctest: +SKIP
    1000.0
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class MotionRetrieval(evaluate.Metric):
    """Takes scores, never models."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {"predictions": datasets.Sequence(datasets.Value("float32")), "references": datasets.Value("int64")}
            ),
        )

    def _compute(
        self,
        predictions: Any,
        references: Any,
        ties: str | None = None,
        captions: list[str] | None = None,
        protocols: str | list[str] = "all-strict",
    ) -> dict[str, Any]:
        widths = {len(row) for row in predictions}
        if len(widths) != 1:
            raise ValueError(f"predictions: got rows of {sorted(widths)}; score every caption with every motion")
        similarity = np.asarray(predictions, dtype=np.float32)
        motions = np.asarray(references)
        if captions is None:
            if protocols != "all-strict":
                raise ValueError(f"protocols={protocols!r} needs captions; pass captions=[...]")
            return retrieval_metrics(similarity, motions, ties or "average")
        if not np.array_equal(motions, np.arange(similarity.shape[1])):
            raise ValueError(
                f"references: expected 0..n-1 for {similarity.shape[1]} motions, got {motions.tolist()[:5]}...; with "
                "captions, pass one caption per motion, in their order"
            )
        ids = [f"{place:09d}" for place in range(len(motions))]
        results = evaluate_retrieval(similarity, ids, captions, protocols, ties=ties)
        return {f"{protocol}/{name}": value for protocol, result in results.items() for name, value in result.items()}
