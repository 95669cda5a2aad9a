"""
The models of the four pretraining phases: LexMLM, CMMM, LexMMM and LexCMLP (Lyu et al., ICLR 2025).

Each contains a tower or the dual encoder of `modeling_lexmotion.py`, adds the parts that only training needs, and
returns the parts of its loss by name. Letters in shape comments are those of `modeling_lexmotion.py`.
"""

import copy
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_lexmotion import LexMotionConfig, LexMotionMotionConfig, LexMotionTextConfig
from .layers_lexmotion import (
    GridPositions,
    LexMotionAttention,
    LexMotionDecoder,
    LexMotionLayer,
    WithLoss,
    by_length,
    masked_mean,
)
from .losses_lexmotion import (
    bag_of_words,
    caption_positives,
    cosine,
    distillation,
    false_negatives,
    flops,
    gather,
    info_nce,
    masked_mse,
    order_contrast,
    own_rows,
    paired_clip_ids,
    same_clip,
    share_an_id,
    standardize_tokens,
    symmetric_info_nce,
)
from .modeling_lexmotion import (
    LexMotionModel,
    LexMotionMotionEmbeddings,
    LexMotionMotionEncoder,
    LexMotionMotionModel,
    LexMotionMotionPreTrainedModel,
    LexMotionOutput,
    LexMotionPreTrainedModel,
    LexMotionTextModel,
    LexMotionTextOutput,
    LexMotionTextPreTrainedModel,
)


@dataclass
class LexMotionLexicalMaskedLMOutput(WithLoss):
    """
    Output of phase i.

    Args:
        encoder_loss, decoder_loss: cross-entropy of the encoder and the weak decoder at their masked words.
        importance, bottleneck: p (B, V), the softmax of the pooled word scores, and b (B, E), the decoder's input.
        hidden_states, attentions: of the text tower, on request.
    """

    encoder_loss: torch.FloatTensor | None = None
    decoder_loss: torch.FloatTensor | None = None
    importance: torch.FloatTensor | None = None
    bottleneck: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class LexMotionContrastiveMaskedMotionOutput(WithLoss):
    """
    Output of phase ii; losses are means over processes.

    Args:
        position_loss, velocity_loss: squared error at masked tokens, of values and of their frame differences or, on
            request, of joint displacements.
        contrastive_loss: masked student against complete teacher (CMAE).
        reconstruction: (B, T', F), predicted values at masked tokens, otherwise zero, in whole windows; None in
            training.
        pooled: (B, C), the student's projected feature, unit length.
        hidden_states, attentions: of the student's encoder, visible tokens first, on request.
    """

    position_loss: torch.FloatTensor | None = None
    velocity_loss: torch.FloatTensor | None = None
    contrastive_loss: torch.FloatTensor | None = None
    reconstruction: torch.FloatTensor | None = None
    pooled: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class LexMotionLexicalMaskedMotionOutput(WithLoss):
    """
    Output of phase iii.

    Args:
        caption_loss: masked words of the caption, predicted from the motion's words (reading A).
        motion_loss: masked motion, reconstructed from its words (reading B).
        bow_loss: words of the captions.
        mlm_loss: the text encoder's own masked words, on request.
        importance: (B, V), p of the motion.
        hidden_states, attentions: of the motion tower, on request.
    """

    caption_loss: torch.FloatTensor | None = None
    motion_loss: torch.FloatTensor | None = None
    bow_loss: torch.FloatTensor | None = None
    mlm_loss: torch.FloatTensor | None = None
    importance: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class LexMotionContrastiveAlignmentOutput(LexMotionOutput, WithLoss):
    """
    Output of phase iv; the other fields are those of [`LexMotionOutput`].

    Args:
        contrastive_loss: symmetric multi-positive InfoNCE between lexical vectors, including segments.
        dense_contrastive_loss: the same between dense vectors, if the model has them.
        distillation_loss: divergence of the lexical similarities from the dense ones, if the model has them.
        text_flops_loss, motion_flops_loss: FLOPS of the vectors before normalization.
        grounding_loss: contrast between motion vectors and the bags of words of the captions (VDR), on request.
        order_loss: captions against copies with their events exchanged, on request.
        bow_loss: words of the motion against words of its captions, as in phase iii, on request.
        mlm_loss: masked words of the captions, on request.
        text_active_words, motion_active_words: mean number of nonzero words.
    """

    contrastive_loss: torch.FloatTensor | None = None
    dense_contrastive_loss: torch.FloatTensor | None = None
    distillation_loss: torch.FloatTensor | None = None
    text_flops_loss: torch.FloatTensor | None = None
    motion_flops_loss: torch.FloatTensor | None = None
    grounding_loss: torch.FloatTensor | None = None
    order_loss: torch.FloatTensor | None = None
    bow_loss: torch.FloatTensor | None = None
    mlm_loss: torch.FloatTensor | None = None
    text_active_words: torch.FloatTensor | None = None
    motion_active_words: torch.FloatTensor | None = None


