"""Trained models, their processors and motion files for them, by folder, Hub name or as objects."""

import os
from typing import Any

from lexmotion.common.names import checked_model_name
from lexmotion.processing.recordings.options import ReadingOptions


def load_model(
    name: str | os.PathLike,
    device: str | None = None,
    remedy: str = "`lexmotion train` writes one as OUTPUT_DIR/model",
) -> tuple[Any, Any]:
    """
    Load a trained model in evaluation mode, and its processor.

    Args:
        name: folder or Hub name.
        device: device to compute on; None uses a GPU if available.
        remedy: advice in the error if the model is not found.

    Raises:
        FileNotFoundError: if `name` is a path without a model.
        ValueError: if the processor belongs to another model.
    """
    import torch
    from transformers import AutoModel, AutoProcessor

    from lexmotion.encoding_lexmotion import check_processor

    name = checked_model_name(name, remedy)
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model, processor = AutoModel.from_pretrained(name).eval(), AutoProcessor.from_pretrained(name)
    check_processor(model.config, processor)
    return model.to(place), processor


def load_processor(name: str | os.PathLike) -> Any:
    """Load the processor saved beside a model; see `load_model`."""
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(
        checked_model_name(name, "pass the model that encoded the vectors, model=...")
    )


def ready_model(model: Any, processor: Any = None, device: str | None = None) -> tuple[Any, Any]:
    """
    Return a model, given by name or object, in evaluation mode, and its processor.

    Args:
        model: folder or Hub name, or a loaded model, which stays on its device.
        processor: the model's; None loads the one saved beside it.
        device: see `load_model`; for a model that is loaded here.

    Raises:
        FileNotFoundError, ValueError: see `load_model`.
    """
    from lexmotion.encoding_lexmotion import check_processor

    if isinstance(model, str | os.PathLike):
        model, saved = load_model(model, device)
        processor = processor or saved
    elif processor is None:
        if not model.name_or_path:
            raise ValueError(
                f"processor: unknown, since this {type(model).__name__} was not loaded from a folder or the Hub; "
                "pass processor=LexMotionProcessor.from_pretrained(...)"
            )
        processor = load_processor(model.name_or_path)
    check_processor(model.config, processor)
    return model.eval(), processor


def name_of(model: Any) -> str:
    """Return the folder or Hub name of a model as `ready_model` takes it; empty if it has none."""
    return os.fspath(model) if isinstance(model, str | os.PathLike) else model.name_or_path


def read_motion_for(
    processor: Any, path: str | os.PathLike, reading: ReadingOptions | None = None
) -> tuple[Any, float]:
    """
    Read a motion file in the joints of a model.

    Args:
        processor: the model's.
        path: motion file.
        reading: how to read it; None uses what the file contains.

    Returns:
        The `Motion`, and its frames per second: those of `reading`, else the file's, else the model's.
    """
    from lexmotion.processing.recordings.reading import load_motion

    extractor = processor.feature_extractor
    motion = load_motion(path, reading, extractor.skeleton)
    return motion, motion.fps if motion.fps_is_known else extractor.fps
