"""AMASS recordings -> joint positions, through the package `smplx` and the user's own SMPL-H body model.

Neither comes with this package: body models have licences that each user has to accept.
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
    "The model is free for research after registration: 'Extended SMPL+H model' at https://mano.is.tue.mpg.de, one "
    "model.npz for each gender."
)
_NEEDED = (
    *("v_template", "shapedirs", "posedirs", "J_regressor", "kintree_table", "weights", "f"),
    *(f"hands_{what}{side}" for what in ("components", "mean") for side in "lr"),
)
_CHUNK = 4096  # frames at once


def amass_positions(content: Mapping[str, Any], body_model: str | os.PathLike | None, name: str) -> np.ndarray:
    """
    Joint positions of an AMASS recording.

    Args:
        content (`Mapping`): its arrays: `poses` (T, >= 66) axis angles, `trans` (T, 3), and where there are such,
            `betas` (B,) and `gender`.
        body_model (`str` or `os.PathLike`, *optional*): SMPL-H model, a `.npz` file or a folder with one for each
            gender.
        name (`str`): what errors call the recording.

    Returns:
        `np.ndarray` of shape `(T, 22, 3)`: metres, Z up as AMASS is.

    Raises:
        ImportError: `smplx` is not installed.
        FileNotFoundError: no body model is given, or there is none.
        ValueError: a wrong shape.
    """
    smplx = _import_smplx(name)
    poses, trans = (np.asarray(content[key], dtype=np.float32) for key in ("poses", "trans"))
    if poses.ndim != 2 or poses.shape[1] < 3 * NUM_JOINTS or trans.shape != (len(poses), 3):
        raise ValueError(
            f"{name}: AMASS has poses (frames, {3 * NUM_JOINTS} or more) and trans (frames, 3), got {poses.shape} and "
            f"{trans.shape}."
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
            f"{name} is an AMASS recording: it holds poses of a body model, not joints. Install `pip install smplx` "
            f"and give your SMPL-H model with --body-model FOLDER. {WHERE}"
        ) from error
    return smplx


def _gender(value: Any) -> str:
    """`male`, `female` or `neutral`, which AMASS also stores as bytes."""
    value = np.asarray("neutral" if value is None else value).reshape(-1)[0]
    text = (value.decode(errors="replace") if isinstance(value, bytes) else str(value)).lower()
    return text if text in GENDERS else "neutral"


def _model_file(body_model: str | os.PathLike | None, gender: str, name: str) -> Path:
    if body_model is None:
        raise FileNotFoundError(
            f"{name} is an AMASS recording of a {gender} body: give your SMPL-H model with --body-model FOLDER. "
            f"{WHERE}"
        )
    root = Path(body_model)
    if root.is_file():
        return root
    folders = [root, root / "smplh"]
    tried = [folder / gender / "model.npz" for folder in folders]
    tried += [folder / f"SMPLH_{gender.upper()}.npz" for folder in folders]
    for path in tried:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"There is no SMPL-H model of gender {gender!r} in {root}: looked for "
        f"{', '.join(str(path.relative_to(root)) for path in tried)}. {WHERE}"
    )


def _load_body(smplx: ModuleType, path: Path) -> Any:
    """The body model, read without pickles and without what `smplx` prints."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            content = {key: archive[key] for key in _NEEDED}
    except (ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no SMPL-H model of plain arrays: {error}. {WHERE}") from error
    with contextlib.redirect_stdout(io.StringIO()):
        return smplx.SMPLH(
            str(path),
            data_struct=smplx.utils.Struct(**content),
            use_pca=False,
            num_betas=content["shapedirs"].shape[-1],
            ext="npz",
        )


def _pose(smplx: ModuleType, body: Any, poses: np.ndarray, trans: np.ndarray, betas: np.ndarray) -> np.ndarray:
    """Joints of the shaped body in every pose: blend the shape, regress the joints, turn them along the tree."""
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
