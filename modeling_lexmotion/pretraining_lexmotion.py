"""
The head classes of the four pre-training phases: LexMLM, CMMM, LexMMM and LexCMLP (Lyu et al., ICLR 2025).

Each holds a tower or the dual encoder of `modeling_lexmotion.py`, adds what only training needs, and returns the parts
of its loss by name. Letters in shape comments are those of `modeling_lexmotion.py`.
"""

import copy
from collections.abc import Iterator
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
    Args:
        encoder_loss, decoder_loss (): cross-entropy of the encoder and of the weak decoder at their masked words.
        importance (B, V): p, the softmax of the pooled word scores. bottleneck (B, E): b, what the decoder is told.
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
    Args:
        position_loss, velocity_loss (): squared error at the masked tokens, of values and of their frame differences.
        contrastive_loss (): masked student against full teacher (CMAE). Both mean over processes.
        reconstruction (B, T', F): predicted values at masked tokens, zero elsewhere; T' is a whole number of windows.
            None while training.
        pooled (B, C): the student's projected feature, unit length.
        hidden_states, attentions: of the student's encoder, seen tokens first, on request.
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
    Args:
        caption_loss (): masked words of the caption, read through the motion's words (reading A).
        motion_loss (): masked motion rebuilt through its words (reading B). bow_loss (): words of the captions.
        mlm_loss (): the text encoder's own masked words, when asked for. importance (B, V): p of the motion.
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
    Args:
        contrastive_loss (): symmetric multi-positive InfoNCE between lexical vectors, segments blended in.
        dense_contrastive_loss (): the same between dense vectors, of a model that has them.
        text_flops_loss, motion_flops_loss (): FLOPS of the unnormalised vectors.
        grounding_loss (): contrast between motion vectors and the bare words of the captions (VDR), on request.
        order_loss (): captions against themselves with their events exchanged, on request.
        bow_loss (): the motion's words are its captions' words, as in phase iii, on request.
        mlm_loss (): masked words of the captions, on request.
        text_active_words, motion_active_words (): mean number of non-zero words.

    The other fields are those of [`LexMotionOutput`].
    """

    contrastive_loss: torch.FloatTensor | None = None
    dense_contrastive_loss: torch.FloatTensor | None = None
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
    The weak decoder of LexMLM and LexMMM: fills a heavily masked caption from its remains and one vector, b.

    Position 0 ([CLS]) is replaced by b (LexMAE); the output words are scored by the encoder's own lexical head.
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
        """bottleneck (B, E); input_ids, attention_mask, labels (B, L) -> mean cross-entropy ()."""
        words = text_model.encoder.embeddings(input_ids)  # (B, L, E)
        told = self.bottleneck_norm(bottleneck.to(words.dtype))[:, None]  # (B, 1, E)
        tokens = torch.cat([told, words[:, 1:]], dim=1)  # (B, L, E)
        hidden = by_length(lambda mask, states: self.decoder(states, mask), attention_mask, tokens)
        return text_model.masked_lm_loss(hidden, labels)


class LexMotionForLexicalMaskedLM(LexMotionTextPreTrainedModel):
    """
    Phase i, LexMLM: what half a sentence cannot tell must come through a bottleneck made of words.

    x_e, x_d = two maskings of one caption;  S = head(encoder(x_e));  L_enc = CE(S at masked words);
    p = softmax(max_i S_i);  b = sg(E)^T p;  L_dec = CE(decoder([b; emb(x_d)]) at masked words).
    """

    def __init__(self, config: LexMotionTextConfig):
        super().__init__(config)
        self.text_model = LexMotionTextModel(config)
        self.text_decoder = BottleneckedTextDecoder(config)
        self.post_init()

    def bottleneck(
        self, input_ids, attention_mask, **kwargs
    ) -> tuple[LexMotionTextOutput, torch.Tensor, torch.Tensor]:
        """(B, L) -> the tower's output, p (B, V), b (B, E)."""
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
        """All (B, L): x_e with its mask and labels, x_d with its labels (-100 = not asked). No labels, no loss."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        encoded, importance, bottleneck = self.bottleneck(input_ids, attention_mask, **kwargs)
        encoder_loss = decoder_loss = None
        if labels is not None:
            encoder_loss = self.text_model.masked_lm_loss(encoded.last_hidden_state, labels)
        if decoder_labels is not None:
            decoder_loss = self.text_decoder(
                self.text_model, bottleneck, decoder_input_ids, attention_mask, decoder_labels
            )
        return LexMotionLexicalMaskedLMOutput(
            encoder_loss=encoder_loss,
            decoder_loss=decoder_loss,
            importance=importance,
            bottleneck=bottleneck,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )


class MotionTokenDecoder(GridPositions):
    """Rebuilds hidden motion tokens from the seen ones: mask tokens, own positions, one output map a part."""

    def __init__(self, config: LexMotionMotionConfig, num_layers: int, with_targets: bool = True):
        super().__init__()
        width = config.decoder_hidden_size
        heads = max(width // 64, 1)
        self.input = nn.Linear(config.hidden_size, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.add_positions(config, width)
        self.decoder = LexMotionDecoder(config, width, heads, num_layers)
        if with_targets:
            # Twice the patch: positions and their temporal difference (MAMP).
            self.output = nn.ModuleList(
                [nn.Linear(width, 2 * config.patch_frames * len(part)) for part in config.parts]
            )

    def reset_parameters(self) -> None:
        super().reset_parameters()
        init.normal_(self.mask_token, std=self.config.initializer_range)

    def decode(self, states, seen, valid, prefix: torch.Tensor | None = None) -> torch.Tensor:
        """states (B, N, D), seen and valid (B, N), prefix (B, 1, W) or None -> (B, N, W)."""
        tokens = torch.where(seen[..., None], self.input(states), self.mask_token.to(states.dtype))
        windows = states.shape[1] // self.config.num_parts
        position = (self.time_embeddings[:windows] + self.part_embeddings).flatten(0, 1)  # (N, W)
        tokens = tokens + position.to(tokens.dtype)
        if prefix is None:
            return self.decoder(tokens, valid)
        mask = torch.cat([valid.new_ones(valid.shape[0], 1), valid], dim=1)
        return self.decoder(torch.cat([prefix.to(tokens.dtype), tokens], dim=1), mask)[:, 1:]

    def predict(self, decoded: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """(B, N, W) -> for each part, values and frame differences, both (B, Nt, P, len(part))."""
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
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Squared errors of positions and velocities at the hidden tokens, real frames only.

    Args:
        predictions: for each part (values, differences), each (B, Nt, P, len(part)).
        motion_values: (B, T, F) in normalised units. frame_mask: (B, T). hidden: (B, N) bool, tokens to rebuild.

    Returns:
        position loss () and velocity loss ().
    """
    values, real = encoder.embeddings.windows(motion_values, frame_mask)  # (B, Nt, P, F), (B, Nt, P)
    asked = hidden.unflatten(1, (-1, len(predictions)))  # (B, Nt, Np)
    flat_real = real.flatten(1, 2)
    step_real = nn.functional.pad(flat_real[:, 1:] & flat_real[:, :-1], (1, 0)).view_as(real)
    positions, velocities = [], []
    for number, (part, (position, velocity)) in enumerate(zip(encoder.config.parts, predictions, strict=True)):
        wanted = values[..., part]  # (B, Nt, P, len(part))
        step = nn.functional.pad(wanted.flatten(1, 2).diff(dim=1), (0, 0, 1, 0)).view_as(wanted)
        positions.append((position, wanted, asked[:, :, number, None] & real))
        velocities.append((velocity, step, asked[:, :, number, None] & step_real))
    return masked_mse(positions), masked_mse(velocities)


def rebuilt_motion(
    predictions: list[tuple[torch.Tensor, torch.Tensor]],
    parts: list[list[int]],
    num_features: int,
    hidden: torch.Tensor,
) -> torch.Tensor:
    """Predicted values of the hidden tokens (B, N) laid out as (B, Nt * P, F), zero elsewhere."""
    asked = hidden.unflatten(1, (-1, len(parts)))
    batch, windows, frames = predictions[0][0].shape[:3]
    rebuilt = torch.zeros(batch, windows, frames, num_features, device=hidden.device)
    for number, (part, (position, _)) in enumerate(zip(parts, predictions, strict=True)):
        rebuilt[..., part] = position.detach().float() * asked[:, :, number, None, None]
    return rebuilt.flatten(1, 2)


class LexMotionForContrastiveMaskedMotion(LexMotionMotionPreTrainedModel):
    """
    Phase ii, CMMM: rebuild hidden body parts and windows, and know the motion again from what is left of it.

    f sees the masked grid, f' = EMA(f) the whole grid of another crop;
    L_pos, L_vel = squared errors at hidden tokens;
    q = predictor(projector(mean(feature decoder(f)))),  k = projector'(mean(f'));
    L_con = 2 tau CE(q k / tau)  (CMAE).

    Args:
        contrast_temperature: tau.
    """

    # The student's layers record themselves; the decoders' and the teacher's do not.
    _can_record_outputs = {
        "hidden_states": OutputRecorder(LexMotionLayer, layer_name="motion_model"),
        "attentions": OutputRecorder(LexMotionAttention, index=1, layer_name="motion_model"),
    }

    def __init__(self, config: LexMotionMotionConfig, contrast_temperature: float = 0.07):
        super().__init__(config)
        self.contrast_temperature = contrast_temperature
        self.motion_model = LexMotionMotionModel(config)
        # This phase has no words: the lexical part waits, untouched, for phase iii.
        for module in (
            self.motion_model.word_embeddings,
            self.motion_model.projection,
            self.motion_model.projection_norm,
            self.motion_model.lexical_head,
        ):
            module.requires_grad_(False)
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
        """Each parameter of the teacher with the student's."""
        yield from zip(self.teacher_encoder.parameters(), self.motion_model.encoder.parameters(), strict=True)
        yield from zip(self.teacher_projector.parameters(), self.projector.parameters(), strict=True)

    def initialize_weights(self) -> None:
        """As in transformers; what a checkpoint lacks of the teacher is the student's, so that it starts as a copy."""
        super().initialize_weights()
        for teacher, student in self.teacher_parameters():
            init.copy_(teacher, student)

    @torch.no_grad()
    def reset_teacher(self) -> None:
        """Make the teacher a copy of the student, as it starts; call after loading other student weights."""
        for teacher, student in self.teacher_parameters():
            teacher.copy_(student)

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """Teacher <- momentum x teacher + (1 - momentum) x student, after every optimiser step."""
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
        **kwargs: Unpack[TransformersKwargs],
    ) -> LexMotionContrastiveMaskedMotionOutput:
        """
        Args:
            motion_values, motion_attention_mask: (B, T, F), (B, T), the student's crop.
            token_mask: (B, N) bool, True = hidden; nothing is to be rebuilt without.
            teacher_motion_values, teacher_motion_attention_mask: the teacher's crop of the same clips; no contrast
                without.
            clip_ids: (B,) equal for crops and mirror twins of one clip: they are not each other's negatives.
        """
        if motion_attention_mask is None:
            motion_attention_mask = torch.ones(motion_values.shape[:2], dtype=torch.int64, device=motion_values.device)
        states, seen, valid, _ = self.motion_model.encoder(motion_values, motion_attention_mask, token_mask)
        predictions = self.motion_decoder.predict(self.motion_decoder.decode(states, seen, valid))
        hidden = valid & ~seen
        position_loss, velocity_loss = reconstruction_losses(
            self.motion_model.encoder, predictions, motion_values, motion_attention_mask, hidden
        )
        contrastive_loss = pooled = None
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
            contrastive_loss = 2.0 * tau * info_nce(pooled @ key.T / tau, positives, ignored)
        return LexMotionContrastiveMaskedMotionOutput(
            position_loss=position_loss,
            velocity_loss=velocity_loss,
            contrastive_loss=contrastive_loss,
            reconstruction=None
            if self.training
            else rebuilt_motion(predictions, self.config.parts, motion_values.shape[-1], hidden),
            pooled=pooled,
        )