class BottleneckedTextDecoder(nn.Module):
    """
    The weak decoder of LexMLM and LexMMM, which fills a heavily masked caption from its remaining words and one
    vector, b, in place of [CLS] (LexMAE). The encoder's own lexical head scores the output words.
    """

    def __init__(self, config: LexMotionTextConfig):
        super().__init__()
        width = config.hidden_size
        self.bottleneck_norm = nn.LayerNorm(width, eps=1e-6)
        self.decoder = LexMotionDecoder(config, width, config.num_attention_heads, config.num_decoder_layers)

    def forward(
        self,
        text_model: LexMotionTextModel,
        bottleneck: torch.Tensor,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor,
        labels: torch.LongTensor,
    ) -> torch.Tensor:
        """Return the mean cross-entropy for bottleneck (B, E) and input_ids, attention_mask and labels (B, L)."""
        words = text_model.encoder.embeddings(input_ids)  # (B, L, E)
        first = self.bottleneck_norm(bottleneck.to(words.dtype))[:, None]  # (B, 1, E)
        tokens = torch.cat([first, words[:, 1:]], dim=1)  # (B, L, E)
        hidden = by_length(lambda mask, states: self.decoder(states, mask), attention_mask, tokens)
        return text_model.masked_lm_loss(hidden, labels)


