"""A compact model: the same words and vectors in a part of the size, unpacked once into a cache."""

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import text_config

from lexmotion import LexMotionModel, LexMotionMotionConfig, LexMotionProcessor, LexMotionTextModel, shipped
from lexmotion.encoding_lexmotion import bind_processor, check_processor
from lexmotion.evaluation.loading import load_model, name_of, save_model
from lexmotion.export.compact import compact, kept_tokens, prune_vocabulary
from lexmotion.processing.corpora.whole_words import add_whole_words
from lexmotion.processing.feature_extraction_lexmotion import LexMotionFeatureExtractor
from lexmotion.processing.lexicon import Lexicon
from lexmotion.shipped import packed

CAPTIONS = ["a person walks forward", "a man cartwheels twice", "someone kicks with the left leg"]
PRUNED = "clockwise"


def motion(num_frames, seed=0):
    return torch.randn(num_frames, 22, 3, generator=torch.Generator().manual_seed(seed)).numpy()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    monkeypatch.setattr(packed, "LEAST", 64)
    return tmp_path / "assets" / "lexmotion" / "weights"


@pytest.fixture
def processor(tiny_tokenizer, tmp_path):
    tiny_tokenizer.save_pretrained(tmp_path / "tokenizer")
    own = type(tiny_tokenizer).from_pretrained(tmp_path / "tokenizer")
    assert add_whole_words(own, CAPTIONS, [], 1) == ["cartwheels"]
    extractor = LexMotionFeatureExtractor(max_frames=32).fit([motion(30, seed) for seed in range(3)], 20.0)
    return LexMotionProcessor(extractor, own, Lexicon.from_corpus(CAPTIONS, own))


@pytest.fixture
def model(processor):
    torch.manual_seed(0)
    config = text_config()
    config.encoder_config.vocab_size = len(processor.tokenizer)
    text = LexMotionTextModel(config)
    text.set_active_words(processor.lexicon.active_ids)
    torch.nn.init.normal_(text.encoder.get_input_embeddings().weight)
    extractor = processor.feature_extractor
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    inputs = {"num_features": extractor.num_features, "parts": extractor.parts, "num_frames": extractor.max_frames}
    motion_config = LexMotionMotionConfig(patch_frames=4, **sizes, **inputs)
    events = processor.tokenizer.convert_tokens_to_ids(["then", "while"])
    model = LexMotionModel.from_towers(text, motion_config, num_segments=2, event_words=events).eval()
    for head in (model.text_model.lexical_head, model.motion_model.lexical_head):
        torch.nn.init.normal_(head.bias, std=0.1)
    scores = model.get_motion_features(**processor(motion=[motion(30, seed) for seed in range(8)])).motion_scores
    model.limit_motion_words(scores, 0.5)
    bind_processor(model, processor)
    return model


@pytest.fixture
def package(tmp_path, model, processor, monkeypatch):
    """The weights of a package with one model, `small`."""
    compact(model, processor, tmp_path / "package" / "small", vocabulary=1)
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path / "package")
    return tmp_path / "package" / "small"


# ---- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 64), (5, 7), (4, 3, 32), (1, 1)])
def test_no_entry_is_wrong_by_more_than_its_group_allows(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 3, shape[0]).view(
        -1, *[1] * (len(shape) - 1)
    )
    levels, scale = packed.quantized(matrix)
    assert levels.dtype == torch.int8 and levels.shape == matrix.shape and scale.dtype == torch.bfloat16
    wrong = (packed.restored(levels, scale) - matrix).abs().flatten(1)
    width = packed.GROUP if wrong.shape[1] % packed.GROUP == 0 else wrong.shape[1]
    peaks = matrix.abs().flatten(1).view(len(matrix), -1, width).amax(2, keepdim=True)
    assert (wrong.view(len(matrix), -1, width) <= peaks / 180).all()


def test_rows_of_zeros_stay_zero():
    assert not packed.restored(*packed.quantized(torch.zeros(3, 40))).any()