class LexMotionForLexicalMaskedMotion(LexMotionPreTrainedModel):
    """
    Phase iii, LexMMM: half a motion must say in words what fills its caption and rebuilds its other half.

    S = head(encoder(masked motion));  p_m = softmax(max_n S_n);  b_m = sg(E)^T p_m;
    L_m2t: phase i's decoder fills the masked caption from b_m (reading A);  L_m2m: a weak motion decoder rebuilds the
    motion from b_m and a quarter of the grid (reading B);  L_bow: p_m speaks the captions' words (STAIR).
    """

    main_input_name = "motion_values"

    def __init__(self, config: LexMotionConfig):
        super().__init__(config)
        self.model = LexMotionModel(config)
        self.text_decoder = BottleneckedTextDecoder(config.text_config)
        motion = config.motion_config
        self.motion_decoder = MotionTokenDecoder(motion, motion.num_bottleneck_decoder_layers)
        self.bottleneck_projection = nn.Linear(motion.word_embedding_size, motion.decoder_hidden_size)
        self.patch_states = LexMotionMotionEmbeddings(motion)  # the decoder's own eyes: no encoder context leaks in
        self.post_init()

    def bottleneck(self, motion_values, motion_attention_mask, token_mask=None, **kwargs):
        """(B, T, F) -> the motion tower's output, log p (B, A), p (B, V), b (B, E); no gradient reaches E."""
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
        Args:
            motion_values, motion_attention_mask: (B, T, F), (B, T). token_mask: (B, N) bool, hidden from the encoder.
            decoder_token_mask: (B, N) bool, hidden from the motion decoder and asked of it; no motion loss without.
            decoder_*: (B, L) a masked caption of each motion; no caption loss without labels.
            bow_weights: (B, V) IDF weights of the content words of all captions; no bag-of-words loss without.
            mlm_*: (Bx, L) masked captions for the text encoder's own loss.
        """
        if motion_attention_mask is None:
            motion_attention_mask = torch.ones(motion_values.shape[:2], dtype=torch.int64, device=motion_values.device)
        output, log_importance, importance, bottleneck = self.bottleneck(
            motion_values, motion_attention_mask, token_mask, **kwargs
        )
        losses = {}
        text_model = self.model.text_model
        if decoder_labels is not None:
            losses["caption_loss"] = self.text_decoder(
                text_model, bottleneck, decoder_input_ids, decoder_attention_mask, decoder_labels
            )
        if decoder_token_mask is not None:
            grid, valid = self.patch_states(motion_values, motion_attention_mask)
            tokens, valid = grid.flatten(1, 2), valid.flatten(1)
            prefix = self.bottleneck_projection(bottleneck.to(tokens.dtype))[:, None]
            decoded = self.motion_decoder.decode(tokens, valid & ~decoder_token_mask, valid, prefix)
            position_loss, velocity_loss = reconstruction_losses(
                self.model.motion_model.encoder,
                self.motion_decoder.predict(decoded),
                motion_values,
                motion_attention_mask,
                valid & decoder_token_mask,
            )
            losses["motion_loss"] = position_loss + velocity_loss
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
    Phase iv, LexCMLP: captions and their motions near each other, in vectors of few words that stay words.

    z_t, z_m = lexical vectors;  y = z / |z|;  L_con = multi-positive InfoNCE of y_t y_m^T / tau in both directions;
    L_flops = FLOPS(z_t), FLOPS(z_m);  L_mlm = phase i's masked LM, kept on. Which pairs of a batch are positives,
    which are negatives and which are neither is the `pairing`.

    Args:
        false_negative_threshold: a motion is no negative of a caption if the cosine of the sentence vectors of this
            caption and of one of its own is above this (0.6 in TMR); `None` keeps all negatives.
        hard_negative_beta: weight of hard-negative reweighting (0.15 in MGA-CLAP); off when `None`.
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
        What is right for what in a batch, over all processes; arguments as in `forward`.

        Returns:
            targets (all Bt, all Bm) float, how right a motion is for a caption; ignored (all Bt, all Bm) bool, pairs
            that are no negatives.
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
        Args:
            input_ids, attention_mask: (Bt, L). motion_values, motion_attention_mask: (Bm, T, F), (Bm, T).
            text_clip_ids: (Bt,) and motion_clip_ids: (Bm,) say which clip a row belongs to; row i with row i when
                left out.
            caption_ids: (Bt,) equal for equal captions: a motion with an identical caption is right too.
            caption_features: (Bt, d) unit sentence vectors; pairs above `false_negative_threshold` are no negatives.
            text_relative_ids: (Bt, Kt) and motion_relative_ids: (Bm, Km); a pair with an id in common is no negative.
            mixed_clip_ids: (Bm,) clip that a part of each motion was taken from, and mixed_shares: (Bm,) how much of
                it, in [0, 1): the motion is right for the captions of both, in these proportions.
            token_mask: (Bm, N) bool, True = hidden from the motion tower.
            bow_weights: (Bm, V) words of the captions of each motion, for the grounding and bag-of-words losses.
            mlm_*: (Bx, L) a masked copy of captions, for the loss kept on from phase i.
            swapped_*: (Bs, L) captions with their events exchanged, and (Bs,) the rows of the captions they were made
                from, -1 for a row that only fills the batch.
        """
        inputs = (input_ids, motion_values, attention_mask, motion_attention_mask)
        output = self.model(*inputs, token_mask=token_mask, return_dict=True, **kwargs)
        text, motion = output.text_model_output, output.motion_model_output
        text_model, motion_head = self.model.text_model, self.model.motion_model.lexical_head
        z_t = text_model.lexical_head.weigh(text.text_scores).float()  # (Bt, A)
        z_m = motion_head.weigh(motion.motion_scores).float()  # (Bm, A)
        y_t, y_m = self.model.lexical_vectors(text), self.model.lexical_vectors(motion)  # unit; longer with segments
        clips = paired_clip_ids(output.logits_per_text.shape, text_clip_ids, motion_clip_ids, z_t.device)
        pairs = self.pairing(
            *clips, caption_ids, caption_features, text_relative_ids, motion_relative_ids, mixed_clip_ids, mixed_shares
        )
        contrast = (self.config.temperature, self.hard_negative_beta)
        losses = {"contrastive_loss": symmetric_info_nce(y_t, y_m, *pairs, *contrast)}
        if text.dense_embeds is not None:
            d_t, d_m = cosine(text.dense_embeds.float()), cosine(motion.dense_embeds.float())  # (Bt, d), (Bm, d)
            losses["dense_contrastive_loss"] = symmetric_info_nce(d_t, d_m, *pairs, *contrast)
        losses |= {"text_flops_loss": flops(z_t), "motion_flops_loss": flops(z_m)}
        if bow_weights is not None:
            bow_weights = bow_weights[:, motion_head.active_ids]  # (Bm, A)
            # Like captions stay negatives here: where their words differ, that difference is the lesson.
            losses["grounding_loss"] = symmetric_info_nce(
                cosine(bow_weights.float()), cosine(z_m), same_clip(clips[1], clips[1]), None, *contrast
            )
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
