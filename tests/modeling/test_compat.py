"""Names that numpy and matplotlib have removed work again after the launcher's compatibility block, as they did."""

import contextlib
import sys

import numpy as np
import pytest

from lexmotion.conditioning.compat import NUMPY_NAMES, restore_removed_names


@pytest.fixture
def restored():
    """The block, undone afterwards: it changes the whole process."""
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from mpl_toolkits.mplot3d import Axes3D

    places = (np, Axes, Axes3D, FigureCanvasAgg)
    before = [dict(vars(place)) for place in places]
    modules = dict(sys.modules)
    restore_removed_names()
    restore_removed_names()
    yield
    for place, names in zip(places, before, strict=True):
        for name in set(vars(place)) - set(names):
            delattr(place, name)
        for name, value in names.items():
            if vars(place)[name] is not value:
                with contextlib.suppress(AttributeError):
                    setattr(place, name, value)
    sys.modules.pop("numpy.core.umath_tests", None)
    sys.modules.update(modules)


def test_numpy(restored):
    for name in NUMPY_NAMES:
        assert np.zeros(2).astype(getattr(np, name)).shape == (2,)
    assert np.reshape(np.arange(4), newshape=(2, 2)).tolist() == np.reshape(np.arange(4), (2, 2)).tolist()
    import numpy.core.umath_tests as tests

    assert tests.matrix_multiply(np.eye(2), np.ones((2, 2))).tolist() == [[1, 1], [1, 1]]


def test_matplotlib(restored):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from mpl_toolkits.mplot3d import Axes3D

    figure = Figure(figsize=(2, 1), dpi=50)
    canvas = FigureCanvasAgg(figure)
    axes = Axes3D(figure)
    assert figure.axes == [axes]
    axes.plot([0, 1], [0, 1], [0, 1])
    axes.dist = 7.5
    assert len(axes.lines) == 1 and axes.dist == 7.5
    canvas.draw()
    drawn = canvas.tostring_rgb()
    axes.lines = []
    axes.collections = []
    assert len(axes.lines) == 0
    canvas.draw()
    assert len(drawn) == 3 * 100 * 50 and canvas.tostring_rgb() != drawn
    assert len(Figure().subplots(1, 2, subplot_kw={"projection": "3d"})) == 2
