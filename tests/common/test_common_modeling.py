"""The common model and configuration tests of transformers, on both towers, the dual encoder and the phase heads."""

import copy
import tempfile
import unittest
from unittest import mock

import pytest
import tiny
import torch
from transformers.utils import ModelOutput
from transformers_common import common_tests

from lexmotion import (
    LexMotionConfig,
    LexMotionForContrastiveAlignment,
    LexMotionForContrastiveMaskedMotion,
    LexMotionForLexicalMaskedLM,
    LexMotionForLexicalMaskedMotion,
    LexMotionModel,
    LexMotionMotionConfig,
    LexMotionMotionModel,
    LexMotionTextConfig,
    LexMotionTextModel,
)
from lexmotion.modeling_lexmotion import LexMotionMotionOutput

common = common_tests()


class TextTester:
    """A text tower of one layer and a batch of captions."""

    batch_size, seq_length, hidden_size, num_hidden_layers, num_attention_heads = 4, 9, 32, 1, 2
    is_training = True

    def prepare_config_and_inputs_for_common(self):
        input_ids, attention_mask = tiny.captions(self.batch_size, self.seq_length)
        return tiny.text_config(), {"input_ids": input_ids, "attention_mask": attention_mask}


class MotionTester:
    """A motion tower of two layers and a batch of motions: 18 tokens, 6 windows of 4 frames times 3 body parts."""

    batch_size, seq_length, hidden_size, num_hidden_layers, num_attention_heads = 4, 18, 24, 2, 2
    is_training = True

    def prepare_config_and_inputs_for_common(self):
        motion_values, mask = tiny.motions(self.batch_size, 22)
        return tiny.motion_config(), {"motion_values": motion_values, "motion_attention_mask": mask}


class MaskedMotionTester(MotionTester):
    """A third of the tokens is hidden, which the encoder therefore does not run."""

    seq_length = 12

    @staticmethod
    def token_mask(rows: int) -> torch.Tensor:
        mask = torch.zeros(rows, MotionTester.seq_length, dtype=torch.bool)
        mask[:, ::3] = True
        return mask


class DualTester:
    """Both towers, and as many motions as captions."""

    batch_size, seq_length, num_hidden_layers = 4, 9, 2
    is_training = True

    def __init__(self):
        self.text_model_tester, self.motion_model_tester = TextTester(), MotionTester()

    def prepare_config_and_inputs_for_common(self):
        _, text = self.text_model_tester.prepare_config_and_inputs_for_common()
        _, motion = self.motion_model_tester.prepare_config_and_inputs_for_common()
        return tiny.dual_config(), {**text, **motion}


class MaskedDualTester(DualTester):
    """What the phase head returns is the motion tower's."""

    seq_length, hidden_size, num_attention_heads = MaskedMotionTester.seq_length, 24, 2


WORDS_ARE_OUTPUT = (
    "the test looks new words up by input_ids; a motion has none, its words are output only. Resizing is tested in "
    "tests/modeling/test_conventions.py"
)
SIZES = ["hidden_size", "num_attention_heads", "num_hidden_layers"]
TWO_TOWERS = (
    "a dual encoder returns the states of each tower, in text_model_output and motion_model_output; each tower's own "
    "tests look at them"
)


def _with_integers(output: ModelOutput) -> tuple:
    return tuple(value.int() if getattr(value, "dtype", None) is torch.bool else value for value in output.values())


# The equivalence test takes the difference of what it compares, which torch has none of for bool tensors.
integers_for_bools = mock.patch.object(LexMotionMotionOutput, "to_tuple", _with_integers)


@pytest.fixture(autouse=True)
def rewritten_weights(request, monkeypatch):
    """Let a test of transformers write other weights into a saved folder, which checksums would refuse."""
    if "weights_reload" in request.node.name:
        monkeypatch.setattr("lexmotion.modeling_lexmotion.check_checksums", lambda folder: None)


class TextModelTest(common.ModelTesterMixin, unittest.TestCase):
    all_model_classes = (LexMotionTextModel,)
    test_can_init_all_missing_weights_before_2023 = True  # no year in our files: run it

    def setUp(self):
        self.model_tester = TextTester()
        self.config_tester = common.ConfigTester(self, LexMotionTextConfig, top_k=7, common_properties=SIZES)

    def test_config(self):
        self.config_tester.run_common_tests()