class LexMotionForLexicalMaskedLM(LexMotionTextPreTrainedModel):
    """
    Phase i, LexMLM: information that a half-masked caption lacks must pass through a bottleneck made of words.

        x_e, x_d = two maskings of one caption;  S = head(encoder(x_e));  L_enc = CE(S at masked words)
        p = softmax(max_i S_i);  b = sg(E)^T p;  L_dec = CE(decoder([b; emb(x_d)]) at masked words)
    """

    def __init__(self, config: LexMotionTextConfig):
        super().__init__(config)
        self.text_model = LexMotionTextModel(config)
        self.text_decoder = BottleneckedTextDecoder(config)
        self.post_init()

    def bottleneck(
        self, input_ids, attention_mask, **kwargs
    ) -> tuple[LexMotionTextOutput, torch.Tensor, torch.Tensor]:
        """Return the tower's output, p (B, V) and b (B, E) for (B, L)."""
        output = self.text_model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **kwargs)
        head = self.text_model.lexical_head
        log_importance, bottleneck = head.bottleneck(output.text_scores, self.text_model.word_embeddings)
        return output, head.scatter(log_importance.exp()), bottleneck

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_labels: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LexMotionLexicalMaskedLMOutput:
        """Compute the losses of x_e and x_d, all (B, L), whose labels are given (-100 for none)."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        encoded, importance, bottleneck = self.bottleneck(input_ids, attention_mask, **kwargs)
        losses = {}
        if labels is not None:
            losses["encoder_loss"] = self.text_model.masked_lm_loss(encoded.last_hidden_state, labels)
        if decoder_labels is not None:
            target = (decoder_input_ids, attention_mask, decoder_labels)
            losses["decoder_loss"] = self.text_decoder(self.text_model, bottleneck, *target)
        layers = {"hidden_states": encoded.hidden_states, "attentions": encoded.attentions}
        return LexMotionLexicalMaskedLMOutput(**losses, importance=importance, bottleneck=bottleneck, **layers)


class MotionTokenDecoder(GridPositions):
    """Reconstructs hidden motion tokens from visible ones: mask tokens, own positions, one output map per part."""

    def __init__(self, config: LexMotionMotionConfig, num_layers: int, with_targets: bool = True):
        super().__init__()
        width = config.decoder_hidden_size
        heads = max(width // 64, 1)
        self.input = nn.Linear(config.hidden_size, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.add_positions(config, width)
        self.decoder = LexMotionDecoder(config, width, heads, num_layers)
        if with_targets:
            size = 2 * config.patch_frames  # positions and their temporal difference (MAMP)
            self.output = nn.ModuleList([nn.Linear(width, size * len(part)) for part in config.parts])

    def reset_parameters(self) -> None:
        super().reset_parameters()
        init.normal_(self.mask_token, std=self.config.initializer_range)

    def decode(self, states, seen, valid, prefix: torch.Tensor | None = None) -> torch.Tensor:
        """Decode states (B, N, D), seen and valid (B, N), and an optional prefix (B, 1, W) to (B, N, W)."""
        tokens = torch.where(seen[..., None], self.input(states), self.mask_token.to(states.dtype))
        windows = states.shape[1] // self.config.num_parts
        position = (self.time_embeddings[:windows] + self.part_embeddings).flatten(0, 1)  # (N, W)
        tokens = tokens + position.to(tokens.dtype)
        if prefix is None:
            return self.decoder(tokens, valid)
        mask = torch.cat([valid.new_ones(valid.shape[0], 1), valid], dim=1)
        return self.decoder(torch.cat([prefix.to(tokens.dtype), tokens], dim=1), mask)[:, 1:]

    def predict(self, decoded: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return values and their steps between frames per part, both (B, Nt, P, len(part)), for (B, N, W)."""
        grid = decoded.unflatten(1, (-1, self.config.num_parts))  # (B, Nt, Np, W)
        predictions = []
        for number, (output, part) in enumerate(zip(self.output, self.config.parts, strict=True)):
            both = output(grid[:, :, number]).unflatten(-1, (2, self.config.patch_frames, len(part)))
            predictions.append((both[:, :, 0], both[:, :, 1]))
        return predictions


