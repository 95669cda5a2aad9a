import numpy as np
import pytest
import torch
from datasets import Dataset

from lexmotion import LexMotionModel, encoding_lexmotion
from lexmotion.evaluation.encoding.vectors import encode_dataset, sentence_vectors, split_motions


@pytest.fixture
def split(motions, captions):
    """A prepared split: motions flattened joint by joint, each with a frame rate of its own."""
    return Dataset.from_dict(
        {
            "id": [f"{number:06d}" for number in range(len(motions))],
            "motion": [motion.reshape(len(motion), -1) for motion in motions],
            "fps": np.float32([20.0, 30.0, 20.0, 30.0]),
            "captions": [[caption, "a person walks"] for caption in captions],
        }
    )


@torch.no_grad()
def dense(model, processor, motions, fps):
    return model.motion_model(**processor.feature_extractor(motions, fps=fps)).motion_embeds.numpy()


def test_motions_become_what_forward_gives(model, processor, motions):
    found = model.encode_motion(motions, 20.0, processor, batch_size=3, precision="fp32")
    expected = dense(model, processor, motions, 20.0)
    assert found.has_canonical_format and found.nnz and np.array_equal(found.toarray() > 0, expected > 0)
    np.testing.assert_allclose(found.toarray(), expected, atol=2e-6)
    tower = model.motion_model.encode_motion(motions, 20.0, processor.feature_extractor, batch_size=3)
    assert (tower != model.encode_motion(motions, 20.0, processor, batch_size=3)).nnz == 0


def test_each_motion_has_its_own_frame_rate(model, processor, motions):
    rates = [20.0, 30.0, 20.0, 30.0]
    found = model.encode_motion(motions, rates, processor, batch_size=2, precision="fp32").toarray()
    for row, (motion, rate) in enumerate(zip(motions, rates, strict=True)):
        np.testing.assert_allclose(found[row], dense(model, processor, [motion], rate)[0], atol=2e-6)
    with pytest.raises(ValueError, match=r"\b3\b.*\b4\b"):
        model.encode_motion(motions, rates[:3], processor)


def test_a_split_is_read_window_by_window(model, processor, motions, split, monkeypatch):
    expected = model.encode_motion(motions, [20.0, 30.0, 20.0, 30.0], processor, precision="fp32").toarray()
    monkeypatch.setattr(encoding_lexmotion, "MOTION_WINDOW", 3)
    read = []
    get = Dataset.__getitem__
    monkeypatch.setattr(Dataset, "__getitem__", lambda self, rows: read.append(rows) or get(self, rows))
    found = model.encode_motion(split, processor=processor, precision="fp32").toarray()
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert read == [slice(0, 3), slice(3, 4)]
    with pytest.raises(ValueError, match=r"\bfps\b.*split"):
        model.encode_motion(split, 20.0, processor)


def test_motions_in_bf16_are_near(model, processor, motions):
    found, expected = (
        model.encode_motion(motions, 20.0, processor, precision=precision).toarray() for precision in ("bf16", "fp32")
    )
    assert not np.array_equal(found, expected)
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_nothing_to_encode_is_an_empty_matrix(model, processor):
    words = len(processor.tokenizer)
    assert model.encode_text([], processor).shape == model.encode_motion([], 20.0, processor).shape == (0, words)


def test_the_processor_beside_the_weights_is_found(model, processor, motions, captions, tmp_path):
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = LexMotionModel.from_pretrained(tmp_path)
    assert (loaded.encode_text(captions) != model.encode_text(captions, processor)).nnz == 0
    assert (loaded.encode_motion(motions, 20.0) != model.encode_motion(motions, 20.0, processor)).nnz == 0
    (tmp_path / "tokenizer.json").unlink()  # they are read once
    (tmp_path / "processor_config.json").unlink()
    assert loaded.encode_text(captions).nnz and loaded.encode_motion(motions, 20.0).nnz


def test_a_split_in_word_space_does_not_depend_on_the_processor(model, processor, split, motions, captions):
    encoded = encode_dataset(model, processor, split, batch_size=3)
    assert encoded.ids == split["id"][:] and encoded.captions == captions
    assert encoded.all_captions[1] == [captions[1], "a person walks"]
    np.testing.assert_allclose(
        encoded.motion_embeds.toarray(),
        model.encode_motion(motions, split["fps"][:], processor, precision="fp32").toarray(),
        atol=2e-6,
    )
    exact = model.encode_text(captions, processor, precision="fp32")
    np.testing.assert_allclose(encoded.text_embeds.toarray(), exact.toarray(), atol=2e-6)


def test_motions_of_a_split(split, motions):
    found, rates = split_motions(split)
    assert rates == [20.0, 30.0, 20.0, 30.0]
    for mine, theirs in zip(found, motions, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_sentence_vectors_have_unit_length(model, processor, captions, tmp_path):
    model.text_model.encoder.save_pretrained(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    vectors = sentence_vectors([*captions, captions[0]], str(tmp_path), batch_size=2)
    torch.testing.assert_close(torch.from_numpy(vectors).norm(dim=1), torch.ones(5))
    np.testing.assert_allclose(vectors[0], vectors[4], atol=1e-5)
