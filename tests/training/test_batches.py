from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lexmotion.training.batches.captions import BagOfWords, choose_captions
from lexmotion.training.batches.clips import ClipSampler
from lexmotion.training.batches.corpus import CaptionTable, TrainingCorpus
from lexmotion.training.batches.masks import CaptionMasker, MotionMasker, valid_tokens
from lexmotion.training.batches.order import BatchOrder, BatchRandom, derive_seed

VOCABULARY = 40
SPECIAL = {0, 1, 2, 3, 4}  # pad, unk, cls, sep, mask
SUBWORDS = {30, 31, 32}
INACTIVE = {10, 11, 31}


def toy_lexicon():
    def mask(ids):
        array = np.zeros(VOCABULARY, dtype=bool)
        array[list(ids)] = True
        return array

    active = ~mask(SPECIAL | INACTIVE)
    content = active & ~mask({5, 6})
    return SimpleNamespace(
        active=active,
        content=content,
        content_tokens=lambda ids: content[ids],
        special=mask(SPECIAL),
        subword=mask(SUBWORDS),
        stop_word=mask({5, 6}),
        idf=np.linspace(1, 5, VOCABULARY).astype(np.float32),
    )


def toy_captions(rows=512, length=14, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 30, (rows, length), generator=generator)
    pieces = torch.rand(rows, length, generator=generator) < 0.2
    ids[pieces] = torch.randint(30, 33, (int(pieces.sum()),), generator=generator)
    ids[:, 0] = 2
    ids[:, 1].clamp_(max=29)
    lengths = torch.randint(5, length + 1, (rows,), generator=generator)
    mask = torch.arange(length) < lengths[:, None]
    ids[torch.arange(rows), lengths - 1] = 3
    return ids.masked_fill(~mask, 0), mask.long()


# ---- order and randomness


def test_every_epoch_is_another_permutation_without_repeats():
    order = BatchOrder(torch.ones(10), 3, seed=0)
    epochs = [torch.cat([order.rows(epoch * 3 + number) for number in range(3)]) for epoch in range(2)]
    assert all(len(rows.unique()) == 9 for rows in epochs)
    assert not torch.equal(*epochs)


def test_a_batch_depends_on_its_number_only():
    late, fresh = BatchOrder(torch.ones(50), 8, seed=1), BatchOrder(torch.ones(50), 8, seed=1)
    for number in range(20):
        late.rows(number)
    assert torch.equal(late.rows(13), fresh.rows(13))
    assert not torch.equal(late.rows(13), BatchOrder(torch.ones(50), 8, seed=2).rows(13))


def test_processes_share_the_global_batch():
    whole = BatchOrder(torch.ones(50), 8, seed=1)
    parts = [BatchOrder(torch.ones(50), 8, seed=1, rank=rank, world=2) for rank in range(2)]
    for number in (0, 7, 30):
        assert torch.equal(torch.stack([part.rows(number) for part in parts], 1).flatten(), whole.rows(number))
    assert torch.equal(BatchRandom(3, 8).uniform(2)[1::2], BatchRandom(3, 8, 1, 2).uniform(2))
    assert torch.equal(BatchRandom(3, 8).normal(2)[::2], BatchRandom(3, 8, 0, 2).normal(2))


def test_small_splits_and_too_many_processes():
    assert BatchOrder(torch.ones(4), 100, seed=0).batch_size == 4
    assert BatchOrder(torch.ones(5), 100, seed=0, world=2).batch_size == 4
    with pytest.raises(ValueError, match=r"batch_size.*\b1\b.*\b2\b"):
        BatchOrder(torch.ones(1), 8, seed=0, world=2)


ROWS = st.integers(1, 90)
ORDERS = {
    "batch_size": st.integers(1, 40),
    "world": st.integers(1, 4),
    "buckets": st.integers(0, 6),
    "seed": st.integers(0, 5),
}


