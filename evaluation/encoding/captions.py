"""From captions to a table that motion generators read in an environment of their own."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from lexmotion.common.pretrained import loading_from
from lexmotion.conditioning.caption_table import CONTEXT_LENGTHS, CaptionTableReport, save_caption_table
from lexmotion.conditioning.text_conditioner import LexMotionTextConditioner
from lexmotion.processing.corpora.prepare import load_prepared

Source = str | os.PathLike


def encode_captions(
    model: Source | LexMotionTextConditioner,
    captions: Source | Sequence[Source],
    output: Source,
    *,
    dim: int | None = None,
    tokens: bool = False,
    context_lengths: Sequence[int] = CONTEXT_LENGTHS,
    device: str | None = None,
    progress: bool = False,
) -> CaptionTableReport:
    """
    Encode captions for a motion generator that cannot import LexMotion, and write a replacement of `clip` that reads
    them.

    Args:
        model: folder or Hub name of a model or a saved conditioner, or a conditioner.
        captions: one or several sources, each a folder with text files (HumanML3D's `texts`), a text file, or a
            prepared corpus; see `read_captions`.
        output: `.npz` file to write; captions of a table that exists are kept. `clip.py` is written beside it.
        dim: width of a vector; None: 512, or that of the saved conditioner.
        tokens: whether to add the states of all tokens.
        context_lengths: numbers of tokens that programs cut captions to.
        device: device to compute on; None uses a GPU if available.
        progress: show a progress bar.

    Raises:
        FileNotFoundError: if a model or a source does not exist.
        ValueError: if a source has no captions, or the table was written with another model.
    """
    import torch

    sources = [captions] if isinstance(captions, str | os.PathLike) else captions
    texts = [text for source in sources for text in read_captions(source)]
    if isinstance(model, LexMotionTextConditioner):
        conditioner = model
    else:
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        with loading_from(model):
            conditioner = LexMotionTextConditioner.from_pretrained(os.fspath(model), dim=dim).to(place)
    return save_caption_table(conditioner, texts, Path(output), context_lengths, tokens, progress)


def read_captions(source: Source) -> list[str]:
    """
    Read the captions of a text file, of the text files of a folder, or of a prepared corpus.

    A line is a caption, or `caption#tokens#start#end` as in HumanML3D. Of other lines with `#`, which programs read in
    different ways, both the line and what comes before the first `#` are captions.

    Raises:
        FileNotFoundError: if the source does not exist.
        ValueError: if it has no captions.
    """
    path = Path(source)
    if not path.exists():
        place = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise FileNotFoundError(
            f"captions: no folder or file {str(path)!r}{place}; pass HumanML3D's texts, for example"
        )
    if (path / "report.json").is_file():
        found = [text for rows in load_prepared(path).values() for texts in rows["captions"] for text in texts]
    else:
        folder = path / "texts" if (path / "texts").is_dir() else path
        files = sorted(folder.glob("*.txt")) if path.is_dir() else [path]
        found = [text for file in files for text in _captions_of(file)]
    if not found:
        raise ValueError(f"captions: {path} has none; pass a folder of .txt files, a text file or a prepared corpus")
    return found


def _captions_of(file: Path) -> Iterator[str]:
    for line in file.read_text(encoding="utf-8-sig", errors="replace").split("\n"):
        fields = line.split("#")
        if fields[0].strip():
            yield fields[0]
        if 1 < len(fields) < 4:
            yield line


__all__ = ["encode_captions", "read_captions"]
