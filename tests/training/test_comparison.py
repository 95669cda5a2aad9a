"""Rows, budgets, resuming and results of `lexmotion compare`."""

import copy
import dataclasses
import json
import shutil

import pytest
import torch
from filelock import FileLock

from lexmotion import LexMotionModel
from lexmotion.common.files import write_json
from lexmotion.processing.corpora.report import sealed
from lexmotion.training.comparison import runner
from lexmotion.training.comparison.budget import plan_steps, time_task
from lexmotion.training.comparison.rows import GROUPS, ROWS, encoder_row, equal, recipe_value, select_rows
from lexmotion.training.comparison.runner import Comparison, deciding, difference, flat, mark
from lexmotion.training.comparison.scoring import PROTOCOLS
from lexmotion.training.comparison.tables import COLUMNS
from lexmotion.training.recipe import run_arguments
from lexmotion.training.tasks import TASKS


@pytest.fixture(scope="session")
def text_model(tmp_path_factory, data):
    """Folder of a tiny BERT with the words of the prepared corpus."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("text-model")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(data.processor.tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    data.processor.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny(recipe, text_model):
    """The recipe of four short phases, with a rival."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    recipe = copy.deepcopy(recipe)
    recipe["num_steps"], recipe["eval_steps"] = 2, 1
    recipe["baselines"] = {"motion_patches": {"text_model": str(text_model), "baseline_config": sizes}}
    return recipe


@pytest.fixture
def compare(prepared, tiny, tmp_path):
    """compare(name, **options) -> a comparison on the tiny corpus, in `tmp_path / name`."""

    def make(name="out", **options):
        notes = []
        made = Comparison(prepared, tmp_path / name, options.pop("recipe", tiny), notify=notes.append, **options)
        made.notes = notes
        return made

    return make


def figures(value):
    return {**dict.fromkeys(COLUMNS, value), "Rsum": 10 * value, "gallery_size": 12}


