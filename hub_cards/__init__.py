"""Cards that explain a checkpoint: dataclass -> template -> README.md with machine-readable results."""
