"""Motion -> normalised, cropped and padded tensors. The statistics it normalises with are saved with it."""

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Self, TypedDict

import numpy as np
import torch
from transformers import BatchFeature, FeatureExtractionMixin
from transformers.utils import logging

from .joint_angles import column_names, part_columns, positions_to_joint_angles
from .motion_features import (
    canonicalize,
    features_to_positions,
    mirror_positions,
    positions_to_features,
    resample_positions,
)
from .skeletons import REPRESENTATIONS, Skeleton, get_skeleton

logger = logging.get_logger(__name__)

KINDS = ("positions", "features")
MIN_STD = 1e-4  # a feature that varies less is constant: it is centred, not divided
MAX_BODY_SIZE = 20.0  # metres; joints further apart within one frame are in another unit
FIT_BATCH = 64


class FrameMoments(NamedTuple):
    """Mean (F,) and summed squared distance from it (F,), float64, of some frames."""

    frames: int
    mean: np.ndarray
    squares: np.ndarray


class LexMotionMotionKwargs(TypedDict, total=False):
    """How motions are prepared: the arguments of calling [`LexMotionFeatureExtractor`] that can have a default."""

    return_tensors: str | None
    padding: bool | str
    truncation: bool | str
    kind: str | None
    max_frames: int | None
    pad_to_multiple_of: int | None


