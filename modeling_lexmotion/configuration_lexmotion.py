"""Configurations of the LexMotion towers and of the dual encoder: the architecture, saved with the weights."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec

HEAD_KINDS = ("splade", "vdr")
POSITION_INITS = ("normal", "sincos")
# Bounds of sizes, far above those of any model: a damaged or hostile config.json must not compute for minutes.
MOST_LAYERS, MOST_OF_A_SIZE, MOST_WEIGHTS = 1000, 1 << 22, 1 << 36
SIZES = ("_size", "_features", "_frames", "_heads", "_embeddings", "_dim", "dim", "_segments", "_words")
# Training options in the configurations of old checkpoints, which are dropped on loading.
TRAINING_OPTIONS = ("false_negative_threshold", "hard_negative_beta", "contrast_temperature")


def _without_training_options(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in TRAINING_OPTIONS}


def check_sizes(config: PreTrainedConfig) -> None:
    """Raise a ValueError for sizes beyond any model, before something of that size is built."""
    for name, value in vars(config).items():
        most = MOST_LAYERS if name.endswith("layers") else MOST_OF_A_SIZE if name.endswith(SIZES) else None
        if most is not None and isinstance(value, int) and not 0 <= value <= most:
            raise ValueError(f"{name}: got {value}; pass 0 to {most}, or restore config.json")
    layers, width, words = (getattr(config, name, 0) for name in ("num_hidden_layers", "hidden_size", "vocab_size"))
    weights = width * (words + layers * max(width, getattr(config, "intermediate_size", 0)))
    if weights > MOST_WEIGHTS:
        raise ValueError(
            f"hidden_size: got {width} with {layers} layers and {words} words; pass sizes below {MOST_WEIGHTS:.0e} "
            "weights, or restore config.json"
        )


def _check_head(head_kind: str, top_k: int | None, min_words: int = 0) -> None:
    if head_kind not in HEAD_KINDS:
        raise ValueError(f"head_kind: got {head_kind!r}; pass one of {HEAD_KINDS}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k: got {top_k}; pass at least 1, or None to keep all words")
    if min_words < 0 or (top_k is not None and min_words > top_k):
        raise ValueError(f"min_words: got {min_words}; pass a number in 0..top_k ({top_k})")


@strict
class LexMotionTextConfig(PreTrainedConfig):
    r"""
    Configuration of [`LexMotionTextModel`]: a BERT-family encoder and a lexical head over its vocabulary.

    Args:
        encoder_config: the encoder, of model type `bert` or `distilbert`; by default with BERT-base sizes.
        num_active_words: number of words the head may activate; None for all. Their ids are saved with the weights.
        head_kind: `"splade"` (transform, max over tokens, log(1 + ReLU)) or `"vdr"` (LayerNorm, max, ELU + 1).
        top_k: number of largest words to keep per vector; None for all.
        min_words: minimum number of words above zero; the scores of vectors with fewer are raised until they have it.
        num_decoder_layers: depth of the weak decoder of LexMLM (2 in LexMAE and LexLIP).
        lexicon_hash, tokenizer_hash: hashes of the lexicon and the tokenizer of the training; processors with others
            are refused.
    """

    model_type = "lexmotion_text"
    base_config_key = "text_config"
    sub_configs_defaults = {"encoder_config": SubConfigSpec(config_class=AutoConfig, model_type="bert")}

    encoder_config: dict | PreTrainedConfig | None = None
    num_active_words: int | None = None
    head_kind: str = "splade"
    top_k: int | None = None
    min_words: int = 0
    num_decoder_layers: int = 2
    lexicon_hash: str | None = None
    tokenizer_hash: str | None = None
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        check_sizes(self.encoder_config)
        check_sizes(self)
        _check_head(self.head_kind, self.top_k, self.min_words)

    @property
    def hidden_size(self) -> int:
        return self.encoder_config.hidden_size

    @property
    def vocab_size(self) -> int:
        return self.encoder_config.vocab_size

    @vocab_size.setter
    def vocab_size(self, value: int) -> None:
        self.encoder_config.vocab_size = value

    @property
    def head_act(self) -> str:
        """Activation of the lexical head, the same as the encoder's."""
        return getattr(self.encoder_config, "hidden_act", None) or self.encoder_config.activation

    @property
    def num_attention_heads(self) -> int:
        return self.encoder_config.num_attention_heads

    @property
    def num_hidden_layers(self) -> int:
        return self.encoder_config.num_hidden_layers


