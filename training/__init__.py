"""Training: four phases, one loop, recipes. `pipeline.train` runs a recipe; each phase module is also a command."""
