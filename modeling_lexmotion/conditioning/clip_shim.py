"""
Drop-in replacement of OpenAI's `clip` module that encodes with LexMotion, for generators that `import clip`.

Only the text side is replaced. Token ids are the word pieces of the text tower; padding is 0 in both vocabularies, so
generators can truncate and pad the ids as usual. What `clip` itself does is in `clip_table`.
"""

from collections.abc import Sequence
from pathlib import Path

from .clip_table import REPLACED, Clip
from .text_conditioner import LexMotionTextConditioner


class ClipShim(Clip):
    """
    Module installed by `install_clip_shim`; it can also be used on its own.

    Args:
        source: folder or Hub name for `LexMotionTextConditioner.from_pretrained`, or a conditioner, which every `load`
            copies.
        replaced: names of models that LexMotion replaces, as programs pass them to `clip.load`, or to
            `AutoModel.from_pretrained` and `AutoTokenizer.from_pretrained` of transformers. Other names load from
            OpenAI's package, if it is installed.
        own_lengths: allow MoMask's `LengthEstimator`; set it if the estimator was trained on LexMotion's vectors.
        kwargs: `output`, `dim` and other arguments of `from_pretrained`.

    Raises:
        ValueError: if the padding id of the tokenizer is not 0, which generators pad with.
    """

    def __init__(
        self,
        source: str | Path | LexMotionTextConditioner,
        replaced: Sequence[str] = REPLACED,
        own_lengths: bool = False,
        **kwargs,
    ):
        if not isinstance(source, LexMotionTextConditioner):
            source = LexMotionTextConditioner.from_pretrained(source, **kwargs)
        elif kwargs:
            raise ValueError(
                f"source: a conditioner takes no {', '.join(kwargs)}; pass them with a folder or Hub name"
            )
        if source.tokenizer is None or source.tokenizer.pad_token_id != 0:
            found = None if source.tokenizer is None else source.tokenizer.pad_token_id
            raise ValueError(f"tokenizer: callers of clip need padding id 0, got {found}; use a BERT-style tokenizer")
        super().__init__(source, replaced, own_lengths)


def install_clip_shim(source: str | Path | LexMotionTextConditioner, **kwargs) -> ClipShim:
    """
    Make `import clip` return LexMotion, permanently or within a `with` block. Call it before importing the generator.

    Args:
        source, kwargs: as in [`ClipShim`].

    Example:

    ```python
    with install_clip_shim("runs/small/model"):
        from model.mdm import MDM  # modules imported here keep the replaced `clip`
    ```
    """
    return ClipShim(source, **kwargs).install()


__all__ = ["ClipShim", "install_clip_shim"]
