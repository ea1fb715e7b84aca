"""What is done: a file for each finished notebook, written last, and when it no longer holds.

    runs/<name>/done/<notebook>.json    inputs, parameters, measured coalitions used, files written, versions, seconds

A notebook is done while its code, its parameters and the coalitions under it are the ones that it was run with.
"""

import json
from functools import cache
from pathlib import Path

from cdlib import cells, params, paths
from cdlib.measured import Measured, canonical, digest


def state(folder: Path, notebook: str) -> dict | None:
    """What a finished notebook left, or None when it has not finished (or its file is not whole)."""
    try:
        return json.loads((folder / "done" / f"{notebook}.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def states(folder: Path) -> dict[str, dict]:
    """{notebook: what it left} of all finished notebooks, in their order."""
    found = {p.stem: state(folder, p.stem) for p in paths.notebooks()}
    return {notebook: s for notebook, s in found.items() if s}


def names(notebook: str) -> list[str]:
    """The parameters that decide a notebook's results: those that it and the notebooks before it declare."""
    upto = [p for p in paths.notebooks() if p.stem <= notebook]
    return [n for p in upto for n in cells.declared(p) if n not in params.EXECUTION]


@cache
def _library() -> str:
    """The hash of this package's source: another library may find other numbers in the same coalitions."""
    folder = Path(__file__).parent
    return digest(canonical([[str(p.relative_to(folder)), p.read_text()] for p in sorted(folder.rglob("*.py"))]))


def inputs(notebook: str, values: dict) -> str:
    """The hash of what a notebook's results come from: library, notebooks and parameters up to and with its own."""
    code = [cells.code(p) for p in paths.notebooks() if p.stem <= notebook]
    return digest(canonical([_library(), code, {n: values[n] for n in names(notebook)}]))


def upstream(folder: Path, notebook: str) -> str:
    """The hash of the coalitions that the notebooks before this one rest on."""
    return digest(canonical([[nb, s["keys"]] for nb, s in states(folder).items() if nb < notebook]))


def why_not(notebook: str, values: dict) -> str | None:
    """Why a notebook is not done with these parameters, in a few words; None when it is."""
    folder = paths.runs() / values["name"]
    left = state(folder, notebook)
    if left is None:
        return "has not finished"
    if left["inputs"] != inputs(notebook, values):
        return "its parameters, its code or the library have changed"
    if left["upstream"] != upstream(folder, notebook):
        return "the notebooks before it rest on other coalitions now"
    if left["failed"]:
        return f"{len(left['failed'])} coalitions failed"
    lost = [f for f in left["files"] if not (folder / f).is_file()]
    if lost:
        return f"{lost[0]} is gone"
    measured = Measured(folder / "measured")
    gone = [key for key in left["keys"] if not measured.has(key)]
    return f"{len(gone)} measured coalitions are gone" if gone else None