def reconstruction_losses(
    encoder: LexMotionMotionEncoder,
    predictions: list[tuple[torch.Tensor, torch.Tensor]],
    motion_values: torch.Tensor,
    frame_mask: torch.Tensor,
    hidden: torch.Tensor,
    displacements: torch.Tensor | None = None,
    displacement_columns: Collection[int] = (),
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Compute the squared errors of positions and velocities at hidden tokens, in real frames only: both scalars.

    Args:
        predictions: (values, steps) per part, each (B, Nt, P, len(part)).
        motion_values, frame_mask: (B, T, F), normalized, and (B, T).
        hidden: (B, N) bool, tokens to reconstruct.
        displacements: (B, T, F), the target of the steps, normalized per token, as in MAMP (Mao et al., ICCV 2023,
            "motion-aware targets normalization"); None: the differences of `motion_values`, all columns.
        displacement_columns: columns of `displacements` that are predicted; every part needs one.
    """
    values, real = encoder.embeddings.windows(motion_values, frame_mask)  # (B, Nt, P, F), (B, Nt, P)
    asked = hidden.unflatten(1, (-1, len(predictions)))  # (B, Nt, Np)
    flat_real = real.flatten(1, 2)
    step_real = nn.functional.pad(flat_real[:, 1:] & flat_real[:, :-1], (1, 0)).view_as(real)
    moved = None if displacements is None else encoder.embeddings.windows(displacements, frame_mask)[0]
    positions, velocities = [], []
    for number, (part, (position, velocity)) in enumerate(zip(encoder.config.parts, predictions, strict=True)):
        wanted = values[..., part]  # (B, Nt, P, len(part))
        if moved is None:
            step = nn.functional.pad(wanted.flatten(1, 2).diff(dim=1), (0, 0, 1, 0)).view_as(wanted)
        else:
            chosen = [place for place, column in enumerate(part) if column in displacement_columns]
            step = standardize_tokens(moved[..., [part[place] for place in chosen]], step_real)
            velocity = velocity[..., chosen]
        positions.append((position, wanted, asked[:, :, number, None] & real))
        velocities.append((velocity, step, asked[:, :, number, None] & step_real))
    return masked_mse(positions), masked_mse(velocities)


def rebuilt_motion(
    predictions: list[tuple[torch.Tensor, torch.Tensor]],
    parts: list[list[int]],
    num_features: int,
    hidden: torch.Tensor,
) -> torch.Tensor:
    """Arrange the predicted values of hidden tokens (B, N) as (B, Nt * P, F), zero elsewhere."""
    asked = hidden.unflatten(1, (-1, len(parts)))
    batch, windows, frames = predictions[0][0].shape[:3]
    rebuilt = torch.zeros(batch, windows, frames, num_features, device=hidden.device)
    for number, (part, (position, _)) in enumerate(zip(parts, predictions, strict=True)):
        rebuilt[..., part] = position.detach().float() * asked[:, :, number, None, None]
    return rebuilt.flatten(1, 2)


class LexMotionForContrastiveMaskedMotion(LexMotionMotionPreTrainedModel):
    """
    Phase ii, CMMM: reconstruct hidden body parts and windows, and recognize the motion from the visible ones (CMAE).

        f sees the masked grid, f' = EMA(f) the complete grid of another crop;  tau = contrast_temperature
        q = predictor(projector(mean(feature decoder(f)))),  k = projector'(mean(f'));  L_con = 2 tau CE(q k / tau)
        L_pos, L_vel = squared errors at hidden tokens, of the values and of their steps from frame to frame
    """

    # Only the student's layers are recorded, not those of the decoders and the teacher.
    _can_record_outputs = {
        "hidden_states": OutputRecorder(LexMotionLayer, layer_name="motion_model"),
        "attentions": OutputRecorder(LexMotionAttention, index=1, layer_name="motion_model"),
    }

    def __init__(self, config: LexMotionMotionConfig, contrast_temperature: float = 0.07):
        super().__init__(config)
        self.contrast_temperature = contrast_temperature
        self.motion_model = LexMotionMotionModel(config)
        # This phase has no words; the lexical part is trained in phase iii.
        for name in ("word_embeddings", "projection", "projection_norm", "lexical_head"):
            getattr(self.motion_model, name).requires_grad_(False)
        self.motion_decoder = MotionTokenDecoder(config, config.num_decoder_layers)
        self.feature_decoder = MotionTokenDecoder(config, config.num_feature_decoder_layers, with_targets=False)
        self.feature_output = nn.Linear(config.decoder_hidden_size, config.hidden_size)
        wide, narrow = config.contrast_hidden_size, config.contrast_size
        self.projector = nn.Sequential(nn.Linear(config.hidden_size, wide), nn.GELU(), nn.Linear(wide, narrow))
        self.predictor = nn.Sequential(nn.Linear(narrow, wide), nn.GELU(), nn.Linear(wide, narrow))
        self.teacher_encoder = LexMotionMotionEncoder(config).requires_grad_(False)
        self.teacher_projector = copy.deepcopy(self.projector).requires_grad_(False)
        self.post_init()

    def teacher_parameters(self) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
        """Yield each parameter of the teacher with that of the student."""
        yield from zip(self.teacher_encoder.parameters(), self.motion_model.encoder.parameters(), strict=True)
        yield from zip(self.teacher_projector.parameters(), self.projector.parameters(), strict=True)

    def initialize_weights(self) -> None:
        """Initialize as in transformers; the teacher's missing weights are copied from the student."""
        super().initialize_weights()
        for teacher, student in self.teacher_parameters():
            init.copy_(teacher, student)

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """Set teacher = momentum x teacher + (1 - momentum) x student, after each optimizer step."""
        teachers, students = zip(*self.teacher_parameters(), strict=True)
        torch._foreach_lerp_(list(teachers), list(students), 1.0 - momentum)

    @capture_outputs
    def forward(
        self,
        motion_values: torch.FloatTensor,
        motion_attention_mask: torch.Tensor | None = None,
        token_mask: torch.BoolTensor | None = None,
        teacher_motion_values: torch.FloatTensor | None = None,
        teacher_motion_attention_mask: torch.Tensor | None = None,
        clip_ids: torch.LongTensor | None = None,
        displacements: torch.FloatTensor | None = None,
        displacement_columns: Collection[int] = (),
        **kwargs: Unpack[TransformersKwargs],
    ) -> LexMotionContrastiveMaskedMotionOutput:
        """
        Compute the losses of the phase.

        Args:
            motion_values, motion_attention_mask: (B, T, F) and (B, T), the student's crop.
            token_mask: (B, N) bool, True for hidden tokens; if None, nothing is reconstructed.
            teacher_motion_values, teacher_motion_attention_mask: its crop of the same clips; None for no contrast.
            clip_ids: (B,), equal for crops and mirrored copies of one clip, which are not negatives of each other.
            displacements, displacement_columns: target of the velocity loss, see `reconstruction_losses`.
        """
        if motion_attention_mask is None:
            motion_attention_mask = torch.ones(motion_values.shape[:2], dtype=torch.int64, device=motion_values.device)
        states, seen, valid, _ = self.motion_model.encoder(motion_values, motion_attention_mask, token_mask)
        predictions = self.motion_decoder.predict(self.motion_decoder.decode(states, seen, valid))
        hidden = valid & ~seen
        targets = (motion_values, motion_attention_mask, hidden, displacements, displacement_columns)
        names = ("position_loss", "velocity_loss")
        losses = dict(zip(names, reconstruction_losses(self.motion_model.encoder, predictions, *targets), strict=True))
        rebuilt = pooled = None
        if teacher_motion_values is not None:
            features = self.feature_output(self.feature_decoder.decode(states, seen, valid))
            query = self.predictor(self.projector(masked_mean(features, valid)))  # (B, C)
            with torch.no_grad():
                full, full_seen, _, _ = self.teacher_encoder(teacher_motion_values, teacher_motion_attention_mask)
                key = self.teacher_projector(masked_mean(full, full_seen))
            pooled, key = cosine(query.float()), gather(cosine(key.float()))
            tau = self.contrast_temperature
            everyone = torch.arange(key.shape[0], device=pooled.device)
            positives = everyone[own_rows(pooled.shape[0]), None] == everyone
            ignored = None if clip_ids is None else clip_ids[:, None] == gather(clip_ids)[None, :]
            losses["contrastive_loss"] = 2.0 * tau * info_nce(pooled @ key.T / tau, positives, ignored)
        if not self.training:
            rebuilt = rebuilt_motion(predictions, self.config.parts, motion_values.shape[-1], hidden)
        return LexMotionContrastiveMaskedMotionOutput(**losses, reconstruction=rebuilt, pooled=pooled)


