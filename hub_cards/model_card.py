"""Model card of a checkpoint: description, results with their protocols, and how to reproduce it.

A card is a dataclass filled from the run record of training; a template renders it as `README.md` with
machine-readable results (`model-index`). The same record gives the same card, byte for byte. The dataclass is saved
as `card.json` next to it, so the card can be rewritten wherever the model is.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from lexmotion.common.files import read_json
from lexmotion.processing.skeletons import SKELETONS

from .dataset_card import prepare_command
from .licenses import license_of
from .rendering import render, write_text

RECORD = "card.json"
RECIPE = "recipe.yaml"
CHOICES = ("corpus", "corpus_license", "license")  # values given by the user override the run record
WHOLE = "lexmotion"  # model type of both towers together
TEMPLATE = "model_card.md"  # template of its card
TAGS = ["lexmotion", "human-motion", "motion-retrieval", "sparse-retrieval", "interpretability"]
# Model type -> pipeline that loads such a model; other models have none.
PIPELINE_TAGS = {
    WHOLE: "zero-shot-motion-classification",
    "lexmotion_motion": "motion-feature-extraction",
    "lexmotion_text": "feature-extraction",
}
TASKS = {
    "text_to_motion": "text to motion",
    "motion_to_text": "motion to text",
    "words": "words of the vectors",
    "order": "order of events",
}
# Short name in result files -> name on a card.
DIRECTIONS = {"t2m": "text_to_motion", "m2t": "motion_to_text"}
METRICS = {"R1": "R@1", "R2": "R@2", "R3": "R@3", "R5": "R@5", "R10": "R@10", "MedR": "MedR"}
PROTOCOL_DETAILS = ("ties", "num_captions", "seed", "batch_size", "num_batches", "threshold")
WORDS_ALONE = ", words alone"


@dataclass(frozen=True)
class Result:
    """
    Metrics of one task, measured under one protocol.

    Args:
        task: `text_to_motion` or `motion_to_text` (retrieval), `words` (the lexical space) or `order`.
        split: name of the evaluated split.
        protocol: name of the protocol, for example `all-strict`.
        metrics: `R@k` in percent, `MedR` as a rank, `Rsum` over both directions; for other tasks as reported.
        gallery_size: number of candidates per query.
        details: other settings of the protocol: tie rule, seed, batches.

    Raises:
        ValueError: if the task is unknown.
    """

    task: str
    split: str
    protocol: str
    metrics: dict[str, float]
    gallery_size: int | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if self.task not in TASKS:
            raise ValueError(f"task: got {self.task!r}; pass one of {', '.join(TASKS)}")

    @property
    def is_retrieval(self) -> bool:
        return self.task in DIRECTIONS.values()

    def command(self, model: str) -> str:
        """Return the shell command that reproduces this result."""
        verb = "order" if self.task == "order" else "retrieval"
        words = f"lexmotion evaluate {verb} --model {model} --dataset DIR --split {self.split}"
        if self.is_retrieval:
            words += f" --protocol {self.protocol.removesuffix(WORDS_ALONE)}"
        return words if self.details.get("seed") is None else f"{words} --seed {self.details['seed']}"

    def eval_results(self, corpus: str) -> list[EvalResult]:
        """Return the `model-index` entries, one per metric."""
        gallery = "" if self.gallery_size is None else f", gallery of {self.gallery_size}"
        name = f"{TASKS[self.task]} retrieval" if self.is_retrieval else TASKS[self.task]
        return [
            EvalResult(
                task_type=self.task.replace("_", "-") + ("-retrieval" if self.is_retrieval else ""),
                task_name=name.capitalize(),
                dataset_type=corpus,
                dataset_name=corpus,
                dataset_config=f"{self.protocol}{gallery}",
                dataset_split=self.split,
                dataset_args={key: value for key, value in self.details.items() if value is not None} or None,
                metric_type=metric,
                metric_name=f"{metric} ({self.protocol})",
                metric_value=round(float(value), 4),
            )
            for metric, value in self.metrics.items()
        ]


def read_results(evaluation: Mapping[str, Any]) -> list[Result]:
    """
    Return all results of a result file.

    Args:
        evaluation: content of a file written by `lexmotion evaluate retrieval --output`, `evaluate order --output`,
            `lexmotion quickstart` or `lexmotion compare`.

    Raises:
        ValueError: if it contains no results.
    """
    split = evaluation.get("split", "test")
    rows = [
        Result(
            task=direction,
            split=split,
            protocol=protocol + suffix,
            gallery_size=row["gallery_size"],
            metrics={title: row[key] for key, title in _metric_keys(short).items() if key in row},
            details={name: row[name] for name in PROTOCOL_DETAILS if row.get(name) is not None},
        )
        for section, suffix in (("retrieval", ""), ("retrieval_words", WORDS_ALONE))
        for protocol, row in evaluation.get(section, {}).items()
        for short, direction in DIRECTIONS.items()
    ]
    for task, section, protocol in (("words", "lexical", "vectors"), ("order", "order", "events exchanged")):
        if evaluation.get(section):
            figures = {name: value for name, value in evaluation[section].items() if math.isfinite(value)}
            rows.append(Result(task, split, protocol, figures))
    if not rows:
        raise ValueError(
            "none of the keys retrieval, lexical, order found; pass a file written by `lexmotion evaluate retrieval "
            "--output`"
        )
    return rows


def load_evaluation(path: str | os.PathLike) -> dict[str, Any]:
    """
    Read a result file, see [`read_results`].

    Raises:
        ValueError: if the file is not a result file; the message names it.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"expected a JSON object, got a JSON {type(content).__name__}")
        read_results(content)
    except KeyError as error:
        raise ValueError(f"{path}: a row has no {error}; measure again with `lexmotion evaluate --output`") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a result file of `lexmotion evaluate --output`: {error}") from error
    return content


