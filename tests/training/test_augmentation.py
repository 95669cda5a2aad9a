"""How phase iv varies its batches, and which pairs of a batch it does not call wrong."""

import copy
import math

import numpy as np
import pytest
import torch

from lexmotion.losses_lexmotion import cosine, info_nce, share_an_id
from lexmotion.processing.feature_extraction_lexmotion import LexMotionFeatureExtractor
from lexmotion.processing.skeletons import REPRESENTATIONS
from lexmotion.training.batches.captions import Relatives
from lexmotion.training.batches.clips import ClipSampler
from lexmotion.training.batches.corpus import TrainingCorpus
from lexmotion.training.batches.masks import CaptionMasker
from lexmotion.training.batches.mixing import PartMixer
from lexmotion.training.batches.order import BatchRandom, derive_seed

EVERYTHING = {
    "part_mix_probability": 0.6,
    "token_drop_ratio": 0.3,
    "caption_word_dropout": 0.3,
    "feature_noise": 0.1,
    "captions_per_motion": 2,
    "grounding_loss_weight": 0.1,
}
OPTIONS = {
    "part_mix_probability": {"motion_values", "bow_weights", "motion_relative_ids", "mixed_clip_ids", "mixed_shares"},
    "token_drop_ratio": {"token_mask"},
    "caption_word_dropout": {"input_ids"},
}


def collate(trainer, number=0, rank=0, world=1, augment=True):
    whole = trainer.order.batch(number)
    random = BatchRandom(derive_seed("batch", number), len(whole), rank, world, whole)
    return trainer.collate(trainer.train_corpus, random.own(whole), random, augment=augment)


@pytest.fixture
def short_clips(data):
    """Training clips that no view has to cut."""
    corpus = copy.copy(data.corpus("train", 32))
    corpus.lengths = corpus.lengths.clamp(max=40 - torch.arange(len(corpus)) % 7)
    return corpus


# ---- options of a batch


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_changes_its_own_part_of_a_batch_and_off_changes_nothing(make_trainer, option):
    settings = {"grounding_loss_weight": 0.1}
    plain, off, on = (
        collate(make_trainer("lexcmlp", **settings, **more)) for more in ({}, {option: 0.0}, {option: 0.5})
    )
    assert plain.keys() == off.keys() and all(torch.equal(plain[name], off[name]) for name in plain)
    changed = {name for name in on if name not in plain or not torch.equal(on[name], plain[name])}
    assert changed == OPTIONS[option]


def test_evaluation_is_not_varied(make_trainer):
    plain, varied = (
        collate(make_trainer("lexcmlp", **settings), augment=False)
        for settings in ({}, {**EVERYTHING, "captions_per_motion": 1})
    )
    assert plain.keys() == varied.keys() and all(torch.equal(plain[name], varied[name]) for name in plain)


def test_a_varied_batch_of_two_processes_is_that_of_one(make_trainer):
    trainer = make_trainer("lexcmlp", **{**EVERYTHING, "part_mix_probability": 0.2})
    mixed_here = []
    for number in range(5):
        whole = collate(trainer, number)
        parts = [collate(trainer, number, rank, 2) for rank in range(2)]
        mixed_here.append(tuple(bool(part["mixed_shares"].any()) for part in parts))
        for name, tensor in whole.items():
            size = len(tensor) // len(whole["motion_values"])  # captions of a clip
            for rank, part in enumerate(parts):
                own = tensor.unflatten(0, (-1, size))[rank::2].flatten(0, 1)
                if own.ndim > 1:  # each process pads to its own longest row
                    width = min(own.shape[1], part[name].shape[1])
                    assert all((side[:, width:] == -100 * (name == "mlm_labels")).all() for side in (own, part[name]))
                    own, part[name] = own[:, :width], part[name][:, :width]
                assert torch.equal(own, part[name]), name
    assert {(True, False), (False, True)} & set(mixed_here)  # what one draws for its mixed clips, the other does not


