"""The user's journey on a very small corpus: quickstart, then each verb of the command on what it left behind."""

import io
import json
import logging

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from lexmotion import cli, shipped

SIZES = {"train": 48, "validation": 12, "test": 12}
SHORT = {
    **{f"phases.{phase}.num_steps": 3 for phase in ("lexmlm", "cmmm", "lexmmm", "lexcmlp")},
    **{f"phases.{phase}.batch_size": 8 for phase in ("lexmlm", "cmmm", "lexmmm", "lexcmlp")},
    "progress": False,
    "use_cpu": True,
}


@pytest.fixture(scope="module")
def journey(tmp_path_factory):
    """(folder, results, what was printed) of one short quickstart."""
    from lexmotion.training.quickstart import quickstart

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("journey") / "quickstart"
    printed = io.StringIO()
    console = Console(width=160, file=printed)
    results = quickstart(folder, seed=1, num_motions=SIZES, overrides=SHORT, console=console)
    return folder, results, printed.getvalue()


@pytest.fixture
def run(capsys, monkeypatch):
    """run(words...) -> what the command prints, on a wide terminal."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv(cli.DEBUG_VARIABLE, raising=False)

    def run(*words):
        with pytest.raises(SystemExit) as stop:
            cli.main([str(word) for word in words])
        told = capsys.readouterr()
        assert stop.value.code == 0, told.err
        return told.out

    return run


def test_results_hold_every_figure(journey):
    folder, results, _ = journey
    assert json.loads((folder / "results.json").read_text()) == json.loads(json.dumps(results))
    assert list(results["phases"]) == ["lexmlm", "cmmm", "lexmmm", "lexcmlp"]
    assert all(phase["criteria"] and phase["seconds"] >= 0 for phase in results["phases"].values())
    strict = results["retrieval"]["all-strict"]
    assert strict["gallery_size"] == 12
    assert {f"{side}/{name}" for side in ("t2m", "m2t") for name in ("R1", "R2", "R3", "R5", "R10", "MedR")} <= set(
        strict
    )
    assert results["lexical"]["motion_active_words"] >= 0 and results["lexical"]["text_active_words"] >= 0
    assert len(results["checks"]) == 4
    assert results["ridge_floor"]["all-strict"]["gallery_size"] == 12


def test_five_held_out_motions_are_shown_with_their_words(journey):
    folder, results, printed = journey
    test_ids = (folder / "corpus" / "test.txt").read_text().split()
    assert len(results["examples"]) == 5
    for example in results["examples"]:
        assert example["id"] in test_ids and len(example["words"]) <= 10
        assert set(example["shared"]) <= {word for word, _ in example["words"]}
        assert example["caption"].split()[0] in printed
    assert np.load(folder / "example.npy").shape[1:] == (22, 3)
    assert (folder / "words.png").stat().st_size > 1000


def test_the_tables_are_printed(journey):
    printed = journey[2]
    for words in ("i LexMLM", "ii CMMM", "iii LexMMM", "iv LexCMLP", "R@10", "MedR", "text→motion", "active words",
                  "ridge floor"):  # fmt: skip
        assert words in printed


def test_a_second_quickstart_changes_no_weight(journey):
    from lexmotion.training.quickstart import quickstart

    folder, results, _ = journey
    before = load_file(folder / "model" / "model.safetensors")
    again = quickstart(folder, seed=1, num_motions=SIZES, overrides=SHORT, console=Console(quiet=True))
    after = load_file(folder / "model" / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert again["retrieval"] == results["retrieval"]


def test_a_folder_of_other_settings_is_left_alone(journey):
    from lexmotion.training.quickstart import quickstart

    with pytest.raises(FileExistsError, match=r"'seed': 1\b.*'seed': 2\b.*output_dir=..."):
        quickstart(journey[0], seed=2, num_motions=SIZES, overrides=SHORT, console=Console(quiet=True))


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    from lexmotion.training.quickstart import quickstart

    (tmp_path / "precious.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="output_dir=..."):
        quickstart(tmp_path, console=Console(quiet=True))
    assert [file.name for file in tmp_path.iterdir()] == ["precious.txt"]


def test_the_quickstart_verb_passes_its_choices_on(monkeypatch, tmp_path, run):
    from lexmotion.training import quickstart as room

    seen = {}
    monkeypatch.setattr(room, "quickstart", lambda folder, **choices: seen.update(folder=folder, **choices))
    run("quickstart", "--output-dir", tmp_path / "q", "--seed", "7", "--size", "400")
    assert (seen["folder"], seen["seed"], seen["num_motions"]) == (tmp_path / "q", 7, 400)


def test_prepare_then_train_continues(journey, tmp_path, run):
    folder, _, _ = journey
    words = ("prepare", folder / "corpus", "--output-dir", tmp_path / "prepared", "--split", "train=train.txt",
             "--split", "val=val.txt", "--max-frames", "64")  # fmt: skip
    printed = run(*words)
    assert "train: 48 of 48 motions" in printed and "written:" in printed and "test:" not in printed
    assert "up to date:" in run(*words)
    assert json.loads((tmp_path / "prepared" / "report.json").read_text())["splits"].keys() == {"train", "validation"}

    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(json.loads((folder / "run" / "run.json").read_text())["recipe"]))
    words = ("train", "--recipe", recipe, "--dataset", tmp_path / "prepared", "--output-dir", tmp_path / "run",
             "--set", "phases.cmmm=false", "--set", "phases.lexmmm=false",
             "--set", "phases.lexcmlp.num_steps=2")  # fmt: skip
    printed = run(*words)
    assert "i LexMLM" in printed and "iv LexCMLP" in printed and "ii CMMM" not in printed
    assert (tmp_path / "run" / "model" / "config.json").is_file()
    weights = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    run(*words)
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == weights


def test_evaluate_retrieval_repeats_the_quickstart(journey, tmp_path, run):
    folder, results, _ = journey
    output = tmp_path / "deep" / "results.json"
    printed = run("evaluate", "retrieval", "--model", folder / "model", "--dataset", folder / "prepared",
                  "--split", "test", "--output", output, "--device", "cpu")  # fmt: skip
    assert "all-strict" in printed and "all-duplicates" in printed and "R@10" in printed
    written = json.loads(output.read_text())
    assert written["retrieval"] == results["retrieval"] and written["split"] == "test"
    assert len(written["dataset_fingerprint"]) == 64
    assert [file.name for file in output.parent.iterdir()] == ["results.json"]


def test_evaluate_retrieval_takes_named_protocols(journey, tmp_path, run):
    folder, _, _ = journey
    ids = (folder / "corpus" / "val.txt").read_text().split()[:5]
    (tmp_path / "ids.txt").write_text("\n".join(ids))
    output = tmp_path / "results.json"
    run(
        "evaluate",
        "retrieval",
        "--model",
        folder / "model",
        "--dataset",
        folder / "prepared",
        "--protocol",
        "dissimilar",
        "--protocol",
        "all-strict",
        "--dissimilar-ids",
        tmp_path / "ids.txt",
        "--output",
        output,
    )
    retrieval = json.loads(output.read_text())["retrieval"]
    assert {name: row["gallery_size"] for name, row in retrieval.items()} == {"dissimilar": 5, "all-strict": 12}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--protocol", "threshold"], "threshold"),
        (["--protocol", "guess"], "guess"),
        (["--split", "dev"], "dev"),
    ],
)
def test_evaluate_retrieval_says_what_is_wrong(journey, words, message, capsys, monkeypatch):
    monkeypatch.delenv(cli.DEBUG_VARIABLE, raising=False)
    folder = journey[0]
    with pytest.raises(SystemExit) as stop:
        cli.main(
            ["evaluate", "retrieval", "--model", str(folder / "model"), "--dataset", str(folder / "prepared"), *words]
        )
    error = capsys.readouterr().err
    assert stop.value.code == 1 and message in error and "Traceback" not in error


def test_the_ridge_floor_is_one_more_row(journey, tmp_path, run):
    output = tmp_path / "floor.json"
    printed = run(
        "evaluate", "ridge-floor", "--dataset", journey[0] / "prepared", "--split", "test", "--output", output
    )
    assert "Ridge floor" in printed
    assert json.loads(output.read_text())["retrieval"]["all-strict"]["gallery_size"] == 12


def test_explain_shows_words_and_why(journey, tmp_path, run):
    folder, results, _ = journey
    words = ["explain", "--model", folder / "model", "--motion", folder / "example.npy", "--top-k", "5"]
    assert "Words of the motion" in run(*words) and "Why" not in run(*words)
    picture = tmp_path / "words.png"
    printed = run(*words, "--text", results["examples"][0]["caption"], "--figure", picture, "--fps", "20")
    assert "Why it matches" in printed and "cosine" in printed and picture.stat().st_size > 1000


def test_explain_draws_features_too(journey, tmp_path, run):
    from lexmotion.processing.motion_features import positions_to_features

    folder, _, _ = journey
    features = positions_to_features(torch.from_numpy(np.load(folder / "example.npy")), "humanml3d")
    np.save(tmp_path / "features.npy", features.numpy())
    run(
        "explain",
        "--model",
        folder / "model",
        "--motion",
        tmp_path / "features.npy",
        "--figure",
        tmp_path / "words.svg",
    )
    assert (tmp_path / "words.svg").read_text().lstrip().startswith("<?xml")


def test_an_index_is_built_searched_and_changed(journey, tmp_path, run):
    folder, place, page = journey[0], tmp_path / "index", tmp_path / "deep" / "report.html"
    model, motion = folder / "model", folder / "example.npy"
    run("encode", "--model", model, "--dataset", folder / "prepared", "--output-dir", tmp_path / "vectors",
        "--split", "test", "--precision", "fp32", "--device", "cpu")  # fmt: skip
    assert "12 motions" in run("index", "build", place, "--vectors", tmp_path / "vectors", "--split", "test")
    built = run("index", "build", tmp_path / "other", "--dataset", folder / "prepared", "--model", model,
                "--split", "test", "--split", "val", "--device", "cpu")  # fmt: skip
    assert "24 motions" in built

    found = json.loads(run("search", place, "a person walks forward", "-k", "3", "--json", "--html", page))
    assert found["query"] == "a person walks forward" and len(found["hits"]) == 3
    scores = [hit["score"] for hit in found["hits"]]
    assert scores == sorted(scores, reverse=True) and found["hits"][0]["metadata"]["split"] == "test"
    written = page.read_text(encoding="utf-8")
    assert found["hits"][0]["id"] in written and "a person walks forward" in written
    assert "http" not in written and "src=" not in written  # needs nothing else
    words = [word for word, _ in found["hits"][0]["words"]]
    without = json.loads(run("search", place, "a person walks forward", "--not", words[0], "--json"))
    assert all(words[0] not in dict(hit["words"]) for hit in without["hits"])
    shown = run("search", place, "--must", words[0], "--boost", f"{words[1]}=200", "--html", page,
                "--dataset", folder / "prepared")  # fmt: skip
    assert words[0] in shown and "must" in shown and f"{words[1]} x 200" in page.read_text(encoding="utf-8")

    assert "1 motion added, 13" in run("index", "add", place, motion, "--fps", "20", "--device", "cpu")
    # The test split has the same motion, whose vector differs by no more than rounding.
    by_example = json.loads(run("search", place, "--motion", motion, "--fps", "20", "-k", "2", "--json"))
    scores = {hit["id"]: hit["score"] for hit in by_example["hits"]}
    assert scores["example.npy"] == pytest.approx(1, abs=1e-2)
    assert "1 motion added, 13" in run("index", "add", place, motion, "--fps", "20", "--replace")
    assert "1 motion deleted, 12" in run("index", "delete", place, "example.npy")
    assert "0 motions deleted, 12" in run("index", "delete", place, "example.npy", "--missing-ok")
    info = json.loads(run("index", "info", place, "--json"))
    assert info["items"] == 12 and info["model"] == str(model.resolve()) and "items" in run("index", "info", place)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("odd.npy", np.zeros((30, 5, 3), dtype=np.float32), "5"),
        ("pickled.npy", np.array([{"a": 1}], dtype=object), "np.save"),
        ("archive.npz", None, "archive.npz"),
    ],
)
def test_explain_refuses_what_is_no_motion(journey, tmp_path, capsys, monkeypatch, name, content, message):
    monkeypatch.delenv(cli.DEBUG_VARIABLE, raising=False)
    if content is None:
        np.savez(tmp_path / name, positions=np.zeros((30, 5, 3)))
    else:
        np.save(tmp_path / name, content)
    with pytest.raises(SystemExit) as stop:
        cli.main(["explain", "--model", str(journey[0] / "model"), "--motion", str(tmp_path / name)])
    assert stop.value.code == 1 and message in capsys.readouterr().err.replace("\n", "")


@pytest.mark.skipif("small" not in shipped.names(), reason="this checkout has no trained weights")
def test_the_readme_example_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    from pathlib import Path

    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    code = text.split("```python\n", 1)[1].split("```", 1)[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    shipped.copy_samples(tmp_path / "motions")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    shown = capsys.readouterr().out
    assert "tensor(" in shown and "'kick'" in shown


def test_a_compact_model_serves_every_command_by_its_name(journey, run, tmp_path, monkeypatch, caplog):
    from lexmotion.evaluation.viewer.demo import open_demo
    from lexmotion.training.quickstart import read_samples

    monkeypatch.setattr(logging.getLogger("lexmotion"), "propagate", True)
    assert "cosine at least" in run("compact", journey[0] / "model", tmp_path / "weights" / "small")
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    run("samples", "motions")
    (tmp_path / "motions" / "more").mkdir()
    (tmp_path / "motions" / "more" / "kick.bvh").write_bytes((tmp_path / "motions" / "kick.bvh").read_bytes())
    (tmp_path / "motions" / "broken.bvh").write_text("HIERARCHY")
    assert "Words of the motion" in run("explain", "motions/kick.bvh")
    assert (
        "13 motions" in run("index", "build", "my.index", "motions") and "left out: motions/broken.bvh" in caplog.text
    )
    hits = json.loads(run("search", "my.index", "--motion", "motions/kick.bvh", "-k", 2, "--json"))["hits"]
    assert {hit["id"] for hit in hits} == {"kick.bvh", "more/kick.bvh"} and hits[0]["score"] == pytest.approx(1.0)
    assert next(hit for hit in hits if hit["id"] == "kick.bvh")["metadata"]["captions"][0].endswith("with a kick.")
    run("search", "my.index", "a person kicks")
    assert json.loads(run("index", "info", "my.index", "--json"))["model"] == "small"
    run("encode", "--dataset", journey[0] / "prepared", "--output-dir", "vectors", "--split", "test")
    assert json.loads((tmp_path / "vectors" / "index.json").read_text())["model"] == "small"
    opened = open_demo()
    assert set(opened.rows) == {sample.path.name for sample in shipped.samples()}
    assert opened.view("item", "kick.bvh")["kind"] == "item"
    printed = io.StringIO()
    read_samples(Console(width=160, file=printed))
    assert "recordings it has never seen" in printed.getvalue() and "a person crouches" in printed.getvalue()


def test_a_quickstart_without_weights_says_so(monkeypatch, tmp_path):
    from lexmotion.training.quickstart import read_samples

    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path)
    printed = io.StringIO()
    read_samples(Console(width=160, file=printed))
    assert printed.getvalue() == "This installation has no trained weights, so the sample motions are not read.\n"


def test_a_trained_model_is_put_into_the_package(journey, tmp_path):
    from lexmotion.training.ship import LARGEST, main

    target = tmp_path / "weights" / "small"
    for _ in range(2):  # the second replaces the first
        main([str(journey[0] / "run" / "model"), "--output-dir", str(target)])
    assert sum(file.stat().st_size for file in target.iterdir()) < LARGEST
    assert [entry.name for entry in target.parent.iterdir()] == ["small"]
    card = (target / "README.md").read_text()
    assert all(words in card for words in ("CC BY 3.0", "lexmotion compact OUTPUT/model small", "## Licences"))
    assert 'lexmotion.pretrained("small")' in card and "np.load" not in card


def test_a_model_that_would_be_too_large_is_not_put_into_the_package(journey, tmp_path, monkeypatch):
    from lexmotion.training import ship

    monkeypatch.setattr(ship, "LARGEST", 1000)
    with pytest.raises(SystemExit, match="MB, at most 0; pass a smaller --megabytes"):
        ship.main([str(journey[0] / "run" / "model"), "--output-dir", str(tmp_path / "small")])
    assert list(tmp_path.iterdir()) == []
