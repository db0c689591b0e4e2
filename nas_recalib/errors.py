"""What went wrong, in the user's words."""


class InputError(ValueError):
    """Something the user gave cannot be used; the message names it and says what is allowed."""


class StopSearch(RuntimeError):
    """A search cannot go on, through no fault of its input."""


class Diverged(RuntimeError):
    """A training loss is not a number any more."""
