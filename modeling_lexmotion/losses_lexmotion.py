"""The losses of the four phases as functions of tensors; batch statistics cover all processes."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch.nn import functional as F


class _GatherWithGradient(torch.autograd.Function):
    """Concatenates a tensor over processes; gradients from all processes flow back to its owner."""

    @staticmethod
    def forward(ctx, tensor):
        ctx.rows = tensor.shape[0]
        gathered = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, tensor.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient[own_rows(ctx.rows)]


def _world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """Return the rows of all processes in rank order, (B, ...) -> (world * B, ...); B must be equal on all."""
    return tensor if _world_size() == 1 else _GatherWithGradient.apply(tensor)


def own_rows(count: int) -> slice:
    """Return the slice of this process's `count` rows among the rows of all, see `gather`."""
    start = dist.get_rank() * count if dist.is_available() and dist.is_initialized() else 0
    return slice(start, start + count)


def global_mean(total: torch.Tensor, count: torch.Tensor | float) -> torch.Tensor:
    """
    Return the mean over the items of all processes from this process's sum `total` and number of items `count`, such
    that averaging gradients in data-parallel training gives the gradient of the complete batch.
    """
    count = torch.as_tensor(count, dtype=torch.float32, device=total.device).clone()
    world = _world_size()
    if world > 1:
        dist.all_reduce(count)
    return total * world / count.clamp(min=1.0)


def flops(embeds: torch.Tensor) -> torch.Tensor:
    """
    FLOPS regularizer (Paria et al. 2020; SPLADE), the expected cost of one inverted-index lookup: large if a word is
    active in all items of the batch. `embeds` (B, V) are non-negative and **not normalized**.
    """
    return gather(embeds).float().mean(dim=0).square().sum()


def cosine(embeds: torch.Tensor, eps: float = 1e-6) -> torch.Tensor:
    """Scale rows to unit length; an empty (all-zero) vector stays zero instead of becoming NaN."""
    return embeds / embeds.norm(dim=-1, keepdim=True).clamp(min=eps)


def info_nce(
    logits: torch.Tensor,
    positives: torch.Tensor,
    ignored: torch.Tensor | None = None,
    hard_negative_beta: float | None = None,
) -> torch.Tensor:
    """
    Multi-positive InfoNCE: mean over queries (rows) and their positives of -log softmax.

    Args:
        logits: (Q, K) similarities divided by the temperature.
        positives: (Q, K) bool, or non-negative weights, which are scaled to sum to one per row; rows without positives
            are not counted.
        ignored: (Q, K) bool, neither positive nor negative (false negatives); positives take precedence.
        hard_negative_beta: reweight negatives by exp(beta * logit), normalized to mean one (MGA-CLAP, eq. 6).
    """
    logits, weights = logits.float(), positives.float()
    positives = weights > 0
    negatives = ~positives if ignored is None else ~positives & ~ignored
    if hard_negative_beta is not None:
        hardness = (hard_negative_beta * logits.detach()).masked_fill(~negatives, -torch.inf)
        log_weight = hardness.log_softmax(dim=1) + negatives.sum(dim=1, keepdim=True).clamp(min=1).log()
        logits = torch.where(negatives, logits + log_weight, logits)
    log_probability = logits.masked_fill(~(positives | negatives), -torch.inf).log_softmax(dim=1)
    asked = positives.any(dim=1)
    total = weights.sum(dim=1).masked_fill(~asked, 1.0)
    per_query = -(weights * log_probability.masked_fill(~positives, 0.0)).sum(dim=1) / total
    return global_mean(per_query.sum(), asked.sum())


def symmetric_info_nce(
    text: torch.Tensor,
    motion: torch.Tensor,
    targets: torch.Tensor,
    ignored: torch.Tensor | None = None,
    temperature: float | torch.Tensor = 1.0,
    hard_negative_beta: float | None = None,
) -> torch.Tensor:
    """
    Mean of InfoNCE in both directions between the rows of this process and those of all; summed over processes, this
    is the loss of the complete batch.

    Args:
        text, motion: (Bt, D) and (Bm, D), of this process; their products are the similarities.
        targets: (all Bt, all Bm) bool or weights, how well a motion matches a caption.
        ignored: (all Bt, all Bm) bool, see [`info_nce`], as `hard_negative_beta`.
        temperature: divisor of the similarities.
    """

    def direction(queries, keys, positives, others):
        rows = own_rows(queries.shape[0])
        others = None if others is None else others[rows]
        return info_nce(queries @ gather(keys).T / temperature, positives[rows], others, hard_negative_beta)

    t2m = direction(text, motion, targets, ignored)
    m2t = direction(motion, text, targets.T, None if ignored is None else ignored.T)
    return 0.5 * (t2m + m2t)


def distillation(
    text: torch.Tensor,
    motion: torch.Tensor,
    teacher_text: torch.Tensor,
    teacher_motion: torch.Tensor,
    temperature: float | torch.Tensor = 1.0,
) -> torch.Tensor:
    """
    Divergence KL(teacher || student) of the distributions over the batch, mean of both directions; the teacher is not
    trained by it.

    Args:
        text, motion: (Bt, D) and (Bm, D), of this process; their products are the student's similarities.
        teacher_text, teacher_motion: (Bt, E) and (Bm, E), likewise.
        temperature: divisor of both similarities.
    """

    def direction(queries, keys, teacher_queries, teacher_keys):
        teacher = (teacher_queries @ gather(teacher_keys).T / temperature).detach()
        shares = teacher.softmax(dim=1)
        return info_nce(queries @ gather(keys).T / temperature, shares) - info_nce(teacher, shares)

    t2m = direction(text, motion, teacher_text, teacher_motion)
    return 0.5 * (t2m + direction(motion, text, teacher_motion, teacher_text))


