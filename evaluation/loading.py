"""Trained models, their processors and motion files for them, by folder, Hub name or as objects."""

import os
import shutil
from pathlib import Path
from typing import Any

from lexmotion.common.files import files_moved_in
from lexmotion.common.names import checked_model_name
from lexmotion.common.pretrained import loading_from
from lexmotion.processing.recordings.options import ReadingOptions
from lexmotion.shipped import portable, resolved


def load_model(
    name: str | os.PathLike,
    device: str | None = None,
    remedy: str = "`lexmotion train` writes one as OUTPUT_DIR/model",
) -> tuple[Any, Any]:
    """
    Load a trained model in evaluation mode, and its processor.

    Args:
        name: folder or Hub name, or name of a model of the package, see `lexmotion.pretrained`.
        device: device to compute on; None uses a GPU if available.
        remedy: advice in the error if the model is not found.

    Raises:
        FileNotFoundError: if `name` is a path without a model.
        ValueError: if files are damaged, or the processor belongs to another model.
    """
    import torch
    from transformers import AutoModel

    from lexmotion.encoding_lexmotion import check_processor

    name = _checked_name(name, remedy)
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    with loading_from(name):
        model, info = AutoModel.from_pretrained(name, trust_remote_code=False, output_loading_info=True)
    if info["missing_keys"]:
        first = min(info["missing_keys"])
        raise ValueError(
            f"{name}: {len(info['missing_keys'])} weights are missing, including {first}; restore model.safetensors"
        )
    processor = _processor(name)
    check_processor(model.config, processor)
    return model.eval().to(place), processor


def load_motion_encoder(name: str | os.PathLike) -> tuple[Any, Any]:
    """
    Load the encoder of the motion tower of a finished phase or a trained model on the CPU, and the processor.

    Args:
        name: folder or Hub name of a model, or output folder of a phase, with the model in its folder `model`.

    Raises:
        FileNotFoundError: if `name` is a path without a model.
        ValueError: if files are damaged, the model has no motion tower, or the processor belongs to another model.
    """
    from transformers import AutoConfig

    import lexmotion
    from lexmotion.encoding_lexmotion import check_processor
    from lexmotion.modeling_lexmotion import LexMotionMotionEncoder

    inside = Path(name) / "model"
    is_phase = (inside / "config.json").is_file() and not (Path(name) / "config.json").is_file()
    name = _checked_name(inside if is_phase else name, "`lexmotion train` writes one as OUTPUT_DIR/cmmm/model")
    with loading_from(name):
        kinds = AutoConfig.from_pretrained(name, trust_remote_code=False).architectures or ["nothing"]
        kind = getattr(lexmotion, kinds[0], None)
        model = None if kind is None else kind.from_pretrained(name)
    modules = () if model is None else model.modules()
    # In phase ii, the student precedes its teacher.
    encoder = next((module for module in modules if isinstance(module, LexMotionMotionEncoder)), None)
    if model is None or encoder is None:
        remedy = "pass phase ii, iii or iv, or a model of `lexmotion train`"
        raise ValueError(f"{name}: {kinds[0]} has no motion tower of LexMotion; {remedy}")
    processor = _processor(name)
    check_processor(model.config, processor)
    return encoder.eval(), processor


def load_processor(name: str | os.PathLike) -> Any:
    """Load the processor saved beside a model; see `load_model`."""
    return _processor(_checked_name(name, "pass the model that encoded the vectors, model=..."))


def _processor(name: str) -> Any:
    from transformers import AutoProcessor

    with loading_from(name):
        processor = AutoProcessor.from_pretrained(name, trust_remote_code=False)
    if not hasattr(processor, "feature_extractor"):  # transformers loads a part of a processor of unknown class
        raise ValueError(
            f"{name}: its processor_config.json names another class than LexMotionProcessor, so that a "
            f"{type(processor).__name__} was found; restore the file, or save the processor again"
        )
    return processor


def save_model(model: Any, processor: Any, folder: str | os.PathLike) -> None:
    """
    Save a model and its processor, if any, with the checksums of their files.

    The files are moved in one by one when all of them are written; others in the folder stay.

    Raises:
        DiskFullError: if there is no space for them; the folder is unchanged.
    """
    from lexmotion.checksums_lexmotion import write_checksums

    with files_moved_in(folder) as aside:
        model.save_pretrained(aside)
        if processor is not None:
            processor.save_pretrained(aside)
        write_checksums(aside)


def copy_model(source: str | os.PathLike, folder: str | os.PathLike) -> None:
    """Copy the files of a model folder; see `save_model`."""
    with files_moved_in(folder) as aside:
        shutil.copytree(source, aside, dirs_exist_ok=True)


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
    return portable(os.fspath(model) if isinstance(model, str | os.PathLike) else model.name_or_path)


def _checked_name(name: str | os.PathLike, remedy: str) -> str:
    from lexmotion.checksums_lexmotion import check_checksums

    name = checked_model_name(resolved(name), remedy)
    check_checksums(name)  # before a damaged configuration is read
    return name


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
