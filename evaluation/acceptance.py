"""Acceptance measures of each phase on held-out data: not the loss it lowered, but the purpose of that loss.

The evaluators take batches made by the phase's own collator under a fixed seed, so that every checkpoint gets the same
questions. All figures are plain floats, averaged over items, never over batches.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from scipy import sparse

from .metrics.lexical import (
    antonym_auc,
    caption_coverage,
    dimension_usage,
    prior_coverage,
    stop_word_share,
    top_k_overlap,
)

CONFIDENCE = 1.96  # half-width of a 95 % interval in standard errors


class _Frozen:
    """Context of evaluation mode without gradients; the training mode is restored afterwards."""

    def __init__(self, model: torch.nn.Module):
        self.model, self.no_grad = model, torch.no_grad()

    def __enter__(self):
        self.was_training = self.model.training
        self.model.eval()
        self.no_grad.__enter__()

    def __exit__(self, *error):
        self.no_grad.__exit__(*error)
        self.model.train(self.was_training)


def _gain(own: Sequence[float], other: Sequence[float], weights: Sequence[int]) -> tuple[float, float]:
    """
    Return the weighted mean of other - own and the half-width of its 95 % interval over batches: infinite for one
    batch.
    """
    difference = np.asarray(other) - np.asarray(own)
    weight = np.asarray(weights, dtype=np.float64) / np.sum(weights)
    mean = float((difference * weight).sum())
    if len(difference) < 2:
        return mean, float("inf")  # the spread is unknown with one batch, so no gain counts as certain
    spread = float((weight * (difference - mean) ** 2).sum()) ** 0.5
    return mean, CONFIDENCE * spread / max(len(difference) - 1, 1) ** 0.5


def _rolled(rows: torch.Tensor) -> torch.Tensor:
    """Give every item another item's row."""
    return rows.roll(1, dims=0)


def evaluate_lexmlm(model: Any, batches: Iterable[dict], lexicon: Any, base_model: Any = None) -> dict[str, float]:
    """
    Measure phase i: does the decoder use the bottleneck to fill masked captions, and is its mass on content words?

    Args:
        model: `LexMotionForLexicalMaskedLM`.
        batches: its forward arguments, at least two captions each.
        lexicon: the processor's `Lexicon`.
        base_model: the untouched model, for comparison.

    Returns:
        `encoder_loss`, `decoder_loss`; `gain_over_zeroed`, `gain_over_shuffled` (nat per masked word) with `*_ci`;
        `stop_word_share`, `content_word_share` of the ten most important words, and `base_*` of the untouched model.
    """
    batches = list(batches)
    result: dict[str, float] = {}
    own, zeroed, shuffled, encoder, weights, encoder_weights = [], [], [], [], [], []
    importance, base_importance, captions = [], [], []
    with _Frozen(model):
        for batch in batches:
            _, p, b = model.bottleneck(batch["input_ids"], batch["attention_mask"])
            inputs = (batch["decoder_input_ids"], batch["attention_mask"], batch["decoder_labels"])
            own.append(float(model.text_decoder(model.text_model, b, *inputs)))
            zeroed.append(float(model.text_decoder(model.text_model, torch.zeros_like(b), *inputs)))
            shuffled.append(float(model.text_decoder(model.text_model, _rolled(b), *inputs)))
            weights.append(int((batch["decoder_labels"] != -100).sum()))
            encoder.append(float(model(**batch).encoder_loss))
            encoder_weights.append(int((batch["labels"] != -100).sum()))
            clean = _unmasked(batch)
            # Importance is computed on the unmasked caption, as the model will be used.
            importance.append(_sparse(model.bottleneck(clean, batch["attention_mask"])[1]))
            captions.append(clean.cpu().numpy())
    if base_model is not None:
        with _Frozen(base_model):
            for batch in batches:
                base_importance.append(_sparse(base_model.bottleneck(_unmasked(batch), batch["attention_mask"])[1]))
    result["encoder_loss"] = float(np.average(encoder, weights=encoder_weights))
    result["decoder_loss"] = float(np.average(own, weights=weights))
    for name, other in (("zeroed", zeroed), ("shuffled", shuffled)):
        result[f"gain_over_{name}"], result[f"gain_over_{name}_ci"] = _gain(own, other, weights)
    content = [lexicon_content(lexicon, row) for rows in captions for row in rows]
    for prefix, parts in (("", importance), ("base_", base_importance)):
        if parts:
            p = sparse.vstack(parts, format="csr")
            result[f"{prefix}stop_word_share"] = float(stop_word_share(p, lexicon.stop_word, k=10))
            result[f"{prefix}content_word_share"] = float(caption_coverage(p, content, k=10))
    return result


