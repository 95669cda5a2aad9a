"""What commands load and write."""

import json
import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from lexmotion.evaluation import loading
from lexmotion.evaluation.loading import load_model


def begin() -> None:
    """Before a room is entered: Auto classes registered, libraries quiet about what is not the user's concern."""
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging

    from lexmotion import register

    register()
    logging.disable_progress_bar()


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

    from lexmotion.evaluation.viewer.demo import Demo, Question, stored_beside
    from lexmotion.evaluation.viewer.motion_sources import DatasetMotions

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


def read_motion_for(processor: Any, path: Path, fps: float | None = None, **options: Any) -> tuple[Any, float]:
    """Read a motion file in the joints of a model and show doubtful findings; see `lexmotion.evaluation.loading`."""
    motion, rate = loading.read_motion_for(processor, path, fps, **options)
    for problem in motion.problems:
        if problem.severity == "warning":
            Console(stderr=True).print(f"[yellow]{escape(str(problem))}[/]", highlight=False)
    return motion, rate


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` in one step, so that an interrupted command leaves no half file."""
    from lexmotion.hub_cards.rendering import write_text

    write_text(path, json.dumps(content, indent=2) + "\n")
