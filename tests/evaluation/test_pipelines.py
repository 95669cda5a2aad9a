"""`pipeline("motion-feature-extraction")` and `pipeline("zero-shot-motion-classification")`."""

import numpy as np
import pytest
import torch
from transformers import pipeline

LABELS = ["walks forward", "kicks", "jumps"]


@pytest.fixture(scope="module")
def folder(model, processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def read(folder):
    return pipeline("motion-feature-extraction", model=folder)


@pytest.fixture(scope="module")
def classify(folder):
    return pipeline("zero-shot-motion-classification", model=folder)


def test_features_are_the_vector_of_the_model(read, model, processor, motions):
    inputs = processor(motion=motions[0], fps=20, return_tensors="pt")
    with torch.no_grad():
        expected = model.get_motion_features(**inputs).motion_embeds[0].numpy()
    np.testing.assert_array_equal(read(motions[0], fps=20), expected)
    words = read(motions[0], fps=20, top_k=3)
    assert [(entry["word"], entry["score"]) for entry in words] == processor.top_words(expected, k=3)[0]


def test_motions_of_different_lengths_share_a_batch(read, motions):
    one_by_one = read(motions, fps=20)
    assert len(one_by_one) == len(motions)
    for alone, together in zip(one_by_one, read(motions, fps=20, batch_size=3), strict=True):
        np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-6)


def test_a_motion_tower_alone_has_features(model, processor, motions, tmp_path, read):
    model.motion_model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    alone = pipeline("motion-feature-extraction", model=str(tmp_path))
    np.testing.assert_allclose(alone(motions[1], fps=20), read(motions[1], fps=20), rtol=1e-6)


def test_labels_are_ranked_as_the_model_scores_their_sentences(classify, model, processor, motions):
    texts = [f"someone {label} twice" for label in LABELS]
    inputs = processor(text=texts, motion=motions[:1], fps=20, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).logits_per_motion[0].softmax(dim=0)
    found = classify(motions[0], candidate_labels=LABELS, hypothesis_template="someone {} twice", fps=20)
    assert [entry["label"] for entry in found] == [LABELS[i] for i in expected.argsort(descending=True)]
    assert [entry["score"] for entry in found] == pytest.approx(sorted(expected.tolist(), reverse=True), rel=1e-4)


def test_each_motion_may_bring_its_own_rate(classify, motions):
    both = classify([{"motion": motions[0], "fps": 20}, motions[0]], candidate_labels=LABELS, fps=10)
    assert both[0] == classify(motions[0], candidate_labels=LABELS, fps=20)
    assert both[1] == classify(motions[0], candidate_labels=LABELS, fps=10)


def test_other_labels_are_encoded_anew(classify, motions):
    first = classify(motions[0], candidate_labels=LABELS, fps=20)
    assert [entry["label"] for entry in classify(motions[0], candidate_labels=["sits"], fps=20)] == ["sits"]
    assert classify(motions[0], candidate_labels=LABELS, fps=20) == first


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({}, "candidate_labels"),
        ({"candidate_labels": []}, "candidate_labels"),
        ({"candidate_labels": ["kicks", "kicks"]}, "'kicks'"),
        ({"candidate_labels": ["kicks", " "]}, "' '"),
        ({"candidate_labels": ["kicks"], "hypothesis_template": "a person"}, "'a person'.*{}"),
    ],
)
def test_labels_that_make_no_sense_are_refused(classify, motions, options, value):
    with pytest.raises(ValueError, match=value):
        classify(motions[0], fps=20, **options)


def test_a_broken_motion_is_refused(read):
    with pytest.raises(ValueError, match="nan|NaN"):
        read(np.full((20, 22, 3), np.nan, np.float32), fps=20)


def test_unknown_options_and_file_names_are_refused(read, classify, motions):
    with pytest.raises(TypeError, match="topk"):
        read(motions[0], fps=20, topk=3)
    with pytest.raises(TypeError, match="template"):
        classify(motions[0], candidate_labels=LABELS, template="a person {}")
    with pytest.raises(ValueError, match="load_motion"):
        read("kick.bvh")
