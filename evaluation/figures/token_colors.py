"""Figure 3: what the motion encoder sees where, as the first three principal components of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .timeline import cells, timeline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPREAD = 1.5  # standard deviations from the middle of a colour to its end


@dataclass(frozen=True)
class TokenPCA:
    """
    Principal components of tokens.

    Args:
        mean (D,), axes (3, D), deviations (3,): of the first three components; the largest loading is positive.
        explained (3,): shares of the variance.
        between_parts, between_windows: share of the variance of the three that lies between the means of the body
            parts, and between those of the time windows.
        tokens: how many were fitted.
    """

    mean: np.ndarray
    axes: np.ndarray
    deviations: np.ndarray
    explained: np.ndarray
    between_parts: float
    between_windows: float
    tokens: int

    def scores(self, states: Any) -> np.ndarray:
        """(..., D) -> (..., 3), in standard deviations from the mean."""
        return (np.asarray(states, dtype=np.float64) - self.mean) @ self.axes.T / np.maximum(self.deviations, 1e-12)

    def colors(self, states: Any) -> np.ndarray:
        """(..., D) -> (..., 3) red, green and blue from 0 to 1: `SPREAD` deviations to either side."""
        return np.clip(0.5 + self.scores(states) / (2 * SPREAD), 0.0, 1.0)


class TokenMoments:
    """
    Sums over the tokens of a split, motion by motion, from which [`TokenPCA`] follows: no token is kept.

    Args:
        width (`int`): D.
    """

    def __init__(self, width: int):
        self.products = np.zeros((width, width))
        self.groups: dict[tuple[str, int], tuple[int, np.ndarray]] = {}

    def add(self, states: Any, windows: Any, parts: Any) -> None:
        """
        Count tokens.

        Args:
            states (`np.ndarray` of shape `(n, D)`): token states. windows, parts (`np.ndarray` of shape `(n,)`, int):
                time window and body part of each.
        """
        states = np.asarray(states, dtype=np.float64)
        if not np.isfinite(states).all():
            raise ValueError("A token state is NaN or infinite: the model's weights or its input are broken.")
        self.products += states.T @ states
        for kind, labels in (("part", np.asarray(parts)), ("window", np.asarray(windows))):
            for label in np.unique(labels).tolist():
                own = states[labels == label]
                count, total = self.groups.get((kind, label), (0, np.zeros(states.shape[1])))
                self.groups[kind, label] = count + len(own), total + own.sum(axis=0)

    def fit(self) -> TokenPCA:
        """
        The components of everything added.

        Raises:
            ValueError: fewer than four tokens, or fewer than three dimensions.
        """
        by_part = [value for (kind, _), value in self.groups.items() if kind == "part"]
        count = sum(number for number, _ in by_part)
        if count < 4 or len(self.products) < 3:
            raise ValueError(f"{count} tokens of width {len(self.products)}: three components need more.")
        mean = np.sum([total for _, total in by_part], axis=0) / count
        covariance = self.products / count - np.outer(mean, mean)
        values, vectors = np.linalg.eigh(covariance)
        variance, axes = np.maximum(values[::-1][:3], 0.0), vectors[:, ::-1][:, :3].T
        axes = axes * np.sign(axes[np.arange(3), np.abs(axes).argmax(axis=1)])[:, None]
        total = max(float(np.trace(covariance)), 1e-12)

        def between(kind: str) -> float:
            own = [value for (name, _), value in self.groups.items() if name == kind]
            offsets = np.stack([(sums / number - mean) @ axes.T for number, sums in own])  # (groups, 3)
            weights = np.array([number for number, _ in own]) / count
            return float((weights[:, None] * offsets**2).sum() / max(float(variance.sum()), 1e-12))

        return TokenPCA(mean, axes, np.sqrt(variance), variance / total, between("part"), between("window"), count)


def token_figure(
    positions: Any,
    states: Any,
    pca: TokenPCA,
    window_seconds: float,
    parts: Sequence[str],
    caption: str | None = None,
    fps: float | None = None,
    skeleton: str | None = None,
) -> Figure:
    """
    Stick figures over the token grid: the three components as red, green and blue, and below it the first alone.

    Args:
        positions (`np.ndarray` of shape `(T, J, 3)`): joint positions, Y up.
        states (`np.ndarray` of shape `(Nt, Np, D)`): the motion's tokens, without padding.
        pca (`TokenPCA`): fitted on the split. window_seconds (`float`): length of a time window.
        parts (`Sequence[str]` of length Np): names of the body parts. caption (`str`, *optional*): written above.
        fps, skeleton: as in [`motion_strip`].

    Raises:
        ValueError: a shape does not fit.
    """
    from matplotlib import colormaps

    states = np.asarray(states)
    if states.ndim != 3 or states.shape[1] != len(parts):
        raise ValueError(f"Tokens must have shape (windows, {len(parts)}, D), got {states.shape}.")
    figure, (colored, first) = timeline(
        positions,
        len(states),
        window_seconds,
        [len(parts)] * 2,
        fps,
        skeleton,
        None if caption is None else f"“{caption.strip()}”",
        margins=(1.0, 0.18),
        gap=0.24,
    )
    colors = pca.colors(states)
    cells(colored, colors.swapaxes(0, 1), parts)
    cells(first, colormaps["cividis"](colors[..., 0])[..., :3].swapaxes(0, 1), parts)
    share = f"{100 * pca.explained.sum():.0f} %"
    for ax, text in (
        (colored, f"components 1-3 as red, green, blue: {share} of the variance"),
        (first, f"component 1 alone: {100 * pca.explained[0]:.0f} %"),
    ):
        ax.set_title(text, fontsize=7.5, color="#777777", loc="left", pad=2.5)
    return figure
