"""Views of a motion: its mirror image with words swapped back, and crops, averaged to one vector."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from scipy import sparse
from typer.testing import CliRunner

from lexmotion import LexMotionIndex, LexMotionModel, LexMotionProcessor, build_index, cli
from lexmotion.evaluation.encoding.shards import encode
from lexmotion.evaluation.encoding.vectors import encode_captions, encode_dataset, encode_motions, similarity
from lexmotion.evaluation.search import add_vectors
from lexmotion.processing.motion_features import mirror_positions
from lexmotion.processing.text_mirroring import mirror_caption
from lexmotion.views_lexmotion import as_vocabulary, average_views, mirrored_columns, views_of


@pytest.fixture(scope="module")
def sided(configs, processor, tiny_tokenizer):
    """A model with segments and a dense vector, whose words include both sides, and its processor."""
    from lexmotion import Lexicon, LexMotionConfig

    captions = ["a person kicks with the left leg", "the man turns right and jumps", "both arms up"]
    lexicon = Lexicon.from_corpus(captions, tiny_tokenizer)
    torch.manual_seed(2)
    config = LexMotionConfig(
        text_config=configs[0], motion_config=configs[1], num_segments=2, dense_size=4, hybrid_weight=0.3
    )
    model = LexMotionModel(config)
    model.set_active_words(lexicon.active_ids)
    with torch.no_grad():
        model.motion_model.word_embeddings.weight.normal_()
    return model.eval(), LexMotionProcessor(processor.feature_extractor, tiny_tokenizer, lexicon)


@pytest.fixture(scope="module")
def split(bodies):
    return split_of(bodies)


def split_of(motions):
    captions = ["turns left", "a person jumps", "kicks with the right leg", "walks"]
    return Dataset.from_dict(
        {
            "id": [f"{row:06d}" for row in range(len(motions))],
            "motion": [np.asarray(motion, np.float32).reshape(len(motion), -1) for motion in motions],
            "fps": [20.0] * len(motions),
            "captions": [[caption] for caption in captions[: len(motions)]],
        }
    )


def mirrored(motions):
    return [mirror_positions(torch.as_tensor(motion)).numpy() for motion in motions]


def columns_of(model, processor):
    active = model.motion_model.lexical_head.active_ids.numpy()
    return as_vocabulary(mirrored_columns(processor.mirrored_ids, active), active, len(processor.tokenizer))


def test_one_view_is_the_motion_itself(model, processor, motions, split):
    assert views_of(1) == ((False, 0.0, 1.0),)
    plain = model.encode_motion(motions, 20.0, processor)
    one = model.encode_motion(motions, 20.0, processor.feature_extractor, views=1)
    assert (plain != one).nnz == 0 and np.array_equal(plain.indices, one.indices)
    assert similarity(encode_dataset(model, processor, split)).tobytes() == (
        similarity(encode_dataset(model, processor, split, views=1)).tobytes()
    )


def test_the_mirror_image_has_the_same_vector_with_swapped_words(sided, bodies):
    model, processor = sided
    columns = columns_of(*sided)
    left, right = processor.tokenizer.convert_tokens_to_ids(["left", "right"])
    assert columns[left] == right and np.array_equal(columns[columns], np.arange(len(columns)))
    options = {"fps": 20.0, "processor": processor, "precision": "fp32"}
    one, two = (model.encode_motion(given, views=2, **options) for given in (bodies, mirrored(bodies)))
    assert one.has_canonical_format and one.dtype == np.float32
    np.testing.assert_allclose(one.toarray(), two.toarray()[:, columns], atol=1e-5)
    assert np.abs(unit(model.encode_motion(bodies, **options)) - unit(one)).max() > 1e-3


def unit(vectors):
    return vectors.toarray() / lengths(vectors)[:, None]


def lengths(vectors):
    return np.linalg.norm(vectors.toarray(), axis=1)


def test_four_views_are_two_motions_and_two_crops(sided, bodies):
    model, processor = sided
    clip = bodies[0][:20]
    shown = [clip, mirrored([clip])[0], clip[:17], clip[3:]]
    each = model.encode_motion(shown, 20.0, processor, precision="fp32")
    expected = average_views(each, [False, True, False, False], columns_of(*sided))
    found = model.encode_motion([clip], 20.0, processor, precision="fp32", views=4)
    np.testing.assert_allclose(found.toarray(), expected.toarray(), atol=1e-5)


def test_views_of_a_split_and_of_features_are_those_of_their_positions(sided, bodies, split):
    from lexmotion.processing.motion_features import positions_to_features

    model, processor = sided
    expected = model.encode_motion(bodies, 20.0, processor, views=4, precision="fp32").toarray()
    found = model.encode_motion(split, processor=processor, views=4, batch_size=3, precision="fp32").toarray()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    clip = torch.as_tensor(bodies[0], dtype=torch.float32)
    features = positions_to_features(clip)
    seen = model.encode_motion([features], 20.0, processor, views=2)
    twin = model.encode_motion([clip[:-1]], 20.0, processor, views=2)
    assert (unit(seen) * unit(twin)).sum() > 0.99


def test_the_average_has_the_heaviest_words_and_as_many_as_the_views_have():
    left, right, walk = [2.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0], [3.0, 0.0, 4.0, 0.0]
    first, second = [walk, left, left], [right, left, [0.0, 0.0, 0.0, 4.0]]
    vectors = sparse.csr_matrix(np.array([*first, *second], np.float32))
    found = average_views(vectors, [False, True], np.array([1, 0, 2, 3])).toarray()
    assert found[0].tolist() == [2.5, 0.0, 2.0, 0.0]  # (3, 0, 4, 0) and, swapped, (2, 0, 0, 0): 1.5 words, so two
    assert found[1].tolist() == [1.0, 0.0, 0.0, 0.0]  # (2, 0, 0, 0) and (0, 2, 0, 0), one word each
    assert found[2].tolist() == [0.0, 0.0, 0.0, 2.0]  # (2, 0, 0, 0) and (0, 0, 0, 4)
    nothing = average_views(sparse.csr_matrix((4, 3), dtype=np.float32), [False, True], np.arange(3))
    assert nothing.shape == (2, 3) and nothing.nnz == 0


def test_a_word_whose_counterpart_the_model_lacks_stays():
    mirrored_ids = np.array([0, 2, 1, 4, 3])
    assert mirrored_columns(mirrored_ids, np.array([1, 2, 3, 6])).tolist() == [1, 0, 2, 3]


def test_segments_are_averaged_one_by_one(sided, bodies, split):
    model, processor = sided
    one, two = (encode_motions(model, processor, split_of(given), views=2) for given in (bodies, mirrored(bodies)))
    columns = mirrored_columns(processor.mirrored_ids, model.motion_model.lexical_head.active_ids.numpy())
    halves = one.segments.toarray().reshape(len(bodies), 2, -1)
    np.testing.assert_allclose(np.linalg.norm(halves, axis=2), 0.5**0.5, rtol=1e-5)
    swapped = two.segments.toarray().reshape(halves.shape)[:, :, columns]
    assert np.abs(halves - swapped).max() < 1e-4 or np.mean(np.abs(halves - swapped) > 1e-4) < 0.02
    assert not np.allclose(halves[:, 0], halves[:, 1], atol=1e-3)


def test_a_dense_score_is_the_mean_of_both_sides(sided, bodies, split):
    model, processor = sided
    texts = [captions[0] for captions in split["captions"]]

    def cosines(captions, motions):
        parts = encode_captions(model, processor, captions), encode_motions(model, processor, split_of(motions))
        return parts[0].dense @ parts[1].dense.T

    twins = [mirror_caption(text) for text in texts]
    assert twins != texts
    expected = (cosines(texts, bodies) + cosines(twins, mirrored(bodies))) / 2
    encoded = encode_dataset(model, processor, split, views=2)
    np.testing.assert_allclose(encoded.texts.dense @ encoded.motions.dense.T, expected, atol=1e-5)
    assert encode_captions(model, processor, texts, views=2).words.shape[0] == len(texts)


def test_another_number_is_refused(model, processor, motions, tmp_path):
    for wrong in (3, 0, "4", True, None):
        with pytest.raises(ValueError, match=r"^views: .*\b1\b.*\b2\b.*\b4\b"):
            model.encode_motion(motions, 20.0, processor, views=wrong)
    with pytest.raises(ValueError, match=r"views.*LexMotionProcessor"):
        model.encode_motion(motions, 20.0, processor.feature_extractor, views=2)
    with pytest.raises(ValueError, match=r"views: got 3"):
        LexMotionIndex.build(np.eye(3), views=3)
    command = ["encode", "--model", "none", "--dataset", "none", "--output-dir", str(tmp_path), "--views", "many"]
    assert "--views" in CliRunner().invoke(cli.app, command).output


def test_an_index_encodes_further_motions_as_it_was_built(trained, motions, tmp_path):
    dataset, model = trained / "prepared", str(trained / "model")
    with build_index(
        tmp_path / "index", dataset=dataset, model=model, splits=["test"], views=2, device="cpu"
    ) as index:
        assert index.info()["views"] == 2
    index = LexMotionIndex.from_pretrained(tmp_path / "index")
    loaded = LexMotionModel.from_pretrained(model)
    expected = loaded.encode_motion(motions[:1], 20.0, views=2)
    assert (index.encode(motion=motions[0], fps=20.0) != expected).nnz == 0
    assert (expected != loaded.encode_motion(motions[:1], 20.0)).nnz
    index.save_pretrained(tmp_path / "copy")
    with build_index(tmp_path / "again", index=tmp_path / "copy") as again:
        assert again.info()["views"] == 2 and len(again) == len(index)
    encode(model, dataset, tmp_path / "one", splits=["train"], kinds="motion")
    encode(model, dataset, tmp_path / "two", splits=["train"], kinds="motion", views=2)
    with pytest.raises(ValueError, match=r"1 views per motion.* 2; .*--views 2"):
        add_vectors(index, tmp_path / "one")
    assert len(add_vectors(index, tmp_path / "two")) == 6
    index.close()
    with pytest.raises(ValueError, match=r"views: got 4"):
        build_index(tmp_path / "third", vectors=tmp_path / "two", views=4)
    with build_index(tmp_path / "third", vectors=tmp_path / "two") as third:
        assert third.info()["views"] == 2


def test_vectors_of_one_view_have_the_records_of_earlier_versions(trained, tmp_path):
    dataset, model = trained / "prepared", str(trained / "model")
    report = encode(model, dataset, tmp_path / "vectors", splits=["test"], kinds="motion")
    assert "views" not in report.identity and report.views == 1
    with pytest.raises(ValueError, match=r"views 1, not 2"):
        encode(model, dataset, tmp_path / "vectors", splits=["train"], kinds="motion", views=2)
    build_index(tmp_path / "index", vectors=tmp_path / "vectors").close()
    manifest = next(path for path in (tmp_path / "index").glob("*.json"))
    assert "views" not in json.loads(manifest.read_text())
