"""
Encoding captions compared with sentence-transformers' `SparseEncoder` of the same weights, motions with eager PyTorch.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse
from transformers import AutoConfig, AutoTokenizer

from lexmotion import (
    LexMotionFeatureExtractor,
    LexMotionModel,
    LexMotionMotionConfig,
    LexMotionProcessor,
    LexMotionTextConfig,
    LexMotionTextModel,
)
from lexmotion.export.sparse_encoder import save_masked_lm
from lexmotion.processing.corpora.synthetic import action_specs, iterate_motions, write_captions
from lexmotion.processing.corpora.text_models import resolve_text_model
from lexmotion.processing.corpora.word_tokenizer import train_tokenizer
from lexmotion.processing.motion_features import mirror_positions
from lexmotion.views_lexmotion import as_vocabulary, mirrored_columns, views_of

from .harness import Case, require

DESCRIPTION = "encoding: captions against SparseEncoder, motions against plain eager PyTorch"
QUICK = {"captions": 8, "motions": 8}
MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
SMALL = {"hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 6, "intermediate_size": 768}
VIEWS = 4
# Name -> ours, and the dtype of the baseline. Both in equal precision first.
FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16
PRECISIONS = {
    "float32": ("fp32", FLOAT32),
    "bfloat16": ("bf16", BFLOAT16),
    "default precision, baseline float32": ("auto", FLOAT32),
}


def cases(
    captions: int = 1000,
    motions: int = 256,
    batch: int = 32,
    words: int = 0,
    active: int = 128,
    captions_file: str = "",
    device: str = "",
) -> list[Case]:
    """
    Build the cases of both sides.

    Args:
        captions, motions: size of the synthetic corpus; 0 skips a comparison.
        batch: batch size of the baseline; ours chooses its own.
        words: number of active words of the vocabulary, 0 for all.
        active: mean number of words per caption above zero.
        captions_file: a text file with one caption per line, to use instead.
        device: if empty, a GPU if available.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    texts = _captions(captions, captions_file)
    text_model, tokenizer = _text_model(texts or _captions(64, ""), words, active)
    found = _caption_cases(text_model, tokenizer, texts, batch, device) if texts else []
    return found + (_motion_cases(text_model, tokenizer, motions, batch, device) if motions else [])


def _caption_cases(
    text_model: LexMotionTextModel, tokenizer: Any, texts: list[str], batch: int, device: str
) -> list[Case]:
    try:
        from sentence_transformers import SparseEncoder
        from sentence_transformers.base.modules import Transformer
        from sentence_transformers.sparse_encoder.modules import SpladePooling
    except ImportError as error:
        raise ImportError("SparseEncoder: not installed; run `pip install sentence-transformers`") from error
    with tempfile.TemporaryDirectory() as folder:
        save_masked_lm(text_model, tokenizer, folder)
        transformer = Transformer(folder, transformer_task="fill-mask")
    theirs = SparseEncoder(modules=[transformer, SpladePooling(pooling_strategy="max")], device=device)
    model = text_model.to(device)

    def plain(dtype: torch.dtype) -> Callable[[], torch.Tensor]:
        def encode() -> torch.Tensor:
            with torch.autocast(device.partition(":")[0], dtype=dtype, enabled=dtype != FLOAT32):
                return theirs.encode(texts, batch_size=batch, show_progress_bar=False)

        return encode

    def ours(precision: str) -> Callable[[], sparse.csr_matrix]:
        return lambda: model.encode_text(texts, tokenizer, precision=precision)

    return [
        Case(f"captions, {name}", ours(precision), plain(dtype), AGREE[precision], len(texts), "captions")
        for name, (precision, dtype) in PRECISIONS.items()
    ]


