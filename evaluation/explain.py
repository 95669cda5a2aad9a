"""Explanations of the score of a motion and a caption: shared words, and the body part and time of each word."""

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from lexmotion.processing.recordings.options import ReadingOptions
from lexmotion.processing.skeletons import part_names

from .encoding.vectors import has_parts
from .loading import read_motion_for, ready_model


@dataclass
class WordEvidence:
    """
    Evidence for one word of a motion.

    Args:
        word: the word as displayed.
        weight, text_weight: weights in the motion's and the caption's vector, 0 if the caption does not have the word.
        contribution: contribution to the cosine of the pair, which is the sum over shared words; 0 without a caption.
        part, start, end: body part of the winning token, and its time window in seconds.
    """

    word: str
    weight: float
    text_weight: float
    contribution: float
    part: str
    start: float
    end: float


@dataclass
class Explanation:
    """
    Words of a motion, and of a caption if there is one.

    Args:
        words, text_words: the motion's words, heaviest first, and (word, weight) of the caption `text`.
        grid: (Nt, Np).
        window_seconds: length of a time window.
        maps: for each of `words`, its score at every grid cell after saturation (Nt, Np).
        score: cosine of the two word vectors, None without a caption.
        model_score: the score that the model ranks by, if that is more than this cosine (words of segments, a dense
            vector), else None; words explain only the cosine.
    """

    words: list[WordEvidence]
    grid: tuple[int, int]
    window_seconds: float
    maps: np.ndarray
    text: str | None = None
    text_words: list[tuple[str, float]] = field(default_factory=list)
    score: float | None = None
    model_score: float | None = None

    @property
    def rest(self) -> float:
        """Contribution to `score` of word pieces, which are not displayed."""
        return 0.0 if self.score is None else self.score - sum(word.contribution for word in self.words)

    @property
    def shared(self) -> list[WordEvidence]:
        """Words that both sides have, largest contribution first."""
        return sorted((word for word in self.words if word.contribution > 0), key=lambda word: -word.contribution)


@torch.inference_mode()
def explain(
    model: Any, motion: Any, text: str | None = None, processor: Any = None, fps: float | None = None, k: int = 20
) -> Explanation:
    """
    Explain the words of one motion and where they come from, as `lexmotion explain` prints them.

    Args:
        model: folder or Hub name of a trained model, or a loaded `LexMotionModel`.
        motion: (T, J, 3) positions in metres or (T, 263 | 251) features, or a motion file.
        text: a caption to compare with.
        processor: the model's; None loads the one saved beside it.
        fps: frames per second of the motion; None uses that of the file, else the model's.
        k: number of the motion's words to explain, besides all shared words.

    Raises:
        FileNotFoundError: if the model or file does not exist.
        ValueError: if the caption is empty, or the motion does not have the model's skeleton.

    Example:
        >>> found = explain("runs/small/model", "kick.bvh", text="a person kicks")  # doctest: +SKIP
        >>> [(word.word, word.part, word.start) for word in found.shared]  # doctest: +SKIP
    """
    model, processor = ready_model(model, processor)
    if isinstance(motion, str | os.PathLike):
        read, fps = read_motion_for(processor, motion, ReadingOptions(fps=fps))
        motion = read.model_input
    lexicon, extractor = processor.lexicon, processor.feature_extractor
    values = extractor(motion, fps=fps, return_tensors="pt").to(model.device)
    tower = model.get_motion_features(**values, output_token_logits=True)
    z_m = tower.motion_embeds[0].float().cpu()
    windows, parts = tower.grid
    head = model.motion_model.lexical_head
    column = {int(word): number for number, word in enumerate(head.active_ids.cpu())}
    z_t = torch.zeros_like(z_m)
    score = model_score = None
    text_words: list[tuple[str, float]] = []
    if text is not None:
        if not text.strip():
            raise ValueError("text: the caption is empty; omit it to see only the motion's words")
        tokens = processor(text=[text], return_tensors="pt").to(model.device)
        caption = model.get_text_features(tokens["input_ids"], tokens["attention_mask"])
        z_t = caption.text_embeds[0].float().cpu()
        score = float(torch.nn.functional.cosine_similarity(z_m, z_t, dim=0))
        if has_parts(model):
            model_score = float((model.score_vectors(caption) * model.score_vectors(tower)).sum())
        text_words = processor.top_words(z_t[None].numpy(), k)[0]
    product = z_m * z_t / (z_m.norm() * z_t.norm()).clamp(min=1e-6)
    chosen = [int(i) for i in z_m.argsort(descending=True) if z_m[i] > 0 and lexicon.displayed[i]][:k]
    chosen += [int(i) for i in product.nonzero()[:, 0] if int(i) not in set(chosen) and lexicon.displayed[i]]
    window_seconds = model.config.motion_config.patch_frames / extractor.fps
    duration = float(values["motion_attention_mask"].sum()) / extractor.fps
    names = part_names(parts)
    words, maps = [], []
    seen = tower.token_attention_mask[0].cpu()
    for word in chosen:
        logits = tower.token_logits[0, :, column[word]].float().cpu().masked_fill(~seen, -torch.inf)
        window, part = divmod(int(tower.winning_tokens[0, column[word]]), parts)
        weights = float(z_m[word]), float(z_t[word]), float(product[word])
        start, end = window * window_seconds, min((window + 1) * window_seconds, duration)
        words.append(WordEvidence(lexicon.word(word), *weights, names[part], start, end))
        maps.append(torch.log1p(torch.relu(logits)).view(windows, parts).numpy())
    stacked = np.stack(maps) if maps else np.zeros((0, windows, parts), dtype=np.float32)
    grid = windows, parts
    return Explanation(words, grid, window_seconds, stacked, text, text_words, score, model_score)
