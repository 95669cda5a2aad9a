"""
Training and scoring of the missing results of a comparison, one row and seed at a time.

```
output_dir/
  <row>/plan.json                steps of each training under a budget, the same for all seeds
  <row>/seed<k>/run/             trainings, as written by `lexmotion train`
  <row>/seed<k>/result.json      input of the tables
  prepared/<variant>/            the corpus with another lexicon or tokenizer
  timings.json                   seconds per step and evaluation on this machine
```

A result is valid if its fingerprint is that of its row with the current recipe, data and budget, so results of other
machines, in a folder or an archive (`archive`), can be used without weights.
"""

import contextlib
import dataclasses
import json
import os
import shlex
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from transformers.utils import logging

from lexmotion.common.files import read_json, write_json
from lexmotion.evaluation.benchmarks.harness import machine
from lexmotion.processing.corpora.prepare import PrepareReport, load_prepared

from ..arguments import RunArguments
from ..data import PreparedData
from ..pipeline import train as train_recipe
from ..provenance import digest, provenance
from ..recipe import apply_overrides, baseline_values, load_recipe, run_arguments, task_values, with_moved_options
from ..tasks import TASKS
from ..tasks.initialization import check_packages, check_text_model
from ..trainer import NonFiniteLossError
from .archive import RESULT, add_results, read_results
from .budget import clock_name, plan_steps, time_task
from .rows import ROWS, Row, encoder_row
from .scoring import RIDGE_PENALTY, SCORERS, drop_weights
from .variants import prepared_variant

logger = logging.get_logger(__name__)

FORMAT = 1
PLAN, TIMINGS, PREPARED, LOCK = "plan.json", "timings.json", "prepared", ".lock"
COUNTS = ("num_steps", "num_epochs", "eval_steps")  # set by the plan under a budget
SCORED_ON = ("split", "test_dataset", "galleries")  # decide what a trained model is scored on, not the model


