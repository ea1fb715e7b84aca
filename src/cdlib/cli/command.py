"""What all commands of the command line share: their parameters, and how they speak."""

import sys
from pathlib import Path

from cdlib.base import params, paths
from cdlib.base.errors import Refused
from cdlib.data import datasets
from cdlib.measure import properties
from cdlib.models import families, stages


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


def needed(values: dict):
    """Look for all that a run takes before any work; functions of the user's own are tried, and told. Raises Refused."""
    stages.needed(paths.runs() / values["name"], values)
    for found in properties.tried(values):
        say("{function}: {gives}; {seconds_for_each_model:.2g} s for the images of each model".format(**found))


def fail(error: Exception, code: int) -> int:
    """Tell an error on standard error; returns the exit status."""
    sys.stderr.write(f"cdlib: {error}\n")
    return code
