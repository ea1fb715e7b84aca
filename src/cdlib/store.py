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
from safetensors.numpy import save as save_arrays

from cdlib import params, paths
from cdlib.errors import Refused
from cdlib.measured import Measured, canonical, digest, versions, write_bytes


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


class Run:
    """One run's folder, as one notebook sees it.

    notebook    the notebook that works now, such as `04_shapley`
    params      all parameters, checked
    """

    def __init__(self, notebook: str, values: dict):
        self.notebook, self.params, self.name = notebook, values, values["name"]
        self.folder, self.figures = paths.runs() / self.name, paths.figures(self.name)
        self.measured = Measured(self.folder / "measured")
        self.keys, self.started = [], time.monotonic()

    def __getitem__(self, name: str):
        return self.params[name]

    def _repr_markdown_(self) -> str:
        names = params.declared(paths.notebook(self.notebook))
        rows = "\n".join(f"| {n} | {self.params[n]} |" for n in names)
        return f"Run **{self.name}**, notebook {self.notebook}\n\n| parameter | value |\n|---|---|\n{rows}"

    def path(self, name: str) -> Path:
        return self.folder / name

    def write(self, table: str, frame: pd.DataFrame) -> pd.DataFrame:
        """Write a tidy table that this notebook owns: runs/<name>/<table>.csv."""
        write_bytes(self.path(f"{table}.csv"), frame.to_csv(index=False).encode())
        return frame

    def write_part(self, table: str, frame: pd.DataFrame) -> pd.DataFrame:
        """Write this notebook's rows of a table to which several notebooks give rows; returns the whole table."""
        write_bytes(self.path(f"parts/{table}/{self.notebook}.csv"), frame.to_csv(index=False).encode())
        parts = sorted(self.path(f"parts/{table}").glob("*.csv"))
        return self.write(table, pd.concat([pd.read_csv(p, dtype={"contributor": str}) for p in parts], ignore_index=True))

    def table(self, name: str) -> pd.DataFrame:
        """A tidy table of this run. Raises Refused when the notebook that writes it has not run."""
        path = self.path(f"{name}.csv")
        if not path.is_file():
            raise Refused(f"{path}: not there yet; run the earlier notebooks first: cdlib run params/{self.name}.yaml")
        return pd.read_csv(path, dtype={"contributor": str, "members": str})

    def write_arrays(self, name: str, arrays: dict) -> pd.DataFrame:
        """Write arrays to runs/<name>/<name>.safetensors; returns their names and shapes."""
        write_bytes(self.path(f"{name}.safetensors"), save_arrays(arrays))
        return pd.DataFrame({"array": list(arrays), "shape": [list(a.shape) for a in arrays.values()]})

    def arrays(self, name: str) -> dict:
        """Arrays written by `write_arrays`. Raises Refused when they are not there yet."""
        path = self.path(f"{name}.safetensors")
        if not path.is_file():
            raise Refused(f"{path}: not there yet; run the earlier notebooks first: cdlib run params/{self.name}.yaml")
        return load_arrays(path.read_bytes())

    def use(self, keys):
        """Note that this notebook's results rest on these measured coalitions."""
        self.keys += [k for k in dict.fromkeys(keys) if k not in set(self.keys)]

    def done(self) -> pd.DataFrame:
        """Say that this notebook is done: measured.csv, then its done-file, last. Returns the files it may be judged by."""
        state = {
            "notebook": self.notebook,
            "inputs": inputs(self.notebook, self.params),
            "params": self.params,
            "keys": self.keys,
            "seconds": round(time.monotonic() - self.started, 3),
            "versions": versions(),
            "revision": revision(),
            "machine": f"{platform.machine()} {os.cpu_count()} cores",
        }
        write_bytes(self.path(f"done/{self.notebook}.json"), json.dumps(state, indent=1).encode())
        self._write_measured()
        files = sorted(p for p in self.folder.glob("*.csv"))
        return pd.DataFrame({"file": [p.name for p in files], "bytes": [p.stat().st_size for p in files]})

    def _write_measured(self):
        """measured.csv: the coalitions that the finished notebooks use, in the notebooks' order.

        A later notebook counts only when what it was run with agrees with what has been run since.
        """
        states = [json.loads(p.read_bytes()) for p in sorted(self.path("done").glob("*.json"))]
        names = [n for p in paths.notebooks() if p.stem <= self.notebook for n in params.declared(p) if n not in params.EXECUTION]
        states = [s for s in states if all(s["params"][n] == self.params[n] for n in names)]
        rows = [self.measured.row(key) for key in dict.fromkeys(k for s in states for k in s["keys"])]
        if rows:
            self.write("measured", pd.DataFrame(rows))


def open(notebook: str, namespace: dict) -> Run:  # noqa: A001
    """The run that a notebook works in, from its namespace (`globals()`): its parameters are checked here.

    Names that this notebook does not declare keep the value that the earlier notebooks of the run used.

    Raises Refused for a bad parameter, and for one that contradicts what an earlier notebook of this run was given.
    """
    values = params.given(namespace)
    checked = params.check(values, f"notebooks/{notebook}.ipynb")
    folder = paths.runs() / checked["name"] / "done"
    before = [p for p in sorted(folder.glob("*.json")) if p.stem < notebook]
    known = {}
    for path in before:
        earlier = json.loads(path.read_bytes())["params"]
        stale = next((name for name in known if earlier[name] != known[name]), None)
        if stale:
            raise Refused(
                f"notebooks/{notebook}.ipynb: run {path.stem} first: it was run with {stale}: {earlier[stale]!r}, "
                f"and an earlier notebook has since been run with {known[stale]!r}"
            )
        for name in params.declared(paths.notebook(path.stem)):
            if name in params.EXECUTION:
                continue
            if name in values and values[name] != earlier[name]:
                raise Refused(
                    f"notebooks/{notebook}.ipynb: {name}: {values[name]!r}: {path.stem} of this run had {earlier[name]!r}; "
                    f"run {path.stem} with the new value first, or give this run another name"
                )
            checked[name] = known[name] = earlier[name]
    missing = {p.stem for p in paths.notebooks() if p.stem < notebook} - {p.stem for p in before}
    if missing:
        raise Refused(f"notebooks/{notebook}.ipynb: run {min(missing)} first: cdlib run params/{checked['name']}.yaml")
    (folder / f"{notebook}.json").unlink(missing_ok=True)
    return Run(notebook, checked)


def inputs(notebook: str, values: dict) -> str:
    """The hash of what a notebook's results come from: code and parameters of it and of the notebooks before it."""
    chain = []
    for path in paths.notebooks():
        if path.stem <= notebook:
            names = [n for n in params.declared(path) if n not in params.EXECUTION]
            chain.append([path.stem, params.code(path), {n: values[n] for n in names}])
    return digest(canonical(chain))


def is_done(notebook: str, values: dict) -> bool:
    """Whether a notebook has run to its end with these parameters."""
    path = paths.runs() / values["name"] / "done" / f"{notebook}.json"
    return path.is_file() and json.loads(path.read_bytes())["inputs"] == inputs(notebook, values)
