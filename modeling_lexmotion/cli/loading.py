"""What commands load and write."""

import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from lexmotion.processing.recordings.options import ReadingOptions


def begin() -> None:
    """Before a room is entered: Auto classes registered, libraries quiet about what is not the user's concern."""
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging

    from lexmotion import register

    register()
    logging.disable_progress_bar()


def load_model(name: str, device: str | None) -> tuple[Any, Any]:
    """A trained model in evaluation mode, and its processor.

    Args:
        name: Folder or Hub name. device: Where to put it; None takes a GPU where there is one.

    Raises:
        FileNotFoundError: `name` looks like a folder and is none.
        ValueError: the processor is another model's.
    """
    import torch
    from transformers import AutoModel, AutoProcessor

    from lexmotion.encoding_lexmotion import check_processor

    if not Path(name).is_dir() and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
        raise FileNotFoundError(f"no model folder {name!r}; `lexmotion train` writes one as OUTPUT_DIR/model")
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model, processor = AutoModel.from_pretrained(name).eval(), AutoProcessor.from_pretrained(name)
    check_processor(model.config, processor)
    return model.to(place), processor


def load_processor(name: str) -> Any:
    """The processor saved beside a model; see `load_model`."""
    from transformers import AutoProcessor

    if not Path(name).is_dir() and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
        raise FileNotFoundError(f"no model folder {name!r}; name the model that encoded the vectors with --model")
    return AutoProcessor.from_pretrained(name)


def open_index(name: str | Path, model: str | None = None, device: str | None = None, uri: str | None = None) -> Any:
    """An index with its model.

    Args:
        name: Folder or Hub name. model: Instead of the one the index names. device: As of `load_model`.
        uri: Of its engine, instead of the one the index names.
    """
    from lexmotion import LexMotionIndex

    # One query is answered before numba has started.
    index = LexMotionIndex.from_pretrained(name, accelerate=False, uri=uri)
    named = model or index.info()["model"]
    if named is not None:
        index.close()
        loaded, processor = load_model(named, device)
        index = LexMotionIndex.from_pretrained(
            name, model=loaded, processor=processor if model else None, verify=False, accelerate=False, uri=uri
        )
    return index


def moving_hits(
    index: Any, name: str, hits: list[Any], query: Any, conditions: dict[str, Any], dataset: Path | None
) -> dict[str, Any]:
    """What `search_page` needs to show hits in motion; nothing where no model could explain them."""
    from tqdm.auto import tqdm

    from lexmotion.evaluation.demo import Demo, Question, stored_beside
    from lexmotion.evaluation.motion_sources import DatasetMotions

    if index.model is None or getattr(index.processor, "lexicon", None) is None:
        return {}
    shown = Demo(index, [*stored_beside(name), *([DatasetMotions(dataset)] if dataset is not None else [])])
    must, must_not, boost = (conditions[key] for key in ("must", "must_not", "boost"))
    steering = Question(must=tuple(must), must_not=tuple(must_not), boost=tuple(boost.items()))
    vector = shown.vector(steering, query)
    views = [
        shown.explained("item", hit.id, vector, hit)
        for hit in tqdm(hits, desc="motions explained", disable=None, leave=False)
    ]
    return {"views": views, "skeleton": shown.skeleton} if any(views) else {}


def read_motion_for(processor: Any, path: Path, reading: ReadingOptions) -> tuple[Any, float]:
    """Read a motion file in the joints of a model, and show what is doubtful about it.

    Args:
        processor: Of the model. path: Motion file. reading: How to read it.

    Returns:
        The motion, and its frames per second: given, the file's, else the model's.
    """
    from lexmotion.processing.recordings.reading import load_motion

    motion = load_motion(path, reading, processor.feature_extractor.skeleton)
    for problem in motion.problems:
        if problem.severity == "warning":
            Console(stderr=True).print(f"[yellow]{escape(str(problem))}[/]", highlight=False)
    return motion, motion.fps if motion.fps_is_known else processor.feature_extractor.fps
