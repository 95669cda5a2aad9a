"""Motion captioning as a metric of `evaluate`: `evaluate.load("<this folder>")`."""

from typing import Any

import datasets
import evaluate

from lexmotion.evaluation.metrics.captioning import evaluate_captions

_CITATION = """\
@inproceedings{guo2022tm2t, title={{TM2T}: Stochastic and Tokenized Modeling for the Reciprocal Generation of {3D}
Human Motions and Texts}, author={Guo, Chuan and Zuo, Xinxin and Wang, Sen and Cheng, Li}, booktitle={ECCV},
year={2022}}
@inproceedings{jiang2023motiongpt, title={{MotionGPT}: Human Motion as a Foreign Language}, author={Jiang, Biao and
Chen, Xin and Liu, Wen and Yu, Jingyi and Yu, Gang and Chen, Tao}, booktitle={NeurIPS}, year={2023}}
"""

_DESCRIPTION = """\
BLEU-1 to 4, ROUGE-L and CIDEr of generated captions, as pycocoevalcap computes them but without its Java tokenizer,
and BERTScore with a local model. Scores of two tokenisations cannot be compared, so the result names its tokenizer.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list[str]`): the generated caption of each motion.
    references (`list[list[str]]`): the captions of each motion.
    tokenizer (`str`, *optional*): `"whitespace"` leaves texts unchanged, `"words"` lower-cases them and drops
        punctuation.
    bertscore_model (`str`, *optional*): local folder of the model for BERTScore.
    bertscore_layers (`int`, *optional*): layer of that model whose states are compared.

Returns:
    `BLEU_1`, ..., `BLEU_4`, `ROUGE_L`, `CIDEr` (published tables multiply them by 100), `tokenizer`,
    `implementation`, `num_captions`, `num_references`, `num_empty`; with a model, `BERTScore` and its settings.

Examples:

    >>> metric = evaluate.load("motion_captioning")  # doctest: +SKIP
    >>> metric.compute(predictions=["a man runs"], references=[["a man runs"]])["ROUGE_L"]  # doctest: +SKIP
    1.0
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class MotionCaptioning(evaluate.Metric):
    """Takes texts, never models."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Sequence(datasets.Value("string"))}
            ),
        )

    def _compute(self, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        return evaluate_captions(predictions, references, **options)
