"""What a task is: one object that arguments, pipeline, comparison, tables and model cards read."""

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
    Something that can be trained.

    Args:
        name: in recipes, on the command line and in folders; a part of every seed.
        title: in tables, help and model cards.
        trainer: the class that trains it.
        build: makes the model with its initial weights from the arguments and the processor; a function of both.
        read: opens the data that the arguments name: `Splits`, or what has its `fingerprint`, `facts` and `load`.
        arguments: dataclass of the training, with the defaults of this task.
        model_arguments, data_arguments: dataclasses of what else can be chosen.
        starts_from: earlier task -> the model argument that its result folder is handed on in.
        moved: section of a model configuration -> its fields that are arguments of this task since version 0.2.
        inputs: further inputs of the trainer by keyword, each with a `fingerprint`, from the arguments and the data.
        finish: makes the model of a run that ends with this task, from the result folders and the arguments of the
            finished tasks and the processor. None: the model of this task as it is.
        criteria: what the figures of `Trainer.acceptance` must keep to.
        card: template of the model card.
        share: of the minutes of a comparison's row, relative to its other tasks.

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
        """The dataclasses of `RunArguments`: model, data, task."""
        return self.model_arguments, self.data_arguments, self.arguments

    @property
    def summary(self) -> str:
        """What the task does, in a sentence."""
        return (self.trainer.__doc__ or "").strip().splitlines()[0]

    def argument_names(self) -> set[str]:
        """Every argument of the task."""
        return {item.name for part in self.parts for item in dataclasses.fields(part)}

    def make_trainer(
        self, arguments: RunArguments, data: Any, fingerprint: str = "", inputs: Mapping[str, Any] | None = None
    ) -> Trainer:
        """
        A trainer with a new model.

        Args:
            data: what `read` gave. fingerprint: see `Trainer`. inputs: what `inputs` gave, if it was called before.
        """
        inputs = self.inputs(arguments, data) if inputs is None else inputs
        splits = data.load(arguments)
        return self.trainer(self.build(arguments, splits.processor), arguments, splits, fingerprint, **inputs)

    def facts(self, acceptance: Mapping[str, float]) -> dict[str, Any]:
        """What tables and cards show of a finished task: `title`, `card`, and the `criteria` with their verdicts."""
        criteria = [criterion.to_dict() for criterion in judge(self.criteria, acceptance)]
        return {"title": self.title, "card": self.card, "criteria": criteria}
