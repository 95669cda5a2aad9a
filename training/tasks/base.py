"""The definition of a task, used by arguments, pipeline, comparison, tables and model cards."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lexmotion.evaluation.criteria import Rule, judge

from ..arguments import NoArguments, RunArguments, TaskArguments
from ..trainer import Trainer


@dataclass(frozen=True)
class Task:
    """
    One kind of training.

    Args:
        name: name in recipes, on the command line and in folders; every random seed depends on it.
        title: title in tables, help and model cards.
        trainer: class that trains the task.
        build: pure function of the arguments and the processor that returns the model with its initial weights.
        read: opens the data given by the arguments: `Splits`, or an object with its `fingerprint`, `facts` and `load`.
        arguments: dataclass of the training arguments, with the defaults of this task.
        model_arguments, data_arguments: dataclasses of the model and data arguments.
        starts_from: earlier task -> model argument that receives its result folder.
        moved: section of a model configuration -> fields that became arguments of this task in version 0.2.
        inputs: returns further keyword arguments of the trainer, each with a `fingerprint`, from arguments and data.
        finish: builds the final model of a run that ends with this task, from the result folders and arguments of
            the finished tasks and the processor. None: the model of this task.
        criteria: rules for the figures of `Trainer.acceptance`.
        card: template of the model card.
        share: share of the time budget in a comparison, relative to the row's other tasks.

    Example:
        >>> from lexmotion.training.tasks import TASKS
        >>> TASKS["lexmmm"].title, sorted(TASKS["lexmmm"].starts_from)
        ('iii LexMMM', ['cmmm', 'lexmlm'])
    """

    name: str
    title: str
    trainer: type[Trainer]
    build: Callable[[RunArguments, Any], Any]
    read: Callable[[RunArguments], Any]
    arguments: type[Any] = TaskArguments
    model_arguments: type = NoArguments
    data_arguments: type = NoArguments
    starts_from: Mapping[str, str] = dataclasses.field(default_factory=dict)
    moved: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    inputs: Callable[[RunArguments, Any], dict[str, Any]] = lambda arguments, data: {}
    finish: Callable[[Mapping[str, str], Mapping[str, RunArguments], Any], Any] | None = None
    criteria: Sequence[Rule] = ()
    card: str = "task_card.md"
    share: float = 1.0

    @cached_property
    def parts(self) -> tuple[type, type, type]:
        """Return the dataclasses of `RunArguments`: model, data, task."""
        return self.model_arguments, self.data_arguments, self.arguments

    @property
    def summary(self) -> str:
        """Return one sentence on what the task does."""
        return (self.trainer.__doc__ or "").strip().splitlines()[0]

    def argument_names(self) -> set[str]:
        """Return the names of all arguments."""
        return {item.name for part in self.parts for item in dataclasses.fields(part)}

    def make_trainer(
        self, arguments: RunArguments, data: Any, fingerprint: str = "", inputs: Mapping[str, Any] | None = None
    ) -> Trainer:
        """Return a trainer with a new model; `data` is the result of `read`, `inputs` that of `inputs` if known."""
        inputs = self.inputs(arguments, data) if inputs is None else inputs
        splits = data.load(arguments)
        return self.trainer(self.build(arguments, splits.processor), arguments, splits, fingerprint, **inputs)

    def facts(self, acceptance: Mapping[str, float]) -> dict[str, Any]:
        """Return what tables and cards show of a finished task: `title`, `card`, and the evaluated `criteria`."""
        criteria = [criterion.to_dict() for criterion in judge(self.criteria, acceptance)]
        return {"title": self.title, "card": self.card, "criteria": criteria}
