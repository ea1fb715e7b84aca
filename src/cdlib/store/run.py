"""A run's folder: its tidy tables, its measured coalitions, and what is done.

runs/<name>/measured/                      measured coalitions (module measured)
runs/<name>/parts/<table>/<notebook>.csv   the rows of a shared table that a notebook has written
runs/<name>/<table>.csv                    tidy tables
runs/<name>/done/<notebook>.json           written last
runs/<name>/so_far/                        tables, done-files and figures of what was measured by then (parameter `so_far`)
"""

import platform
import subprocess
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from joblib import cpu_count
from safetensors.numpy import load as load_arrays

from cdlib.base import hashing, params, paths, registry, sheets
from cdlib.base.disk import write_bytes
from cdlib.base.errors import Missing, Refused
from cdlib.base.versions import versions
from cdlib.store import cells, completion
from cdlib.store.measured import Measured, save_arrays

pd.options.display.html.use_mathjax = False  # a name with dollars in it is no formula


def revision() -> str:
    """The repository's commit, with `+` when files were changed since; empty outside git."""
    try:
        return subprocess.run(
            ["git", "-C", str(paths.root()), "describe", "--always", "--dirty=+"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def machine() -> str:
    """The machine, in a few words."""
    return f"{platform.machine()} {cpu_count()} cores"


class Run:
    """One run's folder, as one notebook sees it.

    notebook    the notebook that works now, such as `04_shapley`
    params      all parameters, checked

    With `so_far` the models, the measured coalitions and the gradients are those of the run, which are only read; what is
    written goes to a folder of its own within the run's.
    """

    def __init__(self, notebook: str, values: dict):
        self.notebook, self.params, self.name = notebook, values, values["name"]
        self.folder, self.results, self.so_far = paths.runs() / self.name, completion.place(values), values["so_far"]
        self.figures = self.results / "figures" if self.so_far else paths.figures(self.name)
        self.title = f"{self.name}, so far" if self.so_far else self.name
        self.measured = Measured(self.folder / "measured")
        self.keys, self.failed, self.started = [], [], time.monotonic()
        self.files, self.below = [], []
        self.asked, self.left_out = {}, {}

    def __getitem__(self, name: str):
        return self.params[name]

    @property
    def properties(self) -> dict[str, dict]:
        """{property: the parameters, with what is its own}, the run's property first, then those of `also`."""
        return registry.properties(self.params)

    def about(self, property: str) -> str:
        """What stands before the name of a thing that is not of the run's first property."""
        return "" if property == self.params["property"] else f"{property}, "

    def _repr_markdown_(self) -> str:
        names = cells.declared(paths.notebook(self.notebook))
        rows = "\n".join(f"| {n} | {self.params[n]} |" for n in names)
        return f"Run **{self.title}**, notebook {self.notebook}\n\n| parameter | value |\n|---|---|\n{rows}"

    def path(self, name: str) -> Path:
        """Where a result of this run is, such as a table."""
        return (self.folder if name == "contributors.csv" else self.results) / name

    def write(self, table: str, frame: pd.DataFrame) -> pd.DataFrame:
        """Write a tidy table that this notebook owns: runs/<name>/<table>.csv."""
        write_bytes(self.path(f"{table}.csv"), sheets.write(frame))
        self.made(self.path(f"{table}.csv"))
        return frame

    def write_part(self, table: str, frame: pd.DataFrame) -> pd.DataFrame:
        """Write this notebook's rows of a table to which several notebooks give rows; returns the whole table.

        The table itself is for people: it is joined from the parts again whenever it is read here.
        """
        self.write(f"parts/{table}/{self.notebook}", frame)
        return self._write_shared(table, self.table(table))

    def _write_shared(self, table: str, frame: pd.DataFrame) -> pd.DataFrame:
        """Write a table to which several notebooks give rows: the last notebook of all answers for it."""
        write_bytes(self.path(f"{table}.csv"), sheets.write(frame))
        if self.notebook == paths.notebooks()[-1].stem:
            self.rests_on(self.path(f"{table}.csv"))
        return frame

    def table(self, name: str) -> pd.DataFrame:
        """A tidy table of this run. Raises Refused when its notebook has not run, or it was changed since."""
        parts = [f"parts/{name}/{p.name}" for p in sorted(self.path(f"parts/{name}").glob("*.csv"))] or [f"{name}.csv"]
        frames = [sheets.read(self._there(file)) for file in parts]
        return pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]

    def write_arrays(self, name: str, arrays: dict) -> pd.DataFrame:
        """Write arrays to runs/<name>/<name>.safetensors; returns their names and shapes."""
        write_bytes(self.path(f"{name}.safetensors"), save_arrays(arrays))
        self.made(self.path(f"{name}.safetensors"))
        return pd.DataFrame({"array": list(arrays), "shape": [list(a.shape) for a in arrays.values()]})

    def arrays(self, name: str) -> dict:
        """Arrays written by `write_arrays`. Raises Refused when they are not there yet."""
        return load_arrays(self._there(f"{name}.safetensors").read_bytes())

    def _there(self, name: str) -> Path:
        if not self.path(name).is_file():
            raise Refused(f"{self.path(name)}: not there; `cdlib run` with this run's parameter file makes it")
        completion.check(self.results, self.path(name), self.notebook)
        return self.path(name)

    def use(self, keys: list, failed: list = ()):
        """Note that this notebook's results rest on these measured coalitions, and miss those that failed."""
        self.keys = list(dict.fromkeys([*self.keys, *keys]))
        self.failed = list(dict.fromkeys([*self.failed, *failed]))

    def ask(self, purpose: str, procedure: str, wanted: int, measured: int):
        """Note how many coalitions were wanted for a purpose, and how many of them are measured."""
        self.asked[purpose, procedure] = (wanted, measured)

    def leave_out(self, name: str, why: str):
        """Note what this notebook does without, and why."""
        self.left_out[str(name)] = why

    def possible(self, functions: dict, *args, of: str = "") -> dict:
        """{name: function(*args)}, without those for which too little is measured (Missing): they are left out and named.

        of    what stands before a name in the words of `missing`
        """
        found = {}
        for name, function in functions.items():
            try:
                found[name] = function(*args)
            except Missing as error:
                self.leave_out(f"{of}{name}", str(error))
        return found

    def missing(self) -> "Missed":
        """What this notebook's results lack: coalitions that are not measured, and what was left out for want of them."""
        return Missed(dict(self.asked), dict(self.left_out))

    def made(self, path: Path):
        """Note a file of the run's folder that this notebook has written."""
        self.files = list(dict.fromkeys([*self.files, str(path.relative_to(self.folder))]))

    def rests_on(self, path: Path):
        """Note a file of the run's folder that this notebook's results rest on, whoever has written it."""
        self.below = list(dict.fromkeys([*self.below, str(path.relative_to(self.folder))]))

    def done(self) -> pd.DataFrame:
        """Say that this notebook is done. Writes measured.csv, then the done-file, last; returns the run's tables."""
        state = {
            "notebook": self.notebook,
            "inputs": completion.inputs(self.notebook, self.params),
            "upstream": completion.upstream(self.results, self.notebook),
            "params": {n: self.params[n] for n in completion.names(self.notebook)},
            "keys": self.keys,
            "failed": self.failed,
            "missing": self.missing().rows(),
            "left_out": self.left_out,
            "seconds": round(time.monotonic() - self.started, 3),
            "versions": versions(),
            "revision": revision(),
            "machine": machine(),
        }
        self._write_measured(completion.states(self.results) | {self.notebook: state})
        for table in self.path("parts").glob("*"):
            self._write_shared(table.name, self.table(table.name))
        for kind, files in {"files": self.files, "rests_on": self.below}.items():
            state[kind] = {file: hashing.sha256(self.folder / file) for file in files}
        completion.write(self.results, state)
        files = sorted(p for p in self.results.glob("*.csv"))
        return pd.DataFrame({"file": [p.name for p in files], "bytes": [p.stat().st_size for p in files]})

    def _write_measured(self, states: dict):
        """measured.csv: the coalitions that the finished notebooks use, in the notebooks' order.

        A later notebook counts only when it was run with what has been run since. What is gone is left out: the notebook that
        asked for it is not done then (completion.why_not), and measures it anew.
        """
        mine = set(completion.names(self.notebook))
        agree = [s for _, s in sorted(states.items()) if all(self.params[n] == v for n, v in s["params"].items() if n in mine)]
        records = self.measured.records((k for s in agree for k in s["keys"]), damaged={})
        if kept := [k for k, r in records.items() if r["status"] == "measured"]:
            self._write_shared("measured", pd.DataFrame(self.measured.rows(kept)))


@dataclass(frozen=True)
class Missed:
    """What a notebook's results lack, which shows itself in words.

    asked       {(purpose, procedure): (wanted, measured)}, coalitions
    left_out    {what: why}
    """

    asked: dict
    left_out: dict

    def rows(self) -> list[dict]:
        """purpose, procedure, wanted, measured, missing: of the purposes that lack coalitions."""
        return [
            {"purpose": purpose, "procedure": procedure, "wanted": n, "measured": found, "missing": n - found}
            for (purpose, procedure), (n, found) in self.asked.items()
            if found < n
        ]

    def _repr_markdown_(self) -> str:
        rows = self.rows()
        if not rows and not self.left_out:
            return "Nothing is missing: every coalition that this notebook asks for is measured."
        lines = [f"**Missing: {sum(r['missing'] for r in rows)} coalitions.** The results rest on those that are measured."]
        if rows:
            lines += ["", f"| {' | '.join(rows[0])} |", "|---|---|--:|--:|--:|"]
            lines += ["| " + " | ".join(map(str, r.values())) + " |" for r in rows]
        return "\n".join([*lines, "", *(f"- Left out: {what}: {why}" for what, why in self.left_out.items())])


def open(notebook: str, namespace: dict) -> Run:  # noqa: A001
    """The run that a notebook works in, from its namespace (`globals()`): its parameters are checked here.

    Names that this notebook does not declare keep the value that the earlier notebooks of the run used. With other inputs than
    it was last run with, the notebook counts as not done from here on, until it says so; with the same it stays what it is, for
    another run on this folder may rest on it. Its files that are not what it wrote are named in a warning, and removed.

    Raises Refused for a bad parameter, for one that contradicts what an earlier notebook of this run was given, and when
    an earlier notebook has not run.
    """
    values, here = cells.given(namespace, cells.declared(paths.notebook(notebook))), f"notebooks/{notebook}.ipynb"
    checked = params.check(values, here, alone=True)
    folder, known = completion.place(checked), {}
    for path in [p for p in paths.notebooks() if p.stem < notebook]:
        left = completion.state(folder, path.stem)
        if left is None:
            raise Refused(f"{here}: run {path.stem} first: in run {checked['name']} it has not finished")
        for name, value in left["params"].items():
            if known.get(name, value) != value:
                raise Refused(
                    f"{here}: run {path.stem} first: it was run with {name}: {value!r}, "
                    f"and an earlier notebook has since been run with {known[name]!r}"
                )
            if values.get(name, value) != value:
                raise Refused(
                    f"{here}: {name}: {values[name]!r}: {path.stem} of this run had {value!r}; "
                    f"run {path.stem} with the new value first, or give this run another name"
                )
        known |= left["params"]
    run = Run(notebook, params.check({**values, **known}, here, partly=True))
    for file, why in completion.changed(folder, notebook).items():
        warnings.warn(f"{file}: {why}; made again", stacklevel=2)
        file.unlink()
    left = completion.state(folder, notebook)
    if left is None or left["inputs"] != completion.inputs(notebook, run.params):
        completion.path(folder, notebook).unlink(missing_ok=True)
    return run
