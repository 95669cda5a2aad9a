"""
What can be trained, one file for each task. `TASKS` is the only table of them; all else reads it.

A task of your own is registered before its name is used; see `Task`:

```python
from lexmotion.training.__main__ import main
from lexmotion.training.tasks import Task, register_task

register_task(Task("toy", "Toy", ToyTrainer, build_toy, read_toy))
main()  # a script of this shape is what `accelerate launch` takes
```
"""

from .base import Task
from .baseline import BASELINE
from .cmmm import CMMM
from .lexcmlp import LEXCMLP
from .lexmlm import LEXMLM
from .lexmmm import LEXMMM

__all__ = ["PHASES", "TASKS", "Task", "find_task", "register_task"]

TASKS: dict[str, Task] = {task.name: task for task in (LEXMLM, CMMM, LEXMMM, LEXCMLP, BASELINE)}
PHASES = (*LEXCMLP.starts_from, LEXCMLP.name)  # the paper's, in order


def register_task(task: Task) -> Task:
    """
    Make a task known to the command line, recipes and comparisons.

    Raises:
        ValueError: the name is taken.
    """
    if TASKS.setdefault(task.name, task) != task:
        raise ValueError(f"task {task.name!r}: the name is taken by {TASKS[task.name].title!r}; choose another name")
    return task


def find_task(name: str) -> Task:
    """
    The task of this name.

    Raises:
        ValueError: no task has it; the message lists those that exist.
    """
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; the tasks are {', '.join(TASKS)}")
    return TASKS[name]
