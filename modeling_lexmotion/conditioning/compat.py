"""
Names that published generators use and that current numpy and matplotlib no longer have.

The generators were written for numpy < 1.24 and matplotlib < 3.7. `restore_removed_names` restores the names that
their code uses, with their former meaning. Only the launcher, `python -m lexmotion.conditioning.run`, calls it.
"""

import functools
import importlib
import importlib.util
import sys
from typing import Any

import numpy as np

# Each is the type that the old name stood for.
NUMPY_NAMES: dict[str, Any] = {
    "float": float,
    "int": int,
    "bool": bool,
    "object": object,
    "str": str,
    "complex": complex,
    "unicode": str,
}


def restore_removed_names() -> None:
    """Restore the names of numpy, and those of matplotlib if it is installed. Idempotent."""
    for name, value in NUMPY_NAMES.items():
        if name not in vars(np):
            setattr(np, name, value)
    _restore_newshape()
    _restore_umath_tests()
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return
    _restore_axes()
    _restore_axes_of_a_figure()
    _restore_canvas()


def _restore_newshape() -> None:
    """`np.reshape(array, newshape=...)`, which numpy 2.4 calls `shape`."""
    reshape = np.reshape
    if getattr(reshape, "takes_newshape", False):
        return

    @functools.wraps(reshape)
    def with_newshape(a: Any, *args: Any, newshape: Any = None, **kwargs: Any) -> Any:
        return reshape(a, *args, **kwargs) if newshape is None else reshape(a, newshape, *args, **kwargs)

    with_newshape.takes_newshape = True  # type: ignore[attr-defined]
    np.reshape = with_newshape


def _restore_umath_tests() -> None:
    """`import numpy.core.umath_tests`, which MoMask's BVH code multiplies matrices with."""
    if importlib.util.find_spec("numpy._core._umath_tests") is not None:
        tests = importlib.import_module("numpy._core._umath_tests")
        sys.modules.setdefault("numpy.core.umath_tests", tests)


def _restore_axes() -> None:
    """`axes.lines = []` and `axes.collections = []`, which empty an axes, and `axes.dist`."""
    from matplotlib.axes import Axes
    from mpl_toolkits.mplot3d import Axes3D

    for name in ("lines", "collections", "patches", "texts", "images"):
        listed = next(vars(kind)[name] for kind in Axes.__mro__ if name in vars(kind))
        if listed.fset is None:

            def replace(axes: Any, artists: Any, read: Any = listed.fget) -> None:
                for artist in list(read(axes)):
                    artist.remove()
                for artist in artists:
                    axes.add_artist(artist)

            setattr(Axes, name, property(listed.fget, replace))
    if "dist" not in vars(Axes3D):

        def move(axes: Any, distance: float) -> None:
            vars(axes)["dist"] = distance
            axes.set_box_aspect(None, zoom=10 / distance)

        Axes3D.dist = property(lambda axes: vars(axes).get("dist", 10), move)


def _restore_axes_of_a_figure() -> None:
    """`Axes3D(figure)` adds itself to the figure; without this its pictures are empty."""
    from mpl_toolkits.mplot3d import Axes3D

    start = Axes3D.__init__
    if getattr(start, "adds_itself", False):
        return

    @functools.wraps(start)
    def with_figure(axes: Any, figure: Any, *args: Any, **kwargs: Any) -> None:
        start(axes, figure, *args, **kwargs)
        if not args and not kwargs:  # the figure's own methods pass a place
            figure.add_axes(axes)

    with_figure.adds_itself = True  # type: ignore[attr-defined]
    Axes3D.__init__ = with_figure


def _restore_canvas() -> None:
    """`canvas.tostring_rgb()`, with which moviepy 1 reads a figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    if not hasattr(FigureCanvasAgg, "tostring_rgb"):
        FigureCanvasAgg.tostring_rgb = lambda canvas: np.asarray(canvas.buffer_rgba())[..., :3].tobytes()


__all__ = ["restore_removed_names"]
