"""From a corpus to vectors."""
