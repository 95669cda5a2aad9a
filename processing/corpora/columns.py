"""The columns of a prepared corpus."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from datasets import Array2D, Features, List, Value
from datasets.features.features import Array2DExtensionType

from ..skeletons import Skeleton
from .records import MotionRecord

_TEXT = Value("string")
TEXT_FEATURES = Features({"id": _TEXT, "captions": List(_TEXT), "mirrored_captions": List(_TEXT)})


def corpus_features(skeleton: Skeleton) -> Features:
    """Return the columns of a prepared split.

    `motion` is (T, J * 3) float32: joint positions in metres, joint-major (x, y, z of joint 0 first). Rows of the same
    movement share `base_id`, rows of the same recording `source_clip`; `mirrored` marks mirror images, and
    `mirrored_captions` describe the mirror image of the row.
    """
    number = Value("float32")
    return Features(
        dict.fromkeys(("id", "base_id", "source_clip"), _TEXT)
        | {"mirrored": Value("bool"), "start": number, "end": number}
        | {"motion": Array2D((None, skeleton.num_joints * 3), "float32"), "num_frames": Value("int32"), "fps": number}
        | {"skeleton": _TEXT, "captions": List(_TEXT), "mirrored_captions": List(_TEXT)}
        | {"split": _TEXT, "source": _TEXT}
    )


def records_table(records: Sequence[MotionRecord], skeleton: Skeleton) -> pa.Table:
    """Convert records to rows with the columns of [`corpus_features`]."""
    schema = corpus_features(skeleton).arrow_schema
    columns = [
        _motion_column(records, skeleton, field.type)
        if field.name == "motion"
        else pa.array([getattr(record, field.name) for record in records], type=field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _motion_column(records: Sequence[MotionRecord], skeleton: Skeleton, motion_type: pa.DataType) -> pa.Array:
    width = skeleton.num_joints * 3
    frames = np.array([record.num_frames for record in records], np.int32)
    flat = np.concatenate([np.zeros(0, np.float32), *(record.positions.reshape(-1) for record in records)])
    per_frame = pa.ListArray.from_arrays(pa.array(np.arange(0, len(flat) + 1, width, dtype=np.int32)), pa.array(flat))
    ends = pa.array(np.concatenate([[0], np.cumsum(frames)]).astype(np.int32))
    per_motion = pa.ListArray.from_arrays(ends, per_frame)
    if isinstance(motion_type, Array2DExtensionType):
        return pa.ExtensionArray.from_storage(motion_type, per_motion)
    return per_motion
