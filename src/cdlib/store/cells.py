"""What stands in a notebook's cells: its parameters, its code.

nbformat would take two seconds to import, so the notebooks are read as the JSON that they are.
"""

import ast
import contextlib
import json
from inspect import ismodule
from pathlib import Path


def given(namespace: dict, known=()) -> dict:
    """The parameters in a notebook's namespace: all values, but functions and modules, bound when this was first called there.

    A cell that is run again sees the same names, so values computed further down are never taken for parameters.
    In a kernel they are those of the parameters cell (any that binds a `known` name) and of the cell that papermill adds, not
    what IPython's startup files have bound.
    """
    cells = namespace.get("In")
    own = namespace.keys() if cells is None else set().union(*(_bound(source, known) for source in cells))
    names = namespace.setdefault(
        "_parameters_given",
        [n for n, v in namespace.items() if n in own and not (n.startswith("_") or callable(v) or ismodule(v))],
    )
    return {n: namespace[n] for n in names}


def _bound(source: str, known) -> set[str]:
    """The names that a cell binds, of one with parameters; papermill begins its own with this comment."""
    names = set()
    with contextlib.suppress(SyntaxError):  # a cell that never ran
        names = {n.id for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return names if names & set(known) or source.startswith("# Parameters") else set()


def _cells(notebook: Path) -> list[tuple[str, bool]]:
    """Source of each code cell, and whether it is the one with the parameters."""
    cells = [c for c in json.loads(notebook.read_bytes())["cells"] if c["cell_type"] == "code"]
    return [("".join(c["source"]), "parameters" in c["metadata"].get("tags", [])) for c in cells]


def declared(notebook: Path) -> dict:
    """Names and default values in the `parameters` cell of a notebook."""
    source = next((source for source, tagged in _cells(notebook) if tagged), "")
    return {line.target.id: ast.literal_eval(line.value) for line in ast.parse(source).body if isinstance(line, ast.AnnAssign)}


def code(notebook: Path) -> str:
    """The code of a notebook, without its parameters: what it does, whatever its values."""
    return json.dumps([source for source, tagged in _cells(notebook) if not tagged])
