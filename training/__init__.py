"""Training: tasks, one loop, recipes. `pipeline.train` runs a recipe, `python -m lexmotion.training` a single task."""
