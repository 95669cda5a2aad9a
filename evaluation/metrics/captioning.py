"""Metrics of motion captioning: BLEU, ROUGE-L and CIDEr of coco-caption, and BERTScore with a local model.

Everything here takes texts; no captioner is ever called. The scores are those of `pycocoevalcap`, from 0 to 1 (CIDEr:
to 10); published tables print them times 100. Its PTB tokenizer, a Java program, is not used: `tokenizer` sets how
texts are split, and the result names it, since scores of two tokenisations cannot be compared.

Two protocols are in use for HumanML3D under the same metric names:

* MotionGPT (Jiang et al. 2023): clips of 40 to 199 frames of the test split, every raw caption of a clip is a
  reference, scored with `nlg-metricverse`; BERTScore is F1, rescaled and weighted by idf.
* TM2T (Guo et al. 2022): three references of lower-cased, lemmatised words without punctuation, scored with
  `nlg-eval`, which runs the same coco-caption scorers on text split at white space. Lemmatise predictions and
  references yourself.

CIDEr weighs n-grams by the references of the whole test set: it depends on which clips are scored together, and is 0
for a single one.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging

logger = logging.get_logger(__name__)

_WORD = re.compile(r"\w+(?:['’-]\w+)*")


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


# whitespace: unchanged; words: lower-cased and without punctuation, close to the PTB tokenizer's output.
TOKENIZERS: dict[str, Callable[[str], Sequence[str]]] = {"whitespace": str.split, "words": _words}


def evaluate_captions(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    tokenizer: str | Callable[[str], Sequence[str]] = "whitespace",
    bertscore_model: str | os.PathLike[str] | None = None,
    bertscore_layers: int | None = None,
) -> dict[str, Any]:
    """
    Compute BLEU-1 to 4, ROUGE-L and CIDEr of generated captions, and BERTScore if a model is given.

    Args:
        predictions: the generated caption of each motion (N); an empty one scores 0.
        references: the captions of each motion (N), at least one. MotionGPT's protocol takes all raw captions.
        tokenizer: how texts are split: `"whitespace"` (unchanged), `"words"` (lower-cased, punctuation dropped), or a
            function from a text to its tokens, such as one that lemmatises. BERTScore has its own.
        bertscore_model: local folder of a `transformers` model, `roberta-large` in the literature. Nothing is
            downloaded.
        bertscore_layers: layer whose states are compared. If None, the layer that `bert-score` chose for a model with
            the name of the folder, or the last one.

    Returns:
        JSON-safe: `BLEU_1`, ..., `BLEU_4`, `ROUGE_L`, `CIDEr`, then `tokenizer`, `implementation`, `num_captions`,
        `num_references` (of all), `num_empty` (empty predictions). With a model `BERTScore` (mean F1 over the
        captions, weighted by idf, the best reference counts), `bertscore_model` (name of the folder),
        `bertscore_layers` and `bertscore_rescaled`: whether `bert-score` has a baseline for that name.

    Raises:
        ValueError: if there are no predictions, lengths differ, a caption has no reference or an empty one, the
            tokenizer is unknown, or the model is not a local folder.
        ImportError: if `pycocoevalcap`, or `bert-score` with a model, is missing; the message contains the pip
            command.

    Example:
        >>> texts = ["a person walks forward", "a man kicks twice"]
        >>> evaluate_captions(texts, [[texts[0]], [texts[1], "someone kicks"]])["BLEU_1"]  # doctest: +ELLIPSIS
        0.99999...
    """
    predictions, references = _check_texts(predictions, references)
    split, tokenizer_name = _tokenizer(tokenizer)
    _require("pycocoevalcap")
    if bertscore_model is not None:
        _require("bert_score")
        bertscore_model = _model_folder(bertscore_model)
    hypotheses = {place: [" ".join(split(text))] for place, text in enumerate(predictions)}
    truths = {place: [" ".join(split(text)) for text in group] for place, group in enumerate(references)}
    for place, group in truths.items():
        if "" in group:
            text = references[place][group.index("")]
            raise ValueError(f"references of caption {place}: {text!r} has no word; drop it")
    result: dict[str, Any] = _coco_scores(hypotheses, truths)
    result |= {
        "tokenizer": tokenizer_name,
        "implementation": "pycocoevalcap",
        "num_captions": len(predictions),
        "num_references": sum(map(len, references)),
        "num_empty": sum(not text for (text,) in hypotheses.values()),
    }
    if bertscore_model is not None:
        result |= _bertscore(predictions, references, Path(bertscore_model), bertscore_layers)
    return result


def _check_texts(predictions: Any, references: Any) -> tuple[list[str], list[list[str]]]:
    if isinstance(predictions, str) or isinstance(references, str):
        raise ValueError("predictions, references: got one text; pass a list of texts and a list of lists of texts")
    predictions, references = list(predictions), list(references)
    if not predictions:
        raise ValueError("predictions: got none; pass one caption per motion")
    if len(predictions) != len(references):
        raise ValueError(f"got {len(predictions)} predictions, {len(references)} references; pass one each per motion")
    for place, (text, group) in enumerate(zip(predictions, references, strict=True)):
        if not isinstance(text, str):
            raise ValueError(f"prediction {place}: expected one text, got {type(text).__name__}")
        if isinstance(group, str) or not all(isinstance(reference, str) for reference in group):
            raise ValueError(f"references {place}: expected a list of texts, such as [{group!r}], got {group!r}")
        if not len(group):
            raise ValueError(f"caption {place}: got no reference; drop it or add its captions")
    return predictions, [list(group) for group in references]


def _tokenizer(tokenizer: str | Callable[[str], Sequence[str]]) -> tuple[Callable[[str], Sequence[str]], str]:
    if callable(tokenizer):
        return tokenizer, getattr(tokenizer, "__name__", type(tokenizer).__name__)
    if tokenizer not in TOKENIZERS:
        raise ValueError(f"tokenizer: got {tokenizer!r}; choose one of {', '.join(TOKENIZERS)}, or pass a function")
    return TOKENIZERS[tokenizer], tokenizer


def _require(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        package = package.replace("_", "-")
        raise ImportError(f"captioning metrics need {package}; run `pip install 'lexmotion[captioning]'`")


def _model_folder(model: str | os.PathLike[str]) -> Path:
    folder = Path(model).expanduser()
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"bertscore_model: {os.fspath(model)!r} is not a local model folder, and nothing is downloaded; save the "
            "model and its tokenizer there with `save_pretrained`"
        )
    return folder


def _coco_scores(hypotheses: dict[int, list[str]], references: dict[int, list[str]]) -> dict[str, float]:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    if len(hypotheses) == 1:
        logger.warning("CIDEr: 0 for a single caption, since words are weighed by their rarity; score several")
    bleu, _ = Bleu(4).compute_score(references, hypotheses, verbose=0)
    return {
        **{f"BLEU_{order}": float(score) for order, score in enumerate(bleu, start=1)},
        "ROUGE_L": float(Rouge().compute_score(references, hypotheses)[0]),
        "CIDEr": float(Cider().compute_score(references, hypotheses)[0]),
    }


def _bertscore(
    predictions: list[str], references: list[list[str]], folder: Path, layers: int | None
) -> dict[str, Any]:
    import bert_score
    from bert_score.utils import model2layers
    from transformers import AutoConfig, AutoTokenizer

    if layers is None:
        layers = (
            model2layers.get(folder.name)
            or AutoConfig.from_pretrained(folder, trust_remote_code=False).num_hidden_layers
        )
    if AutoTokenizer.from_pretrained(folder, trust_remote_code=False).model_max_length > 1 << 30:
        raise ValueError(f"tokenizer in {folder}: no model_max_length; set it and save the tokenizer again")
    baseline = Path(bert_score.__file__).parent / "rescale_baseline" / "en" / f"{folder.name}.tsv"
    scores = np.zeros(len(predictions))  # bert-score does not take an empty text
    filled = [place for place, text in enumerate(predictions) if text.strip()]
    if filled:
        texts, truths = ([group[place] for place in filled] for group in (predictions, references))
        options = {"model_type": str(folder), "num_layers": layers, "idf": True, "nthreads": 0, "lang": "en"}
        if baseline.is_file():
            options |= {"rescale_with_baseline": True, "baseline_path": str(baseline)}
        scores[filled] = bert_score.score(texts, truths, **options)[2].double().numpy()
    result = {"BERTScore": float(scores.mean()), "bertscore_model": folder.name}
    return result | {"bertscore_layers": layers, "bertscore_rescaled": baseline.is_file()}