@settings(max_examples=60, deadline=None)
@given(lengths=ROWS.flatmap(lambda count: st.lists(st.integers(1, 9), min_size=count, max_size=count)), **ORDERS)
def test_an_epoch_holds_every_row_once_whatever_the_buckets(lengths, batch_size, world, buckets, seed):
    assume(min(batch_size, len(lengths)) >= world)
    lengths = torch.tensor(lengths)
    orders = [BatchOrder(lengths, batch_size, seed, rank, world, buckets) for rank in range(world)]
    size = orders[0].batch_size
    plain, whole = (BatchOrder(lengths, size, seed, bucket_batches=number) for number in (0, buckets))
    count = plain.batches_per_epoch
    for epoch in range(2):
        numbers = range(epoch * count, (epoch + 1) * count)
        batches = [torch.stack([order.rows(number) for order in orders], dim=1).flatten() for number in numbers]
        # the processes share the batch of one process that has all of it
        assert all(torch.equal(batch, whole.rows(number)) for batch, number in zip(batches, numbers, strict=True))
        seen = torch.cat(batches)
        assert len(seen.unique()) == len(seen) == count * size
        # bucketing changes no pool's rows: what is dropped and what comes when stays the permutation's
        for start in range(0, count, max(buckets, 1)):
            pool = numbers[start : start + max(buckets, 1)]
            mine = torch.cat([whole.rows(number) for number in pool])
            theirs = torch.cat([plain.rows(number) for number in pool])
            assert torch.equal(mine.sort().values, theirs.sort().values)
            if buckets > 1:  # batches of a pool follow one another in length
                spans = sorted(tuple(lengths[whole.rows(number)].aminmax()) for number in pool)
                assert all(low[1] <= high[0] for low, high in zip(spans, spans[1:], strict=False))


@settings(max_examples=30, deadline=None)
@given(numbers=st.lists(st.integers(0, 40), min_size=1, max_size=6), **ORDERS)
def test_a_bucketed_batch_depends_on_its_number_only(numbers, batch_size, world, buckets, seed):
    lengths = torch.arange(50) % 7
    assume(batch_size >= world)
    used = BatchOrder(lengths, batch_size, seed, 0, world, buckets)
    for number in numbers:
        assert torch.equal(used.rows(number), BatchOrder(lengths, batch_size, seed, 0, world, buckets).rows(number))


def test_buckets_spare_padding_and_come_in_random_order():
    lengths = torch.randint(1, 100, (640,), generator=torch.Generator().manual_seed(0))
    padded = []
    for buckets in (0, 1, 4, 10):
        order = BatchOrder(lengths, 16, seed=0, bucket_batches=buckets)
        batches = torch.stack([lengths[order.rows(number)] for number in range(40)])
        padded.append(1 - batches.sum().item() / (16 * batches.amax(dim=1)).sum().item())
    assert padded[0] == padded[1] > 0.4 > 0.2 > padded[2] > padded[3]
    longest = batches.amax(dim=1).view(4, 10)
    assert all(row.tolist() != sorted(row.tolist()) for row in longest)
    epochs = [{tuple(sorted(order.rows(epoch * 40 + number).tolist())) for number in range(40)} for epoch in range(2)]
    assert not epochs[0] & epochs[1]


def test_seeds_differ_by_every_part():
    assert derive_seed(1, "a") == derive_seed(1, "a")
    assert len({derive_seed(1, "a"), derive_seed(2, "a"), derive_seed(1, "b"), derive_seed("1a")}) == 4
    assert 0 <= derive_seed("x") < 2**63


# ---- captions


@pytest.mark.parametrize("overlap", [True, False])
def test_masks_hide_whole_active_words_at_the_given_ratio(overlap):
    lexicon = toy_lexicon()
    ids, attention = toy_captions()
    masker = CaptionMasker(lexicon, 4, 0.3, 0.5, overlap, max_length=16)
    encoder, decoder = masker(ids, attention, BatchRandom(0, len(ids)))
    for masked in (encoder, decoder):
        asked = masked.labels != -100
        assert not asked[:, 0].any()
        assert not asked[attention == 0].any()
        assert not asked[torch.as_tensor(lexicon.special)[ids]].any()
        assert torch.as_tensor(lexicon.active)[masked.labels[asked]].all()
        assert torch.equal(masked.labels[asked], ids[asked])
        assert torch.equal(masked.input_ids[~asked], ids[~asked])
        inside = torch.as_tensor(lexicon.subword)[ids[:, 1:]] & attention[:, 1:].bool()
        assert torch.equal(asked[:, 1:][inside], asked[:, :-1][inside])  # a piece goes with the piece before it
    starts = attention.bool() & ~torch.as_tensor(lexicon.special | lexicon.subword)[ids]
    pieces = torch.as_tensor(lexicon.subword)[ids]
    # words that can be masked: no inactive piece
    words = 0
    for row, mask in zip(ids.tolist(), attention.tolist(), strict=True):
        current, active = None, []
        for token, real in zip(row, mask, strict=True):
            if not real or token in SPECIAL:
                continue
            if token not in SUBWORDS or current is None:
                active.append(True)
                current = token
            active[-1] &= token not in INACTIVE
        words += sum(active)
    for masked, ratio in ((encoder, 0.3), (decoder, 0.5)):
        hidden = ((masked.labels != -100) & (starts | (pieces & ~starts & False))).sum().item()
        assert hidden / words == pytest.approx(ratio, abs=0.03)
    both = (encoder.labels != -100) & (decoder.labels == -100)
    assert bool(both.any()) is not overlap
    shares = [
        (encoder.input_ids[encoder.labels != -100] == 4).float().mean().item(),
        (encoder.input_ids == encoder.labels)[encoder.labels != -100].float().mean().item(),
    ]
    assert shares == pytest.approx([0.8, 0.1], abs=0.03)
    assert (decoder.input_ids[decoder.labels != -100] == 4).all()


