"""Read AMASS recordings and other poses of SMPL's body models as joint positions.

With the package `smplx` and the user's own SMPL-H body model they are the joints of the recorded person. Neither is a
part of this package: each user has to accept the licence of the body model. Without it, a mean body is posed.
"""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..skeletons import HUMANML3D
from .kinematics import multiply, rotate
from .mean_body import T_POSE
from .recording import Problem, check_values

NUM_JOINTS = 22  # joints that SMPL, SMPL-H, SMPL-X and HumanML3D share, in the same order
GENDERS = ("neutral", "male", "female")
WHERE = (
    "it is free for research after registration: 'Extended SMPL+H model' at https://mano.is.tue.mpg.de, one model.npz "
    "per gender"
)
_NEEDED = (
    *("v_template", "shapedirs", "posedirs", "J_regressor", "kintree_table", "weights", "f"),
    *(f"hands_{what}{side}" for what in ("components", "mean") for side in "lr"),
)
_CHUNK = 4096  # frames per batch
BODY_NAMES = ("poses", "body_pose", "pose_body")
_ROOT_NAMES = ("global_orient", "root_orient")
MEAN_BODY = Problem(
    "note",
    "the file contains rotations of a body model but no bones, so the joints are those of a mean body",
    "pass your SMPL-H model with body_model=... for the bones of the recorded person",
)


def body_parts(names: Collection[str], key: str | None) -> tuple[str, ...] | None:
    """Return the arrays of rotations of a posed body, that of the root first; None: the file holds none.

    AMASS files are recognised by their arrays. Other tools write `global_orient` and `body_pose` in coordinates of
    their own, which are only read if `key` names them.
    """
    root = next((name for name in _ROOT_NAMES if name in names), None)
    if key is None:
        if "trans" not in names:
            return None
        if "poses" in names:
            return ("poses",)
        return ("root_orient", "pose_body") if {"root_orient", "pose_body"} <= set(names) else None
    if key not in BODY_NAMES or key not in names:
        return None
    if key == "poses":
        return ("poses",)
    return None if root is None else (root, key)


def stack_rotations(rotations: Sequence[np.ndarray], names: Sequence[str], file: str) -> np.ndarray:
    """Return (T, >= 66) axis angles from arrays of axis angles (T, 3 J) or (T, J, 3), or matrices (T, J, 3, 3)."""
    flat = []
    for array in rotations:
        if array.dtype.kind not in "fiu" or array.ndim < 2 or not array.size:
            break
        check_values(array.size, file)
        turns = _axis_angles(array, file) if array.shape[-2:] == (3, 3) else array
        flat.append(turns.reshape(len(array), -1).astype(np.float64))
    shapes = " and ".join(f"{name} {array.shape}" for name, array in zip(names, rotations, strict=True))
    if len(flat) < len(rotations) or len({len(array) for array in flat}) > 1:
        raise ValueError(f"{file}: got {shapes}; save rotations as numbers, one row per frame")
    poses = np.concatenate(flat, axis=1)
    if poses.shape[1] < 3 * NUM_JOINTS or not np.isfinite(poses).all():
        needed = f"finite axis angles of at least {NUM_JOINTS} joints per frame"
        raise ValueError(
            f"{file}: got {shapes}; AMASS files contain poses (frames, {3 * NUM_JOINTS} or more), {needed}"
        )
    return poses


def mean_positions(poses: np.ndarray, trans: np.ndarray, file: str) -> np.ndarray:
    """Compute the joints of a body of mean proportions, see `mean_body`.

    Args:
        poses: (T, >= 66) finite axis angles, the root first.
        trans: (T, 3) positions of the root in metres.
        file: name of the recording in error messages.

    Returns:
        (T, 22, 3) metres in the axes of the recording.
    """
    if trans.shape != (len(poses), 3) or trans.dtype.kind not in "fiu":
        raise ValueError(f"{file}: got poses {poses.shape} and trans {trans.shape}; save trans as (frames, 3)")
    places = np.empty((len(poses), NUM_JOINTS, 3))
    turns: list[np.ndarray] = []
    for joint, parent in enumerate(HUMANML3D.parents):
        turn = _quaternions(poses[:, 3 * joint : 3 * joint + 3])
        if parent < 0:
            places[:, joint] = trans
        else:
            offset = np.broadcast_to(T_POSE[joint] - T_POSE[parent], (len(poses), 3))
            places[:, joint] = places[:, parent] + rotate(turns[parent], offset)
            turn = multiply(turns[parent], turn)
        turns.append(turn)
    return places


def _quaternions(vectors: np.ndarray) -> np.ndarray:
    """Return quaternions (T, 4), w first, of axis angles (T, 3)."""
    angle = np.linalg.norm(vectors, axis=-1, keepdims=True)
    axis = vectors / np.where(angle > 0, angle, 1.0)
    return np.concatenate([np.cos(angle / 2), np.sin(angle / 2) * axis], axis=-1)


