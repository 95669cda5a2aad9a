"""The scripts in `examples/` run."""

import importlib.util
import runpy
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name):
    """The module of an example."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A prepared synthetic corpus of 24 training and 8 validation motions."""
    from lexmotion.processing.corpora.prepare import prepare
    from lexmotion.processing.corpora.synthetic import generate_corpus

    root = tmp_path_factory.mktemp("corpus")
    source = generate_corpus(root / "source", {"train": 24, "validation": 8, "test": 4}, seed=0)
    prepare(source, root / "prepared", max_frames=48)
    return root / "prepared"


@pytest.mark.parametrize("name", sorted(file.stem for file in EXAMPLES.glob("*.py")))
def test_every_example_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as stop:
        example(name).main(["--help"])
    assert stop.value.code == 0 and "usage" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("encode_captions", []),
        ("inspect_your_motion", ["nowhere/kick.bvh"]),
        ("load_and_search", []),
        ("train_with_transformers_trainer", ["nowhere"]),
    ],
)
def test_an_example_without_its_files_ends_in_one_line(name, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [name, *words])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    error = str(stop.value.code)
    assert error.startswith("error: ") and ("lexmotion quickstart" in error or "nowhere" in error)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words", "printed"),
    [
        ("encode_captions", ["a person walks forward", "someone kicks twice", "-k", "3"], "someone kicks twice"),
        ("inspect_your_motion", ["kick.bvh", "--bvh", "copy.bvh", "--figure", "strip.png"], "written: strip.png"),
        ("load_and_search", ["a person kicks", "--boost", "left=2", "--index", "example.index"], "a person"),
    ],
)
def test_an_example_runs_on_a_quickstart(name, words, printed, workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    example(name).main(words)
    assert printed in capsys.readouterr().out


@pytest.mark.slow
def test_transformers_trainer_trains_the_model(prepared, tmp_path, monkeypatch):
    from lexmotion import LexMotionModel, LexMotionProcessor

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    main, words = (
        example("train_with_transformers_trainer").main,
        [str(prepared), "--batch-size", "8", "--width", "32"],
    )
    trainer = main([*words, "--max-steps", "20", "--learning-rate", "3e-3", "--output-dir", str(tmp_path / "out")])
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert len(losses) == 20 and sum(losses[-3:]) < 0.95 * sum(losses[:3])
    model = LexMotionModel.from_pretrained(tmp_path / "out").eval()
    processor = LexMotionProcessor.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        text = model.get_text_features(**processor(text=["a person walks"])).text_embeds
    assert text.shape == (1, len(processor.tokenizer)) and text.isfinite().all()