def test_every_caption_loses_at_least_one_word_and_the_draw_is_repeatable():
    ids, attention = toy_captions(64)
    masker = CaptionMasker(toy_lexicon(), 4, 0.05, 0.05, max_length=16)
    (one, _), (two, _), (other, _) = (masker(ids, attention, BatchRandom(seed, 64)) for seed in (0, 0, 1))
    maskable = torch.as_tensor(toy_lexicon().active)[ids] & (attention == 1)
    # rows whose active tokens all belong to broken words cannot be masked
    assert ((one.labels != -100).any(dim=1) | (maskable.sum(1) < 4)).all()
    assert torch.equal(one.input_ids, two.input_ids)
    assert not torch.equal(one.labels, other.labels)


def test_idf_weighting_prefers_rare_words():
    lexicon = toy_lexicon()
    ids = torch.tensor([[2, 5, 12, 28, 29, 3]]).repeat(2000, 1)
    attention = torch.ones_like(ids)
    lexicon.idf[[5, 12]] = 0.1
    uniform, idf = (
        (CaptionMasker(lexicon, 4, 0.25, 0.25, weighting=name, max_length=6)(ids, attention, BatchRandom(0, 2000))[0])
        for name in ("uniform", "idf")
    )
    rare_first = [((item.labels == 28) | (item.labels == 29)).any(1).float().mean().item() for item in (uniform, idf)]
    assert rare_first[0] == pytest.approx(0.5, abs=0.05)
    assert rare_first[1] > 0.9


def test_content_weighting_masks_content_words_only_and_evenly():
    lexicon = toy_lexicon()
    lexicon.content[list(SUBWORDS)] = False  # as in a lexicon that does not count word pieces
    ids = torch.tensor([[2, 5, 12, 28, 6, 20, 30, 3]]).repeat(4000, 1)  # stop, content, content, stop, cut word
    attention = torch.ones_like(ids)
    masker = CaptionMasker(lexicon, 4, 0.5, 0.5, weighting="content", max_length=8)
    for masked in masker(ids, attention, BatchRandom(0, 4000)):
        asked = masked.labels != -100
        assert set(masked.labels[asked].tolist()) == {12, 28}
        assert (masked.labels == 12).float().sum() / asked.sum() == pytest.approx(0.5, abs=0.03)
        assert (asked.sum(dim=1) == 1).all()
    for masked in masker(ids[:, [0, 1, 4, 7]], attention[:, :4], BatchRandom(0, 4000)):
        assert (masked.labels == -100).all()  # no content word


def test_impossible_mask_ratios_are_refused():
    with pytest.raises(ValueError, match="mask_weighting.*'rare'.*content"):
        CaptionMasker(toy_lexicon(), 4, weighting="rare")
    with pytest.raises(ValueError, match=r"ratio.*\b0\.0\b.*\b0\.5\b"):
        CaptionMasker(toy_lexicon(), 4, 0.0)
    with pytest.raises(ValueError, match=r"decoder_ratio.*\b0\.3\b.*encoder_ratio.*\b0\.5\b"):
        CaptionMasker(toy_lexicon(), 4, 0.5, 0.3)


# ---- motion tokens


def test_motion_masks_hide_their_share_of_the_valid_tokens():
    frames = torch.arange(64) < torch.randint(16, 65, (600,), generator=torch.Generator().manual_seed(0))[:, None]
    valid = valid_tokens(frames.long(), 8, 5)
    masker = MotionMasker(8, 5)
    (light, heavy), kind = masker(valid, [0.5, 0.75], BatchRandom(0, 600))
    assert not (light & ~valid).any()
    assert not (light & ~heavy).any()
    assert torch.equal(light.sum(1), (0.5 * valid.sum(1)).round().long())
    assert torch.equal(heavy.sum(1), (0.75 * valid.sum(1)).round().long())
    assert torch.bincount(kind, minlength=3).float().div(600).sub(1 / 3).abs().max() < 0.06


