"""Tables, statements and pictures from results; the command that makes them."""

import json
import re
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexmotion.training.comparison import paper
from lexmotion.training.comparison.compare import read_seeds
from lexmotion.training.comparison.report import PROTOCOL, verdicts, write_report
from lexmotion.training.comparison.rows import ROWS
from lexmotion.training.comparison.scoring import PROTOCOLS
from lexmotion.training.comparison.tables import (
    COLUMNS,
    PAPER_LABEL,
    all_captions_page,
    curve_figure,
    escape_latex,
    gain,
    latex_table,
    markdown_table,
    number,
    ratio,
    rsum,
    spread,
    summarise,
    write_tables,
)

LEXICAL = {
    **{f"{side}_{name}": 5.0 for side in ("text", "motion") for name in ("least_words", "most_words", "active_words")},
    **{f"{side}_{name}": 0.0 for side in ("text", "motion") for name in ("universal_share", "universal", "empty")},
    "text_distinct_words": 100.0,
    "motion_distinct_words": 100.0,
    "text_in_range": 1.0,
    "motion_in_range": 0.5,
    "caption_coverage_top20": 0.45,
    "caption_prior_top20": 0.3,
    "coverage_top20": 0.4,
    "overlap_top20": 0.5,
}
SPLITS = {name: {"file": f"{name}.txt", "motions": 1200, "captions": 3600} for name in ("train", "test")}
OPTIONS = {
    "layout": "humanml3d",
    "source": "corpus",
    "text_model": "minilm",
    "representation": "humanml3d",
    "max_frames": 208,
    "fps": 20.0,
    "vocabulary_filter": "corpus",
    "min_document_frequency": 2,
    "mirror": "listed",
    "splits": {"train": "train.txt", "test": "test.txt"},
    "extra_captions": [],
    "exclude_ids": [],
}


def result(name, seed, value, lexical=None, order=None):
    """A result whose recalls are all `value`."""
    row = ROWS[name]
    figures = {**dict.fromkeys(COLUMNS, value), "Rsum": 10.0 * value, "gallery_size": 300}
    training = {"steps": 40, "seconds": 60.0, "best": {"step": 30, "rsum": 5.0}, "device": "cpu", "metric": "rsum"}
    points = [{"step": step, "loss": 1.0 / step, "eval_rsum": float(step)} for step in (10, 20, 30, 40)]
    return {
        "row": name,
        "label": row.label,
        "seed": seed,
        "split": "test",
        "budget_minutes": 20.0,
        "retrieval": {protocol: dict(figures) for protocol in PROTOCOLS},
        "retrieval_words": None,
        "lexical": lexical,
        "order": order,
        "parameters": 1_500_000,
        "steps": 40,
        "seconds": 60.0,
        "trainings": {training_name: dict(training) for training_name in row.tasks[-1:]},
        "curves": {training_name: points for training_name in row.tasks[-1:]},
        "dataset": {
            "source": "corpus",
            "layout": "humanml3d",
            "splits": SPLITS,
            "shared": {},
            "options": OPTIONS,
            "active_words": 2688,
        },
        "machine": {"processor": "a processor", "cores": 2, "threads": 1},
        "versions": {"torch": "2.13", "transformers": "5.23"},
        "commit": "0123456789abcdef",
        "plan": {"clock": "processor"} if row.tasks else None,
    }


def results(**rows):
    """Row (with `_` for `-`) -> values of its seeds."""
    named = {next(name for name in ROWS if name.replace("-", "_") == key): values for key, values in rows.items()}
    return {
        name: [
            result(name, seed, value, LEXICAL if name == "lexmotion" else None) for seed, value in enumerate(values)
        ]
        for name, values in named.items()
    }


# ---- figures


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=6))
def test_mean_and_deviation_are_those_of_a_sample(values):
    found = spread(values)
    assert found["mean"] == pytest.approx(statistics.mean(values), abs=1e-9)
    assert found["std"] == pytest.approx(statistics.variance(values) ** 0.5, abs=1e-6)
    assert spread(values[:1]) == {"mean": values[0], "std": None, "n": 1}