def lexicon_content(lexicon: Any, token_ids: Iterable[int]) -> list[int]:
    """Return the content words among the tokens of one caption, each once; see `Lexicon.content_tokens`."""
    ids = np.fromiter(token_ids, dtype=np.int64)
    return sorted(set(ids[lexicon.content_tokens(ids)].tolist()))


def _unmasked(batch: dict) -> torch.Tensor:
    """Restore the caption before it was masked: the inputs with the encoder's and the decoder's labels put back."""
    ids = torch.where(batch["labels"] != -100, batch["labels"], batch["input_ids"])
    return torch.where(batch["decoder_labels"] != -100, batch["decoder_labels"], ids)


def _sparse(rows: torch.Tensor) -> sparse.csr_matrix:
    return sparse.csr_matrix(rows.float().cpu().numpy())


def interpolate(values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """
    Fill unknown frames linearly in time between the nearest known ones; hold the value past the ends.

    Args:
        values: (B, T, F).
        known: (B, T, F) bool.

    Returns:
        (B, T, F); a column without any known frame is zero, the mean in normalised units.
    """
    frames = values.shape[1]
    time = torch.arange(frames, device=values.device)[None, :, None].expand_as(values)
    before = torch.where(known, time, -1).cummax(dim=1).values
    after = torch.where(known, time, frames).flip(1).cummin(dim=1).values.flip(1)
    start, end = before.clamp(min=0), after.clamp(max=frames - 1)
    left, right = values.gather(1, start), values.gather(1, end)
    left = torch.where(before < 0, right, left)
    right = torch.where(after >= frames, left, right)
    share = (time - start).clamp(min=0) / (end - start).clamp(min=1)
    filled = left + (right - left) * share
    return torch.where((before < 0) & (after >= frames), 0.0, filled)


def position_columns(feature_extractor: Any) -> torch.Tensor:
    """
    Return the columns of the motion values that are joint positions, or unit vectors among joint angles, in threes.
    """
    from lexmotion.processing.joint_angles import direction_columns
    from lexmotion.processing.skeletons import get_skeleton

    if feature_extractor.representation == "joint_angles":
        return torch.tensor(direction_columns(feature_extractor.skeleton))
    joints = get_skeleton(feature_extractor.skeleton).num_joints
    if feature_extractor.representation == "positions":
        return torch.arange(3 * joints)
    return torch.arange(4, 4 + 3 * (joints - 1))


def evaluate_cmmm(model: Any, batches: Iterable[dict], feature_extractor: Any) -> dict[str, float]:
    """
    Measure phase ii: are hidden body parts and windows rebuilt better than by interpolation or by the mean pose?

    Args:
        model: `LexMotionForContrastiveMaskedMotion`.
        batches: its forward arguments.
        feature_extractor: converts errors back to units.

    Returns:
        `masked_error`, `interpolation_error`, `mean_pose_error`: mean joint distance at hidden positions, metres
        (joint angles: mean distance of unit vectors, which is radians if small); `same_clip_r1`: percent of crops
        whose nearest neighbour among the batch's other crops is the same clip, beside `same_clip_chance`;
        `feature_spread`: standard deviation of unit features times sqrt(D), 0 if collapsed, 1 if isotropic.
    """
    from lexmotion.processing.skeletons import get_skeleton

    columns = position_columns(feature_extractor)
    distances, counts = np.zeros(3), 0
    hits = queries = 0
    spread, batches_compared = [], 0
    encoder = model.motion_model.encoder
    patch = encoder.embeddings.patch_frames
    scale = torch.as_tensor(feature_extractor.std, dtype=torch.float32)[columns]
    if feature_extractor.representation == "humanml3d":  # published features have the unit of their corpus
        scale = scale * get_skeleton(feature_extractor.skeleton).metres_per_unit
    with _Frozen(model):
        for batch in batches:
            output = model(**batch)
            values, real = encoder.embeddings.windows(batch["motion_values"], batch["motion_attention_mask"])
            batch_size, windows, _, width = values.shape
            _, valid = encoder.embeddings(batch["motion_values"], batch["motion_attention_mask"])
            hidden = batch["token_mask"].view(batch_size, windows, -1) & valid
            asked = torch.zeros(batch_size, windows, width, dtype=torch.bool, device=values.device)
            for number, part in enumerate(encoder.config.parts):
                asked[..., part] |= hidden[:, :, number, None]
            asked = asked[:, :, None].expand(-1, -1, patch, -1).flatten(1, 2)
            real = real.flatten(1, 2)[..., None]
            values = values.flatten(1, 2)
            straight = interpolate(values, real & ~asked)
            want = (asked & real)[..., columns][..., ::3]  # (B, T, J)
            for number, guess in enumerate((output.reconstruction, straight, torch.zeros_like(values))):
                error = ((guess - values)[..., columns] * scale.to(values.device)).unflatten(-1, (-1, 3)).norm(dim=-1)
                distances[number] += float(error[want].sum())
            counts += int(want.sum())
            if "teacher_motion_values" in batch:
                one = _unit_mean(encoder, batch["motion_values"], batch["motion_attention_mask"])
                two = _unit_mean(encoder, batch["teacher_motion_values"], batch["teacher_motion_attention_mask"])
                nearest = (one @ two.T).argmax(dim=1)
                hits += int((nearest == torch.arange(len(one), device=one.device)).sum())
                queries += len(one)
                batches_compared += 1
                spread.append(float(one.std(dim=0).mean()) * one.shape[1] ** 0.5)
    error = distances / max(counts, 1)
    result = {"masked_error": error[0], "interpolation_error": error[1], "mean_pose_error": error[2]}
    if queries:
        result |= {
            "same_clip_r1": 100.0 * hits / queries,
            "same_clip_chance": 100.0 * batches_compared / queries,
            "feature_spread": float(np.mean(spread)),
        }
    return {name: float(value) for name, value in result.items()}


def _unit_mean(encoder: Any, motion_values: torch.Tensor, frame_mask: torch.Tensor) -> torch.Tensor:
    states, seen, *_ = encoder(motion_values, frame_mask)
    mean = (states * seen[..., None]).sum(dim=1) / seen.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.nn.functional.normalize(mean.float(), dim=-1)


def evaluate_lexmmm(
    model: Any, batches: Iterable[dict], lexicon: Any, corpus_prior: np.ndarray | None = None
) -> dict[str, float]:
    """
    Measure phase iii: do a motion's words help to fill its caption, and are they the words of its captions?

    Args:
        model: `LexMotionForLexicalMaskedMotion`.
        batches: its forward arguments; positive `bow_weights` mark a clip's content words.
        corpus_prior: number of training captions per content word (V,); its top 20 are the baseline.

    Returns:
        `caption_loss`, `gain_over_shuffled` (nat per masked word, with `_ci`), `gain_content_words`,
        `gain_stop_words`; `coverage_top20`: share of a clip's content words among the motion's 20 most important,
        beside `prior_top20`; `antonym_auc`: how well opposite words (left/right, up/down, ...) are distinguished, 0.5
        = not at all.
    """
    own, shuffled, weights = [], [], []
    by_kind: dict[str, list[tuple[float, int]]] = {"content_words": [], "stop_words": []}
    importance, content = [], []
    stop = torch.as_tensor(lexicon.stop_word)
    with _Frozen(model):
        text_model = model.model.text_model
        for batch in batches:
            _, _, p, b = model.bottleneck(batch["motion_values"], batch["motion_attention_mask"])
            inputs = (batch["decoder_input_ids"], batch["decoder_attention_mask"])
            labels = batch["decoder_labels"]
            own.append(float(model.text_decoder(text_model, b, *inputs, labels)))
            shuffled.append(float(model.text_decoder(text_model, _rolled(b), *inputs, labels)))
            weights.append(int((labels != -100).sum()))
            is_stop = stop.to(labels.device)[labels.clamp(min=0)]
            for kind, chosen in (("content_words", ~is_stop), ("stop_words", is_stop)):
                asked = torch.where(chosen, labels, -100)
                count = int((asked != -100).sum())
                if count:
                    other, mine = (float(model.text_decoder(text_model, x, *inputs, asked)) for x in (_rolled(b), b))
                    by_kind[kind].append((other - mine, count))
            importance.append(_sparse(p))
            content += [row.nonzero()[0].tolist() for row in batch["bow_weights"].cpu().numpy() > 0]
    p = sparse.vstack(importance, format="csr")
    gain, interval = _gain(own, shuffled, weights)
    result = {
        "caption_loss": float(np.average(own, weights=weights)),
        "gain_over_shuffled": gain,
        "gain_over_shuffled_ci": interval,
        "coverage_top20": float(caption_coverage(p, content, k=20)),
    }
    for kind, gains in by_kind.items():
        if gains:
            result[f"gain_{kind}"] = float(np.average([g for g, _ in gains], weights=[n for _, n in gains]))
    if corpus_prior is not None:
        result["prior_top20"] = prior_coverage(corpus_prior, content, k=20)
    auc = antonym_auc(p, content, lexicon)
    if auc is not None:
        result["antonym_auc"] = auc
    return result


def word_frequency(content: Iterable[Sequence[int]], vocab_size: int) -> np.ndarray:
    """Count the clips that each content word occurs in: (V,)."""
    return np.bincount(np.fromiter((i for words in content for i in set(words)), dtype=np.int64), minlength=vocab_size)


def evaluate_lexical_space(
    text_embeds: sparse.csr_matrix,
    motion_embeds: sparse.csr_matrix,
    content: Sequence[Sequence[int]],
    lexicon: Any,
    corpus_prior: np.ndarray | None = None,
) -> dict[str, float]:
    """
    Measure phase iv: is the common space sparse, are its words in use, and are they those of the captions?

    Args:
        text_embeds, motion_embeds: (N, V) CSR, paired by row.
        content: content words of each clip's captions.
        corpus_prior: as in `evaluate_lexmmm`.

    Returns:
        Mean active words of both sides, distinct words used, words active in over half of the items (universal),
        coverage of content words by the motion's top 10 and 20 beside the prior's, top-20 overlap of the two sides,
        and the antonym AUC of the motion vectors.
    """
    result: dict[str, float] = {}
    for side, embeds in (("text", text_embeds), ("motion", motion_embeds)):
        usage = dimension_usage(embeds)
        result |= {f"{side}_{name}": float(value) for name, value in usage.items()}
    for k in (10, 20):
        result[f"coverage_top{k}"] = float(caption_coverage(motion_embeds, content, k=k))
        if corpus_prior is not None:
            result[f"prior_top{k}"] = prior_coverage(corpus_prior, content, k=k)
    result["overlap_top20"] = float(top_k_overlap(text_embeds, motion_embeds, k=20))
    auc = antonym_auc(motion_embeds, content, lexicon)
    if auc is not None:
        result["antonym_auc"] = auc
    return result