def test_a_varied_phase_is_the_same_in_one_sitting_and_in_two(make_trainer, read_log):
    whole = make_trainer("lexcmlp", "whole", save_steps=2, **EVERYTHING)
    whole.train()
    first = make_trainer("lexcmlp", "parts", save_steps=2, **EVERYTHING)
    save = first.save_checkpoint

    def stop():
        save()
        if first.state.step == 4:
            raise KeyboardInterrupt

    first.save_checkpoint = stop
    with pytest.raises(KeyboardInterrupt):
        first.train()
    second = make_trainer("lexcmlp", "parts", save_steps=2, **EVERYTHING)
    second.train()
    assert read_log(second.output_dir) == read_log(whole.output_dir)


@pytest.mark.parametrize(
    ("option", "value"), [("part_mix_probability", 1.5), ("caption_word_dropout", -0.1), ("token_drop_ratio", 1.0)]
)
def test_impossible_shares_are_refused(make_trainer, option, value):
    with pytest.raises(ValueError, match=f"{option}.*{value}"):
        make_trainer("lexcmlp", **{option: value})


# ---- parts of another clip


def test_taken_parts_are_the_partners_while_both_move_and_the_share_says_how_much():
    parts = [[0, 1], [1, 2], [3], [4, 5]]
    mixer = PartMixer(parts, num_features=6, probability=0.7)
    taken = mixer.choose(BatchRandom(0, 400))
    mixed_rows = taken.any(dim=1)
    assert mixed_rows.float().mean().item() == pytest.approx(0.7, abs=0.07)
    assert set(taken[mixed_rows].sum(dim=1).tolist()) == {1, 2}  # up to half of the four
    values, partner_values = torch.zeros(400, 10, 6), torch.ones(400, 8, 6)
    frames = (torch.arange(10) < 10 - torch.arange(400)[:, None] % 5).long()
    partner_frames = (torch.arange(8) < 3 + torch.arange(400)[:, None] % 6).long()
    mixed, shares = mixer(values, frames, partner_values, partner_frames, taken)
    overlap = torch.minimum(frames.sum(dim=1), partner_frames.sum(dim=1))
    for row in range(0, 400, 7):
        columns = sorted({column for part, chosen in zip(parts, taken[row], strict=True) if chosen for column in part})
        expected = torch.zeros(10, 6)
        expected[: overlap[row], columns] = 1.0
        assert torch.equal(mixed[row], expected)
        assert shares[row].item() == pytest.approx(
            float(taken[row].sum()) / 4 * float(overlap[row]) / float(frames[row].sum())
        )
    assert shares.max() <= 0.5 and not shares[~mixed_rows].any()


def test_everyone_has_another_partner_of_the_global_batch():
    partners = [BatchRandom(seed, 7).partners() for seed in range(60)]
    assert all(sorted(places.tolist()) == list(range(7)) for places in partners)
    assert not any((places == torch.arange(7)).any() for places in partners)
    assert len({tuple(places.tolist()) for places in partners}) == 6
    assert torch.equal(BatchRandom(3, 8, 1, 2).partners(), BatchRandom(3, 8).partners()[1::2])


def test_a_mixed_clip_shows_its_partner_turned_as_the_partners_own_row_is(make_trainer, short_clips):
    settings = {"train_corpus": short_clips, "crop_ratio": 1.0, "speed_range": 0.0}
    trainer = make_trainer("lexcmlp", part_mix_probability=1.0, **settings)
    plain = make_trainer("lexcmlp", "plain", **settings)
    batch, original = collate(trainer), collate(plain)
    at = {row: place for place, row in enumerate(original["motion_clip_ids"].tolist())}
    parts = trainer.model.config.motion_config.parts
    for row, partner in enumerate(batch["mixed_clip_ids"].tolist()):
        assert partner != batch["motion_clip_ids"][row]
        theirs, mine = original["motion_values"][at[partner]], original["motion_values"][row]
        frames = min(int(original["motion_attention_mask"][place].sum()) for place in (row, at[partner]))
        mixed = batch["motion_values"][row]
        taken = [part for part in parts if torch.equal(mixed[:frames, part], theirs[:frames, part])]
        assert 1 <= len(taken) <= len(parts) // 2
        rest = [column for column in range(mixed.shape[1]) if not any(column in part for part in taken)]
        assert torch.equal(mixed[:, rest], mine[:, rest]) and torch.equal(mixed[frames:], mine[frames:])


