"""The evaluators of sentence-transformers measure what ours do."""

import copy

import numpy as np
import pytest
import torch
from datasets import Array2D, Dataset, Features, List, Value

from lexmotion import LexMotionConfig, LexMotionModel
from lexmotion.evaluation.encoding.retrieval_encoder import RetrievalEncoder, retrieval_task
from lexmotion.evaluation.encoding.vectors import encode_dataset, similarity
from lexmotion.evaluation.metrics.retrieval import evaluate_retrieval

pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")

VERBS, SIDES = ("walks", "runs", "jumps", "kicks", "waves", "turns"), ("left", "right", "up")


def sway(seed: int) -> np.ndarray:
    """(T, 66) metres, another movement for every seed."""
    random = np.random.default_rng(seed)
    pose = random.normal(scale=0.4, size=(1, 66)) + np.tile([0.0, 1.0, 0.0], 22)
    frames = np.linspace(0, 2 * np.pi, 20 + seed % 12)[:, None]
    return (pose + 0.2 * np.sin(frames * random.uniform(0.5, 3, 66) + random.uniform(0, 6, 66))).astype(np.float32)


def pairs(*, duplicates: bool) -> Dataset:
    """18 motions with two captions each; with duplicates, the last one's first caption is the first one's."""
    captions = [f"a person {verb} {side}" for verb in VERBS for side in SIDES]
    if duplicates:
        captions[-1] = captions[0]
    features = Features(
        {
            "id": Value("string"),
            "motion": Array2D((None, 66), "float32"),
            "fps": Value("float32"),
            "captions": List(Value("string")),
        }
    )
    rows = {
        "id": [f"{number:03}" for number in range(18)],
        "motion": [sway(number) for number in range(18)],
        "fps": [20.0] * 18,
        "captions": [[caption, "someone moves"] for caption in captions],
    }
    return Dataset.from_dict(rows, features=features)


@pytest.fixture(scope="module")
def split():
    return pairs(duplicates=False)


def blended(configs) -> LexMotionModel:
    torch.manual_seed(1)
    text, motion = copy.deepcopy(configs)
    fields = {"num_segments": 2, "segment_weight": 0.4, "dense_size": 8, "hybrid_weight": 0.3}
    return LexMotionModel(LexMotionConfig(text_config=text, motion_config=motion, **fields)).eval()


@pytest.mark.parametrize("protocol", ["all-strict", "all-duplicates"])
@pytest.mark.parametrize("direction", ["t2m", "m2t"])
@pytest.mark.parametrize("kind", ["words", "words, segments and a dense vector"])
def test_accuracy_is_our_recall(model, configs, processor, kind, direction, protocol):
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
    from sentence_transformers.sparse_encoder.evaluation import SparseInformationRetrievalEvaluator

    model = model if kind == "words" else blended(configs)
    split = pairs(duplicates=protocol == "all-duplicates")  # whose scores are tied, so that their order would count
    encoded = encode_dataset(model, processor, split)
    ours = evaluate_retrieval(similarity(encoded), encoded.ids, encoded.captions, [protocol], ties="optimistic")
    task = retrieval_task(split, protocol, motion_queries=direction == "m2t")
    for kind in (InformationRetrievalEvaluator, SparseInformationRetrievalEvaluator):
        evaluator = kind(**task, accuracy_at_k=[1, 2, 3, 5, 10])
        theirs = evaluator(RetrievalEncoder(model, processor))
        found = [100 * theirs[f"dot_accuracy@{k}"] for k in (1, 2, 3, 5, 10)]
        assert found == pytest.approx([ours[protocol][f"{direction}/R{k}"] for k in (1, 2, 3, 5, 10)])
    assert found[-1] > 0 and found[0] < 100


def test_products_are_scores(configs, processor, split):
    model = blended(configs)
    encoder = RetrievalEncoder(model, processor)
    task = retrieval_task(split)
    queries, corpus = list(task["queries"].values()), list(task["corpus"].values())
    scores = encoder.similarity(encoder.encode_query(queries), encoder.encode_document(corpus))
    np.testing.assert_allclose(scores, similarity(encode_dataset(model, processor, split)), atol=2e-6)


def test_plain_arrays_are_motions_too(model, processor, split):
    encoder = RetrievalEncoder(model, processor, fps=20.0)
    rows = [split.with_format("numpy")[place] for place in (0, 1)]
    arrays = [row["motion"].reshape(-1, 22, 3) for row in rows]
    assert torch.equal(encoder.encode(rows).to_dense(), encoder.encode(arrays).to_dense())
    words = encoder.sparsity(encoder.encode("a person walks"))
    assert words["active_dims"] > 0 and 0 < words["sparsity_ratio"] < 1


def test_what_the_model_does_not_have_is_refused(model, processor):
    encoder = RetrievalEncoder(model, processor)
    with pytest.raises(ValueError, match="prompt.*'query: '"):
        encoder.encode_query(["a"], prompt="query: ")
    with pytest.raises(ValueError, match=r"\b4\b.*set_word_limits"):
        encoder.encode(["a"], max_active_dims=4)
    with pytest.raises(ValueError, match="all-strict.*all-duplicates.*'threshold'"):
        retrieval_task(None, "threshold")


def test_the_command_exports_the_text_tower(model, configs, processor, tmp_path, capsys):
    from sentence_transformers import SparseEncoder

    from lexmotion.__main__ import main

    for name, one in (("words", model), ("blend", blended(configs))):
        one.save_pretrained(tmp_path / name)
        processor.save_pretrained(tmp_path / name)
        arguments = ["export", "sentence-transformers", str(tmp_path / name), str(tmp_path / f"{name}_text")]
        with pytest.raises(SystemExit) as done:
            main(arguments)
        assert not done.value.code
        theirs = SparseEncoder(str(tmp_path / f"{name}_text"), device="cpu").encode(["a person walks forward"])
        ours = one.encode_text(["a person walks forward"], processor, precision="fp32").toarray()
        np.testing.assert_allclose(theirs.to_dense(), ours, atol=5e-6)
        told = " ".join(capsys.readouterr().out.split())
        assert "written" in told and ("segments and the dense vector" in told) == (name == "blend")
