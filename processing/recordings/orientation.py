"""Unit and vertical axis of motion files, decided for one file or for all files of one source together.

Files of one source agree in both, but single clips mislead: a body that lies along z looks like one that stands in a
file with Z up. Every file therefore yields [`Traits`], the evidence for each axis, and [`decide`] adds them up. The
weights are logarithms of odds, chosen on 3,388 clips of six corpora: how much more often something is seen along the
vertical axis than along another one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..skeletons import Skeleton
from .detection import POSSIBLE_HEIGHTS, UNITS, UP_AXES, Fact, body_height, detect_units, long_axis

# How often files have these axes up, in logarithms relative to y. Arrays in the order of a skeleton have y up, except
# for some with Z up and some from cameras (-y).
_USUAL = {"y": 0.0, "z": -1.5, "-y": -4.0, "-z": -4.0, "x": -4.0, "-x": -4.0}
_USUAL_IN_ARRAYS = {"y": 0.0, "z": -4.0, "-y": -4.0, "-z": -12.0, "x": -12.0, "-x": -12.0}
_STANDS, _TRAVELS = 3.0, 2.0  # the body stands along the axis; and the hips travel across it, as if it walked
_RESTS = 4.5  # the rest pose stands along the axis
_STANDS_FROM, _STANDS_TO = 0.5, 0.85  # mean cosines from which and up to which this is more and more certain
_TRAVEL = 0.5  # body heights of travel from which this is certain
_HIPS_ABOVE = 3.0  # the offset of the root puts the hips at the height of a standing body
_ON_FLOOR = ((0.005, 4.0), (0.03, 1.5), (0.08, 0.75), (0.3, 0.0))  # distance of the lowest point from 0, in heights
_OFF_FLOOR = -0.75
_STEADY = 0.025  # deviation of the lowest point in heights that is as common along other axes
_MOST_STEADY, _LEAST_STEADY = 2.2, -2.5

HIGH, MEDIUM = 3.0, 1.5  # logarithms of odds against the second axis
AGREE = 2 / 3  # share of the files with a clear axis that must have the same one, weighted by how clear it is


@dataclass(frozen=True)
class Traits:
    """What a file shows of its unit and vertical axis.

    Args:
        format: format of the file.
        rig: name of the rig, or of the skeleton of an array.
        height: height of the body in the file's unit, see [`body_height`].
        evidence: for each of `UP_AXES`, how much speaks for it.
        reasons: for each of `UP_AXES`, what speaks for it in words.
        array: whether the joints are in the order of a skeleton instead of named.
    """

    format: str
    rig: str
    height: float
    evidence: tuple[float, ...]
    reasons: tuple[str, ...]
    array: bool = False

    @property
    def source(self) -> str:
        """Name of the source: files with the same one are decided together."""
        return f"{self.format}, {self.rig}"

    @property
    def clear_axis(self) -> tuple[str | None, float]:
        """The axis for which the file speaks clearly, whatever is usual, and by how much; None: there is none."""
        axis, margin = _best(np.array(self.evidence))
        return (axis, margin) if margin >= HIGH else (None, 0.0)


def traits_of(
    positions: np.ndarray,
    skeleton: Skeleton,
    format: str = "",
    rig: str = "",
    rest: np.ndarray | None = None,
    array: bool = False,
) -> Traits:
    """Measure what a file shows of its unit and vertical axis.

    Args:
        positions: (T, J, 3) finite positions in the file's unit and axes.
        skeleton: joint layout.
        format: see [`Traits`], as `rig` and `array`.
        rig: see [`Traits`].
        rest: (J, 3) rest pose of the file.
        array: see [`Traits`].
    """
    height = body_height(positions, skeleton)
    moving = positions[1:] if len(positions) > 2 else positions  # many exporters put a rest pose before the motion
    cues = [*_standing_cues(moving, skeleton, height), *_floor_cues(positions, height)]
    if rest is not None:
        cues += _rest_cues(rest, skeleton, height)
    evidence = np.sum([weights for weights, _ in cues], axis=0)
    reasons = tuple(
        ", ".join(words.format(up=up, axis=up[-1]) for weights, words in cues if weights[place] > 0.5)
        for place, up in enumerate(UP_AXES)
    )
    return Traits(format, rig, height, tuple(evidence.tolist()), reasons, array)


# Each cue is a weight for each of `UP_AXES` and its words.
_Cues = list[tuple[np.ndarray, str]]


def _standing_cues(moving: np.ndarray, skeleton: Skeleton, height: float) -> _Cues:
    hips = _along(moving[:, 0])
    extent = (hips.max(axis=0) - hips.min(axis=0)) / height
    travel = np.sqrt(np.maximum((extent**2).sum() / 2 - extent**2, 0.0))  # opposite axes have the same extent
    stands = _standing(moving, skeleton)
    weights = (_STANDS + _TRAVELS * np.minimum(travel / _TRAVEL, 1.0)) * stands
    upside_down = stands[[UP_AXES.index(up[1:] or f"-{up}") for up in UP_AXES]]
    return [(weights - _STANDS * upside_down, "the body stands along {up}")]


def _rest_cues(rest: np.ndarray, skeleton: Skeleton, height: float) -> _Cues:
    offset = _along(rest[0])
    hips = (offset > 0.95 * np.linalg.norm(rest[0])) & (0.4 * height < offset) & (offset < 0.7 * height)
    cues = [(_HIPS_ABOVE * hips, "the offset of the root puts the hips above {axis} = 0")]
    if np.linalg.norm(long_axis(rest[None], skeleton)) > 0.5 * height:  # else its limbs are folded
        cues.append((_RESTS * _standing(rest[None], skeleton), "the rest pose stands along {up}"))
    return cues


def _floor_cues(positions: np.ndarray, height: float) -> _Cues:
    ends = _along(positions.min(axis=1)), _along(positions.max(axis=1))
    lowest = np.minimum(*ends) / height  # (T, 6)
    gaps = np.minimum(*(np.abs(lowest[start:].min(axis=0)) for start in (0, min(1, len(lowest) - 1))))
    near = [next((weight for limit, weight in _ON_FLOOR if gap < limit), _OFF_FLOOR) for gap in gaps]
    low, high = np.percentile(lowest, [5, 95], axis=0)
    spread = np.maximum((high - low) / 3.3, 1e-4)  # 3.3 standard deviations
    steady = np.clip(1.2 * np.log(_STEADY / spread), _LEAST_STEADY, _MOST_STEADY)
    return [
        (np.array(near), "the lowest point is near {axis} = 0"),
        (steady, "the lowest point hardly moves along {axis}"),
    ]


def _along(positions: np.ndarray) -> np.ndarray:
    """Return the coordinates (..., 6) of positions (..., 3) along each of `UP_AXES`."""
    signs = np.array([-1.0 if up.startswith("-") else 1.0 for up in UP_AXES])
    return signs * positions[..., ["xyz".index(up[-1]) for up in UP_AXES]]


def _standing(positions: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Return how certainly a body stands along each of `UP_AXES`, from 0 to 1, by its mean cosine."""
    axis = long_axis(positions, skeleton)
    length = np.linalg.norm(axis, axis=-1, keepdims=True)
    cosines = _along((axis / np.where(length > 0, length, 1.0)).mean(axis=0))
    return np.clip((cosines - _STANDS_FROM) / (_STANDS_TO - _STANDS_FROM), 0.0, 1.0)


