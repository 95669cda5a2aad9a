"""Figure 3: the motion encoder's tokens over time and body, as their first three principal components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .timeline import cells, timeline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPREAD = 1.5  # standard deviations from the middle of the colour range to its end


@dataclass(frozen=True)
class TokenPCA:
    """
    Principal components of tokens.

    Args:
        mean, axes, deviations: mean (D,), and axes (3, D) and standard deviations (3,) of the first three components;
            the largest loading is positive.
        explained: shares of the variance (3,).
        between_parts, between_windows: share of the variance of the three between the means of the body parts, and
            between those of the time windows.
        tokens: number of tokens fitted.
    """

    mean: np.ndarray
    axes: np.ndarray
    deviations: np.ndarray
    explained: np.ndarray
    between_parts: float
    between_windows: float
    tokens: int

    def scores(self, states: Any) -> np.ndarray:
        """Project (..., D) to (..., 3), in standard deviations from the mean."""
        return (np.asarray(states, dtype=np.float64) - self.mean) @ self.axes.T / np.maximum(self.deviations, 1e-12)

    def colors(self, states: Any) -> np.ndarray:
        """Map (..., D) to (..., 3), red, green and blue from 0 to 1: `SPREAD` deviations to either side."""
        return np.clip(0.5 + self.scores(states) / (2 * SPREAD), 0.0, 1.0)


class TokenMoments:
    """
    Sums over the tokens of a split, of width D, motion by motion, from which [`TokenPCA`] is computed without the
    tokens.
    """

    def __init__(self, width: int):
        self.products = np.zeros((width, width))
        self.groups: dict[tuple[str, int], tuple[int, np.ndarray]] = {}

    def add(self, states: Any, windows: Any, parts: Any) -> None:
        """
        Add tokens.

        Args:
            states: token states (n, D).
            windows, parts: time window and body part of each, int (n,).
        """
        states = np.asarray(states, dtype=np.float64)
        if not np.isfinite(states).all():
            raise ValueError("states: got NaN or infinity; check the model's weights and its input")
        self.products += states.T @ states
        for kind, labels in (("part", np.asarray(parts)), ("window", np.asarray(windows))):
            for label in np.unique(labels).tolist():
                own = states[labels == label]
                count, total = self.groups.get((kind, label), (0, np.zeros(states.shape[1])))
                self.groups[kind, label] = count + len(own), total + own.sum(axis=0)

    def fit(self) -> TokenPCA:
        """Compute the components of all tokens added; ValueError for fewer than four tokens or three dimensions."""
        by_part = [value for (kind, _), value in self.groups.items() if kind == "part"]
        count = sum(number for number, _ in by_part)
        if count < 4 or len(self.products) < 3:
            raise ValueError(f"got {count} tokens of width {len(self.products)}; pass at least 4 tokens of width 3")
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
    Draw stick figures over the token grid: the three components as red, green and blue, and below it the first alone.

    Args:
        positions: joint positions (T, J, 3), Y up.
        states: the motion's tokens, without padding (Nt, Np, D).
        pca: components fitted on the split.
        window_seconds: length of a time window.
        parts: names of the body parts (Np).
        caption: caption above.
        fps, skeleton: see [`motion_strip`].
    """
    from matplotlib import colormaps

    states = np.asarray(states)
    if states.ndim != 3 or states.shape[1] != len(parts):
        raise ValueError(f"tokens: expected shape (windows, {len(parts)}, D), got {states.shape}")
    title, rows = None if caption is None else f"“{caption.strip()}”", [len(parts)] * 2
    figure, (colored, first) = timeline(
        positions, len(states), window_seconds, rows, fps, skeleton, title, margins=(1.0, 0.18), gap=0.24
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
