"""Feature extractor: motions -> normalised, cropped and padded tensors. Its statistics are saved with it."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Self, TypedDict

import numpy as np
import torch
from transformers import BatchFeature, FeatureExtractionMixin
from transformers.utils import logging

from .joint_angles import column_names, part_columns, positions_to_joint_angles
from .motion_features import (
    FPS_RANGE,
    canonicalize,
    features_to_positions,
    mirror_positions,
    positions_to_features,
    resample_positions,
    resampled_length,
)
from .skeletons import REPRESENTATIONS, Skeleton, get_skeleton

logger = logging.get_logger(__name__)

KINDS = ("positions", "features")
MIN_STD = 1e-4  # a feature with a smaller std is constant: it is centred, not scaled
View = tuple[bool, float, float]  # mirrored, and the shares of the frames between which a motion is kept
WHOLE: View = (False, 0.0, 1.0)
MAX_BODY_SIZE = 20.0  # metres; joints further apart within one frame are in the wrong unit
FIT_BATCH = 64


class FrameMoments(NamedTuple):
    """Mean (F,) and summed squared distance from it (F,) of a set of frames, float64."""

    frames: int
    mean: np.ndarray
    squares: np.ndarray


class LexMotionMotionKwargs(TypedDict, total=False):
    """Arguments of calling [`LexMotionFeatureExtractor`] that can have a default."""

    return_tensors: str | None
    padding: bool | str
    truncation: bool | str
    kind: str | None
    max_frames: int | None
    pad_to_multiple_of: int | None


class LexMotionFeatureExtractor(FeatureExtractionMixin):
    """Feature extractor that converts motions to input tensors of the motion tower.

    Joint positions are in **metres**, Y up, for every skeleton (KIT-ML files are in millimetres: multiply them by
    `Skeleton.metres_per_unit`); published features (263 or 251 per frame) are used as published.

    A motion is resampled to `fps`, cropped to `max_frames`, and converted according to `representation`:

    * `"positions"`: on the floor, first root at the origin facing Z+, flattened joint-major, F = 3 J;
    * `"humanml3d"`: published features, F = 12 J - 1, one frame fewer than positions;
    * `"joint_angles"`: joint angles in 14 body parts, F = 71 (KIT-ML: 68), one frame fewer than positions.

    Each feature is then normalised to (x - mean) / std and zero-padded. Positions and published features are both
    accepted and converted as needed, but must not be normalised already.

    Args:
        representation: `"positions"`, `"humanml3d"` or `"joint_angles"`.
        skeleton: joint layout, `"humanml3d"` (22 joints) or `"kit-ml"` (21).
        fps: frames per second of the output; defaults to that of the skeleton.
        max_frames: maximum number of output frames.
        min_frames: minimum number of output frames; shorter motions are an error.
        mean, std: F numbers each, as computed by [`~LexMotionFeatureExtractor.fit`]. None disables normalisation.
        target_skeleton: (J, 3) joints in metres of a reference frame whose bone lengths every motion is retargeted to
            before features are computed from positions. Only for `"humanml3d"`.
        statistics_hash: saved [`~LexMotionFeatureExtractor.statistics_hash`], to verify.

    Raises:
        ValueError: if an argument is invalid, or the statistics do not match `statistics_hash`.

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
            raise ValueError(f"representation: got {representation!r}; pass one of {', '.join(REPRESENTATIONS)}")
        self.representation = representation
        self.skeleton = get_skeleton(skeleton).name
        self.fps = _check_fps(self._layout.fps if fps is None else fps)
        self.max_frames, self.min_frames = int(max_frames), int(min_frames)
        if not 1 <= self.min_frames <= self.max_frames:
            raise ValueError(
                f"min_frames, max_frames: got {min_frames} and {max_frames}; pass 1 <= min_frames <= max_frames"
            )
        self.target_skeleton = _to_list(target_skeleton)
        if self.target_skeleton is not None:
            shape = np.shape(self.target_skeleton)
            if len(shape) != 2 or shape[0] < self._layout.num_joints or shape[1] != 3:
                raise ValueError(
                    f"target_skeleton: got shape {shape}; pass ({self._layout.num_joints}, 3), the joints of one "
                    "frame in metres"
                )
        self.mean, self.std = _to_list(mean), _to_list(std)
        self._check_statistics()
        if statistics_hash not in (None, self.statistics_hash):
            raise ValueError(
                f"statistics: hash {self.statistics_hash} differs from the saved {statistics_hash}, so they or their "
                "settings (representation, skeleton, fps, target_skeleton) were changed; fit again, or pass "
                "statistics_hash=None to keep them"
            )

    # ------------------------------------------------------------------ properties

    @property
    def _layout(self) -> Skeleton:
        return get_skeleton(self.skeleton)

    @property
    def num_features(self) -> int:
        """F: 3 J for `"positions"`, 12 J - 1 for `"humanml3d"`, 71 (KIT-ML: 68) for `"joint_angles"`."""
        if self.representation == "joint_angles":
            return len(column_names(self._layout))
        return 3 * self._layout.num_joints if self.representation == "positions" else self._layout.num_features

    @property
    def parts(self) -> list[list[int]]:
        """Feature indices of each body part: right leg, left leg, torso, right arm, left arm; for joint angles 14."""
        if self.representation == "joint_angles":
            return part_columns(self._layout)
        return self._layout.part_feature_indices(self.representation)

    @property
    def is_fitted(self) -> bool:
        return self.mean is not None

    @property
    def statistics_hash(self) -> str | None:
        """SHA-256 (hex) of mean, std and the settings they depend on; None without statistics."""
        if self.mean is None:
            return None
        content = [self.representation, self.skeleton, self.fps, self.target_skeleton, self.mean, self.std]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @property
    def _lost_frames(self) -> int:
        """Frames a motion loses, as features use the next frame."""
        return 0 if self.representation == "positions" else 1

    def _check_statistics(self) -> None:
        if (self.mean is None) != (self.std is None):
            raise ValueError(f"{'mean' if self.mean is None else 'std'}: got None; pass both mean and std, or neither")
        if self.mean is None or self.std is None:
            return
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.num_features:
                raise ValueError(
                    f"{name}: got {len(values)} numbers; pass {self.num_features}, one per feature of "
                    f"{self.representation!r} of skeleton {self.skeleton!r}"
                )
            if not np.isfinite(values).all():
                raise ValueError(f"{name}: got {values[int(np.argmin(np.isfinite(values)))]}; fit again")
        if min(self.std) <= 0:
            raise ValueError(f"std: got {min(self.std)}; pass positive numbers, 1 for constant features")

    def __repr__(self) -> str:
        fitted = "fitted" if self.is_fitted else "not fitted"
        size = f"{self.representation!r}, skeleton={self.skeleton!r}, fps={self.fps:g}, max_frames={self.max_frames}"
        return f"{type(self).__name__}({size}, {fitted})"

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
        views: Sequence[View] | None = None,
    ) -> BatchFeature:
        """Prepare one or several motions.

        Args:
            motion: joint positions (T, J, 3), also flattened (T, 3 J), or published features (T, 263 | 251), as numpy,
                torch or nested lists, or a `Motion` of `load_motion`; or a list of these, a ragged batch of
                `datasets`, or a batch (B, T, J, 3) or (B, T, F).
            fps: frames per second of the motions, one number or one per motion; None uses that of a `Motion`, or of
                the extractor.
            return_tensors: `"pt"`, `"np"`, or None for lists of arrays.
            padding: `True` or `"longest"`: to the longest motion; `"max_length"`: to `max_frames`; `False`: none.
            truncation: part to keep of motions longer than `max_frames`, `"start"` (or `True`) or `"center"`, with a
                warning; `False` makes them an error.
            kind: `"positions"` or `"features"`; None infers it from the shape.
            max_frames: maximum number of frames for this call; None uses that of the extractor.
            pad_to_multiple_of: round the padded length up to a multiple of this, for example the model's window.
            views: per motion, `(mirrored, start, stop)`: whether to mirror it, and between which shares of its frames
                to crop it, for example `(False, 0.0, 0.85)`, but not below `min_frames`. Both are done after
                truncation. Mirrored features are computed from their positions and lose a frame. None: whole motions.

        Returns:
            [`BatchFeature`] with `motion_values` (B, T, F) float32 and `motion_attention_mask` (B, T) int64, zero for
            padding. A single motion is a batch of one.

        Raises:
            ValueError: if a motion has a wrong shape or joint count, NaN or infinity (the message names the frame), is
                too short or, without truncation, too long, or if an fps is not a positive number.
        """
        motion, fps = _opened(motion, fps)
        motions = self._split(motion, kind)
        rates = self._rates(fps, len(motions))
        if not self.is_fitted:
            logger.warning_once(
                "this LexMotionFeatureExtractor has no statistics, so motions are not normalised; call `fit` on "
                "training motions, or load a fitted one"
            )
        limit = self.max_frames if max_frames is None else int(max_frames)
        if limit < self.min_frames:
            raise ValueError(f"max_frames: got {limit}; pass at least min_frames, {self.min_frames}")
        prepared = [
            self._prepare(index, values, values_kind, rate, truncation, limit)
            for index, ((values, values_kind), rate) in enumerate(zip(motions, rates, strict=True))
        ]
        if views is not None:
            if len(views) != len(prepared):
                raise ValueError(f"views: got {len(views)} for {len(prepared)} motions; pass one per motion")
            prepared = [self._view(one, view) for one, view in zip(prepared, views, strict=True)]
        if truncation:
            self._note_cut_motions(motions, rates, limit, views)
        values, lengths = self._assemble(prepared)
        values = self._normalize(values, lengths)
        return self._pad(values, lengths, return_tensors, padding, limit, pad_to_multiple_of)

    def as_list(self, motions: Any, fps: Any = None) -> tuple[Any, Any]:
        """Return one motion or several, in any form that a call takes, as a sequence, and their frame rates."""
        motions, fps = _opened(motions, fps)
        if isinstance(motions, np.ndarray | torch.Tensor) and not _is_batch(motions):
            return [motions], fps
        return motions, fps

    def _note_cut_motions(
        self,
        motions: Sequence[tuple[torch.Tensor, str]],
        rates: Sequence[float],
        limit: int,
        views: Sequence[View] | None = None,
    ) -> None:
        """Warn if motions last longer than `limit` frames; each motion counts once, whatever its views."""
        lost = self._lost_frames
        if views is not None:
            whole = [place for place, view in enumerate(views) if view == WHOLE]
            motions, rates = [motions[place] for place in whole], [rates[place] for place in whole]
        seconds = [len(values) / rate for (values, _), rate in zip(motions, rates, strict=True)]
        cut = [length for length in seconds if length * self.fps > limit + lost + 1]
        if cut:
            logger.warning(
                f"{len(cut)} of {len(motions)} motions are longer than the model takes (the longest lasts "
                f"{max(cut):.1f} s), and only {limit / self.fps:.1f} s are read; pass shorter parts of them"
            )

    def _split(self, motion: Any, kind: str | None) -> list[tuple[torch.Tensor, str]]:
        """Return each motion as a float32 tensor, (T, J, 3) positions or (T, F) features, with its kind."""
        if kind not in (None, *KINDS):
            raise ValueError(f"kind: got {kind!r}; pass one of {', '.join(KINDS)}, or None to infer it from the shape")
        if isinstance(motion, (str, bytes, dict)) or motion is None:
            raise ValueError(f"motion: got {type(motion).__name__}; pass an array, a tensor or a list of them")
        if isinstance(motion, (np.ndarray, torch.Tensor)):
            array = _to_tensor(motion, "motion")
            items = list(array) if _is_batch(array) else [array]
        else:
            items = [_to_tensor(item, f"motion {index}") for index, item in enumerate(motion)]
            if not items:
                raise ValueError("motion: got an empty list; pass at least 1 motion")
            dims = items[0].ndim
            # A list of frames is one motion: (J, 3) poses or flat (F,) features.
            if all(item.shape == items[0].shape for item in items) and (
                dims == 1 or (dims == 2 and items[0].shape[-1] == 3)
            ):
                items = [torch.stack(items)]
            elif len(items) == 1 and (dims == 4 or (dims == 3 and items[0].shape[-1] != 3)):
                items = list(items[0])
        if not items:
            raise ValueError("motion: got an empty batch; pass at least 1 motion")
        return [self._recognize(index, item, kind) for index, item in enumerate(items)]

    def _recognize(self, index: int, values: torch.Tensor, kind: str | None) -> tuple[torch.Tensor, str]:
        joints, features = self._layout.num_joints, self._layout.num_features
        shape = tuple(values.shape)
        if values.ndim == 2 and shape[1] == 3 * joints and kind != "features":
            values = values.unflatten(1, (joints, 3))
        if values.ndim == 3 and kind != "features":
            if values.shape[1:] != (joints, 3):
                raise ValueError(
                    f"motion {index}: got shape {shape}, expected positions (frames, {joints}, 3) of skeleton "
                    f"{self.skeleton!r}; retarget it, or use an extractor with its skeleton"
                )
            found = "positions"
        elif values.ndim == 2 and kind != "positions" and shape[1] == features:
            found = "features"
        else:
            shapes = {"positions": f"(frames, {joints}, 3)", "features": f"(frames, {features})"}
            expected = " or ".join(f"{name} {shapes[name]}" for name in ([kind] if kind else KINDS))
            raise ValueError(
                f"motion {index}: got shape {shape}, expected {expected} of skeleton {self.skeleton!r}; retarget it, "
                "or use an extractor with its skeleton"
            )
        finite = torch.isfinite(values).flatten(1).all(dim=1)
        if not finite.all():
            frame = int(finite.logical_not().nonzero()[0])
            raise ValueError(
                f"motion {index}, frame {frame}: found NaN or infinity (in {int((~finite).sum())} of {len(finite)} "
                "frames); repair these frames, or cut them off"
            )
        if found == "positions" and len(values):
            size = (values.amax(dim=1) - values.amin(dim=1)).amax(dim=1).median()
            if size > MAX_BODY_SIZE:
                raise ValueError(
                    f"motion {index}: the body measures {float(size):.0f} m; convert positions to metres (multiply "
                    "millimetres by 0.001, centimetres by 0.01)"
                )
        return values, found

    def _rates(self, fps: Any, count: int) -> list[float]:
        if fps is None:
            logger.warning_once(f"fps: not given, assuming {self.fps:g} frames per second; pass fps= if it differs")
            return [self.fps] * count
        if isinstance(fps, torch.Tensor | np.ndarray):
            fps = fps.tolist()
        if not isinstance(fps, (list, tuple)):
            return [_check_fps(fps)] * count
        if len(fps) != count:
            raise ValueError(f"fps: got {len(fps)} for {count} motions; pass one number, or one per motion")
        return [_check_fps(rate) for rate in fps]

    def _prepare(
        self, index: int, values: torch.Tensor, kind: str, fps: float, truncation: bool | str, limit: int
    ) -> torch.Tensor:
        """Resample and crop to positions (T, J, 3), or features (T, F) if they need no conversion."""
        keep = {True: "start", "start": "start", "center": "center", False: "no"}.get(truncation)
        if keep is None:
            raise ValueError(f"truncation: got {truncation!r}; pass 'start', 'center' or False")
        as_is = kind == "features" and self.representation == "humanml3d" and fps == self.fps
        lost = 0 if as_is else self._lost_frames
        if len(values) and not as_is:
            if kind == "features":
                values = features_to_positions(values, self._layout) * self._layout.metres_per_unit
            num_frames = resampled_length(len(values), fps, self.fps) - lost
        else:
            num_frames = len(values) - lost
        if num_frames < self.min_frames:
            raise ValueError(
                f"motion {index}: too short, {max(num_frames, 0)} frames at {self.fps:g} frames per second; pass at "
                f"least {self.min_frames}"
            )
        start = 0
        if num_frames > limit:
            if keep == "no":
                raise ValueError(
                    f"motion {index}: {num_frames} frames, more than {limit}; pass truncation='start' or 'center', "
                    "or a larger max_frames"
                )
            start = (num_frames - limit) // 2 if keep == "center" else 0
        most = min(num_frames, limit) + lost
        if as_is or not len(values):
            return values[start : start + most]
        return resample_positions(values, fps, self.fps, start, most)  # only what is kept, for any frame rate

    def _assemble(self, motions: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return unnormalised values (B, T, F) and lengths (B,) of prepared motions; converts positions in a batch."""
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
        """Convert (B, T, J, 3) positions in metres to unnormalised (B, T', F) values, and their lengths."""
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
        """Normalise in place: the values are not shared, and a copy would cost more than the arithmetic."""
        if self.mean is not None:
            values.sub_(values.new_tensor(self.mean)).div_(values.new_tensor(self.std))
        frame = torch.arange(values.shape[1], device=values.device)
        return values.mul_((frame < lengths[:, None]).unsqueeze(-1))

    def values_from_positions(
        self, positions: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Convert a padded batch of positions at the frame rate of the extractor to `motion_values`, for training.

        Same result as calling the extractor on every motion, without checks of length, unit and statistics.

        Args:
            positions: (B, T, J, 3) float32 in metres; frames beyond the length of a motion are ignored.
            lengths: (B,) int64 number of real frames, at least two except for `"positions"`.

        Returns:
            (B, T', F) float32 normalised values, zero in the padding, and their lengths (B,); T' is T for
            `"positions"`, else T - 1, and at most `max_frames`.

        Raises:
            ValueError: if the shape or lengths are wrong, or a real frame has NaN or infinity.
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
                    f"padding: motions of {int(lengths.min())} to {longest} frames do not fit one tensor; pass "
                    "padding=True, or return_tensors=None for lists"
                )
        else:
            raise ValueError(f"padding: got {padding!r}; pass True, 'longest', 'max_length' or False")
        padded = padding not in (False, "do_not_pad")
        if padded and pad_to_multiple_of is not None:
            if pad_to_multiple_of < 1:
                raise ValueError(f"pad_to_multiple_of: got {pad_to_multiple_of}; pass at least 1")
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
        """Compute mean and standard deviation of every feature over all frames, preprocessed as in a call.

        Motions are read once, in batches; moments are accumulated in float64 and merged pairwise (Chan et al., 1983).
        A feature with a standard deviation below 1e-4 gets a standard deviation of one.

        Args:
            motions: iterable of training motions, each as accepted by a call.
            fps: frames per second, one number or one per motion in the same order; None uses that of the extractor.
            mirror: whether to include the mirror image of every motion, if training mirrors motions.

        Returns:
            the extractor itself.

        Raises:
            ValueError: if `motions` is empty, or a motion is invalid.
        """
        return self.fit_moments(self.moments(motions, fps, mirror))

    def moments(
        self, motions: Iterable[Any], fps: float | Iterable[float] | None = None, mirror: bool = False
    ) -> Iterator[FrameMoments]:
        """Yield the moments that [`fit`] accumulates, per batch, so that the work can be distributed.

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
                    raise ValueError(f"fps: got {index} for more motions; pass one per motion") from None
                try:
                    split = self._split(motion, None)
                    if len(split) != 1:
                        raise ValueError(f"got a batch of {len(split)}; pass one motion per item")
                    prepared.append(self._prepare(index, *split[0], rate, "start", self.max_frames))
                except ValueError as error:
                    raise ValueError(f"cannot fit on item {index} of the motions: {error}") from error
                index += 1
            for side in range(1 + mirror):
                if side:
                    prepared = [self._mirrored(motion) for motion in prepared]
                values, lengths = self._assemble(prepared)
                frames = values[torch.arange(values.shape[1]) < lengths[:, None]].double().numpy()
                centre = frames.mean(axis=0)
                yield FrameMoments(len(frames), centre, np.square(frames - centre).sum(axis=0))

    def fit_moments(self, moments: Iterable[FrameMoments]) -> Self:
        """Fit from the [`moments`] of all motions; the last digits depend on their order.

        Raises:
            ValueError: if there are no moments.
        """
        count, mean, squares = 0, np.zeros(self.num_features), np.zeros(self.num_features)
        for term in moments:
            total = count + term.frames
            step = np.asarray(term.mean) - mean
            squares += term.squares + np.square(step) * (count * term.frames / total)
            mean += step * (term.frames / total)
            count = total
        if not count:
            raise ValueError("motions: got an empty iterable; pass at least 1 training motion")
        std = np.sqrt(squares / count)
        std = np.where(std < np.maximum(MIN_STD, 1e-6 * np.abs(mean)), 1.0, std)
        self.mean, self.std = mean.astype(np.float32).tolist(), std.astype(np.float32).tolist()
        self._check_statistics()
        return self

    def _mirrored(self, motion: torch.Tensor) -> torch.Tensor:
        """Mirror a prepared motion; features are converted to positions first and lose their last frame."""
        if motion.ndim == 2:
            motion = features_to_positions(motion, self._layout) * self._layout.metres_per_unit
        return mirror_positions(motion, self._layout)

    def _view(self, motion: torch.Tensor, view: View) -> torch.Tensor:
        """Mirror and crop a prepared motion; a crop keeps at least `min_frames`."""
        mirrored, *ends = view
        if mirrored:
            motion = self._mirrored(motion)
        start, stop = (round(end * len(motion)) for end in ends)
        least = self.min_frames + (self._lost_frames if motion.ndim == 3 else 0)
        kept = min(max(stop - start, least), len(motion))
        start = min(start, len(motion) - kept)
        return motion[start : start + kept]

    def denormalize(self, values: torch.Tensor | np.ndarray) -> torch.Tensor | np.ndarray:
        """Undo the normalisation.

        Args:
            values: (..., F) `motion_values`, torch or numpy. Padding becomes the mean; mask it out.

        Returns:
            flattened canonical positions in metres, published features or joint angles, as the same kind of array.

        Raises:
            ValueError: if the last dimension is not F.
        """
        if values.shape[-1] != self.num_features:
            raise ValueError(f"values: got shape {tuple(values.shape)}; pass (..., {self.num_features})")
        if self.mean is None:
            return values
        if isinstance(values, torch.Tensor):
            return values * values.new_tensor(self.std) + values.new_tensor(self.mean)
        return values * np.asarray(self.std, values.dtype) + np.asarray(self.mean, values.dtype)

    def values_to_positions(self, values: torch.Tensor | np.ndarray) -> torch.Tensor:
        """Convert `motion_values` (..., T, F) to joint positions (..., T, J, 3) in metres, for drawing and errors.

        Raises:
            ValueError: if the values are joint angles, which contain no bone lengths.
        """
        if self.representation == "joint_angles":
            raise ValueError("representation: 'joint_angles' has no bone lengths to convert back; keep the positions")
        values = torch.as_tensor(self.denormalize(values))
        if self.representation == "positions":
            return values.unflatten(-1, (self._layout.num_joints, 3))
        return features_to_positions(values, self._layout) * self._layout.metres_per_unit


def _is_batch(array: Any) -> bool:
    """Return whether an array is a batch (B, T, J, 3) or (B, T, F), not one motion."""
    return array.ndim == 4 or (array.ndim == 3 and array.shape[-1] != 3)


def _opened(motion: Any, fps: Any) -> tuple[Any, Any]:
    """Replace a `Motion` of `load_motion`, or a list of them, by positions and rates, a ragged array by a list."""
    if isinstance(motion, np.ndarray) and motion.dtype == object and motion.ndim == 1:
        motion = list(motion)
    is_one = hasattr(motion, "model_input")
    loaded = [motion] if is_one else motion
    if not (isinstance(loaded, list | tuple) and loaded and all(hasattr(item, "model_input") for item in loaded)):
        return motion, fps
    if fps is None and all(item.fps_is_known for item in loaded):
        fps = [item.fps for item in loaded]
    return [item.model_input for item in loaded], fps


def _check_fps(fps: Any) -> float:
    if isinstance(fps, (bool, np.bool_)) or not isinstance(fps, (int, float, np.integer, np.floating)):
        raise ValueError(f"fps: got {fps!r}; pass a positive number of frames per second")
    if not FPS_RANGE[0] <= fps <= FPS_RANGE[1]:
        low, high = FPS_RANGE
        raise ValueError(f"fps: got {fps}; pass a positive number of frames per second, {low:g} to {high:g}")
    return float(fps)


def _to_list(values: Any) -> list | None:
    if values is None:
        return None
    return (values.detach().cpu() if isinstance(values, torch.Tensor) else np.asarray(values, dtype=float)).tolist()


def _to_tensor(values: Any, name: str) -> torch.Tensor:
    """Convert to a float32 tensor on the CPU."""
    if not isinstance(values, torch.Tensor):
        try:
            array = np.asarray(values)
            if array.dtype == object:  # rows of equal length in a ragged array of `datasets`
                array = np.asarray([np.asarray(row.tolist() if hasattr(row, "tolist") else row) for row in array])
        except ValueError as error:
            raise ValueError(f"{name}: got a ragged list ({error}); pass frames of equal shape") from error
        if array.dtype.kind not in "fiu":
            raise ValueError(f"{name}: got dtype {array.dtype}; pass numbers, such as those of lexmotion.load_motion")
        values = torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
    return values.detach().to(device="cpu", dtype=torch.float32)
