"""Read AMASS recordings as joint positions, with the package `smplx` and the user's own SMPL-H body model.

Neither is a part of this package: each user has to accept the licence of the body model.
"""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

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


def amass_positions(content: Mapping[str, Any], body_model: str | os.PathLike | None, name: str) -> np.ndarray:
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
        FileNotFoundError: if no body model is given or found.
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
    body = _load_body(smplx, _model_file(body_model, gender, name))
    return _pose(smplx, body, poses, trans, betas)


def _import_smplx(name: str) -> ModuleType:
    try:
        import smplx
    except ImportError as error:
        raise ImportError(
            f"{name}: AMASS recordings contain poses of a body model, not joints; run `pip install smplx` and pass "
            f"your SMPL-H model with --body-model FOLDER ({WHERE})"
        ) from error
    return smplx


def _gender(value: Any) -> str:
    """Return `male`, `female` or `neutral`; some AMASS files store it as bytes."""
    value = np.asarray("neutral" if value is None else value).reshape(-1)[0]
    text = (value.decode(errors="replace") if isinstance(value, bytes) else str(value)).lower()
    return text if text in GENDERS else "neutral"


def _model_file(body_model: str | os.PathLike | None, gender: str, name: str) -> Path:
    if body_model is None:
        raise FileNotFoundError(
            f"{name}: AMASS recording of a {gender} body; pass your SMPL-H model with --body-model FOLDER ({WHERE})"
        )
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