def test_the_summary_is_over_the_seeds_of_each_row():
    summary = summarise(results(lexmotion=[30.0, 32.0, 34.0], tmr=[20.0]))
    row = summary["rows"]["lexmotion"]
    assert row["seeds"] == [0, 1, 2]
    assert row["retrieval"]["all-strict"]["Rsum"] == {"mean": 320.0, "std": 20.0, "n": 3}
    assert row["lexical"]["caption_coverage_top20"]["std"] == pytest.approx(0.0)
    assert summary["rows"]["tmr"]["retrieval"]["all-strict"]["t2m/R1"]["std"] is None
    assert summary["rows"]["tmr"]["lexical"] is None
    json.dumps(summary, allow_nan=False)


def test_a_ratio_is_of_the_means_with_their_deviation():
    found = ratio(results(lexmotion=[30.0, 34.0], tmr=[16.0, 16.0]), "lexmotion", "tmr", PROTOCOL)
    assert found["mean"] == pytest.approx(2.0)
    assert found["std"] == pytest.approx(2.0 * statistics.stdev([300.0, 340.0]) / 320.0)
    assert ratio(results(tmr=[1.0]), "lexmotion", "tmr", PROTOCOL) is None


def test_a_gain_is_taken_seed_by_seed():
    rows = results(lexmotion=[30.0, 50.0, 70.0], iv=[29.0, 48.0])
    assert gain(rows, "iv", "lexmotion", rsum(PROTOCOL)) == spread([-10.0, -20.0])
    assert gain(rows, "i+iv", "lexmotion", rsum(PROTOCOL)) is None


def test_the_paper_is_copied_right():
    """Recalls grow with their depth, and the ratios are those the text names."""
    for table in (paper.TABLE_1, paper.TABLE_2, paper.TABLE_5):
        for row in table.values():
            assert list(row[:5]) == sorted(row[:5]) and list(row[6:11]) == sorted(row[6:11])
    assert paper.figures(paper.TABLE_1["lexmotion"])["Rsum"] == pytest.approx(246.0, abs=0.05)
    assert paper.figures(paper.TABLE_1["motion_patches"])["Rsum"] == pytest.approx(219.9, abs=0.05)
    assert paper.figures(paper.TABLE_1["tmr"])["Rsum"] == pytest.approx(186.0, abs=0.05)
    assert paper.TABLE_5["DistilBERT (66M)"] == paper.TABLE_1["motion_patches"]
    assert set(paper.TABLE_1) == set(paper.TABLE_2) < set(ROWS)


# ---- text


def test_numbers_as_tables_print_them():
    assert number({"mean": 12.345, "std": 0.44}) == "12.3 ± 0.4"
    assert number({"mean": 12.345, "std": None}, 2) == "12.35" or number(12.345, 2) == "12.35"
    assert number({"mean": -0.123, "std": 0.1}, scale=100, signed=True) == "-12.3 ± 10.0"
    assert number(1.0, signed=True) == "+1.0" and number(None) == ""


@given(st.text(alphabet="ab &%$#_{}~^\\†±→", max_size=30))
def test_no_character_of_latex_is_left_bare(text):
    escaped = escape_latex(text)
    bare = re.sub(r"\\(text\w+\{\}|[&%$#_{}])|\$(\^\\dagger|\\pm|\\rightarrow)\$", "", escaped)
    assert not set(bare) & set("&%$#_{}~^\\†±→")
    assert escape_latex("a b") == "a b"


def test_latex_has_as_many_cells_as_columns():
    text = latex_table(["", "a_b", "c"], [[["†x", "1 ± 2", "3"]], [["y", "4", "5"]]], "50 %")
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert [line.count(" & ") for line in body] == [2, 2, 2]
    assert text.count(r"\midrule") == 2 and r"\begin{tabular}{lrr}" in text and r"\caption{50 \%}" in text


def test_markdown_has_one_line_a_row():
    table = markdown_table(["", "a"], [["x", "1"], ["y", "2"]])
    assert table.splitlines() == ["|  | a |", "| --- | --: |", "| x | 1 |", "| y | 2 |"]


# ---- files


