"""
Write tables of encoded captions, which `clip_table` reads in environments without LexMotion.

    captions              UTF-8, one caption per line, each once; the empty caption is among them
    row_of, lengths       (N,) row of each caption, and its number of tokens before truncation
    ids, ends             token ids of all rows, concatenated, and the end of each row (R,)
    vectors               (R, D) float32, one vector per row
    tokens                (sum of row lengths, E) float16 token states, if requested
    longest, model, format

Generators truncate captions to a number of tokens (MDM to 22), and truncation changes the vector of a caption. A table
therefore has a row for each caption and number of tokens.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ..common.files import atomic_path, write_text
from . import clip_table
from .clip_table import CaptionTable, cut, normalise
from .text_conditioner import LexMotionTextConditioner, TokenIds

CONTEXT_LENGTHS = (22, 77)  # of MDM, and of the others
ROWS_AT_ONCE = 512
CHECKED_ROWS = 8


@dataclass
class CaptionTableReport:
    """
    What `save_caption_table` wrote.

    Args:
        table: the file.
        clip: the replacement of `clip` beside it.
        captions: number of captions in the table.
        added: number of captions that were not in it before.
        dim: width of a vector.
        tokens: whether the table contains token states.
    """

    table: Path
    clip: Path
    captions: int
    added: int
    dim: int
    tokens: bool


def save_caption_table(
    conditioner: LexMotionTextConditioner,
    captions: Iterable[str],
    path: str | Path,
    context_lengths: Sequence[int] = CONTEXT_LENGTHS,
    tokens: bool = False,
    progress: bool = False,
) -> CaptionTableReport:
    """
    Encode captions into a table, and write `clip.py` beside it. Captions of an existing table are kept.

    Args:
        conditioner: text encoder.
        captions: captions; the empty one, for generation without text, is always added.
        path: `.npz` file to write.
        context_lengths: numbers of tokens, including [CLS] and [SEP], that generators truncate captions to.
        tokens: whether to store the states of all tokens, which take about ten times the space, for generators that
            read them (MDM with BERT).
        progress: show a progress bar.

    Raises:
        ValueError: if the file is not a caption table, or was written with another model or width.
        FileExistsError: if the folder contains a `clip.py` that LexMotion did not write.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"output: got {str(path)!r}; pass a file that ends in .npz")
    if min(context_lengths, default=0) < 3:
        raise ValueError(f"context_lengths: got {list(context_lengths)}; pass numbers of at least 3")
    clip = path.with_name("clip.py")
    if clip.exists() and clip_table.FORMAT not in clip.read_text(encoding="utf-8", errors="replace"):
        raise FileExistsError(f"{clip}: exists and was not written by LexMotion; pass an output in another folder")
    old = CaptionTable(path) if path.exists() else None
    earlier = [] if old is None else old.captions
    known = set(earlier)
    added = [text for text in dict.fromkeys(map(normalise, ("", *captions))) if text not in known]
    rows = [*([] if old is None else old.token_rows(earlier)), *conditioner.token_rows(added)]
    limits = [conditioner.longest, *(limit for limit in context_lengths if limit < conditioner.longest)]
    wanted = list(dict.fromkeys(cut(row, limit) for row, _ in rows for limit in limits))
    arrays = _encode(conditioner, wanted, old, tokens or (old is not None and "tokens" in old.data), progress)

    places = {row: place for place, row in enumerate(wanted)}
    content: dict[str, Any] = {
        "format": np.array(clip_table.FORMAT),
        "model": np.array(str(conditioner.name_or_path)),
        "longest": np.array(conditioner.longest),
        "captions": np.frombuffer("\n".join([*earlier, *added]).encode(), dtype=np.uint8),
        "row_of": np.array([places[row] for row, _ in rows], dtype=np.int32),
        "lengths": np.array([length for _, length in rows], dtype=np.int32),
        "ids": np.array([token for row in wanted for token in row], dtype=np.int32),
        "ends": np.cumsum([len(row) for row in wanted]),
        **arrays,
    }
    with atomic_path(path) as aside:
        np.savez(aside, **content)
    source = Path(clip_table.__file__).read_text(encoding="utf-8")
    write_text(clip, source.replace(f'TABLE = "{clip_table.TABLE}"', f"TABLE = {path.name!r}", 1))
    dim = arrays["vectors"].shape[1]
    return CaptionTableReport(path, clip, len(earlier) + len(added), len(added), dim, "tokens" in arrays)


def _encode(
    conditioner: LexMotionTextConditioner, wanted: list[TokenIds], old: CaptionTable | None, tokens: bool, bar: bool
) -> dict[str, Any]:
    """Return vectors, and states of tokens if wanted, of rows of token ids; those of an old table are reused."""
    vectors: dict[TokenIds, np.ndarray] = {}
    states: dict[TokenIds, np.ndarray] = {}

    def encode(encoder: LexMotionTextConditioner | CaptionTable, rows: list[TokenIds], shown: tqdm) -> None:
        for start in range(0, len(rows), ROWS_AT_ONCE):
            batch = rows[start : start + ROWS_AT_ONCE]
            ids = _padded(batch)
            vectors.update(zip(batch, encoder.encode_text(ids).float().cpu().numpy(), strict=True))
            if tokens:
                of_tokens = encoder.encode_tokens(ids)[0].half().cpu().numpy()
                states.update((row, of_tokens[place, : len(row)]) for place, row in enumerate(batch))
            shown.update(len(batch))

    with tqdm(total=len(wanted), unit="caption", disable=not bar) as shown:
        if old is not None:
            kept = [row for row in wanted if row in old.data["rows"]]
            _check_same_model(conditioner, kept[:CHECKED_ROWS], old)
            if "tokens" in old.data or not tokens:
                encode(old, kept, shown)
        encode(conditioner, [row for row in wanted if row not in vectors], shown)
    arrays = {"vectors": np.stack([vectors[row] for row in wanted])}
    if tokens:
        arrays["tokens"] = np.concatenate([states[row] for row in wanted])
    return arrays


def _check_same_model(conditioner: LexMotionTextConditioner, rows: list[TokenIds], old: CaptionTable) -> None:
    """Encode some rows of a table again, since the projection or the weights may have changed."""
    if rows:
        ours, theirs = (encoder.encode_text(_padded(rows)).float().cpu() for encoder in (conditioner, old))
        if ours.shape == theirs.shape and torch.allclose(ours, theirs, atol=1e-2, rtol=1e-2):
            return
    raise ValueError(
        f"{old.path}: was written with {old.data['model']}, and its vectors differ from those of "
        f"{conditioner.name_or_path}; pass that model, delete the file, or pass another output"
    )


def _padded(rows: Sequence[TokenIds]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)


__all__ = ["CaptionTableReport", "save_caption_table"]
