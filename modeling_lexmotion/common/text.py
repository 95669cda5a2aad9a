"""Numbers and nouns in messages."""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun; without `plural`, "s" is added.

    Example:
        >>> counted(1, "motion"), counted(2500, "motion")
        ('1 motion', '2500 motions')
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