def _motion_cases(text_model: LexMotionTextModel, tokenizer: Any, motions: int, batch: int, device: str) -> list[Case]:
    clips = [positions for *_, positions, _ in iterate_motions(motions)]
    extractor = LexMotionFeatureExtractor(representation="humanml3d", max_frames=208).fit(clips[:64])
    config = LexMotionMotionConfig(
        num_features=extractor.num_features, parts=extractor.parts, num_frames=extractor.max_frames, **SMALL
    )
    torch.manual_seed(0)
    model = LexMotionModel.from_towers(text_model, config).motion_model.eval().to(device)

    processor = LexMotionProcessor(extractor, tokenizer)

    @torch.no_grad()
    def encoded_plainly(motions: Any, dtype: torch.dtype) -> torch.Tensor:
        inputs = extractor(motions, fps=extractor.fps, return_tensors="pt").to(device)
        with torch.autocast(device.partition(":")[0], dtype=dtype, enabled=dtype != FLOAT32):
            return model(**inputs).motion_embeds.float().cpu()

    def plain(dtype: torch.dtype) -> Callable[[], sparse.csr_matrix]:
        def encode() -> sparse.csr_matrix:
            starts = range(0, len(clips), batch)
            parts = [encoded_plainly(clips[start : start + batch], dtype) for start in starts]
            return sparse.vstack([sparse.csr_matrix(part.numpy()) for part in parts], format="csr")

        return encode

    def plain_views() -> sparse.csr_matrix:
        """Encode one view after the other, and average them as dense vectors."""
        parts, active = [], model.lexical_head.active_ids.cpu().numpy()
        columns = mirrored_columns(processor.mirrored_ids, active)
        twins = torch.from_numpy(as_vocabulary(columns, active, model.config.vocab_size))
        for start in range(0, len(clips), batch):
            chosen = [torch.from_numpy(clip[: extractor.max_frames + 1]) for clip in clips[start : start + batch]]
            encoded = []
            for mirrored, *ends in views_of(VIEWS):
                shown = [mirror_positions(clip) for clip in chosen] if mirrored else chosen
                cuts = [[round(end * len(clip)) for end in ends] for clip in shown]
                crops = [clip[first:last] for clip, (first, last) in zip(shown, cuts, strict=True)]
                embeds = encoded_plainly(crops, FLOAT32)
                encoded.append(embeds[:, twins] if mirrored else embeds)
            every = torch.stack(encoded)
            average = every.mean(dim=0)
            for row, words in zip(average, (every > 0).sum(dim=-1).sum(dim=0).tolist(), strict=True):
                row[row.argsort(descending=True, stable=True)[(words + VIEWS // 2) // VIEWS :]] = 0.0
            parts.append(sparse.csr_matrix(average.numpy()))
        return sparse.vstack(parts, format="csr")

    def ours(precision: str, views: int = 1) -> Callable[[], sparse.csr_matrix]:
        return lambda: model.encode_motion(clips, extractor.fps, processor, precision=precision, views=views)

    found = [
        Case(f"motions, {name}", ours(precision), plain(dtype), AGREE[precision], len(clips), "motions")
        for name, (precision, dtype) in PRECISIONS.items()
    ]
    # Rounding decides between words of almost equal weight at the last place, so that no weights can be compared.
    return [
        *found,
        *(
            Case(f"motions, {VIEWS} views, {name}", ours(precision, VIEWS), plain_views, _alike, len(clips), "motions")
            for name, (precision, dtype) in PRECISIONS.items()
            if dtype == FLOAT32
        ),
    ]


def _captions(number: int, file: str) -> list[str]:
    """Return distinct captions of drawn actions, or the lines of a file."""
    if file:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line.strip()][: number or None]
    specs, rng = action_specs(), np.random.default_rng(0)
    texts: dict[str, None] = {}
    while len(texts) < number:
        chosen = rng.integers(len(specs), size=1 + int(rng.random() < 0.4))
        texts.update(dict.fromkeys(write_captions(tuple(specs[index] for index in chosen), rng, 1)))
    return list(texts)


def _text_model(texts: list[str], words: int, active: int) -> tuple[LexMotionTextModel, Any]:
    """Build a text tower from MiniLM, or with random weights of its size, with `active` words per caption."""
    try:
        folder = resolve_text_model("minilm")
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model = LexMotionTextModel.from_text_pretrained(folder)
    except ImportError:
        tokenizer = train_tokenizer(texts)
        torch.manual_seed(0)
        model = LexMotionTextModel(LexMotionTextConfig(encoder_config=AutoConfig.for_model("bert", **MINILM)))
    if words:
        model.set_active_words(range(len(tokenizer) - min(words, len(tokenizer)), len(tokenizer)))
    model.eval()
    sample = tokenizer(texts[:64], padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        scores = model(sample["input_ids"], sample["attention_mask"]).text_scores
    model.lexical_head.calibrate(scores, active)
    return model, tokenizer


# ---- agreement -----------------------------------------------------------------------------------------------------


def _pair(ours: sparse.csr_matrix, plain: Any) -> tuple[np.ndarray, np.ndarray]:
    return ours.toarray(), plain.toarray() if sparse.issparse(plain) else plain.to_dense().float().cpu().numpy()


def _same(ours: sparse.csr_matrix, plain: Any) -> str:
    """Require the same words with the same weights, up to rounding in float32."""
    mine, theirs = _pair(ours, plain)
    worst = np.abs(mine - theirs).max()
    require(worst < 1e-3, f"weights differ by up to {worst:.1e}")
    other = int(((mine > 0) != (theirs > 0)).sum())
    return f"weights to {worst:.0e}; {other} of {int((theirs > 0).sum())} active words differ"


def _alike(ours: sparse.csr_matrix, plain: Any) -> str:
    """Require the similarity that bfloat16 allows."""
    mine, theirs = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in _pair(ours, plain))
    cosine = (mine * theirs).sum(axis=1)
    require(cosine.min() > 0.95, f"the cosine of a vector is {cosine.min():.4f}")
    shared = ((mine > 0) & (theirs > 0)).sum() / ((mine > 0) | (theirs > 0)).sum()
    similar = [vectors @ vectors.T - 2 * np.eye(len(vectors)) for vectors in (mine, theirs)]
    nearest = np.mean(similar[0].argmax(axis=1) == similar[1].argmax(axis=1))
    return f"cosine at least {cosine.min():.4f}; {shared:.1%} of active words, {nearest:.1%} of nearest neighbours"


AGREE = {"fp32": _same, "bf16": _alike, "auto": _alike}
