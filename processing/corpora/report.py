"""The report of a prepared folder, and the identity that decides whether the folder can be reused."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from datasets import Dataset

from lexmotion.common.text import counted

from .blocks import Shard

FORMAT_VERSION = 1


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
        shared: numbers of base motions and source clips that two splits have in common.
        text: rows of the text-only corpus, and how many extra ones were omitted.
        processor: origin and hashes of the processor.
        files: size of each file in bytes.
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
    shared: dict[str, dict[str, int]] = field(default_factory=dict)
    text: dict[str, int] = field(default_factory=dict)
    processor: dict[str, Any] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    reused: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `report.json`."""
        values = asdict(self)
        del values["reused"]
        return {"format_version": FORMAT_VERSION, **values}

    @classmethod
    def load(cls, folder: str | Path) -> "PrepareReport":
        """Read the report of a prepared folder."""
        path = Path(folder) / "report.json"
        if not path.is_file():
            raise FileNotFoundError(f"{folder}: not a prepared corpus (no report.json); run `lexmotion prepare` first")
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise ValueError(f"{path}: got format {version}, expected {FORMAT_VERSION}; prepare the corpus again")
        return cls(**values)

    def summary(self) -> str:
        """Return a summary of a few lines."""
        lines = [
            f"{name}: {split['motions']} of {split['listed']} motions, "
            f"{counted(split['captions'], 'caption')}, {split['seconds'] / 60:.1f} minutes of motion"
            for name, split in self.splits.items()
        ]
        for entry in self.decided:
            facts = (f"{entry[name]['value'] or 'unclear'} ({entry[name]['confidence']})" for name in ("units", "up"))
            count = f"{entry['files']} file{'s' * (entry['files'] > 1)}"
            lines.append("{} ({}): units {}, up {}".format(entry["source"], count, *facts))
        if self.skipped:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.skipped_by_reason.items())
            lines.append(f"skipped: {reasons}")
        return "\n".join(lines)


def intact(folder: Path) -> PrepareReport | None:
    """Return the report of a folder whose files all have the recorded sizes, else None."""
    try:
        report = PrepareReport.load(folder)
    except (OSError, ValueError, TypeError):
        return None
    paths = {folder / name: size for name, size in report.files.items()}
    if any(not path.is_file() or path.stat().st_size != size for path, size in paths.items()):
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
