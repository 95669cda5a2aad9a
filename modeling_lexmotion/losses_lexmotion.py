"""The losses of the four phases: functions of tensors, global over processes where a batch statistic is meant."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch.nn import functional as F


class _GatherWithGradient(torch.autograd.Function):
    """Concatenate a tensor over processes; the gradient of every process's use of it flows back to its owner."""

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
    """Rows of all processes, in rank order: (B, ...) -> (world * B, ...). Every process must hold the same B."""
    return tensor if _world_size() == 1 else _GatherWithGradient.apply(tensor)


def own_rows(count: int) -> slice:
    """Where the `count` rows of this process stand among the rows of all, see `gather`."""
    start = dist.get_rank() * count if dist.is_available() and dist.is_initialized() else 0
    return slice(start, start + count)


def global_mean(total: torch.Tensor, count: torch.Tensor | float) -> torch.Tensor:
    """
    Mean over the items of all processes, such that data-parallel averaging of gradients gives the big batch's
    gradient.

    Args:
        total: this process's sum, a scalar.
        count: how many items it sums over; processes may differ.
    """
    count = torch.as_tensor(count, dtype=torch.float32, device=total.device).clone()
    world = _world_size()
    if world > 1:
        dist.all_reduce(count)
    return total * world / count.clamp(min=1.0)


def flops(embeds: torch.Tensor) -> torch.Tensor:
    """
    FLOPS regulariser, expected cost of one inverted-index lookup: large when a word fires for every item of the batch.

    Args:
        embeds: (B, V) non-negative, **unnormalised** lexical vectors (Paria et al. 2020; SPLADE).
    """
    return gather(embeds).float().mean(dim=0).square().sum()


def cosine(embeds: torch.Tensor, eps: float = 1e-6) -> torch.Tensor:
    """Rows scaled to unit length; an empty (all-zero) vector stays zero instead of becoming NaN."""
    return embeds / embeds.norm(dim=-1, keepdim=True).clamp(min=eps)


def info_nce(
    logits: torch.Tensor,
    positives: torch.Tensor,
    ignored: torch.Tensor | None = None,
    hard_negative_beta: float | None = None,
) -> torch.Tensor:
    """
    Multi-positive InfoNCE, one row a query: mean over its positives of -log softmax.

    Args:
        logits: (Q, K) similarities divided by the temperature.
        positives: (Q, K) bool, or non-negative weights of the positives, scaled to sum to one in each row; rows
            without a positive count nothing.
        ignored: (Q, K) bool, neither positive nor negative (false negatives); positives win over it.
        hard_negative_beta: reweight negatives by exp(beta * logit), normalised to mean one (MGA-CLAP, eq. 6).
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
    Mean of InfoNCE in both directions, the rows of this process against those of all; their sum over the processes is
    the loss of the big batch.

    Args:
        text: (Bt, D) and motion: (Bm, D), of this process; their products are the similarities.
        targets: (all Bt, all Bm) bool or weights, how right a motion is for a caption. ignored: likewise, bool.
        temperature: divides the similarities. hard_negative_beta: see [`info_nce`].
    """

    def direction(queries, keys, positives, others):
        rows = own_rows(queries.shape[0])
        others = None if others is None else others[rows]
        return info_nce(queries @ gather(keys).T / temperature, positives[rows], others, hard_negative_beta)

    t2m = direction(text, motion, targets, ignored)
    m2t = direction(motion, text, targets.T, None if ignored is None else ignored.T)
    return 0.5 * (t2m + m2t)


