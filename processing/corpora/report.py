"""The report of a prepared folder, and the identity that decides whether the folder can be reused."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset

from lexmotion.common.files import read_json, remembered_digests, sha256_of
from lexmotion.common.text import counted

from .blocks import Shard

FORMAT_VERSION = 1
DIGESTS = Path(datasets.config.HF_DATASETS_CACHE) / "lexmotion" / "digests.json"  # of files that were read before


@dataclass
class PrepareReport:
    """Result of [`prepare`] for a corpus or a shard; saved as `report.json`.

    Args:
        fingerprint: hash of all input bytes and options.
        layout: layout of the corpus.
        source: name of the corpus.
        skeleton: name of the joint layout.
        fps: frames per second of the stored motions.
        options: options of the preparation.
        decided: per format and rig of motion files: `source`, `files`, and `units` and `up` with their `value`,
            `confidence` and `reason`, as decided from these files together.
        splits: per split: listed and written motions, mirrored ones, captions, frames, seconds.
        skipped: `split`, `id`, `reason` and `detail` of each skipped item.
        skipped_by_reason: their counts.
        left_out: ids of `leave_out`, per split and for `extra captions` and `extra motion`.
        overlays: per overlay its `name`, and how many listed motions have their motion or captions from it.
        shared: numbers of base motions and source clips that two splits have in common.
        text: rows of the text-only corpus, and how many extra ones were omitted.
        motion: listed and written extra motions, their captions, frames and seconds, and how many were omitted since
            they are held out (`left_out`) or are in the training split or another folder already (`repeated`).
        processor: origin and hashes of the processor.
        files: size of each file in bytes.
        sha256: SHA-256 of each file; empty in reports of older versions.
        reused: whether the folder already existed; not saved.
    """

    fingerprint: str
    layout: str
    source: str
    skeleton: str
    fps: float
    options: dict[str, Any]
    decided: list[dict[str, Any]] = field(default_factory=list)
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    skipped: list[dict[str, str]] = field(default_factory=list)
    skipped_by_reason: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    overlays: list[dict[str, Any]] = field(default_factory=list)
    shared: dict[str, dict[str, int]] = field(default_factory=dict)
    text: dict[str, int] = field(default_factory=dict)
    motion: dict[str, Any] = field(default_factory=dict)
    processor: dict[str, Any] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)
    reused: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `report.json`."""
        values = asdict(self)
        del values["reused"]
        return sealed({"format_version": FORMAT_VERSION, **values})

    @classmethod
    def load(cls, folder: str | Path) -> "PrepareReport":
        """
        Read the report of a prepared folder.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it was written by another version, or has been changed.
        """
        path = Path(folder) / "report.json"
        if not path.is_file():
            raise FileNotFoundError(f"{folder}: not a prepared corpus (no report.json); run `lexmotion prepare` first")
        values = read_json(path)
        if values.get("checksum") not in (None, sealed(values)["checksum"]):
            raise ValueError(f"{path}: damaged, its checksum changed; restore a copy, or prepare the corpus again")
        version = values.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise ValueError(f"{path}: got format {version}, expected {FORMAT_VERSION}; prepare the corpus again")
        values.pop("checksum", None)
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"{path}: damaged ({error}); restore a copy, or prepare the corpus again") from error

    def record(self, folder: Path, files: Iterable[Path]) -> None:
        """Enter the sizes and the SHA-256 of files of the folder, in place of earlier entries."""
        for path in files:
            name = path.relative_to(folder).as_posix()
            self.files[name], self.sha256[name] = path.stat().st_size, sha256_of(path)

    def check_files(self, folder: str | Path, names: Iterable[str] | None = None, contents: bool = True) -> None:
        """
        Compare files of the prepared folder with the report.

        Args:
            folder: the prepared folder.
            names: files to compare; None: all.
            contents: also compare the SHA-256 of files that have not been read since they changed, see
                `remembered_digests`; otherwise only sizes.

        Raises:
            ValueError: if a file is missing or differs.
        """
        remedy = "restore a copy, or prepare the corpus again"
        paths = {name: Path(folder, name) for name in (self.files if names is None else names) if name in self.files}
        for name, path in paths.items():
            size = path.stat().st_size if path.is_file() else None
            if size != self.files[name]:
                found = "missing" if size is None else f"damaged, {size} bytes instead of {self.files[name]}"
                raise ValueError(f"{path}: {found}; {remedy}")
        known = [path for name, path in paths.items() if name in self.sha256] if contents else []
        digests = remembered_digests(known, DIGESTS)
        for name, path in paths.items():
            if digests.get(path) not in (None, self.sha256.get(name)):
                raise ValueError(f"{path}: damaged, its checksum changed; {remedy}")

    def summary(self) -> str:
        """Return a summary of a few lines."""
        parts = self.splits | ({"extra motion": self.motion} if self.motion else {})
        lines = [
            f"{name}: {split['motions']} of {split['listed']} motions, "
            f"{counted(split['captions'], 'caption')}, {split['seconds'] / 60:.1f} minutes of motion"
            for name, split in parts.items()
        ]
        for overlay in self.overlays:
            files = f"{counted(overlay['motions'], 'motion')} and captions of {overlay['captions']}"
            lines.append(f"overlay {overlay['name']}: {files}")
        if self.left_out:
            places = ", ".join(f"{len(ids)} of {name}" for name, ids in self.left_out.items())
            lines.append(f"left out: {places}")
        for entry in self.decided:
            facts = (f"{entry[name]['value'] or 'unclear'} ({entry[name]['confidence']})" for name in ("units", "up"))
            count = f"{entry['files']} file{'s' * (entry['files'] > 1)}"
            lines.append("{} ({}): units {}, up {}".format(entry["source"], count, *facts))
        if self.skipped:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.skipped_by_reason.items())
            lines.append(f"skipped: {reasons}")
        return "\n".join(lines)


def sealed(values: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a report with its checksum as the last entry."""
    content = {name: value for name, value in values.items() if name != "checksum"}
    return content | {"checksum": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}


def intact(folder: Path) -> PrepareReport | None:
    """Return the report of a folder whose files are all as recorded, else None."""
    try:
        report = PrepareReport.load(folder)
        report.check_files(folder)
    except (OSError, ValueError):
        return None
    report.reused = True
    return report


@dataclass(frozen=True)
class Identity:
    """All input that determines the result, except the motions and their texts.

    Args:
        options: options as in the report.
        before: name and SHA-256 of the files that precede the motions in the fingerprint.
        after: name and SHA-256 of the files that follow them.
    """

    options: dict[str, Any]
    before: list[tuple[str, str]]
    after: list[tuple[str, str]]

    def of_shard(self, shard: Shard) -> "Identity":
        return replace(self, options=self.options | {"shard": shard.argument})

    def fingerprint(self, blocks: Dataset) -> str:
        """Hash the options and the names and contents of all input files, including those of the blocks."""
        digest = hashlib.sha256(json.dumps({"format": FORMAT_VERSION, **self.options}, sort_keys=True).encode())
        read: dict[str, str] = {}
        for block in blocks:
            for file in block["files"][0].as_py():
                read.setdefault(file["name"], file["sha256"])
        for name, content in [*self.before, *read.items(), *self.after]:
            digest.update(f"\n{name}\0{content}".encode())
        return digest.hexdigest()

    def differing_option(self, report: PrepareReport) -> str | None:
        """Describe the first option that differs in a report."""
        for name, value in self.options.items():
            if report.options.get(name) != value:
                return f"{name} {report.options.get(name)!r}, not {value!r}"
        return None