def _best(evidence: np.ndarray) -> tuple[str, float]:
    """Return the axis with the most evidence, and how much more that is than that of the second."""
    second, first = np.sort(evidence)[-2:]
    return UP_AXES[int(evidence.argmax())], float(first - second)


@dataclass(frozen=True)
class Decision:
    """Unit and vertical axis of the files of one source.

    Args:
        source: see [`Traits`].
        files: number of files that were looked at.
        units: the unit.
        up: the vertical axis; None: the files do not agree, so each is decided alone.
    """

    source: str
    files: int
    units: Fact
    up: Fact | None

    def facts(self, traits: Traits) -> tuple[Fact, Fact]:
        """Return unit and vertical axis of one of the files."""
        alone = decide([traits])
        assert alone.up is not None
        units = self.units
        if not POSSIBLE_HEIGHTS[0] <= traits.height * UNITS[units.value] <= POSSIBLE_HEIGHTS[1]:
            units = alone.units  # files in another unit, or of another body
        return units, self.up or alone.up

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of the report of `prepare`."""
        facts = {"units": self.units, "up": self.up or Fact(None, "low", "the files do not agree")}
        told = {name: {"value": f.value, "confidence": f.confidence, "reason": f.reason} for name, f in facts.items()}
        return {"source": self.source, "files": self.files, **told}


def decide(files: Sequence[Traits]) -> Decision:
    """Decide unit and vertical axis of files of one source, at least one, which should agree."""
    first = files[0]
    units = detect_units(float(np.median([traits.height for traits in files])), first.rig)
    usual = _USUAL_IN_ARRAYS if first.array else _USUAL
    # Usual is what is usual of sources, so it counts once.
    total = np.array([usual[up] for up in UP_AXES]) + np.sum([traits.evidence for traits in files], axis=0)
    axis, margin = _best(total)
    confidence = "high" if margin >= HIGH else "medium" if margin >= MEDIUM else "low"
    if len(files) == 1:
        if not first.reasons[UP_AXES.index(axis)] or first.clear_axis[0] not in (None, axis):
            confidence = "low"  # it is only usual
        return Decision(first.source, 1, units, Fact(axis, confidence, _why(first, axis, confidence)))
    units = Fact(units.value, units.confidence, f"{units.reason}, median of {len(files)} files of {first.source}")
    clear = [traits.clear_axis for traits in files]
    agreeing = [margin for other, margin in clear if other == axis]
    if sum(agreeing) < AGREE * sum(margin for _, margin in clear):
        return Decision(first.source, len(files), units, None)
    if not agreeing and confidence == "high":
        confidence = "medium"
    reason = f"{len(agreeing)} of {len(files)} files of {first.source} clearly have {axis} up"
    return Decision(first.source, len(files), units, Fact(axis, confidence, reason))


def _why(traits: Traits, axis: str, confidence: str) -> str:
    reason = traits.reasons[UP_AXES.index(axis)] or f"{axis} is usual"
    if confidence != "low":
        return reason
    other = max((up for up in UP_AXES if up != axis), key=lambda up: traits.evidence[UP_AXES.index(up)])
    against = traits.reasons[UP_AXES.index(other)]
    return f"{reason}, but {against}" if against else reason


def decide_sources(files: Sequence[Traits]) -> dict[str, Decision]:
    """Decide unit and vertical axis of every source among the files."""
    by_source: dict[str, list[Traits]] = {}
    for traits in files:
        by_source.setdefault(traits.source, []).append(traits)
    return {source: decide(same) for source, same in by_source.items()}


def facts_of(traits: Traits, decisions: Mapping[str, Decision]) -> tuple[Fact, Fact]:
    """Return unit and vertical axis of a file: as decided for its source, else from the file alone."""
    return (decisions.get(traits.source) or decide([traits])).facts(traits)
