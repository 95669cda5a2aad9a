import copy
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from lexmotion import encoding_lexmotion
from lexmotion.processing.corpora.prepare import load_prepared
from lexmotion.training import trainer as training
from lexmotion.training.batches.corpus import TrainingCorpus
from lexmotion.training.checkpoints import CheckpointFolder
from lexmotion.training.tasks import PHASES
from lexmotion.training.tasks.lexmotion_task import parameter_group
from lexmotion.training.trainer import NonFiniteLossError


@pytest.mark.parametrize("phase", PHASES)
def test_a_phase_overfits_four_samples(make_trainer, prepared, data, phase):
    rows = load_prepared(prepared, ["train"])["train"].select(range(4))
    corpus = TrainingCorpus.from_split(rows, data.processor.tokenizer, 32)
    settings = {
        "num_steps": 60,
        "learning_rate": 5e-3,
        "text_learning_rate": 5e-3,
        "motion_learning_rate": 5e-3,
        "head_learning_rate": 5e-3,
        "decoder_learning_rate": 5e-3,
        "warmup_ratio": 0.0,
        "lr_scheduler": "constant",
        "mirror_probability": 0.0,
        "crop_ratio": 1.0,
        "speed_range": 0.0,
        "eval_split": None,
        "save_steps": 0,
    }
    if phase == "lexcmlp":
        settings |= {"mlm_weight": 0.0, "ema_decay": 0.0, "text_flops_weight": 0.0, "motion_flops_weight": 0.0}
    trainer = make_trainer(phase, train_corpus=corpus, **settings)
    trainer.train()
    losses = [json.loads(line)["loss"] for line in (trainer.output_dir / "log.jsonl").read_text().splitlines()]
    assert sum(losses[-5:]) / 5 < 0.6 * losses[0]


@pytest.mark.parametrize("phase", PHASES)
def test_a_phase_is_the_same_in_one_sitting_and_in_two(make_trainer, read_log, phase):
    settings = {"save_steps": 2, "gradient_accumulation_steps": 2, "sparsity_interval": 1, "flops_warmup_ratio": 0.3}
    if phase != "lexcmlp":
        del settings["sparsity_interval"], settings["flops_warmup_ratio"]
    whole = make_trainer(phase, "whole", **settings)
    result = whole.train()
    first = make_trainer(phase, "parts", **settings)
    original = first.save_checkpoint

    def stop_after_the_second_checkpoint():
        original()
        if first.state.step >= 4:
            raise KeyboardInterrupt

    first.save_checkpoint = stop_after_the_second_checkpoint
    with pytest.raises(KeyboardInterrupt):
        first.train()
    second = make_trainer(phase, "parts", **settings)
    resumed = second.train()
    assert resumed["best"] == result["best"]
    assert resumed["evaluation"] == result["evaluation"]
    assert read_log(second.output_dir) == read_log(whole.output_dir)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, second.model.state_dict()[name]), name
    assert second.phase_state() == whole.phase_state()


