"""Model and dataset cards (dataclass -> template -> README.md) with machine-readable results; uploads to the Hub."""
