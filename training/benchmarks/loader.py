"""Benchmark of the loader: batches from memory-mapped Arrow against rows read, cropped and masked one by one."""

import functools
import math
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lexmotion.evaluation.benchmarks.harness import Case, compare_tensors, require
from lexmotion.processing.corpora.prepare import load_prepared, prepare
from lexmotion.processing.corpora.synthetic import generate_corpus
from lexmotion.processing.motion_features import mirror_positions

from ..batches.corpus import caption_hash
from ..batches.order import Batch, BatchOrder, BatchRandom, derive_seed
from ..data import PreparedData
from ..recipe import load_recipe, run_arguments, task_values
from ..tasks import PHASES, TASKS
from ..trainer import Trainer

DESCRIPTION = "loader: rows of a prepared corpus to the batches of each phase, without the model"
QUICK = {"batches": 1, "batch_size": 16, "clips": 48}

SORTED_BATCHES = 16  # bucket_batches whose padding is reported


def cases(dataset: str = "", recipe: str = "", batches: int = 4, batch_size: int = 64, clips: int = 256) -> list[Case]:
    """
    Return one case per phase.

    Args:
        dataset: prepared folder; if empty, a synthetic corpus of `clips` clips is generated.
        recipe: if empty, `small` for a given dataset and `tiny` for the synthetic one.
        batches, batch_size: batches per call, and rows per batch.
    """
    folder = Path(dataset) if dataset else synthetic(clips)
    content = load_recipe(recipe or ("small" if dataset else "tiny"))
    data = PreparedData.read(folder)
    rows = load_prepared(folder, ["train"], cache_dir=scratch() / "datasets")["train"].with_format("numpy")
    found = []
    for phase in PHASES:
        values = task_values(content, phase) or {}
        values |= {"eval_split": None, "batch_size": batch_size, "position_jitter": 0.0}
        values["output_dir"] = str(scratch() / phase)
        if phase == "lexcmlp":
            values["caption_features"] = False  # computed once, then looked up
        arguments = run_arguments(phase, values)
        trainer: Any = TASKS[phase].make_trainer(arguments, data)
        found.append(_case(trainer, PlainLoader(trainer, rows), batches))
    return found


def _case(trainer: Trainer, loader: "PlainLoader", batches: int) -> Case:
    def ours() -> list[Batch]:
        with trainer.batches() as stream:
            return [next(stream)[1] for _ in range(batches)]

    def plain() -> list[Batch]:
        return [loader.batch(number) for number in range(batches)]

    def facts() -> dict[str, Any]:
        return {**padding(trainer), **consumption(trainer, batches)}

    return Case(trainer.name, ours, plain, agree, batches * trainer.order.batch_size, "rows", facts)


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="lexmotion-loader-")


def scratch() -> Path:
    """Return a folder that is deleted when the process ends."""
    return Path(_scratch().name)


@functools.cache
def synthetic(clips: int) -> Path:
    """Prepare a synthetic corpus with the published features and clips of up to ten seconds."""
    source = generate_corpus(scratch() / f"source-{clips}", {"train": clips, "validation": 8, "test": 8}, seed=0)
    folder = scratch() / f"prepared-{clips}"
    prepare(source, folder, representation="humanml3d", max_frames=208)
    return folder


def agree(ours: Sequence[Batch], plain: Sequence[Batch]) -> str:
    """Check that batches are equal; float32 features may differ by the order of summation."""
    worst = "equal"
    for mine, reference in zip(ours, plain, strict=True):
        require(set(mine) <= set(reference), f"{sorted(set(mine) - set(reference))} are missing in the plain batch")
        for name, value in mine.items():
            other = reference[name]
            require(value.shape == other.shape, f"{name} has shape {tuple(value.shape)} and {tuple(other.shape)}")
            if value.is_floating_point():
                worst = f"motion: {compare_tensors(value, other, 1e-5)}, else equal"
            else:
                require(torch.equal(value, other), f"{int((value != other).sum())} numbers of {name}")
    return worst


