import numpy as np
import pytest
import torch

from lexmotion.evaluation.encoding import encode_motions, encode_texts, sentence_vectors


def test_order_and_values_are_those_of_one_at_a_time(model, processor, captions, motions):
    together = encode_texts(model, processor, captions, batch_size=3).toarray()
    alone = np.concatenate([encode_texts(model, processor, [text]).toarray() for text in captions])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    together = encode_motions(model, processor, motions, 20.0, batch_size=3).toarray()
    alone = np.concatenate([encode_motions(model, processor, [motion], 20.0).toarray() for motion in motions])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_each_motion_has_its_own_frame_rate(model, processor, motions):
    mixed = encode_motions(model, processor, motions, [20.0, 30.0, 20.0, 30.0]).toarray()
    plain = encode_motions(model, processor, motions, 20.0).toarray()
    faster = encode_motions(model, processor, motions, 30.0).toarray()
    np.testing.assert_allclose(mixed[[0, 2]], plain[[0, 2]], atol=1e-5)
    np.testing.assert_allclose(mixed[[1, 3]], faster[[1, 3]], atol=1e-5)


def test_the_training_mode_is_restored(model, processor, captions):
    model.train()
    try:
        first, second = (encode_texts(model, processor, captions).toarray() for _ in range(2))
        assert model.training and np.array_equal(first, second)
    finally:
        model.eval()


def test_a_tower_alone_encodes_the_same(model, processor, motions):
    whole = encode_motions(model, processor, motions, 20.0)
    tower = encode_motions(model.motion_model, processor, motions, 20.0)
    assert (whole != tower).nnz == 0


def test_nothing_to_encode_is_an_empty_matrix(model, processor):
    assert encode_texts(model, processor, []).shape == (0, len(processor.tokenizer))


def test_an_empty_caption_is_refused_by_its_place(model, processor):
    with pytest.raises(ValueError, match="caption 1 is empty"):
        encode_texts(model, processor, ["a person walks", "  "])


def test_sentence_vectors_have_unit_length(model, processor, captions, tmp_path):
    model.text_model.encoder.save_pretrained(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    vectors = sentence_vectors([*captions, captions[0]], str(tmp_path), batch_size=2)
    torch.testing.assert_close(torch.from_numpy(vectors).norm(dim=1), torch.ones(5))
    np.testing.assert_allclose(vectors[0], vectors[4], atol=1e-5)