@strict
class LexMotionMotionConfig(PreTrainedConfig):
    r"""
    Configuration of [`LexMotionMotionModel`]: a ViT over a grid of body parts x time windows, and a lexical head.

    Args:
        num_features: width F of `motion_values` (B, T, F): 66 for `positions` with 22 joints, 263 for `humanml3d`.
        parts: columns of `motion_values` of each body part; None for a single part.
        patch_frames: frames per time window (16 in MotionPatches).
        num_frames: length of the longest motion in frames (224 = 14 windows of 16).
        hidden_size, num_hidden_layers, num_attention_heads, intermediate_size: of the transformer, by default a ViT-B.
        hidden_dropout, attention_dropout, drop_path_rate: regularization, training only.
        vocab_size, word_embedding_size: shape of the word embeddings shared with the text tower.
        num_active_words, head_kind, top_k, min_words: as in [`LexMotionTextConfig`].
        word_share: maximum share of the training motions in which a word is active; the head then has a threshold per
            word. [`LexMotionModel.limit_motion_words`] sets both.
        decoder_hidden_size, num_decoder_layers, num_feature_decoder_layers: decoders of CMMM and LexMMM.
        position_init: initial grid embeddings: `"normal"` with std `initializer_range`, or `"sincos"`, sinusoids in
            time (Vaswani et al.) and unit normal parts, which improves short trainings.
        contrast_size, contrast_hidden_size: projector of the CMMM contrast (CMAE).
        lexicon_hash, statistics_hash: hashes of the lexicon and the feature statistics of the training; processors
            with others are refused.
    """

    model_type = "lexmotion_motion"
    base_config_key = "motion_config"

    num_features: int = 66
    parts: list | None = None
    patch_frames: int = 16
    num_frames: int = 224
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout: float | int = 0.0
    attention_dropout: float | int = 0.0
    drop_path_rate: float | int = 0.0
    layer_norm_eps: float = 1e-6
    vocab_size: int = 30522
    word_embedding_size: int = 768
    num_active_words: int | None = None
    head_kind: str = "splade"
    head_act: str = "gelu"
    top_k: int | None = None
    min_words: int = 0
    word_share: float | None = None
    decoder_hidden_size: int = 384
    num_decoder_layers: int = 4
    num_feature_decoder_layers: int = 2
    num_bottleneck_decoder_layers: int = 2
    contrast_size: int = 256
    contrast_hidden_size: int = 1536
    position_init: str = "normal"
    lexicon_hash: str | None = None
    statistics_hash: str | None = None
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        super().__post_init__(**_without_training_options(kwargs))
        check_sizes(self)
        _check_head(self.head_kind, self.top_k, self.min_words)
        if self.word_share is not None and not 0 < self.word_share < 1:
            raise ValueError(f"word_share: got {self.word_share}; pass a number between 0 and 1")
        if self.parts is None:
            self.parts = [list(range(self.num_features))]
        self.parts = [[int(column) for column in part] for part in self.parts]
        columns = {column for part in self.parts for column in part}
        if not columns or not all(self.parts) or not columns <= set(range(self.num_features)):
            got = f"{len(self.parts)} parts over columns {min(columns, default=None)}..{max(columns, default=None)}"
            raise ValueError(
                f"parts: got {got}; pass non-empty lists of columns in 0..{self.num_features - 1} (num_features="
                f"{self.num_features})"
            )
        if self.position_init not in POSITION_INITS:
            raise ValueError(f"position_init: got {self.position_init!r}; pass one of {POSITION_INITS}")
        if self.hidden_size % self.num_attention_heads:
            heads = self.num_attention_heads
            raise ValueError(f"hidden_size: got {self.hidden_size}; pass a multiple of num_attention_heads ({heads})")

    @property
    def num_windows(self) -> int:
        """Time windows of the longest motion, rounded up."""
        return -(-self.num_frames // self.patch_frames)

    @property
    def num_parts(self) -> int:
        return len(self.parts)


@strict
class LexMotionConfig(PreTrainedConfig):
    r"""
    Configuration of [`LexMotionModel`], the dual encoder, and of the models of its pretraining phases.

    Args:
        text_config, motion_config: the towers, with equal vocabulary and embedding sizes.
        temperature: divisor of the cosine of two lexical vectors in the contrast (0.05, as in LexLIP).
        num_segments: number of equal parts of the time that are also pooled separately, so that the order of events
            counts; 1 disables them.
        segment_weight: w of the lexical score (1 - w) cosine(whole) + w mean_k cosine(segment k).
        event_words: ids of the words that begin a new event of a caption ("then"); None makes segments parts of the
            text.
        dense_size: width of an additional dense vector; None for none.
        hybrid_weight: h of the score (1 - h) lexical + h dense cosine; 1 for a control whose words do not count.
    """

    model_type = "lexmotion"
    sub_configs_defaults = {"text_config": LexMotionTextConfig, "motion_config": LexMotionMotionConfig}

    text_config: dict | PreTrainedConfig | None = None
    motion_config: dict | PreTrainedConfig | None = None
    temperature: float = 0.05
    num_segments: int = 1
    segment_weight: float | int = 0.3
    event_words: list | None = None
    dense_size: int | None = None
    hybrid_weight: float | int = 0.5
    tie_word_embeddings: bool = True  # one matrix of words for both towers, so that their dimensions are the same
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        super().__post_init__(**_without_training_options(kwargs))
        check_sizes(self)
        text, motion = self.text_config, self.motion_config
        if (text.vocab_size, text.hidden_size) != (motion.vocab_size, motion.word_embedding_size):
            raise ValueError(
                f"motion_config: got {motion.vocab_size} words of size {motion.word_embedding_size} for a text tower "
                f"with {text.vocab_size} of size {text.hidden_size}; pass its vocab_size and hidden_size"
            )
        if self.temperature <= 0:
            raise ValueError(f"temperature: got {self.temperature}; pass a positive number")
        if self.num_segments < 1:
            raise ValueError(f"num_segments: got {self.num_segments}; pass at least 1 (no segments)")
        if self.dense_size is not None and self.dense_size < 1:
            raise ValueError(f"dense_size: got {self.dense_size}; pass at least 1, or None for no dense vector")
        if not 0 <= self.segment_weight < 1:
            raise ValueError(f"segment_weight: got {self.segment_weight}; pass a number in [0, 1)")
        if not 0 <= self.hybrid_weight <= 1:
            raise ValueError(f"hybrid_weight: got {self.hybrid_weight}; pass a number in [0, 1]")
