"""Registration with transformers happens when its modules are imported, whoever imports them and in which order."""

import importlib
import sys

import pytest

from lexmotion.common import registration


@pytest.fixture
def hook(tmp_path, monkeypatch):
    """A hook for a package `ours`, whose model registers with `theirs_auto`, and the list of what was registered."""
    (tmp_path / "theirs_auto.py").write_text("class Auto: ...\n")
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "__init__.py").write_text("")
    # `parts` imports their module before what `model` needs of it exists.
    (tmp_path / "ours" / "parts.py").write_text("from theirs_auto import Auto\nclass Part: ...\n")
    (tmp_path / "ours" / "model.py").write_text("from .parts import Part\nclass Model(Part): ...\n")
    done = []
    steps = {"theirs_auto": lambda: done.append(importlib.import_module("ours.model").Model)}
    monkeypatch.syspath_prepend(tmp_path)
    found = registration.Registration("ours", steps)
    monkeypatch.setattr(sys, "meta_path", [found, *sys.meta_path])
    yield done
    for name in [name for name in sys.modules if name.split(".")[0] in ("ours", "theirs_auto")]:
        del sys.modules[name]


@pytest.mark.parametrize("first", ["theirs_auto", "ours.parts", "ours.model"])
def test_a_model_is_registered_once_in_any_order_of_imports(hook, first):
    importlib.import_module("ours")
    assert hook == [] and "theirs_auto" not in sys.modules
    importlib.import_module(first)
    importlib.import_module("theirs_auto")
    assert hook == [sys.modules["ours.model"].Model]


def test_a_step_that_failed_is_tried_again(hook, monkeypatch, tmp_path):
    model = tmp_path / "ours" / "model.py"
    right = model.read_text()
    model.write_text("raise ImportError('not yet')\n")
    with pytest.raises(ImportError, match="not yet"):
        importlib.import_module("theirs_auto")
    model.write_text(right + "# longer\n")
    importlib.invalidate_caches()
    importlib.import_module("theirs_auto")
    assert [model.__name__ for model in hook] == ["Model"]


def test_the_classes_are_registered_with_transformers():
    from transformers import AutoConfig, AutoModel

    import lexmotion

    assert type(AutoConfig.for_model("lexmotion")) is lexmotion.LexMotionConfig
    assert AutoModel._model_mapping[lexmotion.LexMotionConfig] is lexmotion.LexMotionModel
    lexmotion.register()  # changes nothing
