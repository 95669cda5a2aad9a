"""
A module that answers as OpenAI's `clip` does and encodes with LexMotion, for generators whose code says `import clip`.

Only the text side exists. Token ids are the text tower's own word pieces; padding is 0 in both vocabularies, so a
generator may cut and pad the table as it is used to.
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
    raise NotImplementedError("this is LexMotion's text encoder behind the interface of clip: it reads no images")


def _keep_weights(model: torch.nn.Module) -> None:
    """`clip.model.convert_weights` halves CLIP's precision in place; LexMotion's stays as it was loaded."""


class ClipShim(types.ModuleType):
    """
    What `install_clip_shim` installs; it can also be used by itself.

    Args:
        source: folder or Hub name for `LexMotionTextConditioner.from_pretrained`, or a conditioner, of which every
            `load` then is a copy.
        kwargs: `output`, `dim` and others of `from_pretrained`.

    Raises:
        ValueError: the tokenizer's padding is not 0, which generators pad with.
    """

    def __init__(self, source: str | Path | LexMotionTextConditioner, **kwargs):
        super().__init__("clip", __doc__)
        if not isinstance(source, LexMotionTextConditioner):
            source = LexMotionTextConditioner.from_pretrained(source, **kwargs)
        elif kwargs:
            raise ValueError(f"a conditioner has its settings already, got {', '.join(kwargs)} beside it")
        self._conditioner = source
        self._tokenizer = source.tokenizer
        if self._tokenizer is None or self._tokenizer.pad_token_id != 0:
            found = None if self._tokenizer is None else self._tokenizer.pad_token_id
            raise ValueError(f"clip's callers pad with 0, the id of the tokenizer's padding must be 0, got {found}")
        self.model = types.ModuleType("clip.model")
        self.model.convert_weights = _keep_weights  # type: ignore[attr-defined]
        for module, name in zip((self, self.model), MODULES, strict=True):
            module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        self._hidden: dict[str, Any] | None = None

    def available_models(self) -> list[str]:
        """Any name will do: `load` has one model."""
        return [str(self._conditioner.name_or_path or "lexmotion")]

    def load(
        self, name: str | None = None, device: Any = "cpu", jit: bool = False, download_root: str | None = None
    ) -> tuple[LexMotionTextConditioner, Any]:
        """
        Args:
            name: of a CLIP model, not looked at, nor are `jit` and `download_root`. device: where the model shall be.

        Returns:
            the conditioner, a new copy at every call, and what reads images in CLIP, which refuses to.
        """
        return copy.deepcopy(self._conditioner).to(device), _no_images

    def tokenize(
        self, texts: str | Sequence[str], context_length: int = CONTEXT_LENGTH, truncate: bool = False
    ) -> torch.IntTensor:
        """
        Args:
            texts: B captions. context_length: C, [CLS] and [SEP] among them. truncate: cut what is longer.

        Returns:
            (B, C) int32 token ids, 0 = padding.

        Raises:
            RuntimeError: a caption is longer and `truncate` is off (the type of error is clip's).
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        longest = min(context_length, self._conditioner.longest)
        ids = self._tokenizer(texts, truncation=truncate, max_length=longest)["input_ids"]
        table = torch.zeros(len(texts), context_length, dtype=torch.int32)
        for place, row in enumerate(ids):
            if len(row) > longest:
                raise RuntimeError(
                    f"{texts[place]!r} has {len(row)} tokens, the context length is {longest}: pass truncate=True"
                )
            table[place, : len(row)] = torch.tensor(row, dtype=torch.int32)
        return table  # type: ignore[return-value]

    def install(self) -> "ClipShim":
        """Answer to `import clip` from now on, in place of an installed clip."""
        if self._hidden is None:
            self._hidden = {name: sys.modules[name] for name in MODULES if name in sys.modules}
        sys.modules.update(zip(MODULES, (self, self.model), strict=True))
        return self

    def remove(self) -> None:
        """`import clip` means again what it meant before."""
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
    Make `import clip` mean LexMotion, for good or for a `with` block. Call it before the generator is imported.

    Args:
        source, kwargs: as in [`ClipShim`].

    Example:

    ```python
    with install_clip_shim("runs/small/model"):
        from model.mdm import MDM  # the name `clip` stays bound in the modules imported here
    ```
    """
    return ClipShim(source, **kwargs).install()


__all__ = ["ClipShim", "install_clip_shim"]
