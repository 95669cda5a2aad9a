import math

import pytest
import torch

from lexmotion import losses_lexmotion as losses


def test_info_nce_by_hand():
    logits = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    expected = 0.5 * (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-2)))
    assert losses.info_nce(logits, torch.eye(2).bool()).item() == pytest.approx(expected)


def unit(*shape, seed=0):
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_distillation_is_the_divergence_in_both_directions():
    text, motion, teacher_text, teacher_motion = (unit(3, 5, seed=seed) for seed in range(4))
    student, teacher = text @ motion.T / 0.1, teacher_text @ teacher_motion.T / 0.1

    def divergence(wanted, found):
        p = wanted.softmax(dim=1)
        return (p * (p.log() - found.log_softmax(dim=1))).sum(dim=1).mean()

    expected = 0.5 * (divergence(teacher, student) + divergence(teacher.T, student.T))
    found = losses.distillation(text, motion, teacher_text, teacher_motion, 0.1)
    torch.testing.assert_close(found, expected)
    assert losses.distillation(text, motion, text, motion, 0.1).item() == pytest.approx(0.0, abs=1e-6)


def test_distillation_trains_the_student_alone():
    parts = [unit(3, 5, seed=seed).requires_grad_() for seed in range(4)]
    losses.distillation(*parts, 0.1).backward()
    assert [part.grad is not None for part in parts] == [True, True, False, False]


def test_two_positives_share_the_target():
    logits = torch.tensor([[1.0, 0.0, 0.0]])
    log_z = math.log(math.e + 2)
    expected = -0.5 * ((1 - log_z) + (0 - log_z))
    assert losses.info_nce(logits, torch.tensor([[True, True, False]])).item() == pytest.approx(expected)


def test_ignored_pairs_leave_the_denominator():
    logits = torch.tensor([[2.0, 5.0, 0.0]])
    positives, ignored = torch.tensor([[True, False, False]]), torch.tensor([[True, True, False]])
    expected = math.log(1 + math.exp(-2))
    assert losses.info_nce(logits, positives, ignored).item() == pytest.approx(expected)


def test_a_query_without_a_positive_counts_nothing():
    logits = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    positives = torch.tensor([[True, False], [False, False]])
    assert losses.info_nce(logits, positives).item() == pytest.approx(math.log(1 + math.exp(-2)))


def test_hard_negatives_weigh_more():
    logits, positives = torch.tensor([[1.0, 2.0, -2.0]]), torch.tensor([[True, False, False]])
    assert losses.info_nce(logits, positives, hard_negative_beta=0.5) > losses.info_nce(logits, positives)
    same = torch.tensor([[1.0, 0.5, 0.5]])
    torch.testing.assert_close(
        losses.info_nce(same, positives, hard_negative_beta=0.5), losses.info_nce(same, positives)
    )


def test_identical_captions_are_right_for_each_others_motions():
    positives = losses.caption_positives(torch.tensor([1, 2, 3]), torch.tensor([1, 2, 3]), torch.tensor([7, 7, 9]))
    assert positives.tolist() == [[True, True, False], [True, True, False], [False, False, True]]


def test_several_captions_of_one_motion():
    positives = losses.caption_positives(torch.tensor([1, 1, 2]), torch.tensor([1, 2]), torch.tensor([4, 5, 6]))
    assert positives.tolist() == [[True, False], [True, False], [False, True]]


def test_flops_by_hand():
    assert losses.flops(torch.tensor([[1.0, 0.0], [3.0, 1.0]])).item() == pytest.approx(2.0**2 + 0.5**2)


def test_cosine_of_an_empty_vector_is_zero():
    assert losses.cosine(torch.zeros(1, 3)).tolist() == [[0.0, 0.0, 0.0]]


def test_masked_mse_counts_marked_vectors_of_all_parts():
    first = (torch.tensor([[1.0], [5.0]]), torch.tensor([[3.0], [100.0]]), torch.tensor([True, False]))
    second = (torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([True]))
    assert losses.masked_mse([first]).item() == 4.0
    assert losses.masked_mse([first, second]).item() == pytest.approx((4 + 0 + 4) / 3)


def test_bag_of_words_by_hand():
    log_p = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.3, 0.5]]))
    weights = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]])
    assert losses.bag_of_words(log_p, weights).item() == pytest.approx(-0.5 * (math.log(0.5) + math.log(0.25)))
