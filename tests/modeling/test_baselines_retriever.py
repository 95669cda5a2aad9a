"""What the baselines share, seen through the smallest retriever there is: means of states, projected."""

import math

import pytest
import torch
from tiny import VOCABULARY, captions, motions
from torch import nn
from transformers import BertConfig, BertForMaskedLM

from lexmotion import losses_lexmotion
from lexmotion.baselines.retriever import Encoding, Pairs, RetrieverConfig, RetrieverModel, pair_contrast

BERT = {
    "model_type": "bert",
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}


class MeanRetriever(RetrieverModel):
    def __init__(self, config):
        super().__init__(config, text_width=None, motion_width=config.latent_size)
        self.text_projection = None if config.is_lexical else nn.Linear(32, config.latent_size)
        self.motion_projection = nn.Linear(config.num_features, config.latent_size)
        self.post_init()

    def encode_text(self, input_ids, attention_mask):
        states = self.text_states(input_ids, attention_mask)
        if self.text_readout is not None:
            return Encoding(self.text_readout(states, attention_mask, self.word_embeddings))
        return Encoding(self.text_projection(states[:, 0]))

    def encode_motion(self, motion_values, motion_attention_mask):
        states = self.motion_projection(motion_values)
        if self.motion_readout is not None:
            return Encoding(self.motion_readout(states, motion_attention_mask, self.word_embeddings))
        return Encoding(states.sum(dim=1) / motion_attention_mask.sum(dim=1, keepdim=True))

    def losses(self, text, motion, pairs, values, mask):
        text, motion = (nn.functional.normalize(encoding.embeds) for encoding in (text, motion))
        return {"contrastive_loss": pair_contrast(text, motion, pairs, self.temperature)}


def config(**fields) -> RetrieverConfig:
    return RetrieverConfig(
        **({"encoder_config": BERT, "num_features": 12, "num_frames": 24, "latent_size": 8} | fields)
    )


def model(**fields) -> MeanRetriever:
    torch.manual_seed(0)
    return MeanRetriever(config(**fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"representation": "sparse"}, "'sparse'"),
        ({"head_kind": "relu"}, "'relu'"),
        ({"temperature": 0.0}, r"temperature\b.*\b0\.0\b"),
        ({"loss_weights": {"contrast": 1.0}}, r"loss_weights.*\bcontrast\b.*contrastive_loss"),
        ({"encoder_config": {"model_type": "gpt2"}}, "'gpt2'"),
        ({"encoder_config": {"model_type": "t5"}, "representation": "lexicon"}, "'t5'.*bert.*distilbert"),
    ],
)
def test_a_wrong_field_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        config(**fields)


def test_contrast_of_two_pairs_by_hand():
    text, motion = torch.eye(2), torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    pairs = Pairs(torch.arange(2), torch.arange(2))
    rows = [math.log(1 + math.exp(-1.2)), math.log(1 + math.exp(-0.4))]  # tau 0.5: logits [[1.2, 0], [1.6, 2]]
    columns = [math.log(1 + math.exp(0.4)), math.log(1 + math.exp(-2.0))]
    expected = 0.5 * (sum(rows) / 2 + sum(columns) / 2)
    assert float(pair_contrast(text, motion, pairs, 0.5)) == pytest.approx(expected, abs=1e-6)


def test_captions_that_say_the_same_are_no_negatives():
    text = torch.nn.functional.normalize(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)))
    motion = text.roll(1, dims=0)
    features = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])  # cosines 0.8, 0.6, 0
    pairs = Pairs(torch.arange(3), torch.arange(3), features)
    logits = text @ motion.T / 0.1
    kept = torch.tensor([[1, 0, 1], [0, 1, 1], [1, 1, 1]], dtype=torch.bool)  # only the first two are alike
    filtered = logits.masked_fill(~kept, -torch.inf)
    diagonal = torch.arange(3)
    expected = 0.5 * sum(nn.functional.cross_entropy(side, diagonal) for side in (filtered, filtered.T))
    torch.testing.assert_close(pair_contrast(text, motion, pairs, 0.1, 0.7), expected)
    everything = 0.5 * sum(nn.functional.cross_entropy(side, diagonal) for side in (logits, logits.T))
    torch.testing.assert_close(pair_contrast(text, motion, pairs, 0.1), everything)