def test_weighted_positives_by_hand():
    logits = torch.tensor([[1.0, 0.0, 0.5], [0.0, 2.0, 0.0]])
    weights = torch.tensor([[0.6, 0.4, 0.0], [0.0, 0.0, 0.0]])
    log_z = math.log(math.e + 1 + math.exp(0.5))
    assert info_nce(logits, weights).item() == pytest.approx(-(0.6 * (1 - log_z) + 0.4 * (0 - log_z)))
    torch.testing.assert_close(info_nce(logits, 3 * weights), info_nce(logits, weights))
    assert torch.equal(info_nce(logits, (weights > 0).float()), info_nce(logits, weights > 0))


def test_a_mixed_motion_is_right_for_both_captions_by_their_shares(make_trainer):
    trainer = make_trainer("lexcmlp", exclude_relatives=False, grounding_loss_weight=0.1)
    batch = collate(trainer)
    batch = {name: tensor for name, tensor in batch.items() if not name.startswith("mlm_")}
    batch["caption_ids"] = torch.arange(8)  # no caption repeats
    model = trainer.model.eval()
    rows, clips = torch.arange(8), batch["motion_clip_ids"]
    mixed = batch | {"mixed_clip_ids": clips.roll(-2), "mixed_shares": torch.tensor([0.4] + 7 * [0.0])}
    with torch.no_grad():
        before = model(**batch)
        output = model(**mixed)
        unmixed = model(**mixed | {"mixed_shares": torch.zeros(8)})
    assert torch.equal(unmixed.contrastive_loss, before.contrastive_loss)
    targets = torch.eye(8)
    targets[0, 0], targets[2, 0] = 0.6, 0.4  # (captions, motions)
    assert torch.equal(targets.sum(dim=0), torch.ones(8))
    log_t2m = output.logits_per_text.log_softmax(dim=1)[rows]
    log_m2t = output.logits_per_motion.log_softmax(dim=1)[rows]
    t2m = -((targets / targets.sum(dim=1, keepdim=True)) * log_t2m).sum(dim=1).mean()
    m2t = -(targets.T * log_m2t).sum(dim=1).mean()
    torch.testing.assert_close(output.contrastive_loss, 0.5 * (t2m + m2t))


def test_words_of_a_mixed_clip_are_those_of_both(make_trainer):
    trainer = make_trainer("lexcmlp", part_mix_probability=1.0, grounding_loss_weight=0.1)
    plain = make_trainer("lexcmlp", "plain", grounding_loss_weight=0.1)
    batch, original = collate(trainer), collate(plain)
    at = {row: place for place, row in enumerate(original["motion_clip_ids"].tolist())}
    partners = torch.tensor([at[row] for row in batch["mixed_clip_ids"].tolist()])
    bags, shares = original["bow_weights"], batch["mixed_shares"][:, None]
    assert shares.min() > 0
    torch.testing.assert_close(batch["bow_weights"], (1 - shares) * bags + shares * bags[partners])
    torch.testing.assert_close(batch["bow_weights"].sum(dim=1), torch.ones(8))


# ---- tokens, features, words


def test_dropped_tokens_are_the_asked_share_of_the_valid_ones_and_unseen(make_trainer):
    trainer = make_trainer("lexcmlp", token_drop_ratio=0.4)
    batch = collate(trainer)
    motion = {name: batch[name] for name in ("motion_values", "motion_attention_mask")}
    tower = trainer.dual_encoder.motion_model.eval()
    with torch.no_grad():
        whole, part = tower(**motion), tower(**motion, token_mask=batch["token_mask"])
    valid, seen = whole.token_attention_mask, part.token_attention_mask
    assert torch.equal(seen, valid & ~batch["token_mask"])
    assert torch.equal((valid & batch["token_mask"]).sum(dim=1), (0.4 * valid.sum(dim=1)).round().long())
    trainer.model.train()
    assert trainer.compute_loss(trainer.model, batch)["loss"].isfinite()