def padding(trainer: Trainer) -> dict[str, float]:
    """Return the share of padding in an epoch of unaugmented clips, without and with sorting by length."""
    order = trainer.order
    shares = {}
    for buckets in (0, SORTED_BATCHES):
        other = BatchOrder(order.lengths, order.batch_size, order.seed, bucket_batches=buckets)
        lengths = torch.stack([order.lengths[other.rows(number)] for number in range(other.batches_per_epoch)])
        padded = lengths.amax(dim=1).sum() * order.batch_size
        shares[f"padding, bucket_batches {buckets}"] = round(1.0 - float(lengths.sum() / padded), 3)
    return shares


def consumption(trainer: Trainer, batches: int) -> dict[str, float]:
    """Return the model's rows per second, forward and backward, and how many times faster the loader is."""
    trainer.model.to(trainer.device).train()
    loading, training = 0.0, 0.0
    with trainer.batches() as stream:
        for number in range(1 + batches):
            started = time.perf_counter()
            batch = next(stream)[1]
            loaded = time.perf_counter()
            with trainer.accelerator.autocast():
                loss = trainer.compute_loss(trainer.model, trainer.to_device(batch))["loss"]
            loss.backward()
            trainer.model.zero_grad()
            if trainer.device.type == "cuda":
                torch.cuda.synchronize()
            if number:  # the first batch is a warm-up
                loading += loaded - started
                training += time.perf_counter() - loaded
    rows = batches * trainer.order.batch_size
    return {"model rows/s": round(rows / training), "loader over model": round(training / loading, 1)}