def test_a_motion_with_two_captions_has_two_positives():
    generator = torch.Generator().manual_seed(0)
    text = nn.functional.normalize(torch.randn(3, 4, generator=generator))
    motion = nn.functional.normalize(torch.randn(2, 4, generator=generator))
    pairs = Pairs(torch.tensor([7, 5, 7]), torch.tensor([5, 7]))
    assert pairs.motion_of_text().tolist() == [1, 0, 1]
    logits = text @ motion.T / 0.1
    t2m = nn.functional.cross_entropy(logits, torch.tensor([1, 0, 1]))
    to_text = logits.T.log_softmax(dim=1)
    m2t = -(to_text[0, 1] + 0.5 * (to_text[1, 0] + to_text[1, 2])) / 2
    torch.testing.assert_close(pair_contrast(text, motion, pairs, 0.1), 0.5 * (t2m + m2t))


def test_a_caption_without_its_motion_is_an_error():
    with pytest.raises(ValueError, match=r"\b9\b"):
        Pairs(torch.tensor([5, 9]), torch.tensor([5, 7])).motion_of_text()


def test_processes_together_compute_the_big_batch(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    text, motion, features = (nn.functional.normalize(torch.randn(6, 4, generator=generator)) for _ in range(3))
    ids = torch.arange(6)
    whole = pair_contrast(text, motion, Pairs(ids, ids, features), 0.1, 0.3)
    halves = []
    for rows in (slice(0, 3), slice(3, 6)):
        t, m, i, f = text[rows], motion[rows], ids[rows], features[rows]
        gathered = {id(t): text, id(m): motion, id(i): ids, id(f): features}
        monkeypatch.setattr(losses_lexmotion, "gather", lambda tensor, gathered=gathered: gathered[id(tensor)])
        monkeypatch.setattr(losses_lexmotion, "own_rows", lambda count, rows=rows: rows)
        halves.append(pair_contrast(t, m, Pairs(i, i, f), 0.1, 0.3))
    torch.testing.assert_close(sum(halves) / 2, whole)


@pytest.mark.parametrize("representation", ["dense", "lexicon"])
def test_features_are_what_forward_compares(representation):
    retriever_model = model(representation=representation).eval()
    (ids, mask), (values, frames) = captions(), motions()
    with torch.no_grad():
        output = retriever_model(ids, values, mask, frames)
        text = retriever_model.get_text_features(ids, mask)
        motion = retriever_model.get_motion_features(values, frames)
    assert text.shape == motion.shape == (4, VOCABULARY if representation == "lexicon" else 8)
    assert torch.equal(text, output.text_embeds) and torch.equal(motion, output.motion_embeds)
    expected = nn.functional.normalize(text) @ nn.functional.normalize(motion).T / 0.1
    torch.testing.assert_close(output.logits_per_text, expected)
    assert torch.equal(output.logits_per_motion, output.logits_per_text.T)
    assert output.loss is None


def test_what_stands_in_the_padding_is_not_read():
    retriever_model = model().eval()
    values, frames = motions()
    dirty = torch.where(frames.bool()[..., None], values, torch.nan)
    with torch.no_grad():
        clean, other = (retriever_model.get_motion_features(v, frames) for v in (values, dirty))
    assert torch.equal(clean, other)


def test_the_loss_is_the_weighted_sum_of_its_parts():
    weights = {"contrastive_loss": 0.5, "text_flops_loss": 0.25}
    (ids, mask), (values, frames) = captions(), motions()
    output = model(representation="lexicon", loss_weights=weights)(ids, values, mask, frames, return_loss=True)
    assert output.text_flops_loss > 0 and output.motion_flops_loss > 0
    torch.testing.assert_close(output.loss, 0.5 * output.contrastive_loss + 0.25 * output.text_flops_loss)


def test_clip_ids_say_who_belongs_to_whom():
    (ids, mask), (values, frames) = captions(), motions()
    retriever_model = model().eval()
    order = torch.tensor([2, 0, 3, 1])
    rows = torch.arange(4)
    with torch.no_grad():
        plain = retriever_model(ids, values, mask, frames, return_loss=True).loss
        named = retriever_model(
            ids, values[order], mask, frames[order], text_clip_ids=rows, motion_clip_ids=order, return_loss=True
        ).loss
    torch.testing.assert_close(named, plain)


@pytest.mark.parametrize(
    ("rows", "frames", "width", "message"),
    [
        (2, 10, 12, r"\b4\b.*\b2\b.*text_clip_ids.*motion_clip_ids"),
        (4, 10, 11, r"\(4, 10, 11\)"),
        (4, 25, 12, r"\b25\b.*\b24\b"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(rows, frames, width, message):
    with pytest.raises(ValueError, match=message):
        model()(captions()[0], torch.zeros(rows, frames, width), return_loss=True)


def test_a_frozen_text_encoder_neither_trains_nor_drops(tmp_path):
    ids, mask = captions()
    model(train_text_encoder=False).save_pretrained(tmp_path)
    for frozen in (model(train_text_encoder=False), MeanRetriever.from_pretrained(tmp_path).train()):
        assert frozen.training and not any(parameter.requires_grad for parameter in frozen.text_encoder.parameters())
        assert torch.equal(frozen.text_states(ids, mask), frozen.text_states(ids, mask))
        assert not frozen.text_states(ids, mask).requires_grad
    trained = model().train()
    assert trained.text_states(ids, mask).requires_grad
    assert not torch.equal(trained.text_states(ids, mask), trained.text_states(ids, mask))  # its dropouts are on


def test_active_words_bound_the_vectors():
    retriever_model = model(representation="lexicon").eval()
    retriever_model.set_active_words(range(20, 60))
    embeds = retriever_model.get_motion_features(*motions())
    assert (embeds[:, 20:60] > 0).any() and not embeds[:, :20].any() and not embeds[:, 60:].any()
    assert retriever_model.config.num_active_words == 40
    with pytest.raises(ValueError, match='dense.*representation="lexicon"'):
        model().set_active_words(range(20, 60))


def test_active_words_and_weights_come_back_from_disk(tmp_path):
    saved = model(representation="lexicon", train_text_encoder=False).eval()
    saved.set_active_words(range(20, 60))
    saved.save_pretrained(tmp_path)
    loaded = MeanRetriever.from_pretrained(tmp_path).eval()
    assert torch.equal(saved.get_motion_features(*motions()), loaded.get_motion_features(*motions()))
    assert torch.equal(saved.get_text_features(*captions()), loaded.get_text_features(*captions()))


@pytest.mark.parametrize("representation", ["dense", "lexicon"])
def test_published_text_weights_are_taken_over(tmp_path, representation):
    torch.manual_seed(1)
    masked_lm = BertForMaskedLM(BertConfig(**{name: value for name, value in BERT.items() if name != "model_type"}))
    masked_lm.save_pretrained(tmp_path)
    given = config(representation=representation, encoder_config=BERT | {"vocab_size": 7})
    built = MeanRetriever.from_text_pretrained(str(tmp_path), given, active_ids=range(20, 60)).eval()
    assert given.encoder_config.vocab_size == 7  # the caller's configuration is left as it was
    ids, mask = captions()
    with torch.no_grad():
        expected = masked_lm.eval().bert(ids, mask).last_hidden_state
        logits = masked_lm(ids, mask).logits
        torch.testing.assert_close(built.text_states(ids, mask)[0], expected[0], atol=1e-5, rtol=0)
        if representation == "dense":
            assert built.get_text_features(ids, mask).shape == (4, 8)
            return
        words = logits.masked_fill(mask[..., None] == 0, -torch.inf).amax(dim=1).relu().log1p()
        words[:, :20] = words[:, 60:] = 0.0
        torch.testing.assert_close(built.get_text_features(ids, mask), words, atol=1e-5, rtol=0)
    assert torch.equal(built.motion_readout.head.dense.weight, masked_lm.cls.predictions.transform.dense.weight)


def test_untied_words_are_random_and_as_long_as_the_encoders(tmp_path):
    encoder = BertConfig(**{name: value for name, value in BERT.items() if name != "model_type"})
    torch.manual_seed(0)
    BertForMaskedLM(encoder).save_pretrained(tmp_path / "bert")
    active = torch.arange(3, 43)
    fields = {"representation": "lexicon", "tie_word_embeddings": False}
    untied = MeanRetriever.from_text_pretrained(str(tmp_path / "bert"), config(**fields), active)
    own, table = untied.word_embeddings.detach(), untied.get_input_embeddings().weight.detach()
    assert own.shape == (40, 32)
    assert float(own.std()) == pytest.approx(float(table.std()), rel=0.1)
    assert not any(torch.equal(own[row], table[3 + row]) for row in range(40))
    untied.save_pretrained(tmp_path / "untied")
    again = MeanRetriever.from_pretrained(tmp_path / "untied").eval()
    values, frames = motions()
    vectors = again.get_motion_features(values, frames)
    torch.testing.assert_close(vectors, untied.eval().get_motion_features(values, frames))
    assert not vectors[:, :3].any() and not vectors[:, 43:].any() and vectors[:, 3:43].any()
    with pytest.raises(ValueError, match=r"\b40\b.*active_ids.*from_text_pretrained"):
        again.set_active_words(active)


def test_untied_words_learn():
    untied = model(representation="lexicon", tie_word_embeddings=False).train()
    (ids, mask), (values, frames) = captions(), motions()
    untied(ids, values, mask, frames, return_loss=True).loss.backward()
    assert untied.words.weight.grad.abs().sum() > 0
    assert model(representation="lexicon").words is None
