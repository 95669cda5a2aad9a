"""One caption or one motion in place of a list, captions and motions that are too long, and loaded motions."""

import logging

import numpy as np
import pytest
import torch
from datasets import Array2D, Dataset, Features, Value
from tiny import text_config

from lexmotion import LexMotionModel, LexMotionMotionConfig, LexMotionProcessor, LexMotionTextModel
from lexmotion.encoding_lexmotion import bind_processor
from lexmotion.evaluation.explain import explain
from lexmotion.evaluation.search import ask
from lexmotion.index.lexmotion_index import LexMotionIndex
from lexmotion.processing.corpora.synthetic_motion import CHANNEL, CHANNELS, forward_kinematics
from lexmotion.processing.feature_extraction_lexmotion import LexMotionFeatureExtractor
from lexmotion.processing.lexicon import Lexicon
from lexmotion.processing.recordings.bvh import save_bvh
from lexmotion.processing.recordings.reading import load_motion

CAPTIONS = ["a person walks forward", "a man jumps twice", "someone kicks with the left leg"]
LONG = " ".join(["walk"] * 200)
POSITIONS = 16


def motion(num_frames, seed=0):
    return torch.randn(num_frames, 22, 3, generator=torch.Generator().manual_seed(seed)).numpy()


@pytest.fixture
def processor(tiny_tokenizer, tmp_path):
    tiny_tokenizer.save_pretrained(tmp_path)
    own = type(tiny_tokenizer).from_pretrained(tmp_path)
    extractor = LexMotionFeatureExtractor(max_frames=32).fit([motion(30, seed) for seed in range(3)], 20.0)
    return LexMotionProcessor(extractor, own, Lexicon.from_corpus(CAPTIONS, own, vocab_size=99))


@pytest.fixture
def model(processor):
    torch.manual_seed(0)
    config = text_config()
    config.encoder_config.max_position_embeddings = POSITIONS
    text = LexMotionTextModel(config)
    text.set_active_words(processor.lexicon.active_ids)
    torch.nn.init.normal_(text.encoder.get_input_embeddings().weight)
    extractor = processor.feature_extractor
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    inputs = {"num_features": extractor.num_features, "parts": extractor.parts, "num_frames": extractor.max_frames}
    model = LexMotionModel.from_towers(text, LexMotionMotionConfig(patch_frames=4, **sizes, **inputs)).eval()
    bind_processor(model, processor)
    return model


@pytest.fixture
def notices(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("lexmotion"), "propagate", True)
    return caplog


def dense(matrix):
    return matrix.toarray()


def test_a_string_is_one_caption(model, processor):
    found = model.encode_text("a man jumps", processor, precision="fp32")
    assert found.shape[0] == 1
    np.testing.assert_array_equal(dense(found), dense(model.encode_text(["a man jumps"], processor, precision="fp32")))


@pytest.mark.parametrize("kind", ["numpy", "torch", "flat"])
def test_an_array_is_one_motion(model, processor, kind):
    one = motion(24)
    given = {"numpy": one, "torch": torch.from_numpy(one), "flat": one.reshape(24, -1)}[kind]
    expected = dense(model.encode_motion([one], 20.0, processor, precision="fp32"))
    np.testing.assert_allclose(dense(model.encode_motion(given, 20.0, processor, precision="fp32")), expected)
    np.testing.assert_allclose(dense(model.encode_motion(given, [20.0], processor, precision="fp32")), expected)


def test_a_batch_is_several_motions(model, processor):
    batch = np.stack([motion(24, 0), motion(24, 1)])
    expected = dense(model.encode_motion(list(batch), 20.0, processor, precision="fp32"))
    np.testing.assert_allclose(dense(model.encode_motion(batch, 20.0, processor, precision="fp32")), expected)


@pytest.fixture
def loaded(tmp_path):
    """A swaying body of 30 frames per second, as read from a BVH file."""
    channels = np.zeros((36, len(CHANNELS)))
    channels[:, CHANNEL["bend"]] = np.sin(np.linspace(0, 3, 36))
    save_bvh(tmp_path / "bow.bvh", forward_kinematics(channels), fps=30)
    return load_motion(tmp_path / "bow.bvh")


def test_a_loaded_motion_is_taken_with_its_rate(model, processor, loaded):
    expected = processor(motion=loaded.model_input, fps=loaded.fps)["motion_values"]
    assert torch.equal(processor(motion=loaded)["motion_values"], expected)
    assert torch.equal(processor(motion=[loaded])["motion_values"], expected)
    assert processor(motion=loaded, fps=15)["motion_values"].shape[1] > expected.shape[1]
    vectors = model.encode_motion(loaded, processor=processor, precision="fp32")
    np.testing.assert_allclose(
        dense(vectors), dense(model.encode_motion([loaded.model_input], loaded.fps, processor, precision="fp32"))
    )