def test_tables_show_ours_beside_the_paper(tmp_path):
    rows = results(motion_patches=[20.0, 22.0], lexmotion=[30.0, 32.0], iv=[28.0, 27.0])
    summary = write_tables(rows, tmp_path, "humanml3d")
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads(json.dumps(summary))
    page = (tmp_path / "results.md").read_text()
    for protocol in PROTOCOLS:
        assert f"## Systems, {protocol}" in page and f"## Phases, {protocol}" in page
    ours = next(line for line in page.splitlines() if line.startswith("| LexMotion |"))
    assert "| 2 | 31.0 ± 1.4 |" in ours and ours.endswith("| 310.0 ± 14.1 |")
    theirs = next(line for line in page.splitlines() if line.startswith(f"| LexMotion ({PAPER_LABEL}) |"))
    assert "| 11.8 | 17.1 |" in theirs and theirs.endswith("| 246.0 |")
    assert f"| TEMOS ({PAPER_LABEL})" not in page  # only beside a row of ours
    assert "| lexmotion / motion_patches | 1.48 ± 0.12 | 1.48 ± 0.12 | 1.12 |" in page
    latex = (tmp_path / "results.tex").read_text()
    assert r"310.0 $\pm$ 14.1" in latex and r"all-strict" in latex and latex.count(r"\toprule") == 4
    pictures = sorted(path.name for path in (tmp_path / "curves").iterdir())
    assert pictures == sorted(f"{name}{ending}" for name in rows for ending in (".png", ".svg"))


def test_kit_ml_is_shown_with_table_2(tmp_path):
    rows = results(motion_patches=[20.0], lexmotion=[30.0], ridge=[25.0])
    kit = write_tables(rows, tmp_path, "kit-ml", curves=False)
    page = (tmp_path / "results.md").read_text()
    table = page.split("## KIT-ML, Table 2 of the paper, all-strict")[1].split("##")[0]
    assert f"| LexMotion ({PAPER_LABEL}) |  | 15.1 | 23.7 |" in table and "Ridge" not in table
    systems = page.split("## Systems, all-strict")[1].split("##")[0]
    assert "Ridge" in systems and PAPER_LABEL not in systems
    assert "| lexmotion / motion_patches | 1.50 | 1.50 | 1.09 |" in page
    assert "1.09: reached." in verdicts(rows, "kit-ml")[0]
    assert kit["rows"] == summarise(rows)["rows"]
    write_tables(rows, tmp_path, "humanml3d", curves=False)
    assert "KIT-ML" not in (tmp_path / "results.md").read_text()


def test_the_page_names_other_captions_and_the_corpus_scored_on(tmp_path):
    rows = results(lexmotion=[30.0])
    (result,) = rows["lexmotion"]
    result["test_dataset"] = {**result["dataset"], "options": {**OPTIONS, "captions": "kit_captions.jsonl"}}
    write_report(rows, tmp_path / "page.md", "lexmotion compare")
    page = (tmp_path / "page.md").read_text()
    scored = next(line for line in page.splitlines() if line.startswith("* **Scored on**"))
    assert "with the captions of kit_captions.jsonl: 1,200 motions, 3,600 captions (test.txt)" in scored
    result["dataset"], result["test_dataset"] = result["test_dataset"], result["dataset"]
    write_report(rows, tmp_path / "page.md", "lexmotion compare")
    page = (tmp_path / "page.md").read_text()
    assert "corpus in the layout humanml3d with the captions of kit_captions.jsonl. train:" in page
    assert "--captions kit_captions.jsonl" in page and "with its own captions: 1,200" in page


def test_a_curve_is_drawn_for_every_seed():
    of_row = results(lexmotion=[30.0, 32.0])["lexmotion"]
    axes, other = curve_figure(of_row).axes
    assert [list(line.get_xdata()) for line in axes.lines] == [[10, 20, 30, 40], [30], [10, 20, 30, 40], [30]]
    assert len(other.lines) == 2 and axes.get_ylabel().startswith("rsum")


# ---- the page


