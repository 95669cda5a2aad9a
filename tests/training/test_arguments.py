import pytest
import yaml

from lexmotion.training.arguments import convert
from lexmotion.training.recipe import (
    RECIPES,
    apply_overrides,
    load_recipe,
    parse_arguments,
    run_arguments,
    task_values,
)
from lexmotion.training.tasks import PHASES


def test_flags_override_the_recipe_which_overrides_the_defaults(recipe_file):
    run = parse_arguments(
        "lexcmlp", ["--config", str(recipe_file), "--learning_rate", "2e-4", "--max-grad-norm", "0.5"]
    )
    assert run.task.learning_rate == 2e-4
    assert run.task.max_grad_norm == 0.5
    assert run.task.batch_size == 8  # recipe
    assert run.task.ema_decay == 0.9  # the phase's section
    assert run.task.weight_decay == 0.1  # LexCMLP's default
    assert run.model.motion_config["hidden_size"] == 32


def test_flags_carry_lists_mappings_and_booleans():
    run = parse_arguments(
        "cmmm",
        [
            "--mask_kinds",
            "tubes",
            "blocks",
            "--motion_config",
            '{"hidden_size": 8}',
            "--use_cpu",
            "--progress",
            "false",
        ],
    )
    assert run.task.mask_kinds == ["tubes", "blocks"]
    assert run.model.motion_config == {"hidden_size": 8}
    assert run.task.use_cpu is True
    assert run.task.progress is False


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        ("1e-4", float, 1e-4),
        (5, float, 5.0),
        ("none", float | None, None),
        ("3", int | None, 3),
        (2.0, int, 2),
        ("a,b", list[str], ["a", "b"]),
        ("true", bool, True),
        ("0", bool, False),
    ],
)
def test_yaml_and_command_line_values_become_the_field_type(value, hint, expected):
    result = convert("field", value, hint)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(("value", "hint"), [("x", float), (1.5, int), ("maybe", bool), ("[1]", dict), (None, int)])
def test_a_value_of_the_wrong_type_is_an_error_with_its_name(value, hint):
    with pytest.raises(ValueError, match="field"):
        convert("field", value, hint)


def test_an_unknown_key_names_the_nearest_one():
    with pytest.raises(ValueError, match="'learningrate'.*'learning_rate'"):
        run_arguments("lexmlm", {"learningrate": 1e-3})


def test_an_unknown_key_of_a_recipe_is_not_swallowed(recipe):
    recipe["batchsize"] = 3
    with pytest.raises(ValueError, match="'batchsize'.*'batch_size'"):
        run_arguments("cmmm", task_values(recipe, "cmmm"))


def test_top_level_keys_of_other_phases_are_left_out(recipe):
    recipe["teacher_momentum"] = 0.9
    assert "teacher_momentum" in task_values(recipe, "cmmm")
    assert "teacher_momentum" not in task_values(recipe, "lexmlm")


@pytest.mark.parametrize("section", [False, {"skip": True}])
def test_a_phase_can_be_skipped(recipe, section):
    recipe["phases"]["cmmm"] = section
    assert task_values(recipe, "cmmm") is None
    del recipe["phases"]["lexmlm"]
    assert task_values(recipe, "lexmlm") is None


def test_overrides_take_dotted_keys_with_and_without_phases(recipe):
    changed = apply_overrides(recipe, ["lexcmlp.num_steps=100", "phases.cmmm=false", "seed=3"])
    assert changed["phases"]["lexcmlp"]["num_steps"] == 100
    assert changed["phases"]["cmmm"] is False
    assert changed["seed"] == 3
    assert recipe["seed"] == 0
    assert apply_overrides(recipe, {"lexmlm.learning_rate": "2e-4"})["phases"]["lexmlm"]["learning_rate"] == "2e-4"
    with pytest.raises(ValueError, match="'seed'.*key=value"):
        apply_overrides(recipe, ["seed"])
    with pytest.raises(ValueError, match=r"seed\.more\b.*\b0\b"):
        apply_overrides(recipe, {"seed.more": 1})


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 0},
        {"ema_decay": 2},
        {"num_steps": 0},
        {"captions_per_motion": 4},
        {"bucket_batches": -1},
        {"motion_word_share": 0.4, "text_config": {"head_kind": "vdr"}},
    ],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        run_arguments("lexcmlp", settings)


@pytest.mark.parametrize(
    "settings", [{"encoder_loss_weight": -1}, {"encoder_loss_weight": 0, "decoder_loss_weight": 0}]
)
def test_phase_i_needs_a_loss(settings):
    with pytest.raises(ValueError, match="encoder_loss_weight"):
        run_arguments("lexmlm", settings)


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_every_shipped_recipe_is_valid(name):
    content = load_recipe(name)
    for phase in PHASES:
        values = task_values(content, phase)
        assert values is not None
        run_arguments(phase, values)


def test_shipped_recipes_are_tiny_small_kit_base():
    assert {path.stem for path in RECIPES.glob("*.yaml")} >= {"tiny", "small", "kit", "base"}


def test_unknown_recipes_and_phases_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="'huge'.*tiny"):
        load_recipe("huge")
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump({"phases": {"lexmlp": {}}}))
    with pytest.raises(ValueError, match="'lexmlp'.*lexmlm"):
        load_recipe(path)


def test_only_what_decides_the_numbers_is_compared_on_resume():
    one = run_arguments("lexmlm", {"output_dir": "a", "logging_steps": 1, "seed": 1})
    two = run_arguments("lexmlm", {"output_dir": "b", "logging_steps": 5, "seed": 1})
    three = run_arguments("lexmlm", {"seed": 2})
    assert one.defining() == two.defining()
    assert one.defining() != three.defining()
