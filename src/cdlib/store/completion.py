"""What is done: a file for each finished notebook, written last, and when it no longer holds.

    runs/<name>/done/<notebook>.json    inputs, parameters, measured coalitions used, digests of files, versions, seconds
    runs/<name>/so_far/done/            the same of results from what was measured by then, with `so_far`

A notebook is done while its code, its parameters and the coalitions under it are the ones that it was run with, and the files
that it has written or rests on are, byte for byte, what they were.
"""

from functools import lru_cache
from pathlib import Path

from cdlib.base import hashing, params, paths
from cdlib.base.errors import Refused
from cdlib.base.hashing import canonical, digest
from cdlib.store import cache, cells
from cdlib.store.measured import Measured


def place(values: dict) -> Path:
    """The folder of a run's tables and done-files; with `so_far` one of their own, so that a run at work is not disturbed."""
    return paths.runs() / values["name"] / ("so_far" if values["so_far"] else "")


def own(notebook: str) -> bool:
    """Whether a notebook's results are the run's own also with `so_far`: it trains models, or names the contributors."""
    return "so_far" not in cells.declared(paths.notebook(notebook))


def state(folder: Path, notebook: str) -> dict | None:
    """What a finished notebook left, or None when it has not finished (or its file is not the one that was written)."""
    try:
        left = cache.read(path(folder, notebook))
        return left if left["notebook"] == notebook else None
    except (FileNotFoundError, Refused):
        return None


def path(folder: Path, notebook: str) -> Path:
    """The done-file of a notebook; the run's, where results so far rest on it (`own`)."""
    return (_run(folder) if own(notebook) else folder) / "done" / f"{notebook}.json"


def _run(folder: Path) -> Path:
    """The run's folder, of its own results or of those so far."""
    return folder if folder.parent == paths.runs() else folder.parent


def write(folder: Path, state: dict):
    """Write a notebook's done-file."""
    cache.write(path(folder, state["notebook"]), state)


def states(folder: Path) -> dict[str, dict]:
    """{notebook: what it left} of all finished notebooks, in their order."""
    found = {p.stem: state(folder, p.stem) for p in paths.notebooks()}
    return {notebook: s for notebook, s in found.items() if s}


def names(notebook: str) -> list[str]:
    """The parameters that decide a notebook's results: those that it and the notebooks before it declare."""
    upto = [p for p in paths.notebooks() if p.stem <= notebook]
    return [n for p in upto for n in cells.declared(p) if n not in params.EXECUTION]


@lru_cache
def _library() -> str:
    """The hash of this package's source: another library may find other numbers in the same coalitions."""
    folder = Path(__file__).parents[1]
    return digest(canonical([[str(p.relative_to(folder)), p.read_text()] for p in sorted(folder.rglob("*.py"))]))


def inputs(notebook: str, values: dict) -> str:
    """The hash of what a notebook's results come from: library, notebooks and parameters up to and with its own.

    And the user's own files, which may have changed under the same names (paths.stamp).
    """
    code = [cells.code(p) for p in paths.notebooks() if p.stem <= notebook]
    own = [n for n in ("images", "contributors_csv", "full_path") if n in names(notebook) and values[n]]
    files = [paths.stamp(paths.given(values[n])) for n in own]
    return digest(canonical([_library(), code, {n: values[n] for n in names(notebook)}, files]))


def upstream(folder: Path, notebook: str) -> str:
    """The hash of the coalitions that the notebooks before this one rest on."""
    return digest(canonical([[nb, s["keys"]] for nb, s in states(folder).items() if nb < notebook]))


def why_not(notebook: str, values: dict, measured: Measured | None = None) -> str | None:
    """Why a notebook is not done with these parameters, in a few words; None when it is.

    Results so far rest on models and contributors of these parameters, whatever library made them and whatever failed.

    measured    the run's measured coalitions, where they are at hand
    """
    folder = place(values)
    left = state(folder, notebook)
    if left is None:
        return "has not finished" if not path(folder, notebook).is_file() else f"{path(folder, notebook)} is not what was written"
    if values["so_far"] and own(notebook):
        other = [n for n, v in left["params"].items() if values[n] != v]
        if other:
            return f"was run with {other[0]}: {left['params'][other[0]]!r}, not {values[other[0]]!r}"
    elif left["inputs"] != inputs(notebook, values):
        return "its parameters, its code or the library have changed"
    elif left["upstream"] != upstream(folder, notebook):
        return "the notebooks before it rest on other coalitions now"
    elif left["failed"]:
        return f"{len(left['failed'])} coalitions failed"
    return _changes(left, values, measured)


def _changes(left: dict, values: dict, measured: Measured | None = None) -> str | None:
    """What is gone or changed of the files and coalitions that a notebook's results rest on."""
    folder = paths.runs() / values["name"]
    for file, was in (left["rests_on"] | left["files"]).items():
        if why := _changed(folder / file, was):
            return why
    measured = measured or Measured(folder / "measured")
    records = measured.records(left["keys"], damaged={})
    gone = [key for key in left["keys"] if key not in records or records[key]["status"] != "measured"]
    return f"{len(gone)} measured coalitions are gone or damaged, the first: {measured.path(gone[0])}" if gone else None


def changed(folder: Path, notebook: str) -> dict[Path, str]:
    """{file: why} of those that a finished notebook alone has written, and that are not what it wrote; not of those gone."""
    left = state(folder, notebook) or {"files": {}}
    found = {_run(folder) / file: was for file, was in left["files"].items()}
    return {file: why for file, was in found.items() if file.is_file() and (why := _changed(file, was))}


def check(folder: Path, file: Path, reader: str):
    """Raise Refused when a finished notebook, other than the reader, has written this file otherwise."""
    for notebook, left in states(folder).items():
        was = left["files"].get(str(file.relative_to(_run(folder))))
        if was and notebook != reader and (why := _changed(file, was)):
            raise Refused(f"{file}: {why}; run {notebook} again: `cdlib run` with this run's parameter file does")


def _changed(file: Path, was: str) -> str | None:
    if not file.is_file():
        return f"{file.name} is gone"
    return None if hashing.sha256(file) == was else f"{file.name} was changed"