@pytest.mark.parametrize(("most", "integers"), [(0, True), (10**9, False)])
def test_matrices_have_16_bits_as_far_as_the_size_allows(model, processor, tmp_path, most, integers):
    save_model(model, processor, tmp_path / "model")
    before = packed.load_file(tmp_path / "model" / "model.safetensors")
    error = packed.pack(tmp_path / "model", most)
    stored = packed.load_file(tmp_path / "model" / packed.PACKED)
    large = {name for name, tensor in before.items() if packed.is_large(tensor)}
    assert large and {stored[name].dtype for name in large} == {torch.int8 if integers else torch.float16}
    assert 0 < error < (0.01 if integers else 0.001)
    assert all(torch.equal(stored[name], before[name]) for name in before.keys() - large)


# ---- words ----------------------------------------------------------------------------------------------------------


def test_tokens_of_captions_and_single_characters_are_kept(processor):
    tokenizer, lexicon = processor.tokenizer, processor.lexicon
    least = kept_tokens(processor, vocabulary=1)
    words = set(tokenizer.convert_ids_to_tokens(least.tolist()))
    assert {
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "walks",
        "twice",
        "a",
        "person",
        "s",
        "2",
        "##s",
        "日",
    } <= words
    assert set(lexicon.active_ids) <= set(least) and not {PRUNED, "[unused0]"} & words
    assert PRUNED in tokenizer.convert_ids_to_tokens(kept_tokens(processor, (), 1, [f"turns {PRUNED}"]).tolist())
    assert len(kept_tokens(processor, vocabulary=len(least) + 5)) == len(least) + 5
    assert len(kept_tokens(processor, vocabulary=None)) == len(tokenizer)
    with pytest.raises(ValueError, match="vocabulary: got 0"):
        kept_tokens(processor, vocabulary=0)


def test_a_pruned_model_gives_the_same_words(model, processor):
    kept = kept_tokens(processor, model.config.event_words, 1)
    small, own = prune_vocabulary(model, processor, kept)
    assert len(own.tokenizer) == len(kept) < len(processor.tokenizer)
    texts = [*CAPTIONS, "a person kicks, then walks twice"]
    with torch.no_grad():
        inputs, small_inputs = (one(text=texts, motion=[motion(30)], fps=20) for one in (processor, own))
        full, pruned = model(**inputs), small(**small_inputs)
    torch.testing.assert_close(pruned.text_embeds, full.text_embeds[:, kept])
    torch.testing.assert_close(pruned.motion_embeds, full.motion_embeds[:, kept])
    torch.testing.assert_close(pruned.logits_per_text, full.logits_per_text)  # with segments
    assert own.top_words(pruned.motion_embeds, k=5) == processor.top_words(full.motion_embeds, k=5)
    difference = abs(model.encode_text(texts, processor)[:, kept] - small.encode_text(texts, own))
    assert difference.max() < 1e-5


def test_a_word_that_is_pruned_is_read_by_its_pieces(model, processor):
    small, own = prune_vocabulary(model, processor, kept_tokens(processor, model.config.event_words, 1))
    assert own.tokenizer.tokenize(PRUNED) != [PRUNED] and own.tokenizer.tokenize("walks") == ["walks"]
    assert np.isfinite(small.encode_text([PRUNED], own).toarray()).all()


def test_hashes_and_counts_are_those_of_the_smaller_vocabulary(model, processor):
    kept = kept_tokens(processor, model.config.event_words, 1)
    small, own = prune_vocabulary(model, processor, kept)
    check_processor(small.config, own)
    assert small.config.text_config.lexicon_hash == own.lexicon.hash != processor.lexicon.hash
    assert small.config.motion_config.statistics_hash == model.config.motion_config.statistics_hash
    with pytest.raises(ValueError, match="lexicon|tokenizer"):
        check_processor(small.config, processor)
    assert np.array_equal(own.lexicon.idf, processor.lexicon.idf[kept])
    for mask in ("motion_word", "content", "displayed", "piece"):
        assert np.array_equal(getattr(own.lexicon, mask), getattr(processor.lexicon, mask)[kept])
    assert own.tokenizer.tokenize("a man cartwheels") == ["a", "man", "cartwheels"]  # a whole word
    assert own.tokenizer.convert_ids_to_tokens(small.config.event_words) == ["then", "while"]
    assert own.tokenizer.cls_token_id == own.tokenizer("walks")["input_ids"][0]