class PlainLoader:
    """
    A straightforward loader: row by row, with Python lists and final padding, and the random numbers of the trainer.

    Args:
        rows: training split as a dataset in NumPy format.
    """

    def __init__(self, trainer: Any, rows: Any):
        self.trainer, self.args, self.data = trainer, trainer.args, trainer.data
        self.rows = rows.select([row for row, captions in enumerate(rows["captions"]) if len(captions)])
        self.tokenizer = trainer.processor.tokenizer
        self.extractor = trainer.processor.feature_extractor
        lexicon = trainer.processor.lexicon
        self.active, self.special, self.subword, self.content = (
            np.asarray(getattr(lexicon, name)).tolist() for name in ("active", "special", "subword", "content")
        )
        self.counts_pieces = lexicon.piece_ids is None
        self.idf = np.asarray(lexicon.idf, dtype=np.float64).tolist()
        self.active_ids = [word for word, active in enumerate(self.active) if active]
        config = trainer.model.config
        self.config = getattr(config, "motion_config", config)
        self.bases: dict[str, int] = {}
        for name in self.rows["base_id"]:
            self.bases.setdefault(str(name), len(self.bases))
        if trainer.name == "lexmlm":
            table = trainer.captions
            self.texts = list(table.texts), list(table.mirrored_texts)

    def batch(self, number: int) -> Batch:
        """Return global batch `number`."""
        order = self.trainer.order
        seed = derive_seed(self.args.seed, self.trainer.name, "batch", number)
        random = BatchRandom(seed, order.batch_size)
        rows = order.rows(number).tolist()
        mirrored = [draw < self.data.mirror_probability for draw in random.uniform().tolist()]
        return getattr(self, f"_{self.trainer.name}")(rows, mirrored, random)

    # ---- phases -------------------------------------------------------------------------------------------------

    def _lexmlm(self, rows: list[int], mirrored: list[bool], random: BatchRandom) -> Batch:
        ids = [self.tokens(self.texts[turned][row]) for row, turned in zip(rows, mirrored, strict=True)]
        ratios = [self.args.encoder_mask_ratio, self.args.decoder_mask_ratio]
        overlap = self.args.decoder_overlap
        encoder, decoder = self.masked_captions(ids, ratios, overlap, random)
        return {
            **padded_captions(encoder, "input_ids", "labels", "attention_mask", self.tokenizer.pad_token_id),
            **padded_captions(decoder, "decoder_input_ids", "decoder_labels", "", self.tokenizer.pad_token_id),
        }

    def _cmmm(self, rows: list[int], mirrored: list[bool], random: BatchRandom) -> Batch:
        args: Any = self.args
        values, frames = self.clips(rows, mirrored, random)
        (token_mask,) = self.motion_masks(frames, [args.mask_ratio], random)
        teacher_values, teacher_frames = self.clips(rows, mirrored, random)
        return {
            "motion_values": values,
            "motion_attention_mask": frames,
            "token_mask": token_mask,
            "teacher_motion_values": teacher_values,
            "teacher_motion_attention_mask": teacher_frames,
            "clip_ids": torch.tensor([self.bases[str(self.rows[row]["base_id"])] for row in rows]),
        }

    def _lexmmm(self, rows: list[int], mirrored: list[bool], random: BatchRandom) -> Batch:
        args: Any = self.args
        values, frames = self.clips(rows, mirrored, random)
        ratios = [args.mask_ratio, args.decoder_motion_mask_ratio]
        token_mask, decoder_token_mask = self.motion_masks(frames, ratios, random)
        ids = [self.tokens(*texts) for texts in self.captions(rows, mirrored, 1, random)]
        ratios = [args.encoder_mask_ratio, args.decoder_mask_ratio]
        encoder, decoder = self.masked_captions(ids, ratios, True, random)
        pad = self.tokenizer.pad_token_id
        return {
            "motion_values": values,
            "motion_attention_mask": frames,
            "token_mask": token_mask,
            "decoder_token_mask": decoder_token_mask,
            "bow_weights": self.bags(rows, mirrored),
            **padded_captions(encoder, "mlm_input_ids", "mlm_labels", "mlm_attention_mask", pad),
            **padded_captions(decoder, "decoder_input_ids", "decoder_labels", "decoder_attention_mask", pad),
        }

    def _lexcmlp(self, rows: list[int], mirrored: list[bool], random: BatchRandom) -> Batch:
        args: Any = self.args
        values, frames = self.clips(rows, mirrored, random)
        captions = self.captions(rows, mirrored, args.captions_per_motion, random)
        texts = [text for chosen in captions for text in chosen]
        pad = self.tokenizer.pad_token_id
        batch = {
            "motion_values": values,
            "motion_attention_mask": frames,
            "text_clip_ids": torch.tensor([row for row, chosen in zip(rows, captions, strict=True) for _ in chosen]),
            "motion_clip_ids": torch.tensor(rows),
            "caption_ids": torch.tensor([caption_hash(text) for text in texts]),
            "bow_weights": self.bags(rows, mirrored),
            **padded_captions([(self.tokens(text), []) for text in texts], "input_ids", "", "attention_mask", pad),
        }
        if args.exclude_relatives:
            batch |= self.relatives(rows, mirrored, captions)
        if args.mlm_weight > 0:
            ids = [self.tokens(chosen[0]) for chosen in captions]
            masked, _ = self.masked_captions(ids, [args.encoder_mask_ratio, 0.5], False, random)
            batch |= padded_captions(masked, "mlm_input_ids", "mlm_labels", "mlm_attention_mask", pad)
        return batch

    def relatives(self, rows: list[int], mirrored: list[bool], captions: list[list[str]]) -> Batch:
        most = max(len(texts) for texts in self.rows["captions"])
        texts_share, motions_share = [], []
        for row, turned, chosen in zip(rows, mirrored, captions, strict=True):
            item = self.rows[row]
            sides = self.captions_of(row, False), self.captions_of(row, True)
            source = 3 * self.bases[str(item["base_id"])]
            facing = source + 1 + (turned != str(item["id"]).startswith("M"))
            for text in chosen:
                place = sides[turned].index(text)
                one_sided = caption_hash(sides[0][place]) != caption_hash(sides[1][place])
                texts_share.append([facing if one_sided else source, caption_hash(text)])
            own = [caption_hash(text) for text in sides[turned]]
            motions_share.append([source, facing, *(own[number % len(own)] for number in range(most))])
        return {"text_relative_ids": torch.tensor(texts_share), "motion_relative_ids": torch.tensor(motions_share)}

    # ---- clips --------------------------------------------------------------------------------------------------

    def clips(self, rows: list[int], mirrored: list[bool], random: BatchRandom) -> tuple[torch.Tensor, torch.Tensor]:
        draws = random.uniform(3).tolist()
        values = [self.clip(*clip) for clip in zip(rows, mirrored, draws, strict=True)]
        patch = self.config.patch_frames
        frames = -(-max(map(len, values)) // patch) * patch
        padded = torch.zeros(len(rows), frames, values[0].shape[1])
        mask = torch.zeros(len(rows), frames, dtype=torch.int64)
        for number, value in enumerate(values):
            padded[number, : len(value)] = value
            mask[number, : len(value)] = 1
        return padded, mask

    def clip(self, row: int, turned: bool, draws: list[float]) -> torch.Tensor:
        item, extractor, data = self.rows[row], self.extractor, self.data
        motion = torch.from_numpy(np.array(item["motion"], dtype=np.float32)).unflatten(1, (-1, 3))
        lost = extractor.representation != "positions"
        longest = extractor.max_frames + lost
        step = float(item["fps"]) / extractor.fps * (1.0 - data.speed_range + 2.0 * data.speed_range * draws[0])
        least = min(len(motion), math.ceil((extractor.min_frames + lost - 1) * step) + 1)
        kept = math.floor(len(motion) * (data.crop_ratio + (1.0 - data.crop_ratio) * draws[1]))
        kept = max(min(kept, 1 + math.ceil((longest - 1) * step)), least)
        start = round((len(motion) - kept) * draws[2])
        at = start + np.arange(min(math.floor((kept - 1) / step + 1e-6) + 1, longest)) * step
        before = np.minimum(at.astype(np.int64), len(motion) - 1)
        share = torch.from_numpy((at - before).clip(0.0, 1.0).astype(np.float32))
        motion = torch.lerp(motion[before], motion[np.minimum(before + 1, len(motion) - 1)], share[:, None, None])
        if turned:
            motion = mirror_positions(motion, extractor.skeleton)
        values, _ = extractor.values_from_positions(motion[None], torch.tensor([len(motion)]))
        return values[0]

    def motion_masks(self, frames: torch.Tensor, ratios: list[float], random: BatchRandom) -> list[torch.Tensor]:
        config = self.config
        scores = random.uniform(config.num_windows, config.num_parts).tolist()
        draws = random.uniform(4).tolist()
        keys = random.uniform(config.num_parts).tolist()
        masks = [torch.zeros(len(frames), frames.shape[1] // config.patch_frames * config.num_parts) for _ in ratios]
        for number, length in enumerate(frames.sum(dim=1).tolist()):
            ranked = self.ranked_tokens(length, min(ratios), scores[number], draws[number], keys[number])
            for mask, ratio in zip(masks, ratios, strict=True):
                hidden = round(float(np.float32(ratio) * np.float32(len(ranked))))
                hidden = min(max(hidden, 1), max(len(ranked) - 1, 1))
                mask[number, ranked[:hidden]] = 1
        return [mask.bool() for mask in masks]

    def ranked_tokens(
        self, length: int, ratio: float, scores: list[list[float]], draws: list[float], keys: list[float]
    ) -> list[int]:
        """Return the valid tokens in the order in which they are masked."""
        parts, patch = self.config.num_parts, self.config.patch_frames
        kinds = self.args.mask_kinds
        windows = max(1, length // patch + (4 * (length % patch) >= patch))
        kind = kinds[min(int(draws[0] * len(kinds)), len(kinds) - 1)]
        most = min(3, max(1, int(ratio * parts)))
        tubes = sorted(range(parts), key=keys.__getitem__)[: 1 + min(int(draws[1] * most), most - 1)]
        most = min(max(int(np.float32(ratio) * np.float32(windows)), 1), 6)
        least = min(most, 2)
        block = least + int(draws[2] * (most - least + 1))
        first = int(draws[3] * max(windows - block + 1, 1))
        found = []
        for window in range(windows):
            for part in range(parts):
                inside = part in tubes if kind == "tubes" else first <= window < first + block
                score = scores[window][part] + 2.0 * (kind != "random" and inside)
                found.append((score, window * parts + part))
        return [token for _, token in sorted(found, reverse=True)]

    # ---- captions -----------------------------------------------------------------------------------------------

    def tokens(self, text: str) -> list[int]:
        return self.tokenizer(text, truncation=True, max_length=self.data.max_text_length)["input_ids"]

    def content_words(self, text: str) -> set[int]:
        ids = self.tokens(text)
        followers = [*ids[1:], self.tokenizer.pad_token_id]
        return {
            token
            for token, follower in zip(ids, followers, strict=True)
            if self.content[token] and (self.counts_pieces or not self.subword[follower])
        }

    def captions_of(self, row: int, turned: bool) -> list[str]:
        return [str(text) for text in self.rows[row]["mirrored_captions" if turned else "captions"]]

    def captions(self, rows: list[int], mirrored: list[bool], per_clip: int, random: BatchRandom) -> list[list[str]]:
        found = []
        for row, turned, draw in zip(rows, mirrored, random.uniform().tolist(), strict=True):
            texts = self.captions_of(row, turned)
            first = min(int(draw * len(texts)), len(texts) - 1)
            found.append([texts[(first + number) % len(texts)] for number in range(per_clip)])
        return found

    def bags(self, rows: list[int], mirrored: list[bool]) -> torch.Tensor:
        bags = torch.zeros(len(rows), len(self.idf))
        for number, (row, turned) in enumerate(zip(rows, mirrored, strict=True)):
            texts = self.captions_of(row, turned)
            counts = Counter(word for text in texts for word in self.content_words(text))
            weights = {word: count / len(texts) * max(self.idf[word], 1e-6) for word, count in counts.items()}
            total = sum(weights.values())
            for word, weight in weights.items():
                bags[number, word] = weight / total
        return bags

    def masked_captions(
        self, captions: list[list[int]], ratios: list[float], overlap: bool, random: BatchRandom
    ) -> list[list[tuple[list[int], list[int]]]]:
        """Return (masked ids, labels) of every caption, for the encoder and for the decoder."""
        length = self.data.max_text_length
        draws = [(random.uniform(length).tolist(), random.uniform().tolist()) for _ in ratios[: 2 - overlap]]
        draws = [draws[0], draws[-1]]
        replaced = random.uniform(2, length).tolist()
        encoder, decoder = [], []
        for number, ids in enumerate(captions):
            hidden = [
                self.hidden(ids, ratio, uniform[number], dither[number])
                for ratio, (uniform, dither) in zip(ratios, draws, strict=True)
            ]
            encoder.append((list(ids), [token if at in hidden[0] else -100 for at, token in enumerate(ids)]))
            decoder.append((list(ids), [token if at in hidden[1] else -100 for at, token in enumerate(ids)]))
            for at in hidden[0]:
                if replaced[number][0][at] < 0.8:
                    encoder[-1][0][at] = self.tokenizer.mask_token_id
                elif replaced[number][0][at] < 0.9:
                    drawn = int(np.float32(replaced[number][1][at]) * np.float32(len(self.active_ids)))
                    encoder[-1][0][at] = self.active_ids[min(drawn, len(self.active_ids) - 1)]
            for at in hidden[1]:
                decoder[-1][0][at] = self.tokenizer.mask_token_id
        return [encoder, decoder]

    def hidden(self, ids: list[int], ratio: float, uniform: list[float], dither: float) -> set[int]:
        """Draw the positions of masked tokens: whole words, without replacement."""
        words: list[list[int]] = []
        for at, token in enumerate(ids):
            if at == 0 or self.special[token]:
                continue
            if self.subword[token] and words and words[-1][-1] == at - 1:
                words[-1].append(at)
            else:
                words.append([at])
        keys = {}
        maskable = self.content if self.args.mask_weighting == "content" else self.active
        for number, word in enumerate(words):
            if all(maskable[ids[at]] for at in word):
                keys[number] = -math.log(-math.log(min(max(uniform[number], 1e-9), 1.0 - 1e-7)))
                if self.args.mask_weighting == "idf":
                    keys[number] += math.log(max(self.idf[ids[at]] for at in word))
        count = max(1, math.floor(np.float32(ratio) * np.float32(len(keys)) + np.float32(dither)))
        chosen = sorted(keys, key=keys.__getitem__, reverse=True)[:count]
        return {at for number in chosen for at in words[number]}


def padded_captions(
    captions: list[tuple[list[int], list[int]]], ids: str, labels: str, mask: str, pad_token_id: int
) -> Batch:
    """Return padded tensors under those names that are not empty."""
    longest = max(len(tokens) for tokens, _ in captions)
    batch = {
        ids: [tokens + [pad_token_id] * (longest - len(tokens)) for tokens, _ in captions],
        labels: [asked + [-100] * (longest - len(asked)) for _, asked in captions],
        mask: [[1] * len(tokens) + [0] * (longest - len(tokens)) for tokens, _ in captions],
    }
    return {name: torch.tensor(rows) for name, rows in batch.items() if name}
