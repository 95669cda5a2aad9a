"""
One optimiser step of every phase, its gradients written to a file; run alone, or as one of several gloo processes.

Usage: python distributed_worker.py PREPARED RECIPE OUTPUT   (RANK, WORLD_SIZE, ... in the environment)
"""

import sys
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

torch.set_num_threads(1)


def run(prepared: str, recipe_file: str, output: str) -> None:
    from lexmotion.training.data import PreparedData
    from lexmotion.training.recipe import run_arguments, task_values
    from lexmotion.training.tasks import PHASES, TASKS

    data = PreparedData.read(prepared)
    recipe = yaml.safe_load(Path(recipe_file).read_text())
    for phase in PHASES:
        values = {**task_values(recipe, phase), "output_dir": f"{output}/{phase}"}
        arguments = run_arguments(phase, values)
        inputs = {}  # phase i reads the captions of the clips alone
        trainer = TASKS[phase].make_trainer(arguments, data, inputs=inputs)
        make_optimizer = trainer.make_optimizer

        def with_recording(make_optimizer=make_optimizer, trainer=trainer):
            optimizer = make_optimizer()
            step, name_of = optimizer.step, {weight: name for name, weight in trainer.model.named_parameters()}

            def record(*args, **kwargs):
                path = trainer.output_dir / "gradients.safetensors"
                if trainer.rank == 0 and not path.exists():
                    gradients = {
                        name_of[weight]: weight.grad.clone()
                        for group in optimizer.param_groups
                        for weight in group["params"]
                        if weight.grad is not None
                    }
                    save_file(gradients, path)
                return step(*args, **kwargs)

            optimizer.step = record
            return optimizer

        trainer.make_optimizer = with_recording
        trainer.train()
        if trainer.rank == 0:
            (trainer.output_dir / "shape.txt").write_text(f"{trainer.world} {len(trainer.order.rows(0))}")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    run(*sys.argv[1:])