@pytest.mark.slow
def test_kill_minus_nine_changes_nothing(prepared, recipe_file, tmp_path, read_log):
    """The real command, killed by SIGKILL at an arbitrary moment, started again: every loss equal to the last bit."""
    from lexmotion.training.__main__ import main

    def command(folder):
        return [
            *("--config", str(recipe_file), "--dataset", str(prepared), "--output_dir", str(folder)),
            *("--num_steps", "40", "--save_steps", "3", "--eval_steps", "7", "--sparsity_interval", "2"),
            *("--flops_warmup_ratio", "0.1", "--ema_decay", "0.9"),
        ]

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    worker = subprocess.Popen(
        [sys.executable, "-m", "lexmotion.training", "lexcmlp", *command(killed)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    log = killed / "log.jsonl"
    deadline = time.monotonic() + 120
    while worker.poll() is None and time.monotonic() < deadline:
        if log.is_file() and log.read_bytes().count(b"\n") >= 13:
            break
        time.sleep(0.002)
    worker.send_signal(signal.SIGKILL)
    _, error = worker.communicate()
    assert worker.returncode == -signal.SIGKILL, error.decode()[-2000:]
    assert not (killed / "result.json").exists()
    resumed_at = CheckpointFolder(killed).steps()[-1]
    assert 3 <= resumed_at < 40
    one = main(["lexcmlp", *command(whole)])
    two = main(["lexcmlp", *command(killed)])
    assert read_log(killed) == read_log(whole)
    assert one["training"]["best"] == two["training"]["best"]
    assert one["acceptance"] == two["acceptance"]
    assert (whole / "model" / "model.safetensors").read_bytes() == (
        killed / "model" / "model.safetensors"
    ).read_bytes()


def test_a_damaged_newest_checkpoint_costs_steps_not_exactness(make_trainer, read_log):
    whole = make_trainer("cmmm", "whole", save_steps=2)
    whole.train()
    part = make_trainer("cmmm", "part", save_steps=2)
    part.train()
    (part.output_dir / "checkpoint-6" / "model.safetensors").write_bytes(b"torn")
    again = make_trainer("cmmm", "part", save_steps=2)
    again.train()
    assert read_log(again.output_dir) == read_log(whole.output_dir)
    assert CheckpointFolder(again.output_dir).fault(6) is None


def test_a_run_none_of_whose_checkpoints_is_sound_is_left_as_it_is(make_trainer):
    trainer = make_trainer("cmmm", "part", save_steps=3)
    trainer.train()
    for step in CheckpointFolder(trainer.output_dir).steps():
        (trainer.output_dir / f"checkpoint-{step}" / "model.safetensors").write_bytes(b"torn")
    before = sorted(trainer.output_dir.rglob("*"))
    (trainer.output_dir / "result.json").unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"checkpoint-6\b.*model\.safetensors.*hash.*resume: false"):
        make_trainer("cmmm", "part", save_steps=3).train()
    assert sorted(trainer.output_dir.rglob("*")) == [path for path in before if path.name != "result.json"]


def test_checkpoints_rotate_beside_the_best(make_trainer):
    trainer = make_trainer("cmmm", save_steps=1, eval_steps=2, save_total_limit=2)
    result = trainer.train()
    assert CheckpointFolder(trainer.output_dir).steps() == [5, 6]
    assert CheckpointFolder(trainer.output_dir / "best").steps() == [result["best"]["step"]]


def test_the_model_ends_with_its_best_weights(make_trainer):
    trainer = make_trainer("cmmm", learning_rate=0.3, warmup_ratio=0.0, lr_scheduler="constant", eval_steps=1)
    result = trainer.train()
    with torch.no_grad():
        values = trainer.evaluate()
    assert values["loss"] == pytest.approx(result["best"]["loss"], rel=1e-6)
    assert result["best"]["loss"] <= result["evaluation"]["loss"]


def test_nan_fails_at_once_and_names_the_clips(make_trainer, data):
    corpus = copy.copy(data.corpus("train", 32))
    corpus.frames = corpus.frames.clone()
    trainer = make_trainer("cmmm", train_corpus=corpus)
    extractor = trainer.clips.feature_extractor
    rows = trainer.order.rows(2)  # the third batch

    class Broken:
        def __getattr__(self, name):
            return getattr(extractor, name)

        def values_from_positions(self, positions, lengths):
            values, lengths = extractor.values_from_positions(positions, lengths)
            if self.calls == 4:  # two crops a batch
                values[0] = float("nan")
            self.calls += 1
            return values, lengths

    trainer.clips.feature_extractor = Broken()
    trainer.clips.feature_extractor.calls = 0
    with pytest.raises(NonFiniteLossError) as failure:
        trainer.train()
    message = str(failure.value)
    assert "cmmm" in message and "step 3" in message and "position_loss=nan" in message
    assert all(corpus.ids[row] in message for row in rows.tolist())
    assert isinstance(failure.value, FloatingPointError)


def test_a_checkpoint_of_another_run_is_refused(make_trainer):
    make_trainer("cmmm", save_steps=2).train()
    with pytest.raises(ValueError, match=r"mask_ratio.*\b0\.65\b.*\b0\.5\b.*resume: false"):
        make_trainer("cmmm", save_steps=2, mask_ratio=0.5).train()
    fresh = make_trainer("cmmm", save_steps=2, mask_ratio=0.5, resume=False)
    assert fresh.train()["steps"] == 6
    other = make_trainer("cmmm", save_steps=2, mask_ratio=0.5)
    other.fingerprint = "elsewhere"
    with pytest.raises(ValueError, match="corpus.*initial weights.*resume: false"):
        other.train()


def test_time_budget_ends_a_phase_with_a_prefix_of_the_full_run(make_trainer, read_log):
    whole = make_trainer("cmmm", "whole", eval_split=None)
    whole.train()
    short = make_trainer("cmmm", "short", eval_split=None, max_minutes=0.0)
    result = short.train()
    assert result["steps"] == 1 and result["stopped"] == "max_minutes=0.0"
    assert read_log(short.output_dir) == read_log(whole.output_dir)[:1]
    more = make_trainer("cmmm", "short", eval_split=None)
    assert more.train()["steps"] == 6
    assert read_log(more.output_dir) == read_log(whole.output_dir)


def test_accumulated_batches_count_as_one_step(make_trainer, read_log):
    trainer = make_trainer("lexmlm", gradient_accumulation_steps=3, num_steps=None, num_epochs=1.0)
    assert trainer.num_steps == round(trainer.order.batches_per_epoch / 3)
    trainer.train()
    assert len([line for line in read_log(trainer.output_dir) if "loss" in line]) == trainer.num_steps


def test_parameters_fall_into_their_groups(make_trainer):
    names = {
        "text_model.encoder.embeddings.word_embeddings.weight": "text",
        "model.text_model.lexical_head.dense.weight": "head",
        "model.motion_model.projection_norm.weight": "head",
        "motion_model.encoder.layers.0.output.weight": "motion",
        "text_decoder.decoder.norm.weight": "decoder",
        "patch_states.time_embeddings": "decoder",
        "predictor.0.weight": "decoder",
        "elsewhere": "other",
    }
    assert {name: parameter_group(name) for name in names} == names
    trainer = make_trainer("lexmmm", text_learning_rate=0.0, head_learning_rate=5e-5, motion_learning_rate=2e-4)
    optimizer = trainer.make_optimizer()
    assert not any(weight.requires_grad for weight in trainer.model.model.text_model.encoder.parameters())
    rates = {group["peak_learning_rate"] for group in optimizer.param_groups}
    assert rates == {5e-5, 2e-4, 1e-3}
    for group in optimizer.param_groups:
        assert all(weight.ndim > 1 for weight in group["params"]) or group["weight_decay"] == 0.0
    with pytest.raises(ValueError, match=r"learning.rate.*\b0\b"):
        rates = dict.fromkeys(("learning_rate", "text_learning_rate", "head_learning_rate"), 0.0)
        make_trainer("lexmlm", **rates, decoder_learning_rate=0.0).make_optimizer()


def test_bf16_trains_and_keeps_float32_weights(make_trainer):
    trainer = make_trainer("lexcmlp", mixed_precision="bf16", num_steps=2)
    result = trainer.train()
    assert result["steps"] == 2
    assert {weight.dtype for weight in trainer.model.parameters()} == {torch.float32}


def test_phase_i_without_the_encoders_own_loss(make_trainer, read_log):
    trainer = make_trainer("lexmlm", encoder_loss_weight=0.0, mask_weighting="content", num_steps=2)
    head = trainer.model.text_model.lexical_head.dense.weight.detach().clone()
    trainer.train()
    lines = read_log(trainer.output_dir)
    assert all("encoder_loss" not in line and "eval_encoder_loss" not in line for line in lines)
    assert lines[0]["loss"] == lines[0]["decoder_loss"]
    assert not torch.equal(trainer.model.text_model.lexical_head.dense.weight, head)  # through the bottleneck
    assert trainer.acceptance()["encoder_loss"] > 0


@pytest.fixture
def processor_with(monkeypatch):
    """processor_with(flags) sets the instruction sets that this machine's processor claims to have."""
    return lambda *flags: monkeypatch.setattr(encoding_lexmotion, "_cpu", lambda: set(flags))


def test_auto_precision_is_that_of_the_processor_and_is_recorded(make_trainer, processor_with, monkeypatch):
    logged = []
    monkeypatch.setattr(training.logger, "info_once", logged.append)
    for flags, chosen in ((("avx2",), "no"), (("avx2", "avx512_bf16"), "bf16")):
        processor_with(*flags)
        trainer = make_trainer("lexmlm", chosen, mixed_precision="auto", num_steps=1, eval_split=None)
        assert trainer.train()["precision"] == chosen
        assert repr(chosen) in logged.pop() and not logged
        state = json.loads((trainer.output_dir / "checkpoint-1" / "trainer_state.json").read_text())
        assert state["precision"] == chosen


def test_a_run_resumed_in_another_precision_says_so(make_trainer, processor_with, monkeypatch):
    warned = []
    monkeypatch.setattr(training.logger, "warning", warned.append)

    def begin():
        return make_trainer("lexmlm", mixed_precision="auto", save_steps=2, eval_split=None)

    processor_with("avx2", "amx_bf16")
    first = begin()
    first.after_step = lambda losses: 1 / (first.state.step < 4)
    with pytest.raises(ZeroDivisionError):
        first.train()
    with begin().ready():
        assert not warned
    processor_with("avx2")
    second = begin()
    assert second.train()["steps"] == 6
    assert len(warned) == 1 and "checkpoint-2" in warned[0] and "'bf16'" in warned[0] and "'no'" in warned[0]


def test_trackers_receive_the_log(make_trainer):
    trainer = make_trainer("cmmm", log_with=["tensorboard"], num_steps=2)
    trainer.train()
    assert list(trainer.output_dir.rglob("events.out.tfevents*"))


def test_prefetched_batches_are_the_same(make_trainer):
    trainer = make_trainer("lexcmlp", prefetch=2)
    trainer.resume()
    with trainer.batches() as plain:
        expected = [next(plain) for _ in range(4)]
    trainer.device = torch.device("meta")  # any accelerator
    with trainer.batches() as ahead:
        for rows, batch in expected:
            other_rows, other = next(ahead)
            assert torch.equal(rows, other_rows)
            assert all(torch.equal(batch[name], other[name]) for name in batch)


@pytest.mark.parametrize("phase", PHASES)
def test_buckets_spare_padding_in_every_phase(make_trainer, phase):
    tokens, mask = [], "attention_mask" if phase == "lexmlm" else "motion_attention_mask"
    for buckets in (0, 6):
        trainer = make_trainer(phase, bucket_batches=buckets, crop_ratio=1.0, speed_range=0.0)
        with trainer.batches() as batches:
            epoch = [next(batches) for _ in range(trainer.order.batches_per_epoch)]
        rows = torch.cat([rows for rows, _ in epoch])
        assert len(rows.unique()) == len(rows)
        tokens.append(sum(batch[mask].numel() for _, batch in epoch))
    assert tokens[1] < tokens[0]


def test_several_captions_of_a_clip_share_its_id(make_trainer, data):
    trainer = make_trainer("lexcmlp", captions_per_motion=3, grounding_loss_weight=0.1, num_steps=1)
    with trainer.batches() as batches:
        rows, batch = next(batches)
    assert batch["input_ids"].shape[0] == 3 * batch["motion_values"].shape[0]
    assert torch.equal(batch["text_clip_ids"], rows.repeat_interleave(3))
    assert batch["mlm_input_ids"].shape[0] == len(rows) == batch["bow_weights"].shape[0]
    trainer.train()


def test_sentence_vectors_are_kept_and_used(make_trainer):
    trainer = make_trainer("lexcmlp", caption_features=True, num_steps=1)
    assert trainer.caption_vectors.shape[:2] == (2, len(trainer.train_corpus.captions))
    assert torch.allclose(trainer.caption_vectors.norm(dim=-1), torch.ones(1), atol=1e-5)
    path = trainer.output_dir / "caption_features.safetensors"
    written = path.stat().st_mtime_ns
    again = make_trainer("lexcmlp", caption_features=True, num_steps=1)
    assert path.stat().st_mtime_ns == written
    assert torch.equal(again.caption_vectors, trainer.caption_vectors)
    with again.batches() as batches:
        assert next(batches)[1]["caption_features"].shape == (8, 32)


def test_phase_four_starts_at_the_asked_number_of_active_words(make_trainer):
    trainer = make_trainer("lexcmlp", initial_active_words=20)
    trainer.prepare_weights()
    trainer.model.eval()
    with torch.no_grad():
        for side, embeds in zip(("text", "motion"), trainer.encode(trainer.train_corpus), strict=True):
            assert (embeds > 0).sum(dim=1).float().mean().item() == pytest.approx(20, rel=0.2), side


def test_phase_four_ends_with_no_word_in_too_many_motions(make_trainer):
    trainer = make_trainer("lexcmlp", motion_word_share=0.3, motion_word_limits=[2, 9], load_best_model=False)
    trainer.train()
    with torch.no_grad():
        _, motions = trainer.encode(trainer.train_corpus)
    words = (motions > 0).sum(dim=1)
    assert words.min() >= 2 and words.max() <= 9
    # Rows that had too few words are lifted again, so this is a bound only for the others.
    assert ((motions[words > 2] > 0).float().mean(dim=0) <= 0.3).all()


def test_words_that_cannot_be_limited_are_refused_before_training(make_trainer):
    trainer = make_trainer("lexcmlp", motion_word_share=0.3)
    trainer.dual_encoder.motion_model.lexical_head.kind = "vdr"  # as from another run's weights
    with pytest.raises(ValueError, match="motion_word_share.*'vdr'.*'splade'"):
        trainer.setup()


def test_trackio_receives_the_log(make_trainer, tmp_path, monkeypatch):
    pytest.importorskip("trackio", reason="the extra `trackio` is not installed")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert make_trainer("cmmm", log_with=["trackio"], num_steps=2).train()["steps"] == 2
