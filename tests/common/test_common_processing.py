"""The common processor and feature extractor tests of transformers."""

import unittest

import numpy as np
from transformers import BertTokenizer
from transformers_common import common_tests

from lexmotion import LexMotionFeatureExtractor, LexMotionProcessor

common = common_tests()
CAPTIONS = ["a person walks forward slowly", "someone kicks with the left leg twice"]
HAND_OVER_MOTION = ("test_model_input_names", "test_processor_with_multiple_inputs")


def sway(num_frames: int = 24) -> np.ndarray:
    """(T, 22, 3) metres."""
    return np.random.default_rng(0).normal(scale=0.3, size=(num_frames, 22, 3)).astype(np.float32)


class FeatureExtractorTest(common.FeatureExtractionSavingTestMixin, unittest.TestCase):
    feature_extraction_class = LexMotionFeatureExtractor
    feat_extract_dict = {"representation": "positions", "skeleton": "kit-ml", "fps": 12.5, "max_frames": 32}


class ProcessorTester(common.ProcessorTesterMixin):
    """A processor of a few words, and a motion where the tests ask for audio."""

    audio_input_name = audio_input_name_values = "motion_values"
    audio_text_kwargs_max_length = audio_unstructured_max_length = 40

    @classmethod
    def _setup_tokenizer(cls):
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({*" ".join(CAPTIONS).split()})]
        return BertTokenizer(vocab={word: id for id, word in enumerate(words)}, model_max_length=64)

    @classmethod
    def _setup_feature_extractor(cls):
        return LexMotionFeatureExtractor(max_frames=32).fit([sway()])

    def prepare_audio_inputs(self, batch_size: int | None = None):
        return sway() if batch_size is None else [sway()] * batch_size


class CalledAsAudio(LexMotionProcessor):
    """What the tests hand over as `audio`, the modality whose place motion takes, is the motion."""

    def __call__(self, text=None, audio=None, **kwargs):
        return super().__call__(text=text, motion=audio, **kwargs)


class ProcessorTest(ProcessorTester, unittest.TestCase):
    processor_class = LexMotionProcessor


class ProcessorCalledAsAudioTest(ProcessorTester, unittest.TestCase):
    processor_class = CalledAsAudio


# Each test once: those that hand over a motion under the other name, all others with the processor itself.
for name in [name for name in dir(ProcessorTester) if name.startswith("test_")]:
    hands_over = name in HAND_OVER_MOTION or (name.endswith("_audio") and "chat_template" not in name)
    setattr(ProcessorTest if hands_over else ProcessorCalledAsAudioTest, name, None)
