import pytest
import torch

from lexmotion import lexical_head
from lexmotion.evaluation.benchmarks.harness import DisagreementError
from lexmotion.lexical_projection import max_pooled_projection
from lexmotion.training.benchmarks import train_step
from lexmotion.training.tasks import PHASES, lexmotion_task


@pytest.mark.parametrize("phase", PHASES)
def test_fast_steps_have_the_losses_of_plain_ones(phase, prepared, recipe_file):
    (case,) = train_step.cases(str(prepared), str(recipe_file), phase, steps=3, batch_size=8, tolerance=1e-4)
    ours, plain = case.ours(), case.plain()
    assert len(ours) == 3 and case.work == 3
    assert "3 steps" in case.agree(ours, plain)
    with pytest.raises(DisagreementError, match=r"\de-\d\d.*\b0\.0001\b"):
        case.agree(ours + 1.0, plain)


def test_the_plain_path_is_plain_and_ends(prepared):
    with train_step.plain_path():
        assert lexical_head.max_pooled_projection is train_step.plain_projection
        with lexmotion_task.compact_vocabulary(None, None):  # needs no model: it does nothing
            pass
    assert lexical_head.max_pooled_projection is max_pooled_projection


def test_facts_add_up(prepared, recipe_file):
    (case,) = train_step.cases(str(prepared), str(recipe_file), "lexcmlp", steps=1, batch_size=8)
    facts = case.facts()
    assert 0 < facts["share of matrix products"] < 1
    assert facts["GFLOP/s of the products"] > facts["GFLOP/s of the step"] > 0


def test_the_plain_projection_is_the_fused_one():
    torch.manual_seed(0)
    arguments = torch.randn(3, 5, 4), torch.randn(7, 4), torch.randn(7), torch.rand(3, 5) < 0.5
    torch.testing.assert_close(train_step.plain_projection(*arguments)[0], max_pooled_projection(*arguments)[0])


def test_unknown_phase_is_named(prepared):
    with pytest.raises(ValueError, match="'five'.*lexmlm"):
        train_step.cases(str(prepared), phases="five")
