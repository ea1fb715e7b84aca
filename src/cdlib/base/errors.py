"""What the user can mend, told in one line that says what to change, and exit status 2; and numbers that are none."""


class Refused(ValueError):
    """The input cannot be used; the message names the file or key, the value, and what is allowed."""


class Unwritable(Refused):
    """The disk is full, or the folder cannot be written; the message names the file, and says what to do."""


class Missing(Refused):
    """Too little is measured for one thing: it is left out and named, and the others go on (store.Run.possible)."""


class NotFinite(ArithmeticError):
    """A loss or a property was NaN or infinite."""


class Untrained(NotFinite):
    """A training ended near the loss of a model that predicts nothing: it diverged, or learned nothing."""
