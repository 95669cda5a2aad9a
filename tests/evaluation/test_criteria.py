"""Acceptance criteria and the tables of a terminal, on figures written by hand."""

import io
import math

import numpy as np
import pytest
from rich.console import Console

from lexmotion.evaluation.console import explanation_tables, lexical_table, phase_table, retrieval_table, words_table
from lexmotion.evaluation.criteria import judge
from lexmotion.evaluation.explain import Explanation, WordEvidence
from lexmotion.training.tasks import TASKS, find_task

GOOD = {
    "lexmlm": {
        "gain_over_zeroed": 0.5, "gain_over_zeroed_ci": 0.1, "gain_over_shuffled": 0.3, "gain_over_shuffled_ci": 0.1,
        "content_word_share": 0.6, "base_content_word_share": 0.2,
    },
    "cmmm": {
        "masked_error": 0.05, "interpolation_error": 0.08, "mean_pose_error": 0.2, "same_clip_r1": 60.0,
        "same_clip_chance": 2.0, "feature_spread": 0.9,
    },
    "lexmmm": {
        "gain_over_shuffled": 0.3, "gain_over_shuffled_ci": 0.1, "coverage_top20": 0.5, "prior_top20": 0.3,
    },
    "lexcmlp": {"coverage_top10": 0.6, "prior_top10": 0.3, "text_universal": 0.0, "motion_universal": 0.0},
}  # fmt: skip


def shown(*tables, width=80):
    console = Console(width=width, file=io.StringIO())
    console.print(*tables)
    return console.file.getvalue()


@pytest.mark.parametrize("phase", GOOD)
def test_good_figures_meet_every_criterion(phase):
    criteria = judge(TASKS[phase].criteria, GOOD[phase])
    assert len(criteria) == len(TASKS[phase].criteria) and all(criterion.met for criterion in criteria)


@pytest.mark.parametrize(
    ("phase", "name", "value"),
    [
        ("lexmlm", "gain_over_zeroed", 0.05),  # inside its interval
        ("lexmlm", "gain_over_shuffled", -0.2),
        ("lexmlm", "content_word_share", 0.2),
        ("cmmm", "masked_error", 0.1),
        ("cmmm", "same_clip_r1", 1.0),
        ("cmmm", "feature_spread", 0.1),
        ("lexmmm", "gain_over_shuffled", 0.05),
        ("lexmmm", "coverage_top20", 0.35),
        ("lexcmlp", "coverage_top10", 0.3),
        ("lexcmlp", "motion_universal", 1.0),
    ],
)
def test_a_poor_figure_fails_one_criterion(phase, name, value):
    criteria = judge(TASKS[phase].criteria, {**GOOD[phase], name: value})
    assert [criterion.value for criterion in criteria if not criterion.met] == [value]


@pytest.mark.parametrize("phase", GOOD)
def test_nan_meets_nothing_and_absence_says_nothing(phase):
    assert not any(criterion.met for criterion in judge(TASKS[phase].criteria, dict.fromkeys(GOOD[phase], math.nan)))
    assert [criterion for criterion in judge(TASKS[phase].criteria, {}) if criterion.value is not None] == []


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match="'phase v'.*lexmlm"):
        find_task("phase v")


def test_the_phase_table_gives_each_criterion_one_line():
    printed = shown(phase_table([{**TASKS[p].facts(f), "training": {"seconds": 61.7}} for p, f in GOOD.items()]))
    assert printed.count(" ok ") == sum(len(TASKS[phase].criteria) for phase in GOOD) and " no " not in printed
    assert "62 s" in printed and "iii LexMMM" in printed
    for phase, figures in GOOD.items():
        assert all(criterion.text in printed for criterion in judge(TASKS[phase].criteria, figures))


def test_a_phase_without_figures_is_named():
    assert "not measured" in shown(phase_table([{**TASKS["cmmm"].facts({}), "training": {"seconds": 1.0}}]))


def test_the_retrieval_table_fits_eighty_columns():
    row = {f"{side}/{name}": 100.0 for side in ("t2m", "m2t") for name in ("R1", "R2", "R3", "R5", "R10", "MedR")}
    printed = shown(retrieval_table({"all-duplicates": {**row, "gallery_size": 4382, "Rsum": 1000.0}}, "Retrieval"))
    assert "all-duplicates" in printed and "4382" in printed and "1000.0" in printed and "…" not in printed
    assert printed.count("100.0") == 12 and "R@10" in printed and "MedR" in printed


def test_the_ridge_floor_stands_below_its_protocol():
    row = {f"{side}/{name}": 50.0 for side in ("t2m", "m2t") for name in ("R1", "R2", "R3", "R5", "R10", "MedR")}
    rows = {name: {**row, "gallery_size": 240, "Rsum": 809.6} for name in ("all-strict", "small-batches")}
    floor = {"all-strict": {**row, "Rsum": 816.7, "gallery_size": 240}}
    lines = shown(retrieval_table(rows, floor=floor)).splitlines()
    (place,) = (number for number, line in enumerate(lines) if "ridge floor" in line)
    assert "all-strict" in lines[place - 2] and "816.7" in lines[place] and "small-batches" in lines[place + 2]


@pytest.mark.parametrize(("own", "met", "words"), [(809.6, False, "809.6 is not above 816.7"), (820.0, True, "above")])
def test_the_quickstart_says_whether_it_beats_its_floor(own, met, words):
    from lexmotion.training.quickstart import promises

    strict = {"gallery_size": 240, "t2m/R1": 40.0, "Rsum": own}
    report = {"retrieval": {"all-strict": strict}, "lexical": {"caption_coverage_top10": 0.9}}
    report["ridge_floor"] = {"all-strict": {"Rsum": 816.7}}
    found = promises({"phases": {}}, report)[-1]
    assert found.met is met and words in found.text and "ridge" in found.text


def test_the_lexical_table_shows_both_sides():
    printed = shown(lexical_table({"text_active_words": 24.25, "motion_active_words": 32.0, "coverage_top20": 0.5}))
    assert "24.2" in printed and "32" in printed and "50.0%" in printed and "distinct" not in printed


def test_brackets_of_a_caption_are_text():
    printed = shown(words_table(["a person [red]jumps[/red]"], [[("jump", 1.0), ("leap", 0.5)]], [{"jump"}], "Words"))
    assert "[red]jumps[/red]" in printed and "jump, leap" in printed


@pytest.fixture
def evidence():
    return [
        WordEvidence("kick", 1.5, 1.0, 0.3, "left leg", 0.4, 0.8),
        WordEvidence("left", 1.0, 0.0, 0.0, "left leg", 0.0, 0.4),
        WordEvidence("person", 0.5, 2.0, 0.1, "torso", 0.8, 1.0),
    ]


def test_an_explanation_names_part_and_time(evidence):
    explanation = Explanation(evidence, (3, 5), 0.4, np.zeros((3, 3, 5)), "a [man] kicks", [("kick", 1.0)], 0.4)
    tables = explanation_tables(explanation, k=2)
    words, why = (shown(table) for table in tables)
    assert "left leg" in words and "0.4 - 0.8" in words and "person" not in words
    assert "a [man] kicks" in why and "0.300" in why and "person" in why and "0.400" in why


def test_without_a_caption_there_is_no_why(evidence):
    assert len(explanation_tables(Explanation(evidence, (3, 5), 0.4, np.zeros((3, 3, 5))), k=3)) == 1
