"""
Tasks that can be trained, one file each. `TASKS` is the only list of them.

Register a task of your own before its name is used; see `Task`:

```python
from lexmotion.training.__main__ import main
from lexmotion.training.tasks import Task, register_task

register_task(Task("toy", "Toy", ToyTrainer, build_toy, read_toy))
main()  # run such a script with `accelerate launch`
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
    """Add a task to the command line, recipes and comparisons; raise a ValueError if its name is taken."""
    if TASKS.setdefault(task.name, task) != task:
        raise ValueError(f"task {task.name!r}: the name is taken by {TASKS[task.name].title!r}; pass another name")
    return task


def find_task(name: str) -> Task:
    """Return the task of this name; raise a ValueError that lists the known tasks if it is unknown."""
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; pass one of {', '.join(TASKS)}")
    return TASKS[name]