# ---- the folder -----------------------------------------------------------------------------------------------------


def test_a_compact_model_loads_like_any_other(model, processor, tmp_path, cache):
    report = compact(model, processor, tmp_path / "small", 1, CAPTIONS, [motion(30, 99)], most_bytes=0)
    assert report.size < report.full_size / 2 and report.tokens < report.full_tokens == len(processor.tokenizer)
    assert report.text_cosine > 0.99 and report.motion_cosine > 0.99 and 0 < report.weight_error < 0.01
    assert "MB" in report.summary() and "cosine at least" in report.summary()
    loaded, own = load_model(tmp_path / "small", "cpu")
    assert loaded.dtype == torch.float32 and len(list(cache.iterdir())) == 1
    again = LexMotionModel.from_pretrained(shipped.pretrained(tmp_path / "small"))
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), again.parameters(), strict=True))
    wanted = model.encode_text(CAPTIONS, processor)[:, kept_tokens(processor, model.config.event_words, 1)]
    assert abs(loaded.encode_text(CAPTIONS, own) - wanted).max() <= report.text_difference + 1e-6


def test_another_folder_or_model_is_refused(model, processor, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty"):
        compact(model, processor, tmp_path / "full")
    with pytest.raises(ValueError, match="LexMotionTextModel"):
        compact(model.text_model, processor, tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_a_full_disk_leaves_no_folder(model, processor, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(packed, "save_file", full)
    with pytest.raises(OSError, match="disk or quota is full"):
        compact(model, processor, tmp_path / "small")
    assert not [entry.name for entry in tmp_path.iterdir() if "small" in entry.name]


# ---- the package ----------------------------------------------------------------------------------------------------


def test_a_model_of_the_package_has_a_name(package, cache):
    place = Path(shipped.pretrained())
    assert place.parent == cache and place.name.startswith("small-") and shipped.pretrained("small") == str(place)
    loaded, _ = load_model("small", "cpu")
    assert name_of(loaded) == "small" == shipped.portable(str(place)) and shipped.portable("a/b") == "a/b"


def test_an_unknown_name_lists_those_of_the_package(package, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="'large'.*choose small"):
        shipped.pretrained("large")
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path / "none")
    for read in (shipped.pretrained, load_model):
        with pytest.raises(FileNotFoundError, match="'small': this lexmotion was built without weights"):
            read("small")


def test_a_folder_of_the_user_is_preferred_and_named(package, model, processor, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.getLogger("lexmotion"), "propagate", True)
    save_model(model, processor, "small")
    loaded, _ = load_model("small", "cpu")
    assert len(loaded.get_input_embeddings().weight) == len(processor.tokenizer)
    assert "using the folder 'small'" in caplog.text


def test_a_damaged_copy_in_the_cache_is_unpacked_again(package):
    place = Path(shipped.pretrained("small"))
    good = (place / "model.safetensors").read_bytes()
    for damage in (lambda file: file.write_bytes(good[:-8] + bytes(8)), lambda file: file.unlink()):
        damage(place / "model.safetensors")
        assert shipped.pretrained("small") == str(place) and (place / "model.safetensors").read_bytes() == good
    assert [entry.name for entry in place.parent.iterdir()] == [place.name]


def test_a_damaged_package_is_named(package):
    content = bytearray((package / packed.PACKED).read_bytes())
    content[-1] ^= 1
    (package / packed.PACKED).write_bytes(content)
    with pytest.raises(ValueError, match=f"{packed.PACKED}: differs from what was saved"):
        shipped.pretrained("small")


def _other_scales(tensors):
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 2 and not name.endswith(packed.SCALE))
    levels, scale = (
        torch.ones(tensors[name].shape, dtype=torch.int8),
        torch.ones(1 << 12, 1 << 6, dtype=torch.bfloat16),
    )
    return {**tensors, name: levels, name + packed.SCALE: scale}


@pytest.mark.parametrize("content", [b"", b"\xff" * 999, _other_scales])
def test_weights_that_fit_their_checksums_but_not_each_other_are_one_line(package, content):
    file = package / packed.PACKED
    if callable(content):
        packed.save_file(content(packed.load_file(file)), file, metadata=packed.FORMAT)
    else:
        file.write_bytes(content)
    (file.parent / packed.CHECKSUMS).unlink()
    packed.write_checksums(file.parent)
    with pytest.raises(ValueError, match="packed.safetensors.*restore") as error:
        shipped.pretrained("small")
    assert "\n" not in str(error.value)


def test_a_later_format_is_refused(package):
    weights = packed.load_file(package / packed.PACKED)
    packed.save_file(weights, package / packed.PACKED, metadata=packed.FORMAT | {"version": "2"})
    (package / packed.CHECKSUMS).unlink()
    packed.write_checksums(package)
    with pytest.raises(ValueError, match="install a newer lexmotion"):
        shipped.pretrained("small")


def test_what_another_process_unpacked_meanwhile_is_used(package, cache, monkeypatch):
    unpack = packed.unpack

    def slowly(source, work):
        unpack(source, work)
        if not shutil.rmtree(packed.cached_place(source), ignore_errors=True):
            shutil.copytree(work, packed.cached_place(source))  # the other process

    monkeypatch.setattr(packed, "unpack", slowly)
    place = Path(shipped.pretrained("small"))
    assert packed.is_whole(place) and [entry.name for entry in cache.iterdir()] == [place.name]


@pytest.mark.slow
def test_two_processes_unpack_at_once(package, tmp_path):
    code = f"from lexmotion.shipped import packed; print(packed.unpacked({str(package)!r}))"
    environment = os.environ | {"HF_ASSETS_CACHE": str(tmp_path / "assets")}
    running = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    places = {process.communicate(timeout=120)[0] for process in running}
    assert {process.returncode for process in running} == {0} and len(places) == 1
    assert packed.is_whole(Path(places.pop().strip()))


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_cache_that_cannot_be_written_is_one_clear_line(package, cache, monkeypatch, number):
    def refused(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(packed, "save_file", refused)
    with pytest.raises(OSError, match="'small' cannot be unpacked there .*set HF_HOME") as error:
        shipped.pretrained("small")
    assert "\n" not in str(error.value) and list(cache.iterdir()) == []


def test_a_file_in_place_of_the_cache_is_one_clear_line(package, cache):
    cache.parent.mkdir(parents=True)
    cache.write_text("a file")
    with pytest.raises(OSError, match="cannot be unpacked there"):
        shipped.pretrained("small")


def test_what_a_killed_process_left_is_removed(package, cache, monkeypatch):
    place = packed.cached_place(package)
    for name, age in (("old", 2 * packed.ABANDONED), ("new", 0.0)):
        folder = cache / f".{place.name}.{name}.partial"
        folder.mkdir(parents=True)
        os.utime(folder, (os.stat(folder).st_atime, os.stat(folder).st_mtime - age))
    shipped.pretrained("small")
    assert sorted(entry.name for entry in cache.iterdir()) == [f".{place.name}.new.partial", place.name]


def test_the_card_comes_along(model, processor, tmp_path):
    save_model(model, processor, tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("card")
    loaded, own = load_model(tmp_path / "model", "cpu")
    compact(loaded, own, tmp_path / "small")
    assert (tmp_path / "small" / "README.md").read_text() == "card"
    assert "README.md" not in json.loads((tmp_path / "small" / packed.CHECKSUMS).read_text())