def paired_clip_ids(
    shape: Sequence[int],
    text_clip_ids: torch.Tensor | None = None,
    motion_clip_ids: torch.Tensor | None = None,
    device: torch.device | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return the clips of this process's captions and motions, (Bt,) and (Bm,), for `shape` (Bt, Bm): by default, row i
    with row i. Raises ValueError if neither is possible.
    """
    if text_clip_ids is not None and motion_clip_ids is not None:
        return text_clip_ids, motion_clip_ids
    num_texts, num_motions = shape
    if num_texts != num_motions:
        got = f"got {num_texts} captions and {num_motions} motions, which cannot be paired row by row"
        raise ValueError(f"{got}; pass text_clip_ids and motion_clip_ids")
    rows = own_rows(num_texts)
    ids = torch.arange(rows.start, rows.stop, device=device)
    return ids, ids


def same_clip(text_clip_ids: torch.Tensor, motion_clip_ids: torch.Tensor) -> torch.Tensor:
    """Return (all Bt, all Bm) bool: captions and motions of one clip, for their clip ids (Bt,) and (Bm,)."""
    return gather(text_clip_ids)[:, None] == gather(motion_clip_ids)[None, :]


def false_negatives(caption_features: torch.Tensor, targets: torch.Tensor, threshold: float) -> torch.Tensor:
    """
    Return (all Bt, all Bm) bool: motions with a caption similar to a caption (Petrovich et al. 2023, section 3.3).

    Args:
        caption_features: (Bt, d) unit sentence vectors.
        targets: (all Bt, all Bm), see [`symmetric_info_nce`].
        threshold: cosine above which two captions have the same meaning.
    """
    features = gather(caption_features)
    alike = (features @ features.T) > threshold  # (all Bt, all Bt)
    return (alike.float() @ targets.float()) > 0


def order_contrast(
    true: torch.Tensor, swapped: torch.Tensor, counted: torch.Tensor, temperature: float
) -> torch.Tensor:
    """
    InfoNCE between each caption and a copy with its events in another order, for the caption's motion.

    Args:
        true, swapped: (S,) scores of the captions with their motion.
        counted: (S,) bool, False for padding rows.
    """
    per_caption = F.softplus((swapped - true).float() / temperature)
    return global_mean((per_caption * counted).sum(), counted.sum())


def caption_positives(
    text_clip_ids: torch.Tensor, motion_clip_ids: torch.Tensor, caption_ids: torch.Tensor
) -> torch.Tensor:
    """
    Return (Bt, Bm) bool: motions that a caption truly describes, because both come from one clip or the motion has an
    identical caption in the batch.

    Args:
        text_clip_ids, motion_clip_ids: (Bt,) and (Bm,), the clips of captions and motions.
        caption_ids: (Bt,), equal for equal caption strings.
    """
    same_clip = text_clip_ids[:, None] == motion_clip_ids[None, :]
    same_caption = caption_ids[:, None] == caption_ids[None, :]
    return (same_caption.float() @ same_clip.float()) > 0


def share_an_id(text_ids: torch.Tensor, motion_ids: torch.Tensor) -> torch.Tensor:
    """Return (Bt, Bm) bool: pairs with a common id, for integers (Bt, Kt) and (Bm, Km)."""
    return (text_ids[:, None, :, None] == motion_ids[None, :, None, :]).flatten(2).any(dim=2)


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy over the labelled tokens of all processes, for logits (M, A) and targets (M,)."""
    return global_mean(F.cross_entropy(logits.float(), targets, reduction="sum"), targets.numel())


def masked_mse(parts: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """
    Return the mean squared error over the marked vectors of several tensors together, for `parts` of prediction (...,
    C), target (..., C) and mark (...); C may differ.
    """
    totals, counts = [], []
    for prediction, target, marked in parts:
        totals.append(((prediction.float() - target).square().sum(dim=-1) * marked).sum())
        counts.append(marked.sum() * target.shape[-1])
    return global_mean(torch.stack(totals).sum(), torch.stack(counts).sum())


def standardize_tokens(target: torch.Tensor, marked: torch.Tensor, eps: float = 1e-6) -> torch.Tensor:
    """
    Shift and scale each token of a target to mean 0 and variance 1 over its marked frames and all channels (MAMP).

    Args:
        target: (B, Nt, P, C), tokens of P frames and C channels.
        marked: (B, Nt, P) bool; the other frames do not count, and their result is meaningless.
        eps: added to the variance, so that the noise of a part at rest is not enlarged (1 mm squared, in metres).
    """
    weight = marked[..., None].to(target.dtype)
    count = (weight.sum(dim=(-2, -1), keepdim=True) * target.shape[-1]).clamp(min=1.0)
    centred = target - (target * weight).sum(dim=(-2, -1), keepdim=True) / count
    variance = (centred.square() * weight).sum(dim=(-2, -1), keepdim=True) / count
    return centred * (variance + eps).rsqrt()


def bag_of_words(log_probability: torch.Tensor, bow_weights: torch.Tensor) -> torch.Tensor:
    """
    Match a motion's word distribution with the words of its captions: - sum_v w_v log p_v, mean over clips.

    Args:
        log_probability: (B, V) log softmax of the pooled word scores.
        bow_weights: (B, V) non-negative; rows sum to one, or to zero for clips without content words (not counted).
    """
    per_clip = -(bow_weights * log_probability.masked_fill(bow_weights == 0, 0.0)).sum(dim=-1)
    return global_mean(per_clip.sum(), (bow_weights.sum(dim=-1) > 0).sum())