def paired_clip_ids(
    shape: Sequence[int],
    text_clip_ids: torch.Tensor | None = None,
    motion_clip_ids: torch.Tensor | None = None,
    device: torch.device | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Clips of the captions (Bt,) and of the motions (Bm,) of this process: as given, else row i belongs to row i.

    Args:
        shape: (Bt, Bm).

    Raises:
        ValueError: neither is possible.
    """
    if text_clip_ids is not None and motion_clip_ids is not None:
        return text_clip_ids, motion_clip_ids
    num_texts, num_motions = shape
    if num_texts != num_motions:
        raise ValueError(
            f"{num_texts} captions and {num_motions} motions cannot be paired row by row; give text_clip_ids and "
            "motion_clip_ids"
        )
    rows = own_rows(num_texts)
    ids = torch.arange(rows.start, rows.stop, device=device)
    return ids, ids


def same_clip(text_clip_ids: torch.Tensor, motion_clip_ids: torch.Tensor) -> torch.Tensor:
    """(all Bt, all Bm) bool: captions (Bt,) and motions (Bm,) of one clip, by the ids of their clips."""
    return gather(text_clip_ids)[:, None] == gather(motion_clip_ids)[None, :]


def false_negatives(caption_features: torch.Tensor, targets: torch.Tensor, threshold: float) -> torch.Tensor:
    """
    Motions that a caption near the caption describes (Petrovich et al. 2023, section 3.3): (all Bt, all Bm) bool.

    Args:
        caption_features: (Bt, d) unit sentence vectors. targets: (all Bt, all Bm), see [`symmetric_info_nce`].
        threshold: cosine above which two captions say the same.
    """
    features = gather(caption_features)
    alike = (features @ features.T) > threshold  # (all Bt, all Bt)
    return (alike.float() @ targets.float()) > 0


def order_contrast(
    true: torch.Tensor, swapped: torch.Tensor, counted: torch.Tensor, temperature: float
) -> torch.Tensor:
    """
    Of two captions that tell the same events in another order, a motion must prefer its own: InfoNCE between the two.

    Args:
        true, swapped: (S,) scores of the captions with their motion. counted: (S,) bool, the other rows are filling.
    """
    per_caption = F.softplus((swapped - true).float() / temperature)
    return global_mean((per_caption * counted).sum(), counted.sum())


def caption_positives(
    text_clip_ids: torch.Tensor, motion_clip_ids: torch.Tensor, caption_ids: torch.Tensor
) -> torch.Tensor:
    """
    Which motion each caption truly describes: (Bt, Bm) bool.

    A motion is right for a caption when both come from one clip, or when the motion has an identical caption in the
    batch.

    Args:
        text_clip_ids: (Bt,) clip of every caption. motion_clip_ids: (Bm,) clip of every motion.
        caption_ids: (Bt,) equal for equal caption strings.
    """
    same_clip = text_clip_ids[:, None] == motion_clip_ids[None, :]
    same_caption = caption_ids[:, None] == caption_ids[None, :]
    return (same_caption.float() @ same_clip.float()) > 0


def share_an_id(text_ids: torch.Tensor, motion_ids: torch.Tensor) -> torch.Tensor:
    """(Bt, Bm) bool: pairs with an id in common. text_ids (Bt, Kt), motion_ids (Bm, Km), integers."""
    return (text_ids[:, None, :, None] == motion_ids[None, :, None, :]).flatten(2).any(dim=2)


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy over the labelled tokens of all processes. logits (M, A), targets (M,)."""
    return global_mean(F.cross_entropy(logits.float(), targets, reduction="sum"), targets.numel())


def masked_mse(parts: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """
    Mean squared error over the marked vectors of several tensors together.

    Args:
        parts: (prediction (..., C), target (..., C), marked (...)) each; C may differ.
    """
    totals, counts = [], []
    for prediction, target, marked in parts:
        totals.append(((prediction.float() - target).square().sum(dim=-1) * marked).sum())
        counts.append(marked.sum() * target.shape[-1])
    return global_mean(torch.stack(totals).sum(), torch.stack(counts).sum())


def bag_of_words(log_probability: torch.Tensor, bow_weights: torch.Tensor) -> torch.Tensor:
    """
    Grounding of a motion's word distribution in the words of its captions: - sum_v w_v log p_v, mean over the clips.

    Args:
        log_probability: (B, V) log softmax of the pooled word scores.
        bow_weights: (B, V) non-negative, rows sum to one, or to zero for a clip without content words (not counted).
    """
    per_clip = -(bow_weights * log_probability.masked_fill(bow_weights == 0, 0.0)).sum(dim=-1)
    return global_mean(per_clip.sum(), (bow_weights.sum(dim=-1) > 0).sum())
