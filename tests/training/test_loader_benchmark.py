"""The plain loader of the benchmark is written apart from ours, one row at a time: equal batches check both."""

import pytest
import torch

from lexmotion.evaluation.benchmarks.harness import DisagreementError
from lexmotion.training.benchmarks import loader
from lexmotion.training.tasks import PHASES


@pytest.fixture(scope="module")
def cases():
    return {case.name: case for case in loader.cases(batches=2, batch_size=12, clips=40)}


@pytest.mark.parametrize("phase", PHASES)
def test_batches_are_those_made_row_by_row(cases, phase):
    case = cases[phase]
    batches = case.ours()
    assert case.agree(batches, case.plain()).endswith("equal")
    assert case.work == 24 and len(batches) == 2
    assert not all(torch.equal(batches[0][name], batches[1][name]) for name in batches[0])


def test_a_difference_is_found(cases):
    case = cases["lexmmm"]
    for name in ("motion_values", "token_mask", "decoder_labels"):
        ours, plain = case.ours(), case.plain()
        changed = plain[1][name]
        changed[0, 0] = 1 - changed[0, 0].int() if changed.dtype == torch.bool else changed[0, 0] + 1
        with pytest.raises(DisagreementError):
            case.agree(ours, plain)
    plain = case.plain()
    del plain[0]["bow_weights"]
    with pytest.raises(DisagreementError, match="bow_weights"):
        case.agree(case.ours(), plain)


def test_facts_say_what_sorting_spares_and_what_the_model_takes(cases):
    for phase in ("lexmlm", "cmmm"):
        facts = cases[phase].facts()
        assert 0 < facts["padding, bucket_batches 16"] < facts["padding, bucket_batches 0"] < 1
        assert facts["model rows/s"] > 0 and facts["loader over model"] > 0