class LexMotionFeatureExtractor(FeatureExtractionMixin):
    """Turns motions into the tensors the motion tower reads.

    Joint positions are **metres**, Y up, whatever the skeleton (KIT-ML's own files are millimetres: multiply them by
    `Skeleton.metres_per_unit`); published features (263 or 251 a frame) are taken as published.

    A motion goes through: resampling to `fps`; cropping to `max_frames`; then, by `representation`,

    * `"positions"`: on the floor, first root at the origin facing Z+, flattened joint-major, F = 3 J;
    * `"humanml3d"`: the published features, F = 12 J - 1, one frame fewer than the positions have;
    * `"joint_angles"`: the joints' angles in 14 body parts, F = 71 (KIT-ML: 68), one frame fewer as well;

    and last (x - mean) / std for every feature, and zero padding. Input of the other kind is converted. Already
    normalised input is not: undo it first.

    Args:
        representation: `"positions"`, `"humanml3d"` or `"joint_angles"`.
        skeleton: Joint layout: `"humanml3d"` (22 joints) or `"kit-ml"` (21).
        fps: Frames per second of the output. Defaults to the skeleton's.
        max_frames: Frames of the output, at most.
        min_frames: Frames of the output, at least; shorter motions are an error.
        mean, std: F numbers each, as [`~LexMotionFeatureExtractor.fit`] finds them. None: nothing is normalised.
        target_skeleton: (J, 3) joints in metres of a reference frame whose bone lengths every motion is given before
            features are computed from positions. Only for `"humanml3d"`.
        statistics_hash: What [`~LexMotionFeatureExtractor.statistics_hash`] gave when it was saved; checked.

    Raises:
        ValueError: A field that makes no sense, or statistics that are not those of `statistics_hash`.

    Example:

        >>> import torch
        >>> extractor = LexMotionFeatureExtractor()
        >>> batch = extractor([torch.rand(60, 22, 3), torch.rand(90, 22, 3)], fps=30.0)
        >>> batch["motion_values"].shape, batch["motion_attention_mask"].sum(dim=1).tolist()
        (torch.Size([2, 60, 66]), [40, 60])
    """

    model_input_names = ["motion_values", "motion_attention_mask"]
    valid_kwargs = LexMotionMotionKwargs

    def __init__(
        self,
        representation: str = "positions",
        skeleton: str = "humanml3d",
        fps: float | None = None,
        max_frames: int = 224,
        min_frames: int = 8,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        target_skeleton: Sequence[Sequence[float]] | None = None,
        statistics_hash: str | None = None,
        **kwargs: Any,
    ):
        kwargs.pop("feature_extractor_type", None)
        super().__init__(**kwargs)
        if representation not in REPRESENTATIONS:
            raise ValueError(f"Unknown representation {representation!r}: choose one of {', '.join(REPRESENTATIONS)}.")
        self.representation = representation
        self.skeleton = get_skeleton(skeleton).name
        self.fps = _check_fps(self._layout.fps if fps is None else fps)
        self.max_frames, self.min_frames = int(max_frames), int(min_frames)
        if not 1 <= self.min_frames <= self.max_frames:
            raise ValueError(f"Expected 1 <= min_frames <= max_frames, got {min_frames} and {max_frames}.")
        self.target_skeleton = _to_list(target_skeleton)
        if self.target_skeleton is not None:
            shape = np.shape(self.target_skeleton)
            if len(shape) != 2 or shape[0] < self._layout.num_joints or shape[1] != 3:
                raise ValueError(
                    f"Expected target_skeleton of shape ({self._layout.num_joints}, 3), the joints of one frame in "
                    f"metres, got {shape}."
                )
        self.mean, self.std = _to_list(mean), _to_list(std)
        self._check_statistics()
        if statistics_hash not in (None, self.statistics_hash):
            raise ValueError(
                f"The statistics have hash {self.statistics_hash}, expected {statistics_hash}: they were changed, or "
                "what they were computed with (representation, skeleton, fps, target_skeleton). Fit again, or pass "
                "statistics_hash=None to keep them."
            )

    # ------------------------------------------------------------------ what it is

    @property
    def _layout(self) -> Skeleton:
        return get_skeleton(self.skeleton)

    @property
    def num_features(self) -> int:
        """F: 3 J for `"positions"`, 12 J - 1 for `"humanml3d"`, 71 or (KIT-ML) 68 for `"joint_angles"`."""
        if self.representation == "joint_angles":
            return len(column_names(self._layout))
        return 3 * self._layout.num_joints if self.representation == "positions" else self._layout.num_features

    @property
    def parts(self) -> list[list[int]]:
        """Features of each body part: right leg, left leg, torso, right arm, left arm; the 14 of the joint angles."""
        if self.representation == "joint_angles":
            return part_columns(self._layout)
        return self._layout.part_feature_indices(self.representation)

    @property
    def is_fitted(self) -> bool:
        return self.mean is not None

    @property
    def statistics_hash(self) -> str | None:
        """sha256 (hex) of mean, std and all they depend on; None without statistics."""
        if self.mean is None:
            return None
        content = [self.representation, self.skeleton, self.fps, self.target_skeleton, self.mean, self.std]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @property
    def _lost_frames(self) -> int:
        """Frames a motion loses on its way: features look at the next frame."""
        return 0 if self.representation == "positions" else 1

    def _check_statistics(self) -> None:
        if (self.mean is None) != (self.std is None):
            raise ValueError("Pass both mean and std, or neither.")
        if self.mean is None or self.std is None:
            return
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.num_features:
                raise ValueError(
                    f"{name} has {len(values)} numbers, but {self.representation!r} of skeleton {self.skeleton!r} has "
                    f"{self.num_features} features."
                )
            if not np.isfinite(values).all():
                raise ValueError(f"{name} holds {values[int(np.argmin(np.isfinite(values)))]}: fit again.")
        if min(self.std) <= 0:
            raise ValueError(f"std holds {min(self.std)}, which cannot be divided by: use 1 for constant features.")

    def to_dict(self) -> dict[str, Any]:
        output = super().to_dict()
        output["statistics_hash"] = self.statistics_hash
        return output

    # ------------------------------------------------------------------ calling

    def __call__(
        self,
        motion: Any,
        fps: float | Sequence[float] | None = None,
        return_tensors: str | None = "pt",
        padding: bool | str = True,
        truncation: bool | str = "start",
        kind: str | None = None,
        max_frames: int | None = None,
        pad_to_multiple_of: int | None = None,
    ) -> BatchFeature:
        """Prepare one motion or several.

        Args:
            motion: Joint positions (T, J, 3), also flattened (T, 3 J), or published features (T, 263 | 251); numpy,
                torch or nested lists; or a list of such, or a batch (B, T, J, 3) or (B, T, F).
            fps: Frames per second of the motions, one number or one for each. None: they have the extractor's rate.
            return_tensors: `"pt"`, `"np"`, or None for lists of arrays.
            padding: `True` or `"longest"`: to the longest motion; `"max_length"`: to `max_frames`; `False`: none.
            truncation: What to keep of a motion longer than `max_frames`: `"start"` (or `True`) or `"center"`; `False`
                makes it an error.
            kind: `"positions"` or `"features"` when the shape should not decide.
            max_frames: Another limit than the extractor's, for this call.
            pad_to_multiple_of: Round the padded length up to a multiple of this, the model's window for instance.

        Returns:
            [`BatchFeature`] with `motion_values` (B, T, F) float32 and `motion_attention_mask` (B, T) int64, zero for
            padding. A single motion is a batch of one.

        Raises:
            ValueError: Wrong shape or joint count, NaN or infinity (the message names the frame), a motion that is too
                short or, without truncation, too long, or an fps that is not a positive number.
        """
        motions = self._split(motion, kind)
        rates = self._rates(fps, len(motions))
        if not self.is_fitted:
            logger.warning_once(
                "This LexMotionFeatureExtractor has no statistics, so motions are not normalised: call `fit` on "
                "training motions, or load a fitted one."
            )
        limit = self.max_frames if max_frames is None else int(max_frames)
        if limit < self.min_frames:
            raise ValueError(f"max_frames {limit} is below min_frames {self.min_frames}.")
        prepared = [
            self._prepare(index, values, values_kind, rate, truncation, limit)
            for index, ((values, values_kind), rate) in enumerate(zip(motions, rates, strict=True))
        ]
        values, lengths = self._assemble(prepared)
        values = self._normalize(values, lengths)
        return self._pad(values, lengths, return_tensors, padding, limit, pad_to_multiple_of)

    def _split(self, motion: Any, kind: str | None) -> list[tuple[torch.Tensor, str]]:
        """Each motion as a float32 tensor, (T, J, 3) positions or (T, F) features, with its kind."""
        if kind not in (None, *KINDS):
            raise ValueError(f"Unknown kind {kind!r}: choose one of {', '.join(KINDS)}, or None to go by the shape.")
        if isinstance(motion, (str, bytes, dict)) or motion is None:
            raise ValueError(f"Expected motion as an array, a tensor or a list of them, got {type(motion).__name__}.")
        if isinstance(motion, (np.ndarray, torch.Tensor)):
            array = _to_tensor(motion, "motion")
            dims = array.ndim
            many = dims == 4 or (dims == 3 and array.shape[-1] != 3)
            items = list(array) if many else [array]
        else:
            items = [_to_tensor(item, f"motion {index}") for index, item in enumerate(motion)]
            if not items:
                raise ValueError("Got an empty list of motions.")
            dims = items[0].ndim
            # A list of frames is one motion: (J, 3) poses or flat (F,) features.
            if all(item.shape == items[0].shape for item in items) and (
                dims == 1 or (dims == 2 and items[0].shape[-1] == 3)
            ):
                items = [torch.stack(items)]
            elif len(items) == 1 and (dims == 4 or (dims == 3 and items[0].shape[-1] != 3)):
                items = list(items[0])
        if not items:
            raise ValueError("Got an empty batch of motions.")
        return [self._recognize(index, item, kind) for index, item in enumerate(items)]

    def _recognize(self, index: int, values: torch.Tensor, kind: str | None) -> tuple[torch.Tensor, str]:
        joints, features = self._layout.num_joints, self._layout.num_features
        shape = tuple(values.shape)
        if values.ndim == 2 and shape[1] == 3 * joints and kind != "features":
            values = values.unflatten(1, (joints, 3))
        if values.ndim == 3 and kind != "features":
            if values.shape[1:] != (joints, 3):
                raise ValueError(
                    f"Motion {index} has shape {shape}: skeleton {self.skeleton!r} has {joints} joints, so positions "
                    f"are (frames, {joints}, 3). Retarget it, or use an extractor of its own skeleton."
                )
            found = "positions"
        elif values.ndim == 2 and kind != "positions" and shape[1] == features:
            found = "features"
        else:
            shapes = {"positions": f"(frames, {joints}, 3)", "features": f"(frames, {features})"}
            expected = " or ".join(f"{name} {shapes[name]}" for name in ([kind] if kind else KINDS))
            raise ValueError(
                f"Motion {index} has shape {shape}: expected {expected} of skeleton {self.skeleton!r}. Retarget it, "
                "or use an extractor of its own skeleton."
            )
        finite = torch.isfinite(values).flatten(1).all(dim=1)
        if not finite.all():
            frame = int(finite.logical_not().nonzero()[0])
            raise ValueError(
                f"Motion {index}, frame {frame} holds NaN or infinity ({int((~finite).sum())} of {len(finite)} frames "
                "do): repair these frames, or cut them off."
            )
        if found == "positions" and len(values):
            size = (values.amax(dim=1) - values.amin(dim=1)).amax(dim=1).median()
            if size > MAX_BODY_SIZE:
                raise ValueError(
                    f"The body of motion {index} measures {float(size):.0f} m: positions must be metres. Multiply "
                    "millimetres by 0.001 and centimetres by 0.01."
                )
        return values, found

    def _rates(self, fps: Any, count: int) -> list[float]:
        if fps is None:
            logger.warning_once(f"No fps given: motions are taken to have {self.fps:g} frames per second.")
            return [self.fps] * count
        if isinstance(fps, torch.Tensor | np.ndarray):
            fps = fps.tolist()
        if not isinstance(fps, (list, tuple)):
            return [_check_fps(fps)] * count
        if len(fps) != count:
            raise ValueError(f"Got {len(fps)} fps for {count} motions: pass one number, or one for each motion.")
        return [_check_fps(rate) for rate in fps]

    def _prepare(
        self, index: int, values: torch.Tensor, kind: str, fps: float, truncation: bool | str, limit: int
    ) -> torch.Tensor:
        """Resample and crop: positions (T, J, 3), or features (T, F) that need no conversion."""
        keep = {True: "start", "start": "start", "center": "center", False: "no"}.get(truncation)
        if keep is None:
            raise ValueError(f"Unknown truncation {truncation!r}: choose 'start', 'center' or False.")
        as_is = kind == "features" and self.representation == "humanml3d" and fps == self.fps
        lost = 0 if as_is else self._lost_frames
        if len(values) and not as_is:
            if kind == "features":
                values = features_to_positions(values, self._layout) * self._layout.metres_per_unit
            values = resample_positions(values, fps, self.fps)
        num_frames = len(values) - lost
        if num_frames < self.min_frames:
            raise ValueError(
                f"Motion {index} is too short: it gives {max(num_frames, 0)} frames at {self.fps:g} frames per "
                f"second, at least {self.min_frames} are needed."
            )
        if num_frames > limit:
            if keep == "no":
                raise ValueError(
                    f"Motion {index} has {num_frames} frames, more than {limit}: pass truncation='start' or 'center', "
                    "or a larger max_frames."
                )
            start = (num_frames - limit) // 2 if keep == "center" else 0
            values = values[start : start + limit + lost]
        return values

    def _assemble(self, motions: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Values (B, T, F), not normalised, and lengths (B,), of prepared motions; positions are converted at once."""
        where = [index for index, motion in enumerate(motions) if motion.ndim == 3]
        rows = list(motions)
        if where:
            lengths = torch.tensor([len(motions[index]) for index in where])
            padded = torch.nn.utils.rnn.pad_sequence([motions[index] for index in where], batch_first=True)
            values, lengths = self._convert(padded, lengths)
            if len(where) == len(motions):
                return values, lengths
            for index, row, length in zip(where, values, lengths.tolist(), strict=True):
                rows[index] = row[:length]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows])

    def _convert(self, positions: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T, J, 3) positions in metres -> (B, T', F) values that are not normalised, and their lengths."""
        layout = self._layout
        if self.representation == "positions":
            return canonicalize(positions, layout, lengths).flatten(2), lengths
        if self.representation == "joint_angles":
            values, lengths = positions_to_joint_angles(positions, layout, lengths)
            return values, lengths
        target = None
        if self.target_skeleton is not None:
            target = torch.tensor(self.target_skeleton, dtype=torch.float64) / layout.metres_per_unit
        if layout.metres_per_unit != 1.0:
            positions = positions / layout.metres_per_unit
        values, lengths = positions_to_features(positions, layout, lengths, target)
        return values, lengths

    def _normalize(self, values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """In place: the values were made for the caller, and at this size a copy costs more than the arithmetic."""
        if self.mean is not None:
            values.sub_(values.new_tensor(self.mean)).div_(values.new_tensor(self.std))
        frame = torch.arange(values.shape[1], device=values.device)
        return values.mul_((frame < lengths[:, None]).unsqueeze(-1))

    def values_from_positions(
        self, positions: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The training path: a padded batch of positions at the extractor's frame rate -> `motion_values`.

        What calling the extractor on every motion gives, without checks of length, unit and statistics.

        Args:
            positions: (B, T, J, 3) float32 in metres; what lies behind a motion's length does not matter.
            lengths: (B,) int64 real frames. All but `"positions"` need at least two.

        Returns:
            (B, T', F) float32 normalised values, zero behind each motion, and their lengths (B,); T' is T for
            `"positions"`, else T - 1, and at most `max_frames`.

        Raises:
            ValueError: Wrong shape, lengths that do not fit, NaN or infinity in a real frame.
        """
        limit = self.max_frames + self._lost_frames
        lengths = torch.as_tensor(lengths, dtype=torch.int64, device=positions.device)
        if positions.shape[1] > limit:
            positions, lengths = positions[:, :limit], lengths.clamp(max=limit)
        values, lengths = self._convert(positions.float(), lengths)
        return self._normalize(values, lengths), lengths

    def _pad(
        self,
        values: torch.Tensor,
        lengths: torch.Tensor,
        return_tensors: str | None,
        padding: bool | str,
        limit: int,
        pad_to_multiple_of: int | None,
    ) -> BatchFeature:
        padding = getattr(padding, "value", padding)  # transformers' PaddingStrategy
        longest = int(lengths.max())
        if padding in (True, "longest"):
            frames = longest
        elif padding == "max_length":
            frames = limit
        elif padding in (False, "do_not_pad"):
            frames = longest
            if return_tensors is not None and int(lengths.min()) != longest:
                raise ValueError(
                    f"Motions of {int(lengths.min())} to {longest} frames make no tensor: pass padding=True, or "
                    "return_tensors=None for lists."
                )
        else:
            raise ValueError(f"Unknown padding {padding!r}: choose True, 'longest', 'max_length' or False.")
        padded = padding not in (False, "do_not_pad")
        if padded and pad_to_multiple_of is not None:
            if pad_to_multiple_of < 1:
                raise ValueError(f"pad_to_multiple_of must be at least 1, got {pad_to_multiple_of}.")
            frames = -(-frames // pad_to_multiple_of) * pad_to_multiple_of
        values = values[:, :frames]
        if values.shape[1] < frames:
            values = torch.nn.functional.pad(values, (0, 0, 0, frames - values.shape[1]))
        mask = (torch.arange(frames) < lengths[:, None]).long()
        if return_tensors is None:
            ends = [frames] * len(values) if padded else lengths.tolist()
            data = {
                "motion_values": [row[:end].numpy() for row, end in zip(values, ends, strict=True)],
                "motion_attention_mask": [row[:end].numpy() for row, end in zip(mask, ends, strict=True)],
            }
            return BatchFeature(data)
        return BatchFeature({"motion_values": values.numpy(), "motion_attention_mask": mask.numpy()}, return_tensors)

    # ------------------------------------------------------------------ statistics

    def fit(self, motions: Iterable[Any], fps: float | Iterable[float] | None = None, mirror: bool = False) -> Self:
        """Find mean and standard deviation of every feature, over all frames of the motions as calling would see them.

        Motions are read once, in batches; sums are kept in float64 and merged pairwise (Chan et al., 1983). A feature
        that varies less than 1e-4 gets a standard deviation of one.

        Args:
            motions: Training motions only, each as for calling; any iterable.
            fps: Frames per second of all, or of each in the same order. None: the extractor's.
            mirror: Count the mirror image of every motion too, as where training mirrors motions.

        Returns:
            itself.

        Raises:
            ValueError: No motions, or one that calling would refuse.
        """
        return self.fit_moments(self.moments(motions, fps, mirror))

    def moments(
        self, motions: Iterable[Any], fps: float | Iterable[float] | None = None, mirror: bool = False
    ) -> Iterator[FrameMoments]:
        """What [`fit`] finds out about the motions, batch by batch: work that can be spread, then put together.

        Arguments and errors are those of [`fit`].
        """
        rates: Iterator[Any]
        rates = iter(fps) if isinstance(fps, Iterable) else itertools.repeat(self.fps if fps is None else fps)
        stream = iter(motions)
        index = 0
        while batch := list(itertools.islice(stream, FIT_BATCH)):
            prepared = []
            for motion in batch:
                try:
                    rate = _check_fps(next(rates))
                except StopIteration:
                    raise ValueError(f"There are only {index} fps for more motions: give one for each.") from None
                try:
                    split = self._split(motion, None)
                    if len(split) != 1:
                        raise ValueError(f"It is a batch of {len(split)}: give one motion each.")
                    prepared.append(self._prepare(index, *split[0], rate, "start", self.max_frames))
                except ValueError as error:
                    raise ValueError(f"Cannot fit on item {index} of the motions: {error}") from error
                index += 1
            for side in range(1 + mirror):
                if side:
                    prepared = [self._mirrored(motion) for motion in prepared]
                values, lengths = self._assemble(prepared)
                frames = values[torch.arange(values.shape[1]) < lengths[:, None]].double().numpy()
                centre = frames.mean(axis=0)
                yield FrameMoments(len(frames), centre, np.square(frames - centre).sum(axis=0))

    def fit_moments(self, moments: Iterable[FrameMoments]) -> Self:
        """[`fit`] from the [`moments`] of all motions; their order decides the last digits.

        Raises:
            ValueError: There are none.
        """
        count, mean, squares = 0, np.zeros(self.num_features), np.zeros(self.num_features)
        for term in moments:
            total = count + term.frames
            step = np.asarray(term.mean) - mean
            squares += term.squares + np.square(step) * (count * term.frames / total)
            mean += step * (term.frames / total)
            count = total
        if not count:
            raise ValueError("No motions to fit on: the iterable was empty.")
        std = np.sqrt(squares / count)
        std = np.where(std < np.maximum(MIN_STD, 1e-6 * np.abs(mean)), 1.0, std)
        self.mean, self.std = mean.astype(np.float32).tolist(), std.astype(np.float32).tolist()
        self._check_statistics()
        return self

    def _mirrored(self, motion: torch.Tensor) -> torch.Tensor:
        """The mirror image of a prepared motion; features become positions on the way and lose their last frame."""
        if motion.ndim == 2:
            motion = features_to_positions(motion, self._layout) * self._layout.metres_per_unit
        return mirror_positions(motion, self._layout)

    def denormalize(self, values: torch.Tensor | np.ndarray) -> torch.Tensor | np.ndarray:
        """Undo the normalisation.

        Args:
            values: (..., F) `motion_values`, torch or numpy. Padding becomes the mean; mask it out.

        Returns:
            Canonical positions in metres, flattened, published features or joint angles, as the same kind of array.

        Raises:
            ValueError: The last dimension is not F.
        """
        if values.shape[-1] != self.num_features:
            raise ValueError(f"Expected values of shape (..., {self.num_features}), got {tuple(values.shape)}.")
        if self.mean is None:
            return values
        if isinstance(values, torch.Tensor):
            return values * values.new_tensor(self.std) + values.new_tensor(self.mean)
        return values * np.asarray(self.std, values.dtype) + np.asarray(self.mean, values.dtype)

    def values_to_positions(self, values: torch.Tensor | np.ndarray) -> torch.Tensor:
        """`motion_values` (..., T, F) -> joint positions (..., T, J, 3) in metres, for drawing and error measures.

        Raises:
            ValueError: The values are joint angles, which do not know how long the bones are.
        """
        if self.representation == "joint_angles":
            raise ValueError("Joint angles hold no bone lengths, so there is no way back: keep the positions.")
        values = torch.as_tensor(self.denormalize(values))
        if self.representation == "positions":
            return values.unflatten(-1, (self._layout.num_joints, 3))
        return features_to_positions(values, self._layout) * self._layout.metres_per_unit


def _check_fps(fps: Any) -> float:
    if isinstance(fps, (bool, np.bool_)) or not isinstance(fps, (int, float, np.integer, np.floating)):
        raise ValueError(f"fps must be a positive number of frames per second, got {fps!r}.")
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps must be a positive, finite number of frames per second, got {fps}.")
    return float(fps)


def _to_list(values: Any) -> list | None:
    if values is None:
        return None
    return (values.detach().cpu() if isinstance(values, torch.Tensor) else np.asarray(values, dtype=float)).tolist()


def _to_tensor(values: Any, name: str) -> torch.Tensor:
    """float32 on the CPU."""
    if not isinstance(values, torch.Tensor):
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise ValueError(f"{name} is a ragged list: its frames have different shapes.") from error
        if array.dtype.kind not in "fiu":
            raise ValueError(f"{name} has dtype {array.dtype}, expected numbers.")
        values = torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
    return values.detach().to(device="cpu", dtype=torch.float32)
