"""Dataset card of a prepared corpus: contents, origin and how to reproduce it."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCardData

from lexmotion.processing.skeletons import get_skeleton

from .licenses import License, chosen, license_of
from .rendering import render, write_text

PROCESSOR_FACTS = ("statistics_hash", "lexicon_hash", "active_words", "vocab_size")
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))


def prepare_command(report: Mapping[str, Any], source: str = "FOLDER", output_dir: str = "DIR") -> str:
    """Return the shell command that reproduces a prepared corpus from its report; folders are placeholders."""
    options = report["options"]
    words = ["lexmotion", "prepare", source, "--layout", report["layout"], "--output-dir", output_dir]
    for split, files in options["splits"].items():
        for file in [files] if isinstance(files, str) else files:
            words += ["--split", f"{split}={file}"]
    for name in ("text_model", "representation", "max_frames", "vocabulary_filter", "min_document_frequency"):
        words += [f"--{name.replace('_', '-')}", str(options[name])]
    if options.get("whole_words"):
        words += ["--whole-words", str(options["whole_words"])]
    words += ["--fps", f"{options['fps']:g}", "--mirror", options["mirror"]]
    if options.get("captions"):
        words += ["--captions", options["captions"]]
    for name in ("leave_out", "overlay", "extra_captions", "extra_motion", "exclude_ids"):
        words += [word for file in options.get(name, ()) for word in (f"--{name.replace('_', '-')}", file)]
    if options["processor"]:
        words += ["--processor", "PROCESSOR"]
    return shlex.join(words)


@dataclass(frozen=True)
class DatasetCard:
    """
    Card of a prepared corpus.

    Args:
        name: `user/name`.
        report: content of its `report.json`.
        license: licence of the corpus.
    """

    name: str
    report: Mapping[str, Any]
    license: License

    @classmethod
    def from_report(cls, report: Mapping[str, Any], name: str, license: str | None = None) -> "DatasetCard":
        """
        Build the card from a report.

        Args:
            report: content of `report.json`.
            name: `user/name`.
            license: id of a licence; None uses the licence of the corpus.
        """
        return cls(name, report, chosen(license, license_of(report)))

    def data(self) -> DatasetCardData:
        """Return the YAML header of the card, with the files of every split."""
        splits = self.report["splits"]
        rows = sum(split["motions"] for split in splits.values())
        configs = [
            {
                "config_name": "default",
                "default": True,
                "data_files": [{"split": name, "path": f"data/{name}-*.parquet"} for name in splits],
            }
        ]
        for name in ("text", "motion"):
            if (path := f"{name}/train.parquet") in self.report["files"]:
                configs.append({"config_name": name, "data_files": [{"split": "train", "path": path}]})
        return DatasetCardData(
            language="en",
            license=self.license.id,
            license_name=self.license.name,
            license_link=self.license.link,
            pretty_name=self.name.split("/")[-1],
            size_categories=next((size for limit, size in SIZES if rows < limit), "10M<n<100M"),
            task_categories=["text-retrieval"],
            tags=["lexmotion", "human-motion", "motion-retrieval", "motion-capture"],
            configs=configs,
        )

    def render(self) -> str:
        """Return the text of the card."""
        report = self.report
        skeleton = get_skeleton(report["skeleton"])
        splits = [
            {"name": name, **split, "minutes": f"{split['seconds'] / 60:.1f}"}
            for name, split in report["splits"].items()
        ]
        skipped = ", ".join(f"{count} {reason}" for reason, count in report["skipped_by_reason"].items())
        files = report["files"]
        values = {
            "name": self.name,
            "card_data": self.data().to_yaml(line_break="\n"),
            "num_joints": skeleton.num_joints,
            "left_handed": skeleton.is_left_handed,
            "recipe": "kit" if skeleton.name == "kit-ml" else "small",
            "captions_file": report["options"].get("captions"),
            "splits": splits,
            "text": report["text"] if "text/train.parquet" in files else None,
            "motion": report["motion"] if "motion/train.parquet" in files else None,
            "skipped": skipped,
            "license_text": self.license.text,
            "command": prepare_command(report),
            **{name: report["processor"].get(name) for name in PROCESSOR_FACTS},
            **{name: report[name] for name in ("source", "layout", "skeleton", "fps", "fingerprint", "shared")},
        }
        return render("dataset_card.md", values)

    def save(self, folder: str | os.PathLike) -> Path:
        """Write the card as `README.md` of `folder` and return its path."""
        path = Path(folder) / "README.md"
        write_text(path, self.render())
        return path
