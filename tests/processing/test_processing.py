"""The processor: motion and words in one call, one folder, one Auto class."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, AutoProcessor, AutoTokenizer, PreTrainedConfig

import lexmotion.processing as room
from lexmotion.processing.feature_extraction_lexmotion import LexMotionFeatureExtractor
from lexmotion.processing.lexicon import Lexicon
from lexmotion.processing.processing_lexmotion import LexMotionProcessor

CAPTIONS = ["a person walks forward", "a man jumps twice", "someone kicks with the left leg"]


class _Config(PreTrainedConfig):
    model_type = "lexmotion_processor_test"


# What importing the package does once for the real configs.
AutoFeatureExtractor.register(_Config, LexMotionFeatureExtractor, exist_ok=True)
AutoProcessor.register(_Config, LexMotionProcessor, exist_ok=True)


def motion(num_frames, seed=0):
    return torch.randn(num_frames, 22, 3, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def processor(tiny_tokenizer):
    extractor = LexMotionFeatureExtractor(max_frames=32).fit([motion(30, seed) for seed in range(3)])
    return LexMotionProcessor(extractor, tiny_tokenizer, Lexicon.from_corpus(CAPTIONS, tiny_tokenizer))


def test_text_and_motion_together(processor):
    inputs = processor(text=CAPTIONS[:2], motion=[motion(20), motion(28)], fps=20.0)
    assert sorted(inputs) == ["attention_mask", "input_ids", "motion_attention_mask", "motion_values"]
    assert sorted(inputs) == sorted(processor.model_input_names)
    assert inputs["motion_values"].shape == (2, 28, 66)
    assert inputs["input_ids"].dtype == torch.int64 and len(inputs["input_ids"]) == 2


def test_parts_alone(processor):
    assert sorted(processor(text="a person walks")) == ["attention_mask", "input_ids"]
    assert processor(text="a person walks")["input_ids"].shape == (1, 5)
    assert sorted(processor(motion=motion(20), fps=20)) == ["motion_attention_mask", "motion_values"]
    assert torch.equal(
        processor(motion=motion(20), fps=40)["motion_values"],
        processor.feature_extractor(motion(20), 40)["motion_values"],
    )
    with pytest.raises(ValueError, match="text.*motion"):
        processor()
    with pytest.raises(ValueError, match=r"\btext\b.*\b3\b"):
        processor(text=["a person", 3])
    with pytest.raises(ValueError, match="text.*empty"):
        processor(text=[])


def test_text_is_first(processor):
    assert torch.equal(processor("a man jumps")["input_ids"], processor(text="a man jumps")["input_ids"])


def test_arguments_reach_their_part(processor):
    inputs = processor(text="a person walks", motion=motion(20), fps=20, padding="max_length", max_length=12)
    assert inputs["input_ids"].shape == (1, 12) and inputs["motion_values"].shape == (1, 32, 66)
    inputs = processor(
        text="a person walks forward", motion=motion(60), fps=20, truncation="center", max_length=4, max_frames=16
    )
    assert inputs["input_ids"].shape == (1, 4) and inputs["motion_values"].shape == (1, 16, 66)
    expected = processor.feature_extractor(motion(60), 20, truncation="center", max_frames=16)["motion_values"]
    assert torch.equal(inputs["motion_values"], expected)
    inputs = processor(
        text=["a person walks", "a"],
        motion=[motion(20), motion(10)],
        text_kwargs={"padding": "max_length", "max_length": 9},
        motion_kwargs={"pad_to_multiple_of": 16, "fps": [20.0, 20.0]},
    )
    assert inputs["input_ids"].shape == (2, 9) and inputs["motion_values"].shape == (2, 32, 66)
    inputs = processor(text="a person walks forward", truncation="only_first", max_length=4, motion=motion(20), fps=20)
    assert inputs["input_ids"].shape == (1, 4)
    with pytest.raises(ValueError, match=r"\b60\b.*\b32\b.*truncation=.*max_frames"):
        processor(motion=motion(60), fps=20, truncation=False)


def test_numpy(processor):
    inputs = processor(text="a person walks", motion=motion(20).numpy(), fps=20, return_tensors="np")
    assert all(isinstance(value, np.ndarray) for value in inputs.values())


def test_top_words(processor):
    embeds = torch.zeros(1, processor.lexicon.vocab_size)
    for word, weight in {"walks": 2.0, "forward": 1.0, "person": 1.5}.items():
        embeds[0, processor.tokenizer.convert_tokens_to_ids(word)] = weight
    assert processor.top_words(embeds, k=2) == [[("walks", 2.0), ("person", 1.5)]]
    assert processor.top_words(embeds[0], k=2, skip_stop_words=True) == [[("walks", 2.0), ("forward", 1.0)]]
    bare = LexMotionProcessor(processor.feature_extractor, processor.tokenizer)
    with pytest.raises(ValueError, match=r"Lexicon\.from_corpus"):
        bare.top_words(embeds)


def test_text_decodes(processor):
    ids = processor(text=CAPTIONS[0])["input_ids"]
    assert processor.batch_decode(ids, skip_special_tokens=True) == [CAPTIONS[0]]


@pytest.mark.parametrize("load", [LexMotionProcessor.from_pretrained, AutoProcessor.from_pretrained])
def test_saved_and_loaded_is_equal(processor, tmp_path, load):
    processor.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert isinstance(loaded, LexMotionProcessor)
    assert loaded.lexicon == processor.lexicon and isinstance(loaded.lexicon, Lexicon)
    assert loaded.to_dict() == processor.to_dict()
    arguments = {"text": CAPTIONS, "motion": [motion(20 + seed, seed) for seed in range(3)], "fps": 30.0}
    first, second = processor(**arguments), loaded(**arguments)
    assert sorted(first) == sorted(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_one_folder_serves_every_auto_class(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    assert isinstance(AutoFeatureExtractor.from_pretrained(tmp_path), LexMotionFeatureExtractor)
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == len(processor.tokenizer)
    content = json.loads((tmp_path / "processor_config.json").read_text())
    assert content["processor_class"] == "LexMotionProcessor"
    assert content["lexicon"] == processor.lexicon.to_dict()
    assert content["feature_extractor"]["statistics_hash"] == processor.feature_extractor.statistics_hash


def test_processor_without_lexicon_is_saved(processor, tmp_path):
    LexMotionProcessor(processor.feature_extractor, processor.tokenizer).save_pretrained(tmp_path)
    assert LexMotionProcessor.from_pretrained(tmp_path).lexicon is None


def test_lexicon_may_be_its_description(processor):
    again = LexMotionProcessor(processor.feature_extractor, processor.tokenizer, processor.lexicon.to_dict())
    assert again.lexicon == processor.lexicon


def test_the_room_exports_its_names():
    assert room.LexMotionProcessor is LexMotionProcessor and "Lexicon" in dir(room)
    assert all(getattr(room, name) is not None for name in room.__all__)
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = room.nothing_here