@pytest.fixture
def fake_training(monkeypatch):
    """Trainings that only write their result, and scores that depend on the seed; the calls are counted."""
    calls = []

    def train_tasks(self, row, seed, plan, data, run):
        calls.append((row.name, seed))
        for name, arguments in self.arguments(row, seed, plan).items():
            (run / name).mkdir(parents=True, exist_ok=True)
            steps = arguments.task.num_steps
            lines = [{"step": steps, "loss": 1.0}, {"step": steps, "eval_rsum": 5.0}]
            (run / name / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
            training = {"steps": steps, "seconds": 6.0, "best": {"step": steps, "rsum": 5.0}, "stopped": None}
            content = {"training": training, "device": "cpu", "acceptance": {}}
            (run / name / "result.json").write_text(json.dumps(content))
        return run / "model"

    def score(model, system, train, rows, galleries):
        retrieval = dict.fromkeys(PROTOCOLS, figures(float(10 + calls[-1][1])))
        return {"retrieval": retrieval, "retrieval_words": None, "lexical": None, "order": None, "parameters": 7}

    monkeypatch.setattr(Comparison, "train_tasks", train_tasks)
    monkeypatch.setitem(runner.SCORERS, "retrieval", runner.SCORERS["retrieval"]._replace(score=score))
    return calls


@pytest.fixture
def fake_timing(monkeypatch):
    timed = []

    def time(arguments, data):
        timed.append(arguments.name)
        return {"step_seconds": 0.5, "evaluation_seconds": 1.0}

    monkeypatch.setattr(runner, "time_task", time)
    return timed


# ---- rows


def test_rows_are_chosen_by_group_and_name_once_each():
    assert [row.name for row in select_rows(["all"])] == list(GROUPS["systems"])
    assert [row.name for row in select_rows(["lexmotion", "phases"])][:2] == ["lexmotion", "iv"]
    names = [row.name for row in select_rows(["phases", "head", "improvements", "plain", "lexical-baselines", "all"])]
    assert sorted(names) == sorted(ROWS) and len(names) == len(set(names))
    assert not set(GROUPS) & set(ROWS)  # a name means one of them
    with pytest.raises(ValueError, match="'tmrr'.*phases.*motion_patches-lexicon"):
        select_rows(["tmrr"])


def test_a_row_of_phases_trains_these_alone(compare):
    made = compare()
    assert list(made.arguments(ROWS["i+iii+iv"], 0, None)) == ["lexmlm", "lexmmm", "lexcmlp"]
    assert ROWS["lexmotion"].tasks == ("lexmlm", "cmmm", "lexmmm", "lexcmlp")
    assert ROWS["ridge"].tasks == () and ROWS["tmr-lexicon"].tasks == ("baseline",)


def test_the_plain_rows_have_no_improvement(compare):
    made = compare()
    for name in GROUPS["plain"]:
        recipe = made.row_recipe(made.settled(ROWS[name]))
        options = [row.option for row in ROWS.values() if row.option is not None]
        assert options and all(equal(recipe_value(recipe, option.key), option.off) for option in options)
    assert ROWS["plain-iv"].tasks == ("lexcmlp",) and ROWS["plain-lexmotion"].tasks == ROWS["lexmotion"].tasks


@pytest.mark.parametrize("name", [name for name in ROWS if ROWS[name].option is not None])
def test_an_option_is_turned_against_the_recipe(tiny, name):
    """Whatever the recipe says, the row says the other thing; turned twice, it is as before."""
    option = ROWS[name].option
    tiny["text_model"] = None
    off_row = ROWS[name].resolved(runner.apply_overrides(tiny, {option.key: option.on}))
    on_row = ROWS[name].resolved(runner.apply_overrides(tiny, {option.key: option.off}))
    assert off_row.overrides == {option.key: option.off} and off_row.label == f"without {option.label}"
    assert on_row.overrides == {option.key: option.on} and on_row.label == f"with {option.label}"


def test_the_dense_rival_trains_the_same_towers_and_none_of_the_words(compare, tiny):
    made = compare(keep_weights=True)
    row = made.settled(ROWS["dense-towers"])
    before = TASKS["lexcmlp"].build(made.arguments(row, 0, None)["lexcmlp"], made.data.processor).model.state_dict()
    (result,) = made.run([row], [0])
    after = LexMotionModel.from_pretrained(made.output_dir / "dense-towers/seed0/run/model").state_dict()
    moved = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert {"text_readout.weight", "motion_readout.weight"} < moved
    assert any(".encoder." in name for name in moved) and not any("lexical_head" in name for name in moved)
    assert result["lexical"] is result["retrieval_words"] is None and result["clips"]["id"]


@pytest.mark.parametrize("setting", ["contrastive_loss_weight=0", "distillation_loss_weight=1"])
def test_losses_without_their_vectors_are_refused(compare, setting):
    with pytest.raises(ValueError, match=f"{setting.split('=')[0]}.*dense_size"):
        compare(overrides=[f"phases.lexcmlp.{setting}"]).arguments(ROWS["iv"], 0, None)


def test_a_seed_of_the_recipe_would_be_overwritten_and_is_refused(compare):
    with pytest.raises(ValueError, match="seed.*--seeds 7"):
        compare(overrides=["seed=7"])


def plan_of(comparison):
    """The purpose of a plan of phase iv."""
    return {**comparison.definition(ROWS["iv"], 0, None), "shares": {"lexcmlp": 1.0}}


def test_finished_trainings_are_copied_and_scored_on_another_corpus(compare, prepared, tmp_path):
    there = compare("there")
    (first,) = there.run([ROWS["iv"]], [0])
    other = tmp_path / "other"
    shutil.copytree(prepared, other)
    report = json.loads((other / "report.json").read_text())
    write_json(other / "report.json", sealed({**report, "fingerprint": "another"}))
    here = compare("here", test_dataset=other, split="validation", reuse=[there.output_dir])
    (second,) = here.run([ROWS["iv"]], [0])
    weights = [made.output_dir / "iv/seed0/run/model/model.safetensors" for made in (there, here)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert first["trainings"] == second["trainings"] and first["clips"]["id"] != second["clips"]["id"]


def test_rows_can_be_compared_on_another_corpus(compare, prepared, fake_training, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(prepared, other)
    report = json.loads((other / "report.json").read_text())
    write_json(other / "report.json", sealed({**report, "fingerprint": "another"}))
    here, there = compare(), compare(test_dataset=other)
    assert mark(here.definition(ROWS["iv"], 0, None)) != mark(there.definition(ROWS["iv"], 0, None))
    there.run([ROWS["iv"]], [0])
    assert there.collect()["iv"] and not compare().collect()
    # The results of another comparison of the same models are no obstacle, and its steps are those of this one.
    beside = compare("beside", reuse=[there.output_dir])
    assert beside.find(beside.settled(ROWS["iv"]), 0, None) is None
    assert deciding(plan_of(here)) == deciding(plan_of(there)) and mark(plan_of(here)) != mark(plan_of(there))
    write_json(other / "report.json", sealed({**report, "skeleton": "kit"}))
    with pytest.raises(ValueError, match="'kit'.*same skeleton"):
        compare(test_dataset=other)


def test_galleries_are_part_of_a_result_and_have_names_of_their_own(compare, prepared, fake_training, tmp_path):
    other = tmp_path / "short"
    shutil.copytree(prepared, other)
    both = compare(galleries=[other])
    assert mark(both.definition(ROWS["iv"], 0, None)) != mark(compare().definition(ROWS["iv"], 0, None))
    assert f"--gallery {other.name}" in both.command("iv", "1")
    with pytest.raises(ValueError, match="'short' is also the name of.*rename"):
        compare(galleries=[other, prepared / ".." / other])
    with pytest.raises(ValueError, match="short: no split 'no_such'"):
        compare(galleries=[other], split="no_such", test_dataset=other)


def test_the_rows_of_table_2_need_kit_ml(compare, fake_training):
    from lexmotion.training.comparison.compare import compare as write_comparison

    assert GROUPS["kit"] == (
        "temos",
        "t2m",
        "tmr",
        "motion_patches",
        "tmr-lexicon",
        "motion_patches-lexicon",
        "lexmotion",
    )
    with pytest.raises(ValueError, match="--rows: kit.*kit-ml.*humanml3d.*--rows all"):
        write_comparison(compare(), rows="kit", seeds=1)
    assert not fake_training


def test_the_value_of_a_recipe_falls_back_to_the_default(tiny):
    assert recipe_value(tiny, "lexcmlp.mlm_weight") == 0.2
    assert recipe_value({**tiny, "mlm_weight": 0.7}, "phases.lexcmlp.mlm_weight") == 0.7
    assert recipe_value({**tiny, "model_config": {"temperature": 0.1}}, "model_config.temperature") == 0.1
    assert recipe_value(tiny, "lexcmlp.false_negative_threshold") == 0.6
    old = {**tiny, "model_config": {"false_negative_threshold": 0.7}}
    assert recipe_value(old, "lexcmlp.false_negative_threshold") == 0.7
    assert recipe_value({**tiny, "representation": "positions"}, "representation") == "positions"
    for key in ("lexcmlp.no_such", "model_config.no_such"):
        with pytest.raises(ValueError, match="'no_such'"):
            recipe_value(tiny, key)


def test_a_result_from_before_the_training_options_moved_still_counts():
    options = {"false_negative_threshold": None, "hard_negative_beta": 0.15}
    before = {"lexmlm": {"model_config": options}, "lexcmlp": {"model_config": {**options, "num_segments": 2}}}
    now = {"lexmlm": {}, "lexcmlp": {**options, "model_config": {"num_segments": 2}}}
    assert runner.mark({"trainings": before}) == runner.mark({"trainings": now})
    other = {**now, "lexcmlp": {"model_config": {"num_segments": 2}}}
    assert runner.mark({"trainings": before}) != runner.mark({"trainings": other})


def test_an_option_that_is_not_there_fails_when_its_row_is_run(compare, monkeypatch, fake_training):
    row = ROWS["mlm"]
    absent = type(row)("absent", "absent", overrides={"lexcmlp.not_yet": 1})
    monkeypatch.setitem(ROWS, "absent", absent)
    made = compare()
    made.run([ROWS["iv"]], [0])
    assert list(made.collect()) == ["iv"]
    with pytest.raises(ValueError, match="absent.*'not_yet'"):
        made.run([ROWS["i+iv"], absent], [0])
    with pytest.raises(ValueError, match=r"\btmr\b.*'tmr'.*motion_patches"):
        made.run([ROWS["tmr"]], [0])
    assert fake_training == [("iv", 0)]


def test_text_encoders_get_folders_of_their_own():
    assert encoder_row("google-t5/t5-small").name == "text-t5-small"
    assert encoder_row("./weights/My encoder/").name == "text-My-encoder"
    with pytest.raises(ValueError, match="'b/bert'.*'a/bert'.*'text-bert'"):
        select_rows([], ["a/bert", "b/bert"])


# ---- equal minutes


def test_a_budget_is_shared_out_over_the_phases_there_are():
    timing = {"step_seconds": 2.0, "evaluation_seconds": 3.0}
    shares = {"lexmlm": 0.15, "cmmm": 0.15, "lexmmm": 0.2, "lexcmlp": 0.5}
    plan = plan_steps({"cmmm": timing, "lexcmlp": timing}, 13.0, shares)
    evaluations = {"cmmm": 2, "lexcmlp": 10}
    seconds = [steps["num_steps"] * 2.0 + evaluations[phase] * 3.0 for phase, steps in plan.items()]
    assert seconds == [180.0, 600.0]
    assert [steps["eval_steps"] for steps in plan.values()] == [44, 29]
    with pytest.raises(ValueError, match=r"\b0\.5\b.*lexcmlp.*--budget-minutes 0\.9"):
        plan_steps({"lexcmlp": timing}, 0.5, shares)
    with pytest.raises(ValueError, match=r"compare\.shares.*baseline"):
        plan_steps({"baseline": timing}, 10.0, {})


def test_steps_and_evaluations_are_timed_on_the_real_trainer(compare, monkeypatch):
    monkeypatch.setattr("lexmotion.training.comparison.budget.TIMED_SECONDS", 0.0)
    made = compare()
    for row, name in ((ROWS["lexmotion"], "lexmlm"), (ROWS["motion_patches"], "baseline")):
        timing = time_task(made.arguments(row, 0, None)[name], made.data)
        assert timing["step_seconds"] > 0 and timing["evaluation_seconds"] > 0
    assert not made.output_dir.exists()


def test_a_plan_is_made_once_and_holds_for_every_seed(compare, fake_training, fake_timing):
    made = compare(budget_minutes=2.0)
    results = made.run([ROWS["i+iv"]], [0, 1])
    assert fake_timing == ["lexmlm", "lexcmlp"]
    # 120 s, .15 against .5 of .65, two evaluations of one second each
    assert results[0]["trainings"]["lexmlm"]["steps"] == int((120 * 0.15 / 0.65 - 2) / 0.5)
    assert results[0]["steps"] == results[1]["steps"]
    plan = json.loads((made.output_dir / "i+iv" / "plan.json").read_text())
    assert plan["trainings"]["lexcmlp"]["num_steps"] == results[1]["trainings"]["lexcmlp"]["steps"]

    again = compare(budget_minutes=2.0)
    again.run([ROWS["i+iv"], ROWS["iv"]], [0, 1])
    assert fake_timing == ["lexmlm", "lexcmlp"]  # the other row's step is of the same kind: not timed again
    with pytest.raises(ValueError, match=r"plan\.json.*budget_minutes.*\b2\.0.*\b3\.0"):
        compare(budget_minutes=3.0).run([ROWS["i+iv"]], [0])


def test_the_recipe_may_share_the_time_out_otherwise(compare, tiny, fake_training, fake_timing):
    tiny["compare"] = {"shares": {"lexmlm": 0.5}}
    result = compare(budget_minutes=2.0).run([ROWS["i+iv"]], [0])[0]
    steps = {phase: training["steps"] for phase, training in result["trainings"].items()}
    assert steps == {"lexmlm": 116, "lexcmlp": 100}  # a minute each, two and ten evaluations of a second


def test_under_a_budget_a_recipe_s_own_counts_and_a_lone_share_change_nothing(
    compare, tiny, fake_training, fake_timing
):
    first = compare(budget_minutes=2.0).run([ROWS["iv"]], [0])
    tiny["compare"] = {"shares": {"lexcmlp": 0.9}}
    assert compare(budget_minutes=2.0, overrides=["lexcmlp.num_steps=7"]).run([ROWS["iv"]], [0]) == first
    assert fake_training == [("iv", 0)] and fake_timing == ["lexcmlp"]


# ---- results that are there


def test_a_finished_result_needs_no_weights_and_no_training(compare, fake_training):
    made = compare()
    first = made.run([ROWS["iv"]], [0, 1])
    assert fake_training == [("iv", 0), ("iv", 1)]
    shutil.rmtree(made.output_dir / "iv" / "seed0" / "run")
    assert compare().run([ROWS["iv"]], [0, 1]) == first
    assert fake_training == [("iv", 0), ("iv", 1)]


def test_a_result_of_other_arguments_is_refused_by_name(compare, fake_training):
    compare().run([ROWS["iv"]], [0])
    other = compare(overrides=["lexcmlp.learning_rate=0.5"])
    message = r"iv/seed0/result\.json.*trainings\.lexcmlp\.learning_rate.*\b0\.001\b.*\b0\.5\b.*iv/seed0\b"
    with pytest.raises(ValueError, match=message):
        other.run([ROWS["iv"]], [0])
    assert other.collect() == {} and fake_training == [("iv", 0)]
    with pytest.raises(ValueError, match="split.*'test'.*'validation'"):
        compare(split="validation").run([ROWS["iv"]], [0])


@pytest.mark.parametrize("kept", ["there", "there.zip"])
def test_results_of_another_machine_are_read_where_they_fit(compare, fake_training, fake_timing, tmp_path, kept):
    there = compare("there", budget_minutes=2.0)
    there.run([ROWS["iv"]], [0])
    if kept == "there.zip":
        there.archive(tmp_path / kept)
    (there.output_dir / "iv" / "plan.json").unlink()  # the result alone says enough
    here = compare("here", budget_minutes=2.0, reuse=[tmp_path / kept])
    results = here.run([ROWS["iv"]], [0, 1])
    assert fake_training == [("iv", 0), ("iv", 1)] and fake_timing == ["lexcmlp"]
    assert results[0]["steps"] == results[1]["steps"]
    assert [result["seed"] for result in here.collect()["iv"]] == [0, 1]
    assert not (here.output_dir / "iv" / "seed0").exists()
    with pytest.raises(ValueError, match=rf"{kept}/iv/seed0/result\.json.*budget_minutes.*\b2\.0\b"):
        compare("third", reuse=[tmp_path / kept]).run([ROWS["iv"]], [0])
    with pytest.raises(FileNotFoundError, match="'nowhere'"):
        compare(reuse=["nowhere"])


def test_a_row_that_says_the_same_takes_the_same_result(compare, prepared, fake_training):
    made = compare()
    assert made.report.options["vocabulary_filter"] == "corpus"
    results = made.run([ROWS["lexmotion"], ROWS["vocabulary-corpus"]], [0])
    assert fake_training == [("lexmotion", 0)]
    assert results[1] == {**results[0], "row": "vocabulary-corpus", "label": ROWS["vocabulary-corpus"].label}


def test_a_diverging_row_does_not_stop_the_others(compare, fake_training, monkeypatch):
    whole = Comparison.train_tasks

    def diverge(self, row, *rest):
        if row.name == "iv":
            raise runner.NonFiniteLossError("loss is NaN")
        return whole(self, row, *rest)

    monkeypatch.setattr(Comparison, "train_tasks", diverge)
    made = compare()
    with pytest.raises(FloatingPointError, match=r"\biv\b.*\bseed 0\b"):
        made.run([ROWS["iv"], ROWS["i+iv"]], [0])
    assert list(made.collect()) == ["i+iv"]


def test_a_row_that_another_process_trains_comes_last(compare, fake_training, monkeypatch):
    made = compare()
    theirs = made.output_dir / "iv" / "seed0" / runner.LOCK
    theirs.parent.mkdir(parents=True)
    lock = FileLock(theirs)
    lock.acquire()
    notes = []

    def told(note):
        notes.append(note)
        if sum("another process" in line for line in notes) == 2:  # nothing else is left to do
            lock.release()

    made.notify = told
    results = made.run([ROWS["iv"], ROWS["motion_patches"]], [0])
    assert fake_training == [("motion_patches", 0), ("iv", 0)]
    assert [result["row"] for result in results] == ["iv", "motion_patches"]


def test_what_another_process_has_finished_meanwhile_is_taken(compare, fake_training):
    made, other = compare(), compare()
    theirs = made.output_dir / "iv" / "seed0" / runner.LOCK
    theirs.parent.mkdir(parents=True)
    lock = FileLock(theirs)
    lock.acquire()

    def told(note):
        if "another process" in note and lock.is_locked:
            other.train(other.settled(ROWS["iv"]), 0, None)
            lock.release()

    made.notify = told
    assert len(made.run([ROWS["iv"]], [0])) == 1
    assert fake_training == [("iv", 0)]


def test_the_difference_names_what_differs():
    was, wanted = {"a": {"b": 1, "c": []}, "d": None}, {"a": {"b": 2, "c": []}, "e": {}}
    assert flat(was) == {"a.b": 1, "a.c": [], "d": None}
    assert difference(was, wanted) == "a.b was 1, is 2; d was None, is '(default)'; e was '(default)', is {}"
    assert "and 2 more" in difference(dict.fromkeys("abcde", 0), dict.fromkeys("abcde", 1))


def test_wrong_settings_are_told_before_anything_is_read(compare):
    with pytest.raises(ValueError, match=r"budget.*\b0\.0\b"):
        compare(budget_minutes=0.0)
    with pytest.raises(ValueError, match="'dev'.*train, validation, test"):
        compare(split="dev")


# ---- for real


def test_rows_are_trained_scored_and_taken_up_again(compare, monkeypatch):
    rows = [ROWS["i+iv"], ROWS["motion_patches"], ROWS["motion_patches-lexicon"], ROWS["ridge"]]
    made = compare(keep_weights=False)
    stop = {"after": 1}
    whole = runner.train_recipe

    def killed(content, dataset, output_dir, **options):
        phases = content["phases"]
        if stop:  # the first phase is finished, then the process dies
            stop.clear()
            whole({**content, "phases": {**phases, "lexcmlp": False}}, dataset, output_dir, **options)
            raise KeyboardInterrupt
        return whole(content, dataset, output_dir, **options)

    monkeypatch.setattr(runner, "train_recipe", killed)
    with pytest.raises(KeyboardInterrupt):
        made.run(rows, [0])
    finished = made.output_dir / "i+iv" / "seed0" / "run" / "lexmlm" / "result.json"
    before = finished.stat().st_mtime_ns
    results = made.run(rows, [0])
    assert finished.stat().st_mtime_ns == before
    assert [result["row"] for result in results] == [row.name for row in rows]
    for result in results:
        assert set(result["retrieval"]) == set(PROTOCOLS) and result["retrieval"]["all-strict"]["gallery_size"] == 12
        assert result["dataset"]["splits"]["test"]["motions"] == 12
    lexical, dense, dagger, ridge = results
    assert dense["lexical"] is None and ridge["lexical"] is None and ridge["steps"] == 0
    for result in (lexical, dagger):
        assert 0 <= result["lexical"]["caption_coverage_top20"] <= 1
        assert result["lexical"]["motion_least_words"] <= result["lexical"]["motion_active_words"]
    assert list(lexical["trainings"]) == ["lexmlm", "lexcmlp"] and lexical["steps"] == 4
    assert [point["step"] for point in lexical["curves"]["lexcmlp"]] == [1, 2]
    assert {"loss", "eval_rsum"} <= set(dense["curves"]["baseline"][0])
    assert not list(made.output_dir.rglob("*.safetensors"))
    assert list(made.collect()) == ["motion_patches", "motion_patches-lexicon", "ridge", "i+iv"]


def test_other_heads_keep_their_own_words_whatever_the_recipe_limits(compare):
    made = compare(overrides={"lexcmlp.motion_word_share": 0.4, "lexcmlp.motion_word_limits": [2, 9]})
    rows = [dataclasses.replace(ROWS[name], tasks=("lexcmlp",)) for name in ("iv", "vdr", "top-k")]
    limited, vdr, top = (result["lexical"] for result in made.run(rows, [0]))
    assert limited["motion_most_words"] <= 9
    words = made.data.processor.lexicon.num_active_words
    assert vdr["motion_least_words"] == vdr["motion_most_words"] == min(words, 128)
    assert top["motion_most_words"] > 9


def test_a_daggered_baseline_can_have_random_words(compare):
    made = compare()
    [result] = made.run([ROWS["motion_patches-untied"]], [0])
    assert result["label"] == "†MotionPatches, random words" and result["lexical"] is not None
    with pytest.raises(ValueError, match=r"\btmr-untied\b.*'tmr'.*motion_patches"):
        made.run([ROWS["tmr-untied"]], [0])


def test_rows_that_part_in_phase_four_share_what_comes_before(compare):
    made = compare()
    results = made.run([ROWS["i+iv"], dataclasses.replace(ROWS["mlm"], tasks=ROWS["i+iv"].tasks)], [1])
    first, second = results
    logs = [made.output_dir / result["row"] / "seed1" / "run" / "lexmlm" / "log.jsonl" for result in results]
    assert logs[0].read_bytes() == logs[1].read_bytes()  # it holds times of day: copied, not trained
    assert first["trainings"]["lexmlm"] == second["trainings"]["lexmlm"]
    assert first["trainings"]["lexcmlp"] != second["trainings"]["lexcmlp"]


def test_another_vocabulary_is_a_prepared_folder_of_its_own(compare, prepared):
    made = compare()
    row = made.settled(ROWS["vocabulary-all"])
    data = made.row_data(row)
    base, wide = made.data.processor.lexicon, data.processor.lexicon
    assert wide.vocabulary_filter == "all" and wide.num_active_words >= base.num_active_words
    assert wide.num_active_words == len(wide) - int(wide.special.sum())
    assert data.fingerprint != made.data.fingerprint
    assert data.corpus("train", 32).ids[0] == made.data.corpus("train", 32).ids[0]
    assert made.definition(row, 0, None)["dataset"] == made.data.fingerprint
    assert (made.output_dir / "prepared" / "vocabulary-all" / "data").resolve() == (prepared / "data").resolve()
    again = compare().row_data(row)
    assert again.fingerprint == data.fingerprint


def test_another_text_encoder_brings_its_tokenizer(compare, text_model, data, tmp_path):
    from transformers import AutoTokenizer

    folder = tmp_path / "other-words"
    shutil.copytree(text_model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["cartwheelish"])
    tokenizer.save_pretrained(folder)
    made = compare()
    variant = made.row_data(made.settled(encoder_row(str(folder))))
    assert len(variant.processor.tokenizer) == len(data.processor.tokenizer) + 1
    assert made.row_recipe(encoder_row(str(folder)))["phases"]["baseline"]["text_model"] == str(folder)


def test_a_result_outlives_an_argument_that_was_added_after_it_and_no_other_change():
    now = {"kind": "lexmotion", "trainings": {"lexcmlp": run_arguments("lexcmlp", {"seed": 3}).defining()}}
    before = json.loads(json.dumps(now))
    del before["trainings"]["lexcmlp"]["motion_word_share"]
    assert mark(before) == mark(now)
    before["trainings"]["lexcmlp"]["seed"] = 4
    assert mark(before) != mark(now)
