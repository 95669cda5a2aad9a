"""A processor fitted on a few smooth motions, and a random model of its size."""

import copy
import itertools

import numpy as np
import pytest
import torch

CAPTIONS = [
    "a person walks forward slowly",
    "someone kicks with the left leg twice",
    "a man jumps up and turns right",
    "the person raises both arms up",
]


def smooth_motion(num_frames: int, seed: int) -> np.ndarray:
    """(T, 22, 3) metres: a standing figure whose joints sway."""
    random = np.random.default_rng(seed)
    pose = random.normal(scale=0.3, size=(22, 3)) + [0.0, 1.0, 0.0]
    phase = np.linspace(0, 2 * np.pi, num_frames)[:, None, None] + random.uniform(0, 6, size=(22, 3))
    return (pose + 0.05 * np.sin(phase)).astype(np.float32)


@pytest.fixture(scope="session")
def motions():
    return [smooth_motion(length, seed) for seed, length in enumerate((32, 20, 27, 32))]


@pytest.fixture(scope="session")
def captions():
    return CAPTIONS


@pytest.fixture(scope="session")
def processor(tiny_tokenizer, motions):
    from lexmotion import Lexicon, LexMotionFeatureExtractor, LexMotionProcessor

    extractor = LexMotionFeatureExtractor(max_frames=32).fit(motions)
    return LexMotionProcessor(extractor, tiny_tokenizer, Lexicon.from_corpus(CAPTIONS, tiny_tokenizer))


class Copies(tuple):
    """A tuple whose items are handed out as copies, since models write to their configurations."""

    def __getitem__(self, place):
        return copy.deepcopy(super().__getitem__(place))

    def __iter__(self):
        return (copy.deepcopy(item) for item in super().__iter__())


@pytest.fixture(scope="session")
def configs(processor):
    """(text config, motion config) that fit the processor."""
    from lexmotion import LexMotionMotionConfig, LexMotionTextConfig

    words = len(processor.tokenizer)
    encoder = {
        "model_type": "bert",
        "vocab_size": words,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    extractor = processor.feature_extractor
    motion = LexMotionMotionConfig(
        num_features=extractor.num_features,
        parts=extractor.parts,
        patch_frames=8,
        num_frames=32,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        vocab_size=words,
        word_embedding_size=16,
        decoder_hidden_size=16,
        num_decoder_layers=1,
        num_feature_decoder_layers=1,
        num_bottleneck_decoder_layers=1,
        contrast_hidden_size=16,
        contrast_size=8,
    )
    return Copies((LexMotionTextConfig(encoder_config=encoder, num_decoder_layers=1), motion))


@pytest.fixture(scope="session")
def model(configs, processor):
    from lexmotion import LexMotionConfig, LexMotionModel

    torch.manual_seed(0)
    model = LexMotionModel(LexMotionConfig(text_config=configs[0], motion_config=configs[1]))
    model.set_active_words(processor.lexicon.active_ids)
    return model.eval()


class ListedMotions:
    """Motions by id, for the demo."""

    def __init__(self, motions):
        self.motions = motions

    def get(self, id, metadata):
        return (self.motions[id], 20.0) if id in self.motions else None


@pytest.fixture(scope="session")
def bodies():
    """Four people who move: (T, 22, 3) at 20 frames a second."""
    from lexmotion.processing.corpora.synthetic import iterate_motions

    motions = iterate_motions({"train": 20, "validation": 10, "test": 10}, seed=0)
    return [positions for *_, positions, _ in itertools.islice(motions, 4)]


@pytest.fixture(scope="session")
def demo(model, processor, bodies, captions):
    """The demo over `bodies`, ids clip0 to clip3."""
    from lexmotion import LexMotionIndex
    from lexmotion.evaluation.viewer.demo import Demo

    ids = [f"clip{number}" for number in range(len(bodies))]
    metadata = [{"split": "test", "captions": [caption]} for caption in captions]
    embeds = model.encode_motion(bodies, 20.0, processor)
    index = LexMotionIndex.build(embeds, metadata, ids, processor=processor, model=model)
    return Demo(index, [ListedMotions(dict(zip(ids, bodies, strict=True)))])


@pytest.fixture(scope="session")
def trained(tmp_path_factory, motions, configs):
    """A prepared corpus and a random model with segments that fits it."""
    from lexmotion import (
        LexMotionConfig,
        LexMotionModel,
        LexMotionMotionConfig,
        LexMotionProcessor,
        LexMotionTextConfig,
    )
    from lexmotion.processing.corpora.prepare import prepare

    root = tmp_path_factory.mktemp("corpus")
    for name in ("new_joints", "texts"):
        (root / name).mkdir()
    for number in range(10):
        name = f"{number:06d}"
        np.save(root / "new_joints" / f"{name}.npy", motions[number % len(motions)] + 0.01 * number)
        lines = [f"a person {verb} {number} times#a/DET#0.0#0.0" for verb in ("walks", "jumps")]
        (root / "texts" / f"{name}.txt").write_text("\n".join(lines))
    for split, ids in (("train", range(6)), ("test", range(6, 10))):
        (root / f"{split}.txt").write_text("\n".join(f"{number:06d}" for number in ids))
    prepare(root, root / "prepared", max_frames=32, mirror="none")
    processor = LexMotionProcessor.from_pretrained(root / "prepared" / "processor")
    text, motion = (config.to_dict() for config in configs)
    text["encoder_config"]["vocab_size"] = motion["vocab_size"] = len(processor.tokenizer)
    torch.manual_seed(0)
    towers = {"text_config": LexMotionTextConfig(**text), "motion_config": LexMotionMotionConfig(**motion)}
    model = LexMotionModel(LexMotionConfig(**towers, num_segments=2))
    model.set_active_words(processor.lexicon.active_ids)
    model.save_pretrained(root / "model")
    processor.save_pretrained(root / "model")
    return root