class Plain:
    """Positions as they are."""

    representation, fps, max_frames, min_frames = "positions", 20.0, 40, 8

    def values_from_positions(self, positions, lengths):
        return positions.flatten(2) * (torch.arange(positions.shape[1]) < lengths[:, None])[..., None], lengths


def test_feature_noise_has_the_given_size_and_leaves_padding_alone(short_clips):
    corpus, rows, still = short_clips, torch.arange(8), torch.zeros(8, dtype=torch.bool)
    settings = {"crop_ratio": 1.0, "speed_range": 0.0, "frame_multiple": 16}
    (plain, frames), (noisy, _) = (
        ClipSampler(Plain(), feature_noise=size, **settings).values(corpus, rows, still, BatchRandom(0, 8))
        for size in (0.0, 0.2)
    )
    noise = noisy - plain
    assert noise[frames.bool()].std().item() == pytest.approx(0.2, rel=0.05)
    assert not noise[~frames.bool()].any()
    recorded, _ = ClipSampler(Plain(), feature_noise=0.2, **settings).values(corpus, rows, still, None)
    assert torch.equal(recorded, plain)


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_turning_a_clip_about_the_vertical_changes_nothing_the_model_reads(data, representation):
    """Why there is no yaw augmentation. It would matter to a representation that keeps the world's directions."""
    corpus = data.corpus("train", 32)
    positions = torch.stack([corpus.frames[corpus.offsets[row] :][:30] for row in range(4)])
    yaw = torch.tensor([0.3, 1.0, 2.0, -2.5])
    turn = torch.zeros(4, 3, 3)
    turn[:, 0, 0], turn[:, 0, 2], turn[:, 1, 1] = yaw.cos(), yaw.sin(), 1.0
    turn[:, 2, 0], turn[:, 2, 2] = -yaw.sin(), yaw.cos()
    extractor = LexMotionFeatureExtractor(representation)
    lengths = torch.full((4,), 30)
    values, _ = extractor.values_from_positions(positions, lengths)
    turned, _ = extractor.values_from_positions(torch.einsum("bij,btkj->btki", turn, positions), lengths)
    torch.testing.assert_close(turned, values, atol=2e-3, rtol=1e-3)


def test_dropped_words_are_whole_and_one_word_stays(data):
    tokenizer = data.processor.tokenizer
    masker = CaptionMasker(data.processor.lexicon, tokenizer.mask_token_id, max_length=32)
    texts = data.corpus("train", 32).captions.texts[:16]
    tokens = tokenizer(texts * 100, padding=True, return_tensors="pt")
    ids, attention = tokens["input_ids"], tokens["attention_mask"]
    words_at, word = masker.words(ids, attention)
    draws = BatchRandom(0, len(ids)).uniform(32)
    assert torch.equal(masker.drop(ids, attention, 0.0, draws), ids)
    dropped = masker.drop(ids, attention, 0.25, draws) != ids
    assert not dropped[~words_at].any()
    assert dropped[words_at].float().mean().item() == pytest.approx(0.25, abs=0.02)
    same_word = (word[:, 1:] == word[:, :-1]) & words_at[:, 1:] & words_at[:, :-1]
    assert torch.equal(dropped[:, 1:][same_word], dropped[:, :-1][same_word])
    left = masker.drop(ids, attention, 1.0, draws) == ids
    assert ((left & words_at).long() * (word + 1)).amax(dim=1).min() > 0
    kept = [len(set(numbers[flags].tolist())) for numbers, flags in zip(word, left & words_at, strict=True)]
    assert set(kept) == {1}


# ---- pairs that are no negatives


class Words:
    pad_token_id = 0

    def __call__(self, texts, truncation, max_length):
        return {"input_ids": [[2, 5, 3] for _ in texts]}


