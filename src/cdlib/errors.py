"""What the user can mend: told in one line that says what to change, and exit status 2."""


class Refused(ValueError):
    """The input cannot be used; the message names the file or key, the value, and what is allowed."""


class NotFinite(ArithmeticError):
    """A loss or a property was NaN or infinite."""