class Comparison:
    """
    Rows of one recipe on one prepared corpus.

    Args:
        dataset: folder written by `prepare`.
        output_dir: see the module's docstring.
        recipe, overrides: see `load_recipe` and `apply_overrides`; each row adds its own changes.
        split: split on which rows are compared.
        budget_minutes: minutes of training per row and seed; None: the steps of the recipe.
        reuse: output folders of other comparisons, and archives, whose results are used if they are valid here.
            Finished trainings of such folders are copied, for example to score the same models on another corpus.
        keep_weights: keep the trained models; checkpoints are deleted once a row is scored.
        notify: called with progress messages of one line.
        test_dataset: folder of another prepared corpus with the same skeleton, on whose split the rows are compared;
            None: `dataset`.
        galleries: folders of further such corpora; the rows are also measured on their splits, over all captions.

    Raises:
        ValueError: if a corpus lacks its split, the skeletons differ, two galleries share a name, or the budget is not
            positive.
    """

    def __init__(
        self,
        dataset: str | os.PathLike,
        output_dir: str | os.PathLike,
        recipe: str | os.PathLike | dict[str, Any] = "small",
        overrides: list[str] | dict[str, Any] | None = None,
        split: str = "test",
        budget_minutes: float | None = None,
        reuse: Sequence[str | os.PathLike] = (),
        keep_weights: bool = True,
        notify: Callable[[str], None] = logger.info,
        test_dataset: str | os.PathLike | None = None,
        galleries: Sequence[str | os.PathLike] = (),
    ):
        if budget_minutes is not None and not budget_minutes > 0:
            raise ValueError(f"budget_minutes: got {budget_minutes}; pass a positive number of minutes")
        if "seed" in (pair.split("=")[0].strip() if isinstance(pair, str) else pair for pair in overrides or ()):
            raise ValueError("seed: rows are trained with the seeds of --seeds; pass --seeds 7, instead of seed=7")
        self.output_dir = Path(output_dir)
        self.recipe = apply_overrides(load_recipe(recipe), overrides)
        self.overrides = overrides
        self.split, self.budget_minutes = split, budget_minutes
        self.reuse = [Path(source) for source in reuse]
        self.keep_weights, self.notify = keep_weights, notify
        for source in self.reuse:
            if not source.exists():
                raise FileNotFoundError(f"reuse: no folder or archive {str(source)!r}; pass an existing one")
        self.data = PreparedData.read(dataset)
        self.report = PrepareReport.load(self.data.folder)
        self.test_data = self.data if test_dataset is None else PreparedData.read(test_dataset)
        self.galleries: dict[str, PreparedData] = {}
        for folder in galleries:
            gallery = PreparedData.read(folder)
            name = gallery.folder.resolve().name
            if name in self.galleries:
                other = self.galleries[name].folder
                raise ValueError(f"gallery {folder}: {name!r} is also the name of {other}; rename one of the folders")
            self.galleries[name] = gallery
        measured = (self.test_data, *self.galleries.values())
        for data, needed in ((self.data, "train"), *((data, split) for data in measured)):
            if needed not in data.splits:
                known = ", ".join(data.splits)
                raise ValueError(f"{data.folder}: no split {needed!r}, only {known}; prepare it or pass another split")
        for data in measured:
            skeleton = PrepareReport.load(data.folder).skeleton
            if skeleton != self.report.skeleton:
                raise ValueError(
                    f"{data.folder}: its skeleton is {skeleton!r}, that of {dataset} {self.report.skeleton!r}; pass a "
                    "corpus with the same skeleton"
                )
        self.variants: dict[str, PreparedData] = {}

    # ---- definition of a row ------------------------------------------------------------------------------------

    def settled(self, row: Row) -> Row:
        """Return the row for this recipe and corpus: its option toggled, and changes without effect removed."""
        row = row.resolved(self.recipe)
        changes: dict[str, Any] = {}
        if row.vocabulary_filter == self.report.options["vocabulary_filter"]:
            changes["vocabulary_filter"] = None
        if row.text_encoder is not None and row.text_encoder == self.recipe.get("text_model"):
            changes["text_encoder"] = None
        return dataclasses.replace(row, **changes)

    def row_recipe(self, row: Row) -> dict[str, Any]:
        """Return the recipe with the changes of a settled row."""
        content = apply_overrides(self.recipe, dict(row.overrides))
        encoder = {} if row.text_encoder is None else {"text_model": row.text_encoder}
        if row.system is not None:
            baseline_values(self.recipe, row.system)  # fails if only the row's own changes define the baseline
            values = {**baseline_values(content, row.system, row.vectors), **encoder}
            return {"name": content.get("name", "recipe"), "phases": dict.fromkeys(row.tasks, values)}
        given = content.get("phases") or {}
        return {**content, **encoder, "phases": {name: given.get(name, False) for name in row.tasks}}

    def arguments(self, row: Row, seed: int, plan: Mapping[str, Any] | None) -> dict[str, RunArguments]:
        """Return training -> arguments in order; raise a ValueError if a section is missing or an argument unknown."""
        found = {}
        try:
            content = self.row_recipe(row)
            for name in row.tasks:
                values = task_values(content, name)
                if values is None:
                    raise ValueError(f"the recipe skips {name}; add a section for it or leave the row out of --rows")
                found[name] = run_arguments(name, {**values, "seed": seed, **self.steps(plan, name)})
        except ValueError as error:
            raise ValueError(f"row {row.name}: {error}") from error
        return found

    @staticmethod
    def steps(plan: Mapping[str, Any] | None, training: str) -> dict[str, int]:
        if plan is None:
            return {}
        return {name: plan["trainings"][training][name] for name in ("num_steps", "eval_steps")}

    def definition(self, row: Row, seed: int, plan: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return everything that decides the figures of a settled row, JSON-safe."""
        content: dict[str, Any] = {"kind": row.kind, "dataset": self.data.fingerprint, "split": self.split}
        if self.test_data is not self.data:
            content["test_dataset"] = self.test_data.fingerprint
        if self.galleries:
            content["galleries"] = {name: data.fingerprint for name, data in self.galleries.items()}
        if not row.tasks:
            return {**content, "penalty": RIDGE_PENALTY}
        content |= {
            "budget_minutes": self.budget_minutes,
            "vocabulary_filter": row.vocabulary_filter,
            "text_encoder": row.text_encoder,
            "trainings": {name: run.defining() for name, run in self.arguments(row, seed, plan).items()},
        }
        return json.loads(json.dumps(content))

    def row_data(self, row: Row) -> PreparedData:
        """Return the corpus, or its variant for this row."""
        if row.vocabulary_filter is None and row.text_encoder is None:
            return self.data
        name = encoder_row(row.text_encoder).name if row.text_encoder else f"vocabulary-{row.vocabulary_filter}"
        if name not in self.variants:
            folder = self.output_dir / PREPARED / name
            prepared_variant(self.data, folder, row.vocabulary_filter, row.text_encoder)
            self.variants[name] = PreparedData.read(folder)
        return self.variants[name]

    # ---- budget -------------------------------------------------------------------------------------------------

    def plan(self, row: Row, make: bool = True) -> dict[str, Any] | None:
        """
        Return the steps of a settled row under the budget, from an existing plan here or in `reuse`, or timed now.

        Args:
            make: make a missing plan instead of raising an error.

        Returns:
            The plan, or None without a budget.

        Raises:
            ValueError: if the row's plan was made for other arguments, other data or another budget.
            LookupError: if there is no plan and `make` is false.
        """
        if self.budget_minutes is None or not row.tasks:
            return None
        shares = {name: TASKS[name].share for name in row.tasks}
        shares |= (self.recipe.get("compare") or {}).get("shares") or {}
        shares_of_row = {name: shares.get(name) for name in row.tasks}
        purpose = deciding({**self.definition(row, 0, None), "shares": shares_of_row})
        identity = mark(purpose)
        own = self.output_dir / row.name / PLAN
        if own.is_file():
            plan = read_json(own)
            if mark(deciding(plan["purpose"])) != identity:
                raise ValueError(
                    f"{own} is of another run: {difference(deciding(plan['purpose']), purpose)}; delete {own.parent} "
                    "to start the row over, restore the arguments, or pass another output_dir=..."
                )
            return plan
        for plan in self.known_plans():
            if mark(deciding(plan["purpose"])) == identity:
                return plan
        if not make:
            raise LookupError(f"row {row.name}: no plan; pass make=True")
        self.notify(f"{row.name}: timing a few steps of {', '.join(row.tasks)}")
        self.output_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(self.output_dir / LOCK):  # another process would slow down the steps and write the same file
            timings = {name: self.timing(name, run, row) for name, run in self.arguments(row, 0, None).items()}
        plan = {
            "identity": identity,
            "budget_minutes": self.budget_minutes,
            "trainings": plan_steps(timings, self.budget_minutes, shares),
            "clock": clock_name(),
            "machine": machine(),
            "purpose": purpose,
        }
        write_json(own, plan)
        return plan

    def known_plans(self) -> Iterator[dict[str, Any]]:
        """Iterate over plans of this and reused folders, including those in results (the only ones in archives)."""
        for folder in filter(Path.is_dir, (self.output_dir, *self.reuse)):
            for path in sorted(folder.glob(f"*/{PLAN}")):
                yield read_json(path)
        for _, result in self.stored():
            if result.get("plan") is not None:
                yield result["plan"]

    def timing(self, training: str, arguments: RunArguments, row: Row) -> dict[str, float]:
        """Return the result of `time_task`, measured once for equal trainings on this machine."""
        defining = {name: value for name, value in arguments.defining().items() if name not in ("seed", *COUNTS)}
        place = {name: value for name, value in machine().items() if name != "load"}
        key = digest([training, defining, self.data.fingerprint, row.vocabulary_filter, row.text_encoder, place])
        path = self.output_dir / TIMINGS
        timings = read_json(path) if path.is_file() else {}
        if key not in timings:
            timings[key] = {"training": training, **time_task(arguments, self.row_data(row))}
            write_json(path, timings)
        return {name: value for name, value in timings[key].items() if name != "training"}

    # ---- results ------------------------------------------------------------------------------------------------

    def stored(self) -> list[tuple[Path, dict[str, Any]]]:
        """Return every result in the output folder, then those in reused folders and archives."""
        return [found for source in (self.output_dir, *self.reuse) for found in read_results(source)]

    def find(self, row: Row, seed: int, plan: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """
        Return a finished result equal to that of a settled row, whatever its row and folder, or None.

        Raises:
            ValueError: if a result of this row and seed belongs to another run.
        """
        wanted = self.definition(row, seed, plan)
        stored = self.stored()
        for _, result in stored:
            if mark(result["definition"]) == mark(wanted):
                return {**result, "row": row.name, "label": row.label}
        for path, result in stored:
            if result["row"] == row.name and result["seed"] == seed:
                mine = path.is_file() and self.output_dir in path.parents
                if not mine and mark(trained_part(result["definition"])) == mark(trained_part(wanted)):
                    continue  # the same model, scored on other motions or captions
                remedy = f"delete {path.parent}" if mine else f"leave out reuse={str(path.parents[2])!r}"
                if result["definition"].get("dataset") != wanted["dataset"]:
                    raise ValueError(
                        f"{path}: this result was measured on a corpus other than {self.data.folder} and cannot be "
                        f"compared; {remedy}, or pass the corpus of that result"
                    )
                raise ValueError(
                    f"{path} is of another run: {difference(result['definition'], wanted)}; {remedy} to train the row "
                    "again, restore the arguments, or pass another output_dir=..."
                )
        return None

    def collect(self) -> dict[str, list[dict[str, Any]]]:
        """Return row -> finished results with this recipe, corpus and budget, ordered by seed."""
        stored = self.stored()
        of_mark = {mark(result["definition"]): result for _, result in reversed(stored)}
        seeds = sorted({result["seed"] for _, result in stored})
        encoders = {result["text_encoder"]: None for _, result in stored if result.get("text_encoder")}
        used: set[str] = set()
        found: dict[str, list[dict[str, Any]]] = {}
        for row in (*ROWS.values(), *map(encoder_row, encoders)):
            try:
                row = self.settled(row)
                plan = self.plan(row, make=False)
                marks = {seed: mark(self.definition(row, seed, plan)) for seed in self.seeds(row, seeds)}
            except (ValueError, LookupError):  # not planned, of another run, or with an unknown option
                continue
            results = [of_mark[one] for one in marks.values() if one in of_mark]
            if results:
                found[row.name] = [{**result, "row": row.name, "label": row.label} for result in results]
                used.update(mark(result["definition"]) for result in results)
        for path, result in stored:
            if mark(result["definition"]) not in used:
                logger.warning(f"{path} is of another recipe, corpus or budget; it is left out of the tables")
        return found

    def archive(self, path: Path) -> tuple[int, int]:
        """Add each result shown in the tables to an archive; see `add_results`."""
        shown = {mark(result["definition"]) for of_row in self.collect().values() for result in of_row}
        fitting = [result for _, result in self.stored() if mark(result["definition"]) in shown]
        return add_results(path, reversed(fitting))  # the last one of a name wins, i.e. that of the output folder

    # ---- training -----------------------------------------------------------------------------------------------

    def seeds(self, row: Row, seeds: Sequence[int]) -> list[int]:
        """Return the seeds of a row; one is enough if nothing is trained, as nothing is random."""
        return list(seeds) if row.tasks else list(seeds)[:1]

    def run(
        self, rows: Sequence[Row], seeds: Sequence[int], on_result: Callable[[dict[str, Any]], Any] | None = None
    ) -> list[dict[str, Any]]:
        """
        Train and score missing results, all rows of one seed before the next; resume after an interruption.

        Several processes can share one folder; each row and seed is trained by one of them.

        Args:
            on_result: called with each new result.

        Returns:
            All results, new and existing.

        Raises:
            ValueError: if a row is invalid, a result belongs to another run, or the corpus was prepared with another
                tokenizer than that of the text model, before anything is trained.
            ImportError: if a missing row needs a package that is not installed.
            NonFiniteLossError: if a training diverged, after the other rows are finished.
        """
        settled = [self.settled(row) for row in rows]
        for row in settled:
            results: list[Any] = [None]
            runs = self.arguments(row, 0, None)
            with contextlib.suppress(LookupError):  # a row without a plan has no results
                plan = self.plan(row, make=False)
                results = [self.find(row, seed, plan) for seed in self.seeds(row, seeds)]
            for run in runs.values() if None in results else ():
                check_packages(run)
                if row.text_encoder is None:  # else the corpus is tokenized again for the row
                    check_text_model(run, self.data.processor)
        jobs = [(seed, row) for seed in seeds for row in settled if seed in self.seeds(row, seeds)]
        found: dict[int, dict[str, Any]] = {}
        diverged = []
        waiting, passed_over = deque(enumerate(jobs, start=1)), 0
        while waiting:
            number, (seed, row) = waiting.popleft()
            title = f"[{number}/{len(jobs)}] {row.name}, seed {seed}"
            plan = self.plan(row)
            result = self.find(row, seed, plan)
            if result is None:
                # Rows trained by another process are postponed, and waited for once nothing else is left.
                with self.claim(row, seed, wait=passed_over > len(waiting)) as claimed:
                    if not claimed:
                        self.notify(f"{title}: training in another process")
                        waiting.append((number, (seed, row)))
                        passed_over += 1
                        continue
                    result = self.find(row, seed, plan)
                    if result is None:
                        self.notify(f"{title}: training")
                        try:
                            result = self.train(row, seed, plan)
                        except NonFiniteLossError as error:
                            self.notify(f"{title}: {error}")
                            diverged.append(f"{row.name} (seed {seed})")
                            continue
                        if on_result is not None:
                            on_result(result)
            passed_over = 0
            self.notify(f"{title}: {SCORERS[row.scorer].headline(result)}")
            found[number] = result
        if diverged:
            raise NonFiniteLossError(f"diverged: {', '.join(diverged)}; lower their learning rates")
        return [found[number] for number in sorted(found)]

    @contextlib.contextmanager
    def claim(self, row: Row, seed: int, wait: bool = False) -> Iterator[bool]:
        """Try to lock a row and seed for this process, waiting for it if `wait`; yield whether it is locked."""
        path = self.output_dir / row.name / f"seed{seed}" / LOCK
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            claimed = FileLock(path).acquire(timeout=-1 if wait else 0)
        except Timeout:
            yield False
        else:
            with claimed:
                yield True

    def train(self, row: Row, seed: int, plan: dict[str, Any] | None) -> dict[str, Any]:
        """Train and score one settled row with one seed, and write its result."""
        folder = self.output_dir / row.name / f"seed{seed}"
        run = folder / "run"
        data = self.row_data(row)
        test, *further = (
            load_prepared(measured.folder, splits=[self.split])[self.split]
            for measured in (self.test_data, *self.galleries.values())
        )
        galleries = dict(zip(self.galleries, further, strict=True))
        train = load_prepared(data.folder, splits=["train"])["train"]
        model = self.train_tasks(row, seed, plan, data, run) if row.tasks else data.folder / "processor"
        scores = SCORERS[row.scorer].score(model, row.system, train, test, galleries)
        finished = {name: read_json(run / name / "result.json") for name in row.tasks}
        definition = self.definition(row, seed, plan)
        result = {
            "format": FORMAT,
            "row": row.name,
            "label": row.label,
            "seed": seed,
            "fingerprint": mark(definition),
            "split": self.split,
            "text_encoder": row.text_encoder,
            "changes": dict(row.overrides),
            "recipe": self.recipe.get("name", "recipe"),
            "overrides": self.overrides,
            "budget_minutes": self.budget_minutes,
            **scores,
            "steps": sum(result["training"]["steps"] for result in finished.values()),
            "seconds": sum(result["training"]["seconds"] for result in finished.values()),
            "trainings": {
                name: {**result["training"], "device": result["device"], "metric": TASKS[name].trainer.metric}
                for name, result in finished.items()
            },
            "acceptance": {name: result["acceptance"] for name, result in finished.items()},
            "curves": {name: read_curve(run / name / "log.jsonl") for name in row.tasks},
            "dataset": self.dataset_facts(data),
            "test_dataset": None if self.test_data is self.data else self.dataset_facts(self.test_data),
            **provenance(),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "plan": plan,
            "definition": definition,
        }
        write_json(folder / RESULT, result)
        drop_weights(run, self.keep_weights)
        return result

    def train_tasks(self, row: Row, seed: int, plan: dict[str, Any] | None, data: PreparedData, run: Path) -> Path:
        """Train the tasks of a row, and return the folder of its model."""
        content = self.row_recipe(row)
        content["seed"] = seed
        for name, section in content["phases"].items():
            content["phases"][name] = {**(section or {}), "seed": seed, **self.steps(plan, name)}
        # Rows that only differ in phase iv share the earlier phases. Without `keep_weights`, another process may
        # delete those of this folder while they are copied.
        folders = [self.output_dir] if self.keep_weights else []
        found = (path for folder in (*folders, *self.reuse) for path in sorted(folder.glob(f"*/seed{seed}/run")))
        siblings = [path for path in found if path != run]
        train_recipe(content, data.folder, run, reuse=siblings)
        return run / "model"

    def command(self, rows: str, seeds: str, text_encoders: str | None = None) -> str:
        """Return the command line of this comparison, with absolute paths reduced to their last part."""
        options: dict[str, Any] = {
            "dataset": self.data.folder,
            "recipe": self.recipe.get("name", "recipe"),
            "rows": rows,
            "seeds": seeds,
            "budget-minutes": None if self.budget_minutes is None else f"{self.budget_minutes:g}",
            "test-dataset": None if self.test_data is self.data else self.test_data.folder,
            "gallery": [data.folder for data in self.galleries.values()],
            "split": self.split,
            "text-encoders": text_encoders,
            "output-dir": self.output_dir,
        }
        words = ["lexmotion", "compare"]
        given_options = [
            (name, each) for name, of in options.items() for each in (of if isinstance(of, list) else [of])
        ]
        for name, value in given_options:
            if value is not None:
                path = isinstance(value, Path) and value.is_absolute()
                words += [f"--{name}", shlex.quote(value.name if path else str(value))]
        given = self.overrides or []
        pairs = given if isinstance(given, list) else [f"{key}={value}" for key, value in given.items()]
        return " ".join([*words, *(f"--set {shlex.quote(pair)}" for pair in pairs)])

    def dataset_facts(self, data: PreparedData) -> dict[str, Any]:
        """Return the facts about the corpus that the page of results needs."""
        report = PrepareReport.load(data.folder)
        names = ("source", "layout", "skeleton", "fps", "splits", "shared", "text", "options")
        facts = {name: getattr(report, name) for name in names}
        lexicon = data.processor.lexicon
        fingerprint = (self.test_data if data is self.test_data else self.data).fingerprint
        return {**facts, "fingerprint": fingerprint, "active_words": lexicon.num_active_words}


def read_curve(log: Path) -> list[dict[str, float]]:
    """Read a log's evaluations: `step`, `loss` (the last training loss before it) and the `eval_` figures."""
    points, loss = [], None
    for text in log.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        if "loss" in line:
            loss = line["loss"]
        if any(name.startswith("eval_") for name in line):
            points.append({"step": line["step"], "loss": loss, **line})
    return points


def essential(definition: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return a definition without default values, so that results stay valid when arguments are added.

    Results record all values, so that a changed default still distinguishes old results from new ones.
    """
    trainings = {}
    for name, values in definition.get("trainings", {}).items():
        values = with_moved_options(name, values)
        defaults = json.loads(json.dumps(run_arguments(name, {}).defining()))
        trainings[name] = {key: value for key, value in values.items() if defaults.get(key, ...) != value}
    return {**definition, "trainings": trainings}


def trained_part(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a definition that decides the trained model, without what it is scored on."""
    return {name: value for name, value in definition.items() if name not in SCORED_ON}


def deciding(purpose: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a plan's purpose that decides its steps, without the recipe's counts or irrelevant shares."""
    trainings = {
        name: {key: value for key, value in arguments.items() if key not in COUNTS}
        for name, arguments in purpose["trainings"].items()
    }
    shares = purpose["shares"] if len(trainings) > 1 else None
    return {**trained_part(purpose), "trainings": trainings, "shares": shares}


def mark(definition: Mapping[str, Any]) -> str:
    """Return a hash that distinguishes the definitions of runs."""
    return digest(essential(definition))


def difference(was: Mapping[str, Any], wanted: Mapping[str, Any], most: int = 3) -> str:
    """Describe how two definitions differ: the first few dotted keys with both values."""
    old, new = flat(essential(was)), flat(essential(wanted))
    keys = [key for key in {**old, **new} if not (key in old and key in new and old[key] == new[key])]
    shown = [f"{key} was {old.get(key, '(default)')!r}, is {new.get(key, '(default)')!r}" for key in keys[:most]]
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return "; ".join(shown) + more or "an unrecorded change"


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten `{"a": {"b": 1}}` to `{"a.b": 1}`."""
    found: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