def test_a_ragged_batch_of_datasets_is_several_motions(model, processor):
    motions = [motion(20, 0), motion(28, 1)]
    features = Features({"motion": Array2D((None, 66), "float32"), "fps": Value("float32")})
    rows = {"motion": [one.reshape(len(one), -1).tolist() for one in motions], "fps": [20.0, 20.0]}
    batch = Dataset.from_dict(rows, features=features).with_format("numpy")[:]
    assert batch["motion"].dtype == object
    expected = processor(motion=motions, fps=20.0)["motion_values"]
    assert torch.equal(processor(motion=batch["motion"], fps=batch["fps"])["motion_values"], expected)
    assert model.encode_motion(batch["motion"], batch["fps"], processor).shape[0] == 2


def test_no_caption_is_an_error_with_a_remedy(processor):
    with pytest.raises(ValueError, match="text.*empty list.*at least 1"):
        processor(text=[])


def test_long_captions_are_cut_the_same_everywhere(model, processor, notices):
    expected = dense(model.encode_text([" ".join(["walk"] * (POSITIONS - 2))], processor, precision="fp32"))
    assert not notices.records
    found = dense(model.encode_text([LONG, "a man jumps"], processor, precision="fp32"))
    assert "202" in notices.text and f"first {POSITIONS} " in notices.text
    np.testing.assert_allclose(found[:1], expected, atol=2e-6)
    notices.clear()
    inputs = processor(text=[LONG, "a man jumps"])
    assert inputs["input_ids"].shape[1] == POSITIONS and "202" in notices.text
    with torch.no_grad():
        np.testing.assert_allclose(model.get_text_features(**inputs).text_embeds.numpy(), found, atol=2e-6)
    notices.clear()
    tokens = processor.tokenizer([LONG, "a man jumps"], padding=True, return_tensors="pt")
    with torch.no_grad():
        raw = model.text_model(tokens["input_ids"], tokens["attention_mask"]).text_embeds.numpy()
    np.testing.assert_allclose(raw, found, atol=2e-6)
    assert "202" in notices.text
    index = LexMotionIndex.build(found, ids=["long", "short"], processor=processor, model=model)
    assert next(hit.id for hit in index.search(LONG)) == "long"
    assert explain(model, motion(24), text=LONG, processor=processor, fps=20).score is not None


def test_long_motions_are_cut_with_a_notice(model, processor, notices):
    processor(motion=motion(33), fps=20.0)
    assert not notices.records
    processor(motion=[motion(24), motion(400)], fps=20.0)
    assert "1 of 2" in notices.text and "20.0 s" in notices.text and "1.6 s" in notices.text
    for use in (
        lambda: model.encode_motion([motion(400)], 20.0, processor),
        lambda: explain(model, motion(400), processor=processor, fps=20),
    ):
        notices.clear()
        use()
        assert "20.0 s" in notices.text


def test_a_processor_is_printed_in_a_line(processor):
    for part in (processor, processor.feature_extractor):
        assert len(repr(part)) < 400 and "\n" not in repr(part) and "'positions'" in repr(part)


@pytest.fixture
def index(model, processor):
    texts = ["a person walks forward", "a man jumps twice", "someone kicks with the left leg"]
    return LexMotionIndex.build(model.encode_text(texts, processor), processor=processor, model=model)


@pytest.mark.parametrize("text", ["xyzzy", "xyzzy qwfp", "日 ßü", "🙂 zz"])
def test_a_query_of_unknown_words_finds_nothing_and_names_them(index, text, notices):
    assert index.search(text) == []
    assert index.search([text, "a man jumps"])[0] == [] and index.search([text, "a man jumps"])[1]
    named = text.removeprefix("🙂 ").split()
    assert all(repr(word) in notices.text for word in named) and "nothing is found" in notices.text
    answer = ask(index, text)
    assert answer.hits == [] and all(repr(word) in answer.to_dict()["notes"][0] for word in named)


def test_unknown_words_beside_known_ones_are_named(index, notices):
    assert index.search("a man jumps like a xyzzy")
    assert "'xyzzy'" in notices.text and "jumps" not in notices.text.partition("unknown words")[2].partition(";")[0]
    assert index.notes("a man cartwheels, kicks twice and is walking 360") == []
    assert "202" in index.notes(LONG)[0] and str(POSITIONS) in index.notes(LONG)[0]


def test_the_words_of_a_query_by_their_pieces(index):
    known, unknown = index._words.read("Cartwheel, walksing jumpss kicks2 s é A qs 7 a")
    assert (known, unknown) == (["Cartwheel", "walksing", "jumpss", "A", "a"], ["kicks2", "s", "é", "qs"])
