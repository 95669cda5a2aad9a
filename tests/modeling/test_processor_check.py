"""A model refuses a processor that would give its dimensions, or its input, another meaning."""

import copy
import json

import pytest
from tiny import dual_model

from lexmotion import LexMotionConfig, LexMotionModel, LexMotionMotionModel, LexMotionTextModel
from lexmotion.encoding_lexmotion import bind_processor, check_processor


class Processor:
    """What is asked of one."""

    def __init__(self, lexicon="a" * 64, statistics="b" * 64):
        self.lexicon = type("Lexicon", (), {"hash": lexicon, "active_ids": range(10, 90)})()
        self.feature_extractor = type("Extractor", (), {"statistics_hash": statistics})()
        self.tokenizer = object()


@pytest.fixture
def bound():
    model = dual_model()
    bind_processor(model, Processor())
    return model


def test_the_hashes_are_saved_with_every_tower(bound, tmp_path):
    bound.save_pretrained(tmp_path)
    for kind in (LexMotionModel, LexMotionTextModel, LexMotionMotionModel):
        config = kind.from_pretrained(tmp_path).config
        check_processor(config, Processor())
        with pytest.raises(ValueError, match="lexicon.*cccc.*aaaa"):
            check_processor(config, Processor(lexicon="c" * 64))
    with pytest.raises(ValueError, match="statistics.*dddd.*bbbb"):
        check_processor(LexMotionMotionModel.from_pretrained(tmp_path).config, Processor(statistics="d" * 64))


def test_a_lexicon_of_other_words_is_not_written_onto_a_model():
    with pytest.raises(ValueError, match=r"\b79\b.*\b80\b"):
        bind_processor(dual_model(active=range(10, 89)), Processor())


def test_encoding_checks_what_it_is_given(bound):
    with pytest.raises(ValueError, match="statistics"):
        bound.encode_motion([], processor=Processor(statistics="d" * 64))
    with pytest.raises(ValueError, match="lexicon"):
        bound.encode_text([], processor=Processor(lexicon="c" * 64))


@pytest.mark.parametrize("part", ["tokenizer", "feature_extractor"])
def test_a_part_is_checked_for_what_it_has(bound, part):
    check_processor(bound.config, getattr(Processor(lexicon="c" * 64), part))


def test_models_saved_before_hashes_were_kept_accept_every_processor(bound, tmp_path):
    bound.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    for part in (content, content["text_config"], content["motion_config"]):
        for name in ("lexicon_hash", "statistics_hash"):
            part.pop(name, None)
    (tmp_path / "config.json").write_text(json.dumps(content))
    (tmp_path / "checksums.json").unlink()
    check_processor(LexMotionModel.from_pretrained(tmp_path).config, Processor("e" * 64, "f" * 64))
    check_processor(copy.deepcopy(LexMotionConfig()), Processor("e" * 64, "f" * 64))