class LexMotionForLexicalMaskedMotion(LexMotionPreTrainedModel):
    """
    Phase iii, LexMMM: the words of a half-masked motion must suffice to fill its caption and reconstruct its other
    half.

        S = head(encoder(masked motion));  p_m = softmax(max_n S_n);  b_m = sg(E)^T p_m

    L_m2t: phase i's decoder fills the masked caption from b_m (reading A). L_m2m: a weak motion decoder reconstructs
    the motion from b_m and a quarter of the grid (reading B). L_bow: p_m matches the captions' words (STAIR).
    """

    main_input_name = "motion_values"

    def __init__(self, config: LexMotionConfig):
        super().__init__(config)
        self.model = LexMotionModel(config)
        self.text_decoder = BottleneckedTextDecoder(config.text_config)
        motion = config.motion_config
        self.motion_decoder = MotionTokenDecoder(motion, motion.num_bottleneck_decoder_layers)
        self.bottleneck_projection = nn.Linear(motion.word_embedding_size, motion.decoder_hidden_size)
        self.patch_states = LexMotionMotionEmbeddings(motion)  # the decoder's own, without context from the encoder
        self.post_init()

    def bottleneck(self, motion_values, motion_attention_mask, token_mask=None, **kwargs):
        """Return the tower's output, log p (B, A), p (B, V) and b (B, E) for (B, T, F), without gradients to E."""
        tower = self.model.motion_model
        output = tower(motion_values, motion_attention_mask, token_mask, freeze_words=True, return_dict=True, **kwargs)
        head = tower.lexical_head
        log_importance, bottleneck = head.bottleneck(output.motion_scores, tower.word_embeddings.weight)
        return output, log_importance, head.scatter(log_importance.exp()), bottleneck

    @can_return_tuple
    def forward(
        self,
        motion_values: torch.FloatTensor,
        motion_attention_mask: torch.Tensor | None = None,
        token_mask: torch.BoolTensor | None = None,
        decoder_token_mask: torch.BoolTensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        decoder_labels: torch.LongTensor | None = None,
        bow_weights: torch.FloatTensor | None = None,
        mlm_input_ids: torch.LongTensor | None = None,
        mlm_attention_mask: torch.Tensor | None = None,
        mlm_labels: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LexMotionLexicalMaskedMotionOutput:
        """
        Compute the losses whose targets are given.

        Args:
            motion_values, motion_attention_mask: (B, T, F) and (B, T).
            token_mask: (B, N) bool, tokens hidden from the encoder.
            decoder_token_mask: (B, N) bool, tokens hidden from the motion decoder and predicted by it (motion loss).
            decoder_*: (B, L), a masked caption per motion with its labels (caption loss).
            bow_weights: (B, V) IDF weights of the content words of all captions (bag-of-words loss).
            mlm_*: (Bx, L), masked captions for the text encoder's own loss.
        """
        if motion_attention_mask is None:
            motion_attention_mask = torch.ones(motion_values.shape[:2], dtype=torch.int64, device=motion_values.device)
        motion = (motion_values, motion_attention_mask)
        output, log_importance, importance, bottleneck = self.bottleneck(*motion, token_mask, **kwargs)
        losses = {}
        text_model = self.model.text_model
        if decoder_labels is not None:
            target = (decoder_input_ids, decoder_attention_mask, decoder_labels)
            losses["caption_loss"] = self.text_decoder(text_model, bottleneck, *target)
        if decoder_token_mask is not None:
            grid, valid = self.patch_states(*motion)
            tokens, valid = grid.flatten(1, 2), valid.flatten(1)
            prefix = self.bottleneck_projection(bottleneck.to(tokens.dtype))[:, None]
            decoded = self.motion_decoder.decode(tokens, valid & ~decoder_token_mask, valid, prefix)
            predicted, encoder = self.motion_decoder.predict(decoded), self.model.motion_model.encoder
            parts = reconstruction_losses(encoder, predicted, *motion, valid & decoder_token_mask)
            losses["motion_loss"] = parts[0] + parts[1]
        if bow_weights is not None:
            active = self.model.motion_model.lexical_head.active_ids
            losses["bow_loss"] = bag_of_words(log_importance, bow_weights[:, active])
        if mlm_labels is not None:
            states = text_model.encode(mlm_input_ids, mlm_attention_mask)
            losses["mlm_loss"] = text_model.masked_lm_loss(states, mlm_labels)
        return LexMotionLexicalMaskedMotionOutput(
            **losses, importance=importance, hidden_states=output.hidden_states, attentions=output.attentions
        )


class LexMotionForContrastiveAlignment(LexMotionPreTrainedModel):
    """
    Phase iv, LexCMLP: captions and their motions close to each other, as sparse vectors over words.

        z_t, z_m = lexical vectors;  y = z / |z|;  L_con = multi-positive InfoNCE of y_t y_m^T / tau in both directions
        L_flops = FLOPS(z_t), FLOPS(z_m);  L_mlm = phase i's masked LM, continued

    `pairing` decides which pairs of a batch are positives, negatives or neither.

    Args:
        false_negative_threshold: a motion is not a negative of a caption if the cosine of the sentence vectors of this
            caption and one of its own exceeds this (0.6 in TMR); None keeps all negatives.
        hard_negative_beta: weight of hard-negative reweighting (0.15 in MGA-CLAP); None for none.
    """

    def __init__(
        self,
        config: LexMotionConfig,
        false_negative_threshold: float | None = 0.6,
        hard_negative_beta: float | None = None,
    ):
        super().__init__(config)
        self.false_negative_threshold, self.hard_negative_beta = false_negative_threshold, hard_negative_beta
        self.model = LexMotionModel(config)
        self.post_init()

    def pairing(
        self,
        text_clip_ids: torch.Tensor,
        motion_clip_ids: torch.Tensor,
        caption_ids: torch.Tensor | None = None,
        caption_features: torch.Tensor | None = None,
        text_relative_ids: torch.Tensor | None = None,
        motion_relative_ids: torch.Tensor | None = None,
        mixed_clip_ids: torch.Tensor | None = None,
        mixed_shares: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Return the pairs of a batch over all processes, for arguments as in `forward`: targets (all Bt, all Bm) float,
        how well a motion matches a caption; and ignored (all Bt, all Bm) bool, pairs that are not negatives.
        """
        texts, motions = gather(text_clip_ids), gather(motion_clip_ids)
        captions = torch.arange(texts.shape[0], device=texts.device) if caption_ids is None else gather(caption_ids)
        targets = caption_positives(texts, motions, captions).float()
        if mixed_clip_ids is not None:
            shares = gather(mixed_shares)
            targets = (1.0 - shares) * targets + shares * caption_positives(texts, gather(mixed_clip_ids), captions)
        ignored = torch.zeros_like(targets, dtype=torch.bool)
        if text_relative_ids is not None:
            ignored |= share_an_id(gather(text_relative_ids), gather(motion_relative_ids))
        if caption_features is not None and self.false_negative_threshold is not None:
            ignored |= false_negatives(caption_features, targets, self.false_negative_threshold)
        return targets, ignored

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor,
        motion_values: torch.FloatTensor,
        attention_mask: torch.Tensor | None = None,
        motion_attention_mask: torch.Tensor | None = None,
        text_clip_ids: torch.LongTensor | None = None,
        motion_clip_ids: torch.LongTensor | None = None,
        caption_ids: torch.LongTensor | None = None,
        caption_features: torch.FloatTensor | None = None,
        text_relative_ids: torch.LongTensor | None = None,
        motion_relative_ids: torch.LongTensor | None = None,
        mixed_clip_ids: torch.LongTensor | None = None,
        mixed_shares: torch.FloatTensor | None = None,
        token_mask: torch.BoolTensor | None = None,
        bow_weights: torch.FloatTensor | None = None,
        mlm_input_ids: torch.LongTensor | None = None,
        mlm_attention_mask: torch.Tensor | None = None,
        mlm_labels: torch.LongTensor | None = None,
        swapped_input_ids: torch.LongTensor | None = None,
        swapped_attention_mask: torch.Tensor | None = None,
        swapped_rows: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LexMotionContrastiveAlignmentOutput:
        """
        Compute the losses of the phase.

        Args:
            input_ids, attention_mask, motion_values, motion_attention_mask: (Bt, L) twice, (Bm, T, F) and (Bm, T).
            text_clip_ids, motion_clip_ids: (Bt,) and (Bm,), the clip of each row; by default, row i is paired with i.
            caption_ids: (Bt,), equal for equal captions; motions with an identical caption are positives too.
            caption_features: (Bt, d) unit sentence vectors; pairs above `false_negative_threshold` are not negatives.
            text_relative_ids, motion_relative_ids: (Bt, Kt) and (Bm, Km); pairs with a common id are not negatives.
            mixed_clip_ids, mixed_shares: (Bm,), clip of the part that was mixed into each motion, and its share in
                [0, 1); the motion matches the captions of both clips in these proportions.
            token_mask: (Bm, N) bool, True for tokens hidden from the motion tower.
            bow_weights: (Bm, V) words of the captions of each motion, for the grounding and bag-of-words losses.
            mlm_*: (Bx, L), masked captions, for the loss continued from phase i.
            swapped_*: (Bs, L) captions with their events exchanged, and (Bs,) the rows of the original captions, -1
                for padding rows.
        """
        inputs = (input_ids, motion_values, attention_mask, motion_attention_mask)
        output = self.model(*inputs, token_mask=token_mask, return_dict=True, **kwargs)
        text, motion = output.text_model_output, output.motion_model_output
        text_model, motion_head = self.model.text_model, self.model.motion_model.lexical_head
        z_t = text_model.lexical_head.weigh(text.text_scores).float()  # (Bt, A)
        z_m = motion_head.weigh(motion.motion_scores).float()  # (Bm, A)
        y_t, y_m = self.model.lexical_vectors(text), self.model.lexical_vectors(motion)  # unit; longer with segments
        clips = paired_clip_ids(output.logits_per_text.shape, text_clip_ids, motion_clip_ids, z_t.device)
        relatives, mixed = (text_relative_ids, motion_relative_ids), (mixed_clip_ids, mixed_shares)
        pairs = self.pairing(*clips, caption_ids, caption_features, *relatives, *mixed)
        contrast = (self.config.temperature, self.hard_negative_beta)
        losses = {"contrastive_loss": symmetric_info_nce(y_t, y_m, *pairs, *contrast)}
        if text.dense_embeds is not None:
            d_t, d_m = cosine(text.dense_embeds.float()), cosine(motion.dense_embeds.float())  # (Bt, d), (Bm, d)
            losses["dense_contrastive_loss"] = symmetric_info_nce(d_t, d_m, *pairs, *contrast)
            losses["distillation_loss"] = distillation(y_t, y_m, d_t, d_m, self.config.temperature)
        losses |= {"text_flops_loss": flops(z_t), "motion_flops_loss": flops(z_m)}
        if bow_weights is not None:
            bow_weights = bow_weights[:, motion_head.active_ids]  # (Bm, A)
            # Similar captions stay negatives here, so that the loss learns from the words in which they differ.
            bags, same = cosine(bow_weights.float()), same_clip(clips[1], clips[1])
            losses["grounding_loss"] = symmetric_info_nce(bags, cosine(z_m), same, None, *contrast)
        if swapped_input_ids is not None:
            swapped = self.model.get_text_features(swapped_input_ids, swapped_attention_mask, return_dict=True)
            y_s = self.model.lexical_vectors(swapped)  # (Bs, A)
            own = (clips[0][swapped_rows, None] == clips[1]).int().argmax(dim=1)  # (Bs,) rows of motions
            true, other = (y_t[swapped_rows] * y_m[own]).sum(dim=1), (y_s * y_m[own]).sum(dim=1)
            losses["order_loss"] = order_contrast(true, other, swapped_rows >= 0, self.config.temperature)
        if bow_weights is not None:
            losses["bow_loss"] = bag_of_words(motion.motion_scores.float().log_softmax(dim=-1), bow_weights)
        if mlm_labels is not None:
            states = text_model.encode(mlm_input_ids, mlm_attention_mask)
            losses["mlm_loss"] = text_model.masked_lm_loss(states, mlm_labels)
        return LexMotionContrastiveAlignmentOutput(
            **losses,
            **output,
            text_active_words=(z_t > 0).sum(dim=1).float().mean(),
            motion_active_words=(z_m > 0).sum(dim=1).float().mean(),
        )


__all__ = [
    "LexMotionForContrastiveAlignment",
    "LexMotionForContrastiveMaskedMotion",
    "LexMotionForLexicalMaskedLM",
    "LexMotionForLexicalMaskedMotion",
]