def relatives_of(captions):
    """captions: id -> texts; a twin's texts are given as its file has them."""
    swap = {"left": "right", "right": "left"}
    rows = [
        {
            "id": name,
            "base_id": name.removeprefix("M").split("@")[0],
            "fps": 20.0,
            "skeleton": "humanml3d",
            "motion": np.zeros((10, 66), np.float32),
            "captions": texts,
            "mirrored_captions": [" ".join(swap.get(word, word) for word in text.split()) for text in texts],
        }
        for name, texts in captions.items()
    ]
    corpus = TrainingCorpus.from_split(rows, Words())
    relatives = Relatives(corpus)

    def pairs(mirrored, chosen=0):
        everything = torch.arange(len(corpus))
        sides = torch.tensor([bool(side) for side in mirrored])
        texts = relatives.of_texts(everything, sides, corpus.caption_starts[:, None] + chosen)
        return share_an_id(texts, relatives.of_motions(everything, sides)).tolist()

    return pairs


def test_a_twin_is_a_negative_only_where_the_caption_tells_the_side():
    symmetric = relatives_of({"1": ["a man jumps"], "M1": ["somebody hops"], "2": ["he runs"]})
    assert symmetric([0, 0, 0]) == [[True, True, False], [True, True, False], [False, False, True]]
    sided = relatives_of({"1": ["he kicks left"], "M1": ["a right kick"]})
    assert sided([0, 0]) == [[True, False], [False, True]]
    assert sided([1, 0]) == [[True, True], [True, True]]  # the twin's twin is the clip itself
    assert sided([1, 1]) == [[True, False], [False, True]]


def test_sub_ranges_of_a_motion_are_no_negatives_of_it():
    pairs = relatives_of({"1": ["he walks and sits"], "1@2-4": ["he sits"], "12": ["he sits fast"]})
    assert pairs([0, 0, 0]) == [[True, True, False], [True, True, False], [False, False, True]]


def test_a_caption_that_another_motion_has_too_is_no_negative_chosen_or_not():
    pairs = relatives_of({"1": ["he walks", "he strolls"], "2": ["a man goes", "He  walks"], "3": ["he runs"]})
    assert pairs([0, 0, 0]) == [[True, True, False], [False, True, False], [False, False, True]]
    turned = relatives_of({"1": ["he turns left"], "2": ["a turn", "he turns right"]})
    assert turned([0, 0]) == [[True, False], [False, True]]
    assert turned([0, 1]) == [[True, True], [False, True]]


def test_relatives_leave_the_denominators(make_trainer):
    """A caption pushes none of three motions away that it describes. Bare words stay negatives: they differ."""
    trainer = make_trainer("lexcmlp", grounding_loss_weight=0.1)
    batch = {name: tensor for name, tensor in collate(trainer).items() if not name.startswith("mlm_")}
    batch["caption_ids"] = torch.arange(8)
    batch["text_relative_ids"] = torch.tensor([[7]] + [[100 + row] for row in range(7)])
    batch["motion_relative_ids"] = torch.tensor([[7, -1], [7, -2], [-3, 7]] + [[-9, -9]] * 5)
    with torch.no_grad():
        output = trainer.model.eval()(**batch, return_loss=True)
    hidden = torch.zeros(8, 8, dtype=torch.bool)
    hidden[0, 1:3] = True
    scores = output.logits_per_text.masked_fill(hidden, -torch.inf)
    t2m, m2t = -scores.log_softmax(dim=1).diagonal().mean(), -scores.T.log_softmax(dim=1).diagonal().mean()
    torch.testing.assert_close(output.contrastive_loss, 0.5 * (t2m + m2t))
    active = trainer.dual_encoder.motion_model.lexical_head.active_ids
    words, motions = (cosine(vectors[:, active]) for vectors in (batch["bow_weights"], output.motion_embeds))
    scores = words @ motions.T / trainer.model.config.temperature
    t2m, m2t = -scores.log_softmax(dim=1).diagonal().mean(), -scores.T.log_softmax(dim=1).diagonal().mean()
    torch.testing.assert_close(output.grounding_loss, 0.5 * (t2m + m2t))
