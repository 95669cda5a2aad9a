"""The model card: what a checkpoint is, what it scored under which protocol and how to make it again.

A card is a dataclass filled from the run record that training writes; a template turns it into `README.md` with
machine-readable results (`model-index`). The same record gives the same card, byte for byte.
"""

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).with_name("templates")
DIRECTIONS = {"text_to_motion": "text to motion", "motion_to_text": "motion to text"}
# Short names in result files -> names on a card.
RESULT_DIRECTIONS = {"t2m": "text_to_motion", "m2t": "motion_to_text"}
RESULT_METRICS = {"R1": "R@1", "R2": "R@2", "R3": "R@3", "R5": "R@5", "R10": "R@10", "MedR": "MedR"}


@dataclass(frozen=True)
class RetrievalResult:
    """One row of a retrieval table.

    Args:
        split: Name of the evaluated split.
        protocol: Name of the protocol, for example `all-strict`.
        gallery_size: Number of candidates of one query.
        direction: `text_to_motion` or `motion_to_text`.
        metrics: `R@k` in percent, `MedR` as a rank.
    """

    split: str
    protocol: str
    gallery_size: int
    direction: str
    metrics: dict[str, float]

    def __post_init__(self):
        if self.direction not in DIRECTIONS:
            raise ValueError(f"direction must be one of {sorted(DIRECTIONS)}, got {self.direction!r}")


@dataclass
class ModelCard:
    """Everything a reader needs to trust, use and reproduce a checkpoint.

    Args:
        name: Name of the model, on the Hub `user/name`.
        recipe: Name of the recipe.
        corpus: Name of the training corpus.
        command: Shell command that reproduces the checkpoint.
        fingerprint: Hash of the prepared corpus.
        corpus_license: Licence of the corpus, in words.
        seeds: Seeds of the run.
        versions: Package -> version.
        commit: Commit of the code.
        hardware: Machine, in words.
        fps: Frames per second the model works at.
        results: Retrieval rows.
        phases: Phase -> acceptance figure -> value.
        words: Captions with the top words of their motion.
        license: Licence of the weights.

    Example:
        >>> card = ModelCard("user/lexmotion-tiny", "tiny", "synthetic", "lexmotion quickstart")
        >>> "Not evaluated yet" in card.render()
        True
    """

    name: str
    recipe: str
    corpus: str
    command: str
    fingerprint: str | None = None
    corpus_license: str | None = None
    seeds: list[int] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    commit: str | None = None
    hardware: str | None = None
    fps: float = 20.0
    results: list[RetrievalResult] = field(default_factory=list)
    phases: dict[str, dict[str, float]] = field(default_factory=dict)
    words: list[tuple[str, list[str]]] = field(default_factory=list)
    license: str = "apache-2.0"

    @classmethod
    def from_run_record(
        cls,
        record: Mapping[str, Any],
        name: str,
        corpus: str,
        evaluations: Iterable[Mapping[str, Any]] = (),
        **choices: Any,
    ) -> "ModelCard":
        """
        The card of a run.

        Args:
            record: What `lexmotion train` wrote as `run.json`.
            name: Name of the model. corpus: Name of its corpus.
            evaluations: Contents of files of `lexmotion evaluate retrieval --output`.
            choices: Any other field of the card; wins over the record.

        Raises:
            ValueError: The record is not of a finished run.
        """
        if not record.get("finished"):
            raise ValueError(f"the run {name!r} is not finished; run `lexmotion train` again before making its card")
        recipe = record["recipe"].get("name", "recipe")
        values: dict[str, Any] = {
            "recipe": recipe,
            "fingerprint": record["dataset"]["fingerprint"],
            "seeds": [record["seed"]],
            "versions": dict(record["versions"]),
            "commit": record["commit"],
            "hardware": ", ".join(dict.fromkeys(phase["device"] for phase in record["phases"].values())),
            "command": f"lexmotion train --recipe {recipe} --set seed={record['seed']} --dataset DIR --output-dir DIR",
            "phases": {phase: dict(result["acceptance"]) for phase, result in record["phases"].items()},
            "results": [
                RetrievalResult(
                    split=evaluation["split"],
                    protocol=protocol,
                    gallery_size=row["gallery_size"],
                    direction=direction,
                    metrics={title: row[f"{short}/{metric}"] for metric, title in RESULT_METRICS.items()},
                )
                for evaluation in evaluations
                for protocol, row in evaluation["retrieval"].items()
                for short, direction in RESULT_DIRECTIONS.items()
            ],
        }
        return cls(name=name, corpus=corpus, **{**values, **choices})

    @property
    def metric_names(self) -> list[str]:
        """Columns of the result table, in the order in which the rows name them."""
        return list(dict.fromkeys(name for result in self.results for name in result.metrics))

    def data(self) -> ModelCardData:
        """The YAML head of the card, `model-index` included."""
        results = [
            EvalResult(
                task_type=f"{result.direction.replace('_', '-')}-retrieval",
                task_name=f"{DIRECTIONS[result.direction]} retrieval".capitalize(),
                dataset_type=self.corpus,
                dataset_name=self.corpus,
                dataset_config=f"{result.protocol}, gallery of {result.gallery_size}",
                dataset_split=result.split,
                metric_type=metric,
                metric_name=f"{metric} ({result.protocol})",
                metric_value=round(float(value), 4),
            )
            for result in self.results
            for metric, value in result.metrics.items()
        ]
        return ModelCardData(
            language="en",
            license=self.license,
            library_name="transformers",
            pipeline_tag="feature-extraction",
            tags=["lexmotion", "human-motion", "motion-retrieval", "sparse-retrieval", "interpretability"],
            model_name=self.name,
            eval_results=results or None,
        )

    def render(self) -> str:
        """The text of the card."""
        environment = Environment(
            loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
        )
        environment.filters["figure"] = _figure
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        values["words"] = [(_cell(caption), [_cell(word) for word in top]) for caption, top in self.words]
        values["versions"] = [f"{package} {version}" for package, version in sorted(self.versions.items())]
        values["results"] = [
            {
                **vars(row),
                "direction": DIRECTIONS[row.direction],
                "figures": [_figure(row.metrics.get(name)) for name in self.metric_names],
            }
            for row in self.results
        ]
        return environment.get_template("model_card.md").render(
            **values, metric_names=self.metric_names, card_data=self.data().to_yaml(line_break="\n")
        )

    def save(self, folder: str | os.PathLike) -> Path:
        """Write the card as `README.md` of `folder` and return its path."""
        path = Path(folder) / "README.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".md.partial")
        partial.write_text(self.render(), encoding="utf-8")
        os.replace(partial, path)
        return path


def _figure(value: Any) -> str:
    """A number as tables print it: integers whole, other numbers with four significant digits."""
    if value is None:
        return "-"
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:.4g}" if not math.isfinite(value) or value != int(value) else str(int(value))


def _cell(text: str) -> str:
    """`text` on one line, safe inside a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