class LexicalMaskedLMTest(common.ModelTesterMixin, unittest.TestCase):
    all_model_classes = (LexMotionForLexicalMaskedLM,)
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self):
        self.model_tester = TextTester()

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = copy.deepcopy(inputs_dict)
        if return_labels:
            labels = tiny.labels_for(inputs["input_ids"])
            inputs |= {"labels": labels, "decoder_input_ids": inputs["input_ids"], "decoder_labels": labels}
        return inputs


class MotionModelTest(common.ModelTesterMixin, unittest.TestCase):
    all_model_classes = (LexMotionMotionModel,)
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self):
        self.model_tester = MotionTester()
        self.config_tester = common.ConfigTester(self, LexMotionMotionConfig, hidden_size=24, num_attention_heads=2)

    def test_config(self):
        self.config_tester.run_common_tests()

    @unittest.skip(WORDS_ARE_OUTPUT)
    def test_resize_tokens_embeddings(self):
        pass

    @integers_for_bools
    def test_model_outputs_equivalence(self):
        super().test_model_outputs_equivalence()


class ContrastiveMaskedMotionTest(common.ModelTesterMixin, unittest.TestCase):
    all_model_classes = (LexMotionForContrastiveMaskedMotion,)
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self):
        self.model_tester = MaskedMotionTester()

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = copy.deepcopy(inputs_dict)
        inputs["token_mask"] = MaskedMotionTester.token_mask(len(inputs["motion_values"]))
        if return_labels:
            inputs |= {f"teacher_{name}": value for name, value in inputs_dict.items()}
        return inputs

    @unittest.skip(WORDS_ARE_OUTPUT)
    def test_resize_tokens_embeddings(self):
        pass


class CompositeTesterMixin(common.ModelTesterMixin):
    _is_composite = True

    def test_sdpa_can_dispatch_composite_models(self):
        """Asks each tower for its attention; the test it replaces knows towers of pictures and sound only."""
        config, _ = self.model_tester.prepare_config_and_inputs_for_common()
        model_class = self.all_model_classes[0]
        with tempfile.TemporaryDirectory() as folder:
            model_class(config).save_pretrained(folder)
            for asked, found in ((None, "sdpa"), ("sdpa", "sdpa"), ("eager", "eager")):
                chosen = {} if asked is None else {"attn_implementation": asked}
                model = model_class.from_pretrained(folder, **chosen).base_model
                towers = model.text_model.encoder, model.motion_model
                self.assertEqual([tower.config._attn_implementation for tower in towers], [found, found])


class DualModelTest(CompositeTesterMixin, unittest.TestCase):
    all_model_classes = (LexMotionModel,)
    additional_model_inputs = ("motion_values",)
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self):
        self.model_tester = DualTester()
        self.config_tester = common.ConfigTester(
            self, LexMotionConfig, has_text_modality=False, common_properties=["temperature"], temperature=0.1
        )

    def test_config(self):
        self.config_tester.run_common_tests()

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        return copy.deepcopy(inputs_dict) | ({"return_loss": True} if return_labels else {})

    @integers_for_bools
    def test_model_outputs_equivalence(self):
        super().test_model_outputs_equivalence()

    @unittest.skip(TWO_TOWERS)
    def test_hidden_states_output(self):
        pass

    @unittest.skip(TWO_TOWERS)
    def test_attention_outputs(self):
        pass

    @unittest.skip(TWO_TOWERS)
    def test_retain_grad_hidden_states_attentions(self):
        pass


class ContrastiveAlignmentTest(DualModelTest):
    """As the dual encoder it holds; its loss needs no asking for."""

    all_model_classes = (LexMotionForContrastiveAlignment,)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        return copy.deepcopy(inputs_dict)

    test_config = None  # of the configuration, tested once


class LexicalMaskedMotionTest(CompositeTesterMixin, unittest.TestCase):
    all_model_classes = (LexMotionForLexicalMaskedMotion,)
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self):
        self.model_tester = MaskedDualTester()

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = copy.deepcopy(inputs_dict)
        inputs["token_mask"] = MaskedMotionTester.token_mask(len(inputs["motion_values"]))
        ids, mask = inputs.pop("input_ids", None), inputs.pop("attention_mask", None)
        if return_labels:
            caption = {"input_ids": ids, "attention_mask": mask, "labels": tiny.labels_for(ids)}
            inputs |= {f"{part}_{name}": value for part in ("decoder", "mlm") for name, value in caption.items()}
            inputs["decoder_token_mask"] = inputs["token_mask"]
        return inputs