def test_tubes_hide_parts_for_all_time_and_blocks_all_parts_for_some_windows():
    valid = torch.ones(300, 14 * 5, dtype=torch.bool)
    for kind, dim, counts in (("tubes", 1, {1, 2, 3}), ("blocks", 2, {2, 3, 4, 5, 6})):
        (mask,), _ = MotionMasker(14, 5, [kind])(valid, [0.65], BatchRandom(0, 300))
        full = mask.view(300, 14, 5).all(dim=dim).sum(dim=1)
        assert set(full.tolist()) >= counts
        assert full.min() >= min(counts)
        assert torch.equal(mask.sum(1), torch.full((300,), round(0.65 * 70)))
    (mask,), _ = MotionMasker(14, 5, ["random"])(valid, [0.65], BatchRandom(0, 300))
    assert mask.float().mean(dim=0).sub(0.65).abs().max() < 0.12


def test_one_valid_window_still_leaves_something_to_see():
    valid = torch.zeros(9, 3 * 5, dtype=torch.bool)
    valid[:, :5] = True
    (mask,), _ = MotionMasker(3, 5)(valid, [0.95], BatchRandom(0, 9))
    assert (mask.sum(1) == 4).all()
    with pytest.raises(ValueError, match="'cubes'.*random, tubes, blocks"):
        MotionMasker(3, 5, ["cubes"])


def test_valid_tokens_need_a_quarter_of_real_frames_but_the_first_window():
    frames = torch.arange(24) < torch.tensor([1, 9, 10, 24])[:, None]
    valid = valid_tokens(frames.long(), 8, 1)
    assert valid.tolist() == [[True, False, False], [True, False, False], [True, True, False], [True, True, True]]


# ---- clips


class PlainExtractor:
    """Positions as they are."""

    representation = "positions"
    fps, max_frames, min_frames = 20.0, 40, 8

    def values_from_positions(self, positions, lengths):
        mask = torch.arange(positions.shape[1]) < lengths[:, None]
        return positions.flatten(2) * mask[..., None], lengths


class ToyTokenizer:
    pad_token_id = 0

    def __call__(self, texts, truncation, max_length):
        return {"input_ids": [[2, *(5 + len(word) for word in text.split()), 3][:max_length] for text in texts]}


def toy_corpus(lengths=(60, 30, 9), fps=20.0, captions=(3, 1, 2)):
    rows = []
    for number, (length, count) in enumerate(zip(lengths, captions, strict=True)):
        time = np.arange(length, dtype=np.float32)[:, None]
        texts = [f"caption {'x' * (variant + 1)} of {number} left" for variant in range(count)]
        rows.append(
            {
                "id": f"{number:03d}",
                "base_id": f"{number:03d}",
                "fps": fps,
                "skeleton": "humanml3d",
                "motion": np.broadcast_to(100 * number + time, (length, 66)),
                "captions": texts,
                "mirrored_captions": [text.replace("left", "right") for text in texts],
            }
        )
    return TrainingCorpus.from_split(rows, ToyTokenizer())


def test_clips_without_augmentation_are_the_start_of_the_recording():
    corpus = toy_corpus()
    rows = torch.tensor([2, 0])
    values, mask = ClipSampler(PlainExtractor(), frame_multiple=16).values(
        corpus, rows, torch.zeros(2, dtype=torch.bool), None
    )
    assert values.shape == (2, 48, 66)
    assert mask.sum(1).tolist() == [9, 40]
    assert values[0, :9, 0].tolist() == [200.0 + frame for frame in range(9)]
    assert values[1, :40, 5].tolist() == [float(frame) for frame in range(40)]
    assert (values[0, 9:] == 0).all()