def _axis_angles(matrices: np.ndarray, file: str) -> np.ndarray:
    """Return axis angles (T, 3 J) of rotation matrices (T, J, 3, 3) or (T, 3, 3)."""
    from scipy.spatial.transform import Rotation

    flat = matrices.reshape(-1, 3, 3)
    if not np.isfinite(flat).all() or not (np.linalg.det(flat) > 0.5).all():
        raise ValueError(f"{file}: the matrices are not rotations; save axis angles")
    return Rotation.from_matrix(flat).as_rotvec().reshape(len(matrices), -1)


def amass_positions(content: Mapping[str, Any], body_model: str | os.PathLike, name: str) -> np.ndarray:
    """Compute the joint positions of an AMASS recording.

    Args:
        content: arrays of the recording: `poses` (T, >= 66) axis angles, `trans` (T, 3), optionally `betas` (B,) and
            `gender`.
        body_model: SMPL-H model, a `.npz` file or a folder with one per gender.
        name: name of the recording in error messages.

    Returns:
        (T, 22, 3) metres, Z up as in AMASS.

    Raises:
        ImportError: if `smplx` is not installed.
        FileNotFoundError: if no body model is found.
        ValueError: if an array has a wrong shape.
    """
    smplx = _import_smplx(name)
    poses, trans = (np.asarray(content[key], dtype=np.float32) for key in ("poses", "trans"))
    if poses.ndim != 2 or poses.shape[1] < 3 * NUM_JOINTS or trans.shape != (len(poses), 3):
        raise ValueError(
            f"{name}: got poses {poses.shape} and trans {trans.shape}; AMASS files contain poses (frames, at least "
            f"{3 * NUM_JOINTS}) and trans (frames, 3)"
        )
    gender = _gender(content.get("gender"))
    betas = np.asarray(content.get("betas", np.zeros(0)), dtype=np.float32).reshape(-1)
    body = _load_body(smplx, _model_file(body_model, gender))
    return _pose(smplx, body, poses, trans, betas)


def _import_smplx(name: str) -> ModuleType:
    try:
        import smplx
    except ImportError as error:
        raise ImportError(
            f"{name}: AMASS recordings contain poses of a body model, not joints; run `pip install smplx` to use your "
            f"SMPL-H model with body_model='FOLDER' ({WHERE}), or leave out body_model=... for a mean body"
        ) from error
    return smplx


def _gender(value: Any) -> str:
    """Return `male`, `female` or `neutral`; some AMASS files store it as bytes."""
    value = np.asarray("neutral" if value is None else value).reshape(-1)[0]
    text = (value.decode(errors="replace") if isinstance(value, bytes) else str(value)).lower()
    return text if text in GENDERS else "neutral"


def _model_file(body_model: str | os.PathLike, gender: str) -> Path:
    root = Path(body_model)
    if root.is_file():
        return root
    names = (f"{gender}/model.npz", f"SMPLH_{gender.upper()}.npz")
    tried = [f"{folder}{name}" for name in names for folder in ("", "smplh/")]
    for path in tried:
        if (root / path).is_file():
            return root / path
    raise FileNotFoundError(
        f"{root}: no SMPL-H model of gender {gender!r}; save it as one of {', '.join(tried)} ({WHERE})"
    )


def _load_body(smplx: ModuleType, path: Path) -> Any:
    """Load the body model without pickles, and without the messages that `smplx` prints."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            content = {key: archive[key] for key in _NEEDED}
    except (ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: no SMPL-H model of plain arrays ({error}); download it again: {WHERE}") from error
    with contextlib.redirect_stdout(io.StringIO()):
        data, num_betas = smplx.utils.Struct(**content), content["shapedirs"].shape[-1]
        return smplx.SMPLH(str(path), data_struct=data, use_pca=False, num_betas=num_betas, ext="npz")


def _pose(smplx: ModuleType, body: Any, poses: np.ndarray, trans: np.ndarray, betas: np.ndarray) -> np.ndarray:
    """Compute the joints of each pose: blend the shape, regress the joints, rotate them along the tree."""
    import torch

    lbs = smplx.lbs
    with torch.no_grad():
        count = min(len(betas), body.shapedirs.shape[-1])
        shape = torch.from_numpy(betas[None, :count])
        vertices = body.v_template + lbs.blend_shapes(shape, body.shapedirs[..., :count])
        joints = lbs.vertices2joints(body.J_regressor, vertices)[:, :NUM_JOINTS]
        parents = body.parents[:NUM_JOINTS]
        placed = []
        for start in range(0, len(poses), _CHUNK):
            angles = torch.from_numpy(poses[start : start + _CHUNK, : 3 * NUM_JOINTS])
            turns = lbs.batch_rodrigues(angles.reshape(-1, 3)).view(-1, NUM_JOINTS, 3, 3)
            moved, _ = lbs.batch_rigid_transform(turns, joints.expand(len(turns), -1, -1), parents)
            placed.append(moved.numpy())
    return np.concatenate(placed) + trans[:, None]