def test_statements_follow_the_figures():
    good = verdicts(results(motion_patches=[20.0, 20.0], lexmotion=[30.0, 31.0], iv=[20.0, 21.0], ridge=[25.0]))
    assert "1.52 times" in good[0] and good[0].endswith("reached.")
    assert any("beats phase iv alone: +100.0 ± 0.0" in text for text in good)
    assert any("is above that of the ridge floor" in text for text in good)
    assert any("**50.0%** of the motions" in text for text in good)
    assert any("All captions" in text for text in good)
    bad = verdicts(
        results(
            motion_patches=[30.0],
            motion_patches_lexicon=[31.0],
            motion_patches_untied=[29.5],
            lexmotion=[31.0],
            iv=[32.0],
            ridge=[40.0],
        )
    )
    short = paper.ratio("lexmotion", "motion_patches") * 300.0 - 310.0
    assert bad[0].endswith(f"**missed**, {short:.1f} Rsum short.")
    assert any("**not below**" in text and "(one seed)" in text for text in bad)
    assert any("†MotionPatches by -15.0 Rsum (one seed)" in text for text in bad)
    assert not any("Random words" in text for text in good)
    assert any("**does not beat** phase iv alone: -10.0" in text for text in bad)
    assert any("is **not above** that of the ridge floor" in text for text in bad)


def test_the_order_test_is_stated_where_it_was_made():
    rows = {
        "lexmotion": [result("lexmotion", 0, 30.0, LEXICAL, {"share": 0.7, "other_motions": 0.52, "captions": 90})]
    }
    text = verdicts(rows)[-1]
    assert "70.0 % of the 90 captions" in text and "52.0 %" in text and text.endswith("reached.")


def test_the_page_is_made_of_results_alone(tmp_path):
    rows = results(
        motion_patches=[20.0, 22.0], lexmotion=[30.0, 32.0], iv=[28.0, 27.0], mlm=[33.0, 31.0], ridge=[25.0]
    )
    path = tmp_path / "docs" / "results.md"
    write_report(rows, path, "lexmotion compare --dataset runs/cmu")
    page = path.read_text()
    for part in (
        "lexmotion compare --dataset runs/cmu\n```",
        "--split train=train.txt --split test=test.txt",
        "300 motions of test",
        "20 minutes of training per row and seed by the processor clock",
        "`all-duplicates` gives the same figures",
        "No motion and no source recording of test occurs in training",
        "1 of 2 cores of a processor",
        "**Seeds**: 0, 1",
        "commit 0123456789ab",
        "## Effect of each phase",
        "## Effect of each improvement",
        "| phases iv | 2 | 275.0 ± 7.1 | -35.0 ± 21.2 |",
        "## Words",
        "## Cost of the rows",
        "| MotionPatches | 40 | 1.0 ± 0.0 | 1.5 | 75 ± 0 | 5.0 ± 0.0 |",
    ):
        assert part in page, part
    assert "## Systems, all-duplicates" not in page
    assert "Lexical vectors in a dense system" not in page  # the dense rows alone are in the first table
    assert "order test" not in page and "Head, sparsity" not in page
    tables = [line for line in page.splitlines() if line.startswith("|")]
    widths = [line.count("|") for line in tables]
    for line, width, rule in zip(tables, widths, tables[1:], strict=False):
        assert not set(rule) <= set("| -:") or width == rule.count("|"), line
    with pytest.raises(ValueError, match="result"):
        write_report({}, path, "")


def test_shared_recordings_are_admitted(tmp_path):
    rows = results(ridge=[25.0])
    rows["ridge"][0]["dataset"]["shared"] = {"train and test": {"base_ids": 0, "source_clips": 44}}
    write_report(rows, tmp_path / "page.md", "")
    page = (tmp_path / "page.md").read_text()
    assert "Train and test share 0 motions and 44 source recordings." in page
    assert "No motion and no source recording" not in page


# ---- all captions, clip by clip


def with_clips(results, scores, seconds):
    """Give the results of a row the scores of their clips."""
    for result, of_seed in zip(results, scores, strict=True):
        parts = {"all": of_seed, "short": of_seed[: sum(value < 6 for value in seconds)], "long": None}
        result["all_captions"] = {name: part and {"Rsum": statistics.fmean(part)} for name, part in parts.items()}
        result["clips"] = {"id": [f"c{i}" for i in range(len(seconds))], "seconds": seconds, "score": of_seed}