@pytest.mark.parametrize(("fps", "multiple"), [(20.0, 1), (20.0, 16), (40.0, 8), (15.0, 4)])
def test_windows_are_those_of_the_clip_as_recorded(fps, multiple):
    corpus = toy_corpus(lengths=(60, 30, 9, 41, 16), captions=(1,) * 5, fps=fps)
    sampler = ClipSampler(PlainExtractor(), frame_multiple=multiple)
    _, mask = sampler.values(corpus, torch.arange(5), torch.zeros(5, dtype=torch.bool), None)
    assert sampler.windows(corpus).tolist() == [-(-length // multiple) for length in mask.sum(1).tolist()]


def test_crop_and_speed_stay_inside_the_clip_and_move_in_time():
    corpus = toy_corpus()
    rows = torch.arange(3).repeat(200)
    still = torch.zeros(600, dtype=torch.bool)
    sampler = ClipSampler(PlainExtractor(), crop_ratio=0.5, speed_range=0.1)
    values, mask = sampler.values(corpus, rows, still, BatchRandom(0, 600))
    lengths = mask.sum(1)
    time = values[:, :, 0] - 100.0 * rows[:, None] * mask
    last = time.gather(1, lengths[:, None] - 1).squeeze(1)
    assert (last <= corpus.lengths[rows] - 1 + 1e-3).all()
    assert (time[:, 0] >= 0).all()
    assert (lengths >= 8).all() and (lengths <= 40).all()
    step = (last - time[:, 0]) / (lengths - 1)
    assert step.min() >= 0.9 - 1e-3 and step.max() <= 1.1 + 1e-3
    assert time[rows == 0, 0].max() > 10  # long clips are cut at a random place
    share = (last - time[:, 0] + 1) / corpus.lengths[rows]
    assert share[rows == 1].min() >= 0.5 - 0.05
    again, _ = sampler.values(corpus, rows, still, BatchRandom(0, 600))
    assert torch.equal(values, again)


def test_other_frame_rates_are_resampled():
    corpus = toy_corpus(fps=40.0)
    values, mask = ClipSampler(PlainExtractor()).values(
        corpus, torch.tensor([0]), torch.zeros(1, dtype=torch.bool), None
    )
    assert mask.sum() == 30
    assert values[0, :4, 0].tolist() == [0.0, 2.0, 4.0, 6.0]


def test_mirroring_turns_motion_and_caption_together():
    corpus = toy_corpus()
    rows, mirrored = torch.tensor([1, 1]), torch.tensor([False, True])
    values, _ = ClipSampler(PlainExtractor()).values(corpus, rows, mirrored, None)
    assert torch.equal(values[1].view(-1, 22, 3)[:, :, 0], -values[0].view(-1, 22, 3)[:, :, 0])
    captions = choose_captions(corpus, rows, 1, None).squeeze(1)
    ids, attention, hashes = corpus.captions.batch(captions, mirrored)
    assert ids[0, -2] == 5 + len("left") and ids[1, -2] == 5 + len("right")
    assert attention.all() and hashes[0] != hashes[1]


def test_captions_of_a_clip_rotate_and_repeat():
    corpus = toy_corpus()
    rows = torch.arange(3).repeat(300)
    chosen = choose_captions(corpus, rows, 2, BatchRandom(0, 900))
    assert ((chosen >= corpus.caption_starts[rows, None]).all()) and (
        chosen < (corpus.caption_starts + corpus.caption_counts)[rows, None]
    ).all()
    assert (chosen[rows == 1] == 3).all()
    assert (chosen[rows != 1][:, 0] != chosen[rows != 1][:, 1]).all()
    assert torch.bincount(chosen[rows == 0][:, 0]).min() > 60


def test_jitter_is_noise_of_the_given_size():
    corpus = toy_corpus()
    rows, still = torch.tensor([0]), torch.zeros(1, dtype=torch.bool)
    plain = ClipSampler(PlainExtractor(), crop_ratio=1.0, speed_range=0.0)
    noisy = ClipSampler(PlainExtractor(), crop_ratio=1.0, speed_range=0.0, position_jitter=0.1)
    one, two = (sampler.positions(corpus, rows, still, BatchRandom(0, 1))[0] for sampler in (plain, noisy))
    assert (two - one).std().item() == pytest.approx(0.1, rel=0.05)


# ---- words and corpora


def test_bags_weigh_words_by_share_of_captions_and_idf():
    corpus = toy_corpus()
    lexicon = toy_lexicon()
    bag = BagOfWords(corpus, lexicon)
    weights = bag.batch(torch.tensor([0, 1, 2]), torch.tensor([False, True, False]))
    assert weights.shape == (3, VOCABULARY)
    assert torch.allclose(weights.sum(1), torch.ones(3))
    # clip 0: caption(12) of(7) 0(6: stop word) left(9) in all three captions, x xx xxx (6 stop, 7, 8) in one each
    expected = {12: 1.0, 7: 1.0, 9: 1.0, 8: 1 / 3}
    total = sum(share * lexicon.idf[word] for word, share in expected.items())
    for word, share in expected.items():
        assert weights[0, word].item() == pytest.approx(share * lexicon.idf[word] / total, rel=1e-5)
    assert (weights[0] > 0).sum() == 4
    assert weights[1, 10] == 0  # `right` is not active
    assert bag.words_of()[0] == [7, 8, 9, 12]


def test_a_corpus_refuses_mixed_skeletons_and_emptiness():
    with pytest.raises(ValueError, match="caption"):
        TrainingCorpus.from_split([], ToyTokenizer())
    with pytest.raises(ValueError, match=r"mirrored.*\b0\b.*\b1\b"):
        CaptionTable.build(["a"], [], ToyTokenizer(), 8)
