"""
Drop-in replacement of OpenAI's `clip` module that encodes with LexMotion, for generators that `import clip`.

Only the text side is implemented. Token ids are the word pieces of the text tower; padding is 0 in both vocabularies,
so generators can truncate and pad the ids as usual.
"""

import copy
import importlib.machinery
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .text_conditioner import LexMotionTextConditioner

CONTEXT_LENGTH = 77
MODULES = ("clip", "clip.model")


def _no_images(*_):
    raise NotImplementedError("clip: replaced by LexMotion's text encoder, which reads no images; use the real clip")


def _keep_weights(model: torch.nn.Module) -> None:
    """Do nothing: `clip.model.convert_weights` halves CLIP's precision in place, LexMotion's stays as loaded."""


class ClipShim(types.ModuleType):
    """
    Module installed by `install_clip_shim`; it can also be used on its own.

    Args:
        source: folder or Hub name for `LexMotionTextConditioner.from_pretrained`, or a conditioner, which every `load`
            copies.
        kwargs: `output`, `dim` and other arguments of `from_pretrained`.

    Raises:
        ValueError: if the padding id of the tokenizer is not 0, which generators pad with.
    """

    def __init__(self, source: str | Path | LexMotionTextConditioner, **kwargs):
        super().__init__("clip", __doc__)
        if not isinstance(source, LexMotionTextConditioner):
            source = LexMotionTextConditioner.from_pretrained(source, **kwargs)
        elif kwargs:
            raise ValueError(
                f"source: a conditioner takes no {', '.join(kwargs)}; pass them with a folder or Hub name"
            )
        self._conditioner = source
        self._tokenizer = source.tokenizer
        if self._tokenizer is None or self._tokenizer.pad_token_id != 0:
            found = None if self._tokenizer is None else self._tokenizer.pad_token_id
            raise ValueError(f"tokenizer: callers of clip need padding id 0, got {found}; use a BERT-style tokenizer")
        self.model = types.ModuleType("clip.model")
        self.model.convert_weights = _keep_weights  # type: ignore[attr-defined]
        for module, name in zip((self, self.model), MODULES, strict=True):
            module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        self._hidden: dict[str, Any] | None = None

    def available_models(self) -> list[str]:
        """Return the name of the only model; `load` accepts any name."""
        return [str(self._conditioner.name_or_path or "lexmotion")]

    def load(
        self, name: str | None = None, device: Any = "cpu", jit: bool = False, download_root: str | None = None
    ) -> tuple[LexMotionTextConditioner, Any]:
        """
        Return a new copy of the conditioner, and an image preprocessor that always raises.

        Args:
            name, jit, download_root: ignored.
            device: device of the model.
        """
        return copy.deepcopy(self._conditioner).to(device), _no_images

    def tokenize(
        self, texts: str | Sequence[str], context_length: int = CONTEXT_LENGTH, truncate: bool = False
    ) -> torch.IntTensor:
        """
        Tokenize captions to (B, C) int32 token ids, 0 = padding.

        Args:
            texts: B captions.
            context_length: C, including [CLS] and [SEP].
            truncate: whether to truncate longer captions.

        Raises:
            RuntimeError: if a caption is longer and `truncate` is off (same error type as clip).
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        longest = min(context_length, self._conditioner.longest)
        ids = self._tokenizer(texts, truncation=truncate, max_length=longest)["input_ids"]
        table = torch.zeros(len(texts), context_length, dtype=torch.int32)
        for place, row in enumerate(ids):
            if len(row) > longest:
                raise RuntimeError(
                    f"{texts[place]!r}: {len(row)} tokens exceed the context length of {longest}; pass truncate=True"
                )
            table[place, : len(row)] = torch.tensor(row, dtype=torch.int32)
        return table  # type: ignore[return-value]

    def install(self) -> "ClipShim":
        """Make `import clip` return this module, in place of an installed clip."""
        if self._hidden is None:
            self._hidden = {name: sys.modules[name] for name in MODULES if name in sys.modules}
        sys.modules.update(zip(MODULES, (self, self.model), strict=True))
        return self

    def remove(self) -> None:
        """Undo `install`."""
        if self._hidden is None:
            return
        for name in MODULES:
            sys.modules.pop(name, None)
        sys.modules.update(self._hidden)
        self._hidden = None

    def __enter__(self) -> "ClipShim":
        return self

    def __exit__(self, *_) -> None:
        self.remove()


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
