"""A run's folder: its tidy tables, its measured coalitions, and what is done.

runs/<name>/measured/                      measured coalitions (module measured)
runs/<name>/parts/<table>/<notebook>.csv   the rows of a shared table that a notebook has written
runs/<name>/<table>.csv                    tidy tables
runs/<name>/done/<notebook>.json           written last
"""

import json
import os
import platform
import subprocess
import time
from pathlib import Path

import pandas as pd
from safetensors.numpy import load as load_arrays

from cdlib import cells, done, params, paths
from cdlib.errors import Refused
from cdlib.measured import Measured, save_arrays, versions, write_bytes


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
    return f"{platform.machine()} {os.cpu_count()} cores"


class Run:
    """One run's folder, as one notebook sees it.

    notebook    the notebook that works now, such as `04_shapley`
    params      all parameters, checked
    """

    def __init__(self, notebook: str, values: dict):
        self.notebook, self.params, self.name = notebook, values, values["name"]
        self.folder, self.figures = paths.runs() / self.name, paths.figures(self.name)
        self.measured = Measured(self.folder / "measured")
        self.keys, self.failed, self.files, self.started = [], [], [], time.monotonic()

    def __getitem__(self, name: str):
        return self.params[name]

    def _repr_markdown_(self) -> str:
        names = cells.declared(paths.notebook(self.notebook))
        rows = "\n".join(f"| {n} | {self.params[n]} |" for n in names)
        return f"Run **{self.name}**, notebook {self.notebook}\n\n| parameter | value |\n|---|---|\n{rows}"

    def path(self, name: str) -> Path:
        return self.folder / name

    def write(self, table: str, frame: pd.DataFrame) -> pd.DataFrame:
        """Write a tidy table that this notebook owns: runs/<name>/<table>.csv."""
        write_bytes(self.path(f"{table}.csv"), frame.to_csv(index=False).encode())
        self.made(self.path(f"{table}.csv"))
        return frame

    def write_part(self, table: str, frame: pd.DataFrame) -> pd.DataFrame:
        """Write this notebook's rows of a table to which several notebooks give rows; returns the whole table."""
        write_bytes(self.path(f"parts/{table}/{self.notebook}.csv"), frame.to_csv(index=False).encode())
        parts = sorted(self.path(f"parts/{table}").glob("*.csv"))
        return self.write(table, pd.concat([pd.read_csv(p, dtype={"contributor": str}) for p in parts], ignore_index=True))

    def table(self, name: str) -> pd.DataFrame:
        """A tidy table of this run. Raises Refused when the notebook that writes it has not run."""
        return pd.read_csv(self._there(f"{name}.csv"), dtype={"contributor": str, "members": str})

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
        return self.path(name)

    def use(self, keys: list, failed: list = ()):
        """Note that this notebook's results rest on these measured coalitions, and miss those that failed."""
        self.keys = list(dict.fromkeys([*self.keys, *keys]))
        self.failed = list(dict.fromkeys([*self.failed, *failed]))

    def made(self, path: Path):
        """Note a file of the run's folder that this notebook has written or relies on."""
        self.files = list(dict.fromkeys([*self.files, str(path.relative_to(self.folder))]))

    def done(self) -> pd.DataFrame:
        """Say that this notebook is done. Writes measured.csv, then the done-file, last; returns the run's tables."""
        state = {
            "notebook": self.notebook,
            "inputs": done.inputs(self.notebook, self.params),
            "upstream": done.upstream(self.folder, self.notebook),
            "params": {n: self.params[n] for n in done.names(self.notebook)},
            "keys": self.keys,
            "failed": self.failed,
            "files": self.files,
            "seconds": round(time.monotonic() - self.started, 3),
            "versions": versions(),
            "revision": revision(),
            "machine": machine(),
        }
        self._write_measured(done.states(self.folder) | {self.notebook: state})
        write_bytes(self.path(f"done/{self.notebook}.json"), json.dumps(state, indent=1).encode())
        files = sorted(p for p in self.folder.glob("*.csv"))
        return pd.DataFrame({"file": [p.name for p in files], "bytes": [p.stat().st_size for p in files]})

    def _write_measured(self, states: dict):
        """measured.csv: the coalitions that the finished notebooks use, in the notebooks' order.

        A later notebook counts only when it was run with what has been run since. What is gone is left out: the notebook that
        asked for it is not done then (done.why_not), and measures it anew.
        """
        mine = set(done.names(self.notebook))
        agree = [s for _, s in sorted(states.items()) if all(self.params[n] == v for n, v in s["params"].items() if n in mine)]
        rows = [self.measured.row(key) for key in dict.fromkeys(k for s in agree for k in s["keys"]) if self.measured.has(key)]
        if rows:
            self.write("measured", pd.DataFrame(rows))


def open(notebook: str, namespace: dict) -> Run:  # noqa: A001
    """The run that a notebook works in, from its namespace (`globals()`): its parameters are checked here.

    Names that this notebook does not declare keep the value that the earlier notebooks of the run used. From here on the
    notebook counts as not done, until it says so.

    Raises Refused for a bad parameter, for one that contradicts what an earlier notebook of this run was given, and when
    an earlier notebook has not run.
    """
    values, here = cells.given(namespace), f"notebooks/{notebook}.ipynb"
    checked = params.check(values, here, partly=True)
    folder = paths.runs() / checked["name"]
    known = {}
    for path in [p for p in paths.notebooks() if p.stem < notebook]:
        left = done.state(folder, path.stem)
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
    (folder / "done" / f"{notebook}.json").unlink(missing_ok=True)
    return Run(notebook, params.check({**values, **known}, here, partly=True))
