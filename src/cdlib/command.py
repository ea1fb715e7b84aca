"""What all commands of the command line share: their parameters, and how they speak."""

import sys
from pathlib import Path

from cdlib import datasets, families, params
from cdlib.errors import Refused


def say(text: str):
    """One plain line on standard output."""
    print(text, flush=True)


def load(file: Path, changes: dict | None = None, without_data: bool = False) -> dict:
    """Parameters that can be run: checked by themselves, against each other, and against the data. Raises Refused."""
    values = params.load(file, changes)
    try:
        families.preset(values["model"])
        if not without_data:
            datasets.check(values)
    except ValueError as error:
        raise Refused(f"{file}: {error}") from None
    return values


def fail(error: Exception, code: int) -> int:
    """Tell an error on standard error; returns the exit status."""
    sys.stderr.write(f"cdlib: {error}\n")
    return code
