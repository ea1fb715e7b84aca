"""`cdlib statement`: the credit statement again, with a confidence, a method or a pot of one's own."""

from pathlib import Path

from cdlib import store
from cdlib.base.errors import Refused
from cdlib.cli.command import load, say
from cdlib.data import design
from cdlib.show.statement import shares
from cdlib.show.statement import statement as statements
from cdlib.store import completion


def statement(
    file: Path,
    changes: dict | None = None,
    method: str | None = None,
    confidence: float = statements.LEVEL,
    pot: str | None = None,
    property: str = "",
):
    """Write figures/<name>/statement.csv, .md and .html from the run's tidy files.

    They tell the parameters that the run was made with, whatever the file says now. The options are those of
    `statement.make`, but

    pot    an amount in any currency, with at most two decimals
    """
    values, cents = load(file, changes, without_data=True), shares.cents(pot) if pot is not None else 0
    here = store.Run("08_figures", values)
    if not here.path("attributions.csv").is_file():
        raise Refused(f"{here.folder}: nobody has been credited yet; first: cdlib run {file}")
    states = [*completion.states(here.folder).values()][::-1]  # of a notebook that was run again, later ones hold old values
    used = {name: value for state in states for name, value in state["params"].items()}
    if other := [name for name, value in used.items() if value != values[name]]:
        say(f"{file} has other values now than the run was made with, which the statement tells: {', '.join(other)}")
    here = store.Run("08_figures", values | used)
    statements.write(here, method=method or design.OURS, confidence=confidence, pot=cents, property=property)
    for kind in ("csv", "md", "html"):
        say(str(here.figures / f"statement.{kind}"))
