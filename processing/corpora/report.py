"""What a prepared folder says about itself, and what it must say to be left alone."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from datasets import Dataset

from .blocks import Shard

FORMAT_VERSION = 1


@dataclass
class PrepareReport:
    """
    What [`prepare`] did; saved as `report.json`, of a shard too.

    Args:
        fingerprint (`str`): hash of every input byte and option.
        layout, source, skeleton (`str`), fps (`float`): what the motions are.
        options (`dict`): as given.
        splits (`dict`): of each split: motions listed and written, mirrored ones, captions, frames, seconds.
        skipped (`list[dict]`): `split`, `id`, `reason`, `detail` of everything left out.
        skipped_by_reason (`dict[str, int]`): counts of the same.
        shared (`dict[str, dict[str, int]]`): base motions and source clips that two splits have in common.
        text (`dict`): rows of the text-only corpus and how many extra ones were left out.
        processor (`dict`): where it comes from and its hashes.
        files (`dict[str, int]`): size of every file written.
        reused (`bool`): nothing had to be done; not saved.
    """

    fingerprint: str
    layout: str
    source: str
    skeleton: str
    fps: float
    options: dict[str, Any]
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    skipped: list[dict[str, str]] = field(default_factory=list)
    skipped_by_reason: dict[str, int] = field(default_factory=dict)
    shared: dict[str, dict[str, int]] = field(default_factory=dict)
    text: dict[str, int] = field(default_factory=dict)
    processor: dict[str, Any] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    reused: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The report as it is saved."""
        values = asdict(self)
        del values["reused"]
        return {"format_version": FORMAT_VERSION, **values}

    @classmethod
    def load(cls, folder: str | Path) -> "PrepareReport":
        """Read the report of a prepared folder."""
        path = Path(folder) / "report.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} is not a prepared corpus (no report.json): run `lexmotion prepare` first."
            )
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise ValueError(
                f"{path} has format {version}, this version reads {FORMAT_VERSION}: prepare the corpus again."
            )
        return cls(**values)

    def summary(self) -> str:
        """A few lines for a person."""
        lines = [
            f"{name}: {split['motions']} of {split['listed']} motions, "
            f"{split['captions']} captions, {split['seconds'] / 60:.1f} min"
            for name, split in self.splits.items()
        ]
        if self.skipped:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.skipped_by_reason.items())
            lines.append(f"skipped: {reasons}")
        return "\n".join(lines)


def intact(folder: Path) -> PrepareReport | None:
    """The report of a folder that holds every file it should, else `None`."""
    try:
        report = PrepareReport.load(folder)
    except (OSError, ValueError, TypeError):
        return None
    for name, size in report.files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            return None
    report.reused = True
    return report


@dataclass(frozen=True)
class Identity:
    """
    All that decides what is written besides the motions and their texts.

    Args:
        options (`dict`): as in the report.
        before, after (`list[tuple[str, str]]`): name and SHA-256 of the other input files, those that come before the
            motions in the fingerprint and those after.
    """

    options: dict[str, Any]
    before: list[tuple[str, str]]
    after: list[tuple[str, str]]

    def of_shard(self, shard: Shard) -> "Identity":
        return replace(self, options=self.options | {"shard": shard.argument})

    def fingerprint(self, blocks: Dataset) -> str:
        """Hash of the options and of the name and content of every input file, those of the blocks included."""
        digest = hashlib.sha256(json.dumps({"format": FORMAT_VERSION, **self.options}, sort_keys=True).encode())
        read: dict[str, str] = {}
        for block in blocks:
            for file in block["files"][0].as_py():
                read.setdefault(file["name"], file["sha256"])
        for name, content in [*self.before, *read.items(), *self.after]:
            digest.update(f"\n{name}\0{content}".encode())
        return digest.hexdigest()

    def differing_option(self, report: PrepareReport) -> str | None:
        """In words, an option that a report tells otherwise."""
        for name, value in self.options.items():
            if report.options.get(name) != value:
                return f"{name} {report.options.get(name)!r}, not {value!r}"
        return None
