"""Columns of a prepared corpus."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from datasets import Array2D, Features, List, Value
from datasets.features.features import Array2DExtensionType

from ..skeletons import Skeleton
from .records import MotionRecord


def corpus_features(skeleton: Skeleton) -> Features:
    """
    Columns of a prepared split.

    `motion` is (T, J * 3) float32: joint positions in metres, joint-major (x, y, z of joint 0 first). `base_id` and
    `source_clip` tell which rows show the same movement or come from the same recording, `mirrored` which rows are
    mirror images; `mirrored_captions` describe the mirror image of the row.
    """
    text = Value("string")
    return Features(
        {
            "id": text,
            "base_id": text,
            "source_clip": text,
            "mirrored": Value("bool"),
            "start": Value("float32"),
            "end": Value("float32"),
            "motion": Array2D((None, skeleton.num_joints * 3), "float32"),
            "num_frames": Value("int32"),
            "fps": Value("float32"),
            "skeleton": text,
            "captions": List(text),
            "mirrored_captions": List(text),
            "split": text,
            "source": text,
        }
    )


TEXT_FEATURES = Features(
    {"id": Value("string"), "captions": List(Value("string")), "mirrored_captions": List(Value("string"))}
)


def records_table(records: Sequence[MotionRecord], skeleton: Skeleton) -> pa.Table:
    """Records as rows with the columns of [`corpus_features`]."""
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
    per_motion = pa.ListArray.from_arrays(
        pa.array(np.concatenate([[0], np.cumsum(frames)]).astype(np.int32)), per_frame
    )
    if isinstance(motion_type, Array2DExtensionType):
        return pa.ExtensionArray.from_storage(motion_type, per_motion)
    return per_motion