def _metric_keys(direction: str) -> dict[str, str]:
    return {f"{direction}/{metric}": title for metric, title in METRICS.items()} | {"Rsum": "Rsum"}


@dataclass
class ModelCard:
    """
    Model card with all facts needed to trust, use and reproduce a checkpoint.

    Args:
        name: name of the model, `user/name` on the Hub.
        recipe: name of the recipe.
        corpus: name of the training corpus.
        command: shell command that reproduces the checkpoint.
        recipe_content: the recipe itself, saved next to the card.
        prepare_command: shell command that prepares the corpus.
        fingerprint: hash of the prepared corpus.
        corpus_rows: split -> number of motions.
        corpus_license: licence of the corpus, in words.
        seeds: seeds of the run.
        versions: package -> version.
        commit: commit of the code.
        hardware: description of the machine.
        fps: frames per second of the model's input.
        facts: facts from the configuration: sizes, words, representation.
        results: all measured results.
        phases: phase -> acceptance metric -> value.
        words: captions with the top words of their motion.
        picture: image file next to the card that shows these words.
        license, license_name, license_link: licence id of the weights; name and link if the id is `other`.
        remote_code: whether the code is uploaded with the weights.
        chosen: values given by the user that override the recorded ones (see `CHOICES`); later cards keep them.
        model_type: `lexmotion`, `lexmotion_text` or `lexmotion_motion`; selects the example code on the card.
        template: template of the card, chosen by the task.
        title: title of the task.
        criteria: acceptance criteria of the task with their verdicts.
        terms: licences of what the model was made from, a line each.
        steps: shell commands after the training.
        packaged: whether the model comes with the package, under its name.

    Example:
        >>> card = ModelCard("user/lexmotion-tiny", "tiny", "synthetic", "lexmotion quickstart")
        >>> "Not evaluated yet" in card.render()
        True
    """

    name: str
    recipe: str
    corpus: str
    command: str
    recipe_content: dict[str, Any] = field(default_factory=dict)
    prepare_command: str | None = None
    fingerprint: str | None = None
    corpus_rows: dict[str, int] = field(default_factory=dict)
    corpus_license: str | None = None
    seeds: list[int] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    commit: str | None = None
    hardware: str | None = None
    fps: float = 20.0
    facts: dict[str, Any] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    phases: dict[str, dict[str, float]] = field(default_factory=dict)
    words: list[tuple[str, list[str]]] = field(default_factory=list)
    picture: str | None = None
    license: str = "apache-2.0"
    license_name: str | None = None
    license_link: str | None = None
    remote_code: bool = False
    chosen: dict[str, str] = field(default_factory=dict)
    model_type: str = WHOLE
    template: str = TEMPLATE
    title: str | None = None
    criteria: list[dict[str, Any]] = field(default_factory=list)
    terms: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    packaged: bool = False

    def __post_init__(self):
        self.recipe_content = without_folders(self.recipe_content)  # older card.json files still contain folders

    @classmethod
    def from_run_record(
        cls, record: Mapping[str, Any], name: str, evaluations: Iterable[Mapping[str, Any]] = (), **choices: Any
    ) -> "ModelCard":
        """
        Build the card of a run.

        Args:
            record: content of the `run.json` written by `lexmotion train`.
            name: name of the model.
            evaluations: contents of result files, see [`read_results`].
            choices: any other fields of the card; they override the record.

        Raises:
            ValueError: if the run is not finished.
        """
        if not record.get("finished"):
            raise ValueError(
                f"{name!r}: the run is not finished; finish it with `lexmotion train`, then make the card"
            )
        content = dict(record["recipe"])
        dataset = record["dataset"]
        report = _report_of(dataset)
        terms = license_of(report)
        last = list(record["phases"].values())[-1]
        values: dict[str, Any] = {
            "recipe": content.get("name", "recipe"),
            "recipe_content": content,
            "corpus": "not recorded" if report is None else report["source"],
            "corpus_license": terms.text,
            "license": terms.id,
            "license_name": terms.name,
            "license_link": terms.link,
            "prepare_command": None if report is None or "options" not in report else prepare_command(report),
            "fingerprint": (report or {}).get("fingerprint", dataset["fingerprint"]),  # same as on the dataset card
            "corpus_rows": dict(dataset["rows"]),
            "seeds": [record["seed"]],
            "versions": dict(record["versions"]),
            "commit": record["commit"],
            "hardware": _hardware(record),
            "command": f"lexmotion train --recipe {RECIPE} --dataset DIR --output-dir OUTPUT",
            "template": last.get("card", TEMPLATE),
            "title": last.get("title"),
            "criteria": last.get("criteria", []),
            "phases": {phase: dict(result["acceptance"]) for phase, result in record["phases"].items()},
            "results": [row for evaluation in evaluations for row in read_results(evaluation)],
        }
        return cls(name=name, **{**values, **choices})

    @classmethod
    def collect(
        cls, folder: str | os.PathLike, name: str, evaluations: Iterable[Mapping[str, Any]] = (), **choices: Any
    ) -> "ModelCard":
        """
        Build the card of a model folder from the files in and around it.

        The run record is read from where `lexmotion train` and `lexmotion quickstart` write it; without one, the
        existing card is updated.

        Args:
            folder: folder of the model.
            name: name of the model.
            evaluations: contents of result files, see [`read_results`]; if empty, the results of the parent folder
                are used, else those of the existing card.
            choices: any other fields; they override the recorded ones. Later cards keep those in `CHOICES`.

        Raises:
            ValueError: if neither a run record nor an existing card is found.
        """
        folder = Path(folder)
        earlier = cls.of_folder(folder)
        kept: dict[str, Any] = {} if earlier is None else {"words": earlier.words, "picture": earlier.picture}
        evaluations = list(evaluations) or _results_around(folder)
        if not evaluations and earlier is not None:
            kept["results"] = earlier.results
        chosen = {**(earlier.chosen if earlier else {}), **{key: choices[key] for key in CHOICES if key in choices}}
        terms = {"license_name": None, "license_link": None} if "license" in chosen else {}
        found = {**describe(folder), **_quickstart_of(folder)}
        choices = {**kept, **found, **terms, **chosen, **choices, "chosen": chosen}
        record = _run_record(folder)
        if record is not None:
            return cls.from_run_record(record, name, evaluations, **choices)
        if earlier is None:
            raise ValueError(
                f"{folder}: neither run.json in the parent folder nor {RECORD} found; pass a model folder where "
                "`lexmotion train` wrote it"
            )
        if evaluations:
            choices = {"results": [row for content in evaluations for row in read_results(content)], **choices}
        return replace(earlier, name=name, **choices)

    @classmethod
    def of_folder(cls, folder: str | os.PathLike) -> "ModelCard | None":
        """Load the card from `card.json` of a folder; None without one."""
        path = Path(folder) / RECORD
        return cls.from_dict(_read(path)) if path.is_file() else None

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "ModelCard":
        """Build a card from a dictionary (inverse of [`to_dict`]); fields of later versions are ignored."""
        known = {entry.name for entry in fields(cls)}
        values = {name: value for name, value in content.items() if name in known}
        values["results"] = [Result(**row) for row in values.get("results", ())]
        values["words"] = [(caption, list(top)) for caption, top in values.get("words", ())]
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the card as a JSON-serializable dictionary."""
        return asdict(self)

    def renamed(self, name: str, remote_code: bool = False) -> "ModelCard":
        """Return the card under another name, with or without remote code."""
        return replace(self, name=name, remote_code=remote_code)

    def relicensed(self, id: str) -> "ModelCard":
        """Return the card with another licence of the weights."""
        chosen = {**self.chosen, "license": id}
        return replace(self, license=id, license_name=None, license_link=None, chosen=chosen)

    def data(self) -> ModelCardData:
        """Return the YAML header of the card, including the `model-index`."""
        results = [entry for row in self.results for entry in row.eval_results(self.corpus)]
        return ModelCardData(
            language="en",
            license=self.license,
            license_name=self.license_name,
            license_link=self.license_link,
            library_name="transformers",
            pipeline_tag=PIPELINE_TAGS.get(self.model_type),
            tags=TAGS if self.template == TEMPLATE else TAGS[:1],
            model_name=self.name,
            eval_results=results or None,
        )

    def render(self) -> str:
        """Return the text of the card."""
        retrieval = [row for row in self.results if row.is_retrieval]
        metric_names = list(dict.fromkeys(name for row in retrieval for name in row.metrics))
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        values |= {
            "card_data": self.data().to_yaml(line_break="\n"),
            "metric_names": metric_names,
            "retrieval": retrieval,
            "other": [row for row in self.results if not row.is_retrieval],
            "tasks": TASKS,
            "commands": list(dict.fromkeys(row.command(self.name) for row in self.results)),
            "versions": [f"{package} {version}" for package, version in sorted(self.versions.items())],
            "rows": [f"{rows} {split}" for split, rows in self.corpus_rows.items()],
        }
        return render(self.template, values)

    def files(self) -> dict[str, str]:
        """Return the files of the card: name -> text."""
        texts = {"README.md": self.render(), RECORD: json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"}
        if self.recipe_content:
            texts[RECIPE] = yaml.safe_dump(self.recipe_content, sort_keys=False, allow_unicode=True)
        return texts

    def is_in(self, folder: str | os.PathLike) -> bool:
        """Return whether the `README.md` of a folder is this card, unmodified."""
        path = Path(folder) / "README.md"
        return path.is_file() and path.read_text(encoding="utf-8") == self.render()

    def save(self, folder: str | os.PathLike) -> Path:
        """Write the card as `README.md` of `folder`, plus `card.json` and `recipe.yaml`, and return its path."""
        for name, text in self.files().items():
            write_text(Path(folder) / name, text)
        return Path(folder) / "README.md"


def corpus_folder(folder: str | os.PathLike) -> Path | None:
    """Return the folder of the corpus a model was trained on, from its run record; None if it no longer exists."""
    record = _run_record(Path(folder))
    place = None if record is None else record["dataset"]["folder"]
    return Path(place) if place is not None and (Path(place) / "report.json").is_file() else None


def _skeleton(name: str | None) -> str | None:
    """Describe a joint layout; a left-handed one is named as such, since other motions must be converted to it."""
    layout = SKELETONS.get(name or "")
    if layout is None or not layout.is_left_handed:
        return name
    return f"{name} ({layout.num_joints} joints; left-handed: the left of a body that faces Z+ is at X-)"


def describe(folder: str | os.PathLike) -> dict[str, Any]:
    """Read `facts`, `fps` and `model_type` of a saved model and its processor from their files, loading neither."""
    folder = Path(folder)
    config = _read(folder / "config.json")
    kind = config.get("model_type", WHOLE)
    file = folder / "processor_config.json"
    processor = _read(file) if kind == WHOLE or file.is_file() else {}  # a tower may come with a tokenizer alone
    motion = config.get("motion_config", {} if kind == "lexmotion_text" else config)
    text = config.get("text_config", {} if kind == "lexmotion_motion" else config)
    layered = "num_hidden_layers" in motion and "hidden_size" in motion
    extractor, lexicon = processor.get("feature_extractor", {}), processor.get("lexicon") or {}
    facts = {
        "parameters": sum(_parameters(path) for path in sorted(folder.glob("[!.]*.safetensors"))),
        "words": lexicon.get("vocab_size"),
        "active words": (text or motion).get("num_active_words") or lexicon.get("vocab_size"),
        "text encoder": (text.get("encoder_config") or {}).get("model_type"),
        "motion layers x width": f"{motion['num_hidden_layers']} x {motion['hidden_size']}" if layered else None,
        "input": extractor.get("representation") if motion else None,
        "skeleton": _skeleton(extractor.get("skeleton")) if motion else None,
        "frames": extractor.get("max_frames") if motion else None,
        "parts of the time": config.get("num_segments", 1) if kind == WHOLE else None,
        "dense vector": config.get("dense_size"),
    }
    found = {name: value for name, value in facts.items() if value is not None}
    return {"facts": found, "fps": extractor.get("fps", 20.0), "model_type": kind}


def _parameters(path: Path) -> int:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        slices = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118
        return sum(math.prod(part.get_shape()) for part in slices if "F" in part.get_dtype())  # skips word ids


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path.parent}: no {path.name} found; pass a model folder written by `lexmotion train`"
        )
    return read_json(path)


def _run_record(folder: Path) -> dict[str, Any] | None:
    """Read the run record of a model, where `lexmotion train` or `lexmotion quickstart` writes it."""
    above = _above(folder)
    if above is None:
        return None
    places = [above / "run.json", *([above / "run" / "run.json"] if (above / "settings.json").is_file() else [])]
    return next((_read(place) for place in places if place.is_file()), None)


def _above(folder: Path) -> Path | None:
    """Return the folder with run, results and settings of a model; None if they may belong to another model."""
    place = Path(os.path.abspath(folder))
    return place.parent if place.name == "model" else None


def _quickstart_of(folder: Path) -> dict[str, Any]:
    """Return the commands for a model of `lexmotion quickstart`, which writes and prepares its corpus itself."""
    above = _above(folder)
    if above is None or not ((above / "settings.json").is_file() and (above / "corpus" / "corpus.json").is_file()):
        return {}
    settings = above / "settings.json"
    content = _read(settings)
    if content["overrides"]:
        return {}  # the command has no options for overrides
    size = f" --size {content['num_motions']}" if isinstance(content["num_motions"], int) else ""
    return {"command": f"lexmotion quickstart --seed {content['seed']}{size}", "prepare_command": None}


def _results_around(folder: Path) -> list[dict[str, Any]]:
    """Read the results written by `lexmotion quickstart` or `lexmotion compare` above a model folder."""
    above = _above(folder)
    if above is None:
        return []
    places = [above / "results.json", *([above.parent / "result.json"] if above.name == "run" else [])]
    found = [_read(place) for place in places if place.is_file()]
    return [content for content in found if "retrieval" in content]


def _report_of(dataset: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the report of the training corpus: from the run record, else from the corpus folder."""
    if "report" in dataset:
        return dataset["report"]
    path = Path(dataset["folder"]) / "report.json"
    return _read(path) if path.is_file() else None


def without_folders(content: Any) -> Any:
    """Return a recipe or configuration with local paths reduced to their last part, so that none is published."""
    if isinstance(content, Mapping):
        return {name: without_folders(part) for name, part in content.items()}
    if isinstance(content, list | tuple):
        return [without_folders(part) for part in content]
    if isinstance(content, os.PathLike):
        return Path(content).name
    if not isinstance(content, str):
        return content
    local = PurePosixPath(content).is_absolute() or PureWindowsPath(content).is_absolute() or content.startswith("~")
    if local or ("/" in content and os.path.exists(content)):
        return PureWindowsPath(content).name or content  # splits at both kinds of slashes
    return content


def _hardware(record: Mapping[str, Any]) -> str:
    """Describe the machine of a run."""
    machine = record.get("machine") or {}
    devices = ", ".join(dict.fromkeys(phase["device"] for phase in record["phases"].values()))
    named = machine.get("gpu") if "cuda" in devices else None
    if named is None and "processor" in machine:
        named = f"{machine['processor']}, {machine['cores']} cores"
    return devices if named is None else f"{named} ({devices})"
