"""Variants of a prepared corpus: the same motions and captions with another lexicon or tokenizer."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from lexmotion.common.files import read_json, write_json
from lexmotion.common.pretrained import loading_from
from lexmotion.processing.corpora.fitting import caption_lexicon
from lexmotion.processing.corpora.report import PrepareReport
from lexmotion.processing.corpora.text_models import resolve_text_model
from lexmotion.processing.processing_lexmotion import LexMotionProcessor

from ..batches.packing import read_captions
from ..data import PreparedData

MARK = "variant.json"


def prepared_variant(
    data: PreparedData, folder: Path, vocabulary_filter: str | None = None, text_encoder: str | None = None
) -> Path:
    """
    Create a prepared folder that differs from `data` only in its processor; motions and captions are symbolic links.

    Args:
        data: the prepared corpus.
        folder: folder of the variant, which is reused if it exists.
        vocabulary_filter: `corpus`, `words` or `all`; None: the prepared one, or `all` for another tokenizer, since
            `corpus` and `words` only support word pieces as in BERT.
        text_encoder: text encoder whose tokenizer to use; None: the prepared one.

    Returns:
        `folder`.

    Raises:
        ValueError: if the filter is unknown.
        OSError: if the tokenizer cannot be loaded.
    """
    mark = {"dataset": data.fingerprint, "vocabulary_filter": vocabulary_filter, "text_encoder": text_encoder}
    if (folder / MARK).is_file() and read_json(folder / MARK) == mark:
        return folder
    report = PrepareReport.load(data.folder)
    options = report.options
    if text_encoder is None:
        tokenizer: Any = data.processor.tokenizer
        wanted = vocabulary_filter or options["vocabulary_filter"]
    else:
        with loading_from(text_encoder):
            tokenizer = AutoTokenizer.from_pretrained(resolve_text_model(text_encoder), trust_remote_code=False)
        wanted = vocabulary_filter or "all"
        options["text_model"] = text_encoder
        options.pop("whole_words", None)  # only the prepared tokenizer has them
    text = data.folder / "text" / "train.parquet"
    captions, mirrored = read_captions([text] if text.is_file() else data.splits["train"])
    lexicon = caption_lexicon(captions, mirrored, tokenizer, wanted, options["min_document_frequency"])
    options["vocabulary_filter"] = wanted
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        LexMotionProcessor(data.processor.feature_extractor, tokenizer, lexicon).save_pretrained(aside / "processor")
        for part in ("data", "text"):
            if (data.folder / part).is_dir():
                (aside / part).symlink_to((data.folder / part).resolve(), target_is_directory=True)
        for recorded in (report.files, report.sha256):
            for name in [name for name in recorded if name.startswith("processor/")]:
                del recorded[name]
        report.record(aside, (aside / "processor").iterdir())
        write_json(aside / "report.json", report.to_dict())
        write_json(aside / MARK, mark)
        if folder.exists():
            shutil.rmtree(folder)
        aside.replace(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return folder
