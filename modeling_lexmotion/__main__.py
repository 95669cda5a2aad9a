"""`python -m lexmotion` and the `lexmotion` command."""

from lexmotion.cli import app, main

__all__ = ["app", "main"]

if __name__ == "__main__":
    main()
