"""What every part of the package may use: the standard library and nothing else."""