def test_rows_are_compared_clip_by_clip_over_common_seeds():
    rows = results(lexmotion=[30.0, 31.0], tmr=[20.0, 20.0, 20.0], ridge=[10.0])
    with_clips(rows["lexmotion"], [[300.0, 500.0], [320.0, 480.0]], [2.0, 5.0])
    with_clips(rows["tmr"], [[200.0, 400.0], [220.0, 380.0], [0.0, 0.0]], [2.0, 5.0])
    with_clips(rows["ridge"], [[110.0, 290.0]], [2.0, 5.0])
    found = summarise(rows)["all_captions"]
    assert found["tmr"]["behind"]["all"] == pytest.approx((100.0, 100.0, 100.0))  # without the third seed
    assert found["ridge"]["behind"]["all"] == pytest.approx((200.0, 200.0, 200.0))  # the same for every seed
    assert found["lexmotion"]["behind"] is None and set(found["tmr"]["rsum"]) == {"all", "short"}


def test_rows_of_other_clips_are_not_compared():
    rows = results(lexmotion=[30.0], tmr=[20.0])
    with_clips(rows["lexmotion"], [[300.0, 500.0]], [2.0, 5.0])
    with_clips(rows["tmr"], [[200.0]], [2.0])
    assert summarise(rows)["all_captions"]["tmr"]["behind"] is None


def test_every_gallery_has_a_table_of_the_rows_measured_on_it():
    rows = results(lexmotion=[30.0], tmr=[20.0])
    with_clips(rows["lexmotion"], [[300.0, 500.0]], [2.0, 5.0])
    with_clips(rows["tmr"], [[200.0, 400.0]], [2.0, 5.0])
    part = {"all_captions": {"all": {"Rsum": 7.0}, "short": None, "long": None}}
    part["clips"] = {"id": ["d"], "seconds": [9.0], "score": [7.0]}
    rows["lexmotion"][0]["galleries"] = {"short": part}
    summary = summarise(rows)
    assert summary["galleries"]["short"].keys() == {"lexmotion"}
    page = all_captions_page(summary)
    assert "400.0" in page and page.split("### Gallery short")[1].count("7.0") == 1


def test_results_without_clips_have_no_such_table(tmp_path):
    write_report(results(lexmotion=[30.0], tmr=[20.0]), tmp_path / "page.md", "")
    assert "## All captions" not in (tmp_path / "page.md").read_text()


@pytest.mark.parametrize("text", ["", "0", "x", "1,1", "-1", "3.5", "1,,2", "9" * 12])
def test_seeds_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match="seeds.*pass"):
        read_seeds(text)


# ---- the command


def test_the_command_trains_and_writes_the_tables(prepared, recipe_file, tmp_path, monkeypatch, capsys):
    from lexmotion import cli

    monkeypatch.setenv(cli.DEBUG_VARIABLE, "1")
    out = tmp_path / "out"
    words = ["compare", "--dataset", str(prepared), "--output-dir", str(out), "--recipe", str(recipe_file)]
    words += ["--rows", "iv,ridge", "--seeds", "5,", "--set", "num_steps=1", "--report", str(tmp_path / "page.md")]
    words += ["--gallery", str(prepared)]
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "[1/2] iv, seed 5: training" in shown and "phases iv" in shown
    assert {path.name for path in out.iterdir()} >= {"iv", "ridge", "results.json", "results.md", "results.tex"}
    page = (tmp_path / "page.md").read_text()
    command = "lexmotion compare --dataset prepared --recipe test --rows iv,ridge --seeds 5,"
    assert command in page and "--set num_steps=1" in page and "## All captions" in page
    assert str(tmp_path) not in page

    before = (out / "iv" / "seed5" / "result.json").stat().st_mtime_ns
    with pytest.raises(SystemExit):
        cli.main([word if word != "iv,ridge" else "none" for word in words])
    result = json.loads((out / "iv" / "seed5" / "result.json").read_text())
    assert result["all_captions"]["all"]["Rsum"] == pytest.approx(statistics.fmean(result["clips"]["score"]), abs=1e-3)
    for row in ("iv", "ridge"):
        result = json.loads((out / row / "seed5" / "result.json").read_text())
        assert result["galleries"][prepared.name]["clips"] == result["clips"]
    result = json.loads((out / "iv" / "seed5" / "result.json").read_text())
    assert result["seed"] == 5 and len(set(result["clips"]["id"])) == result["all_captions"]["all"]["clips"]
    assert (out / "iv" / "seed5" / "result.json").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="'ivv'.*systems.*ridge"):
        cli.main([word if word != "iv,ridge" else "ivv" for word in words])
