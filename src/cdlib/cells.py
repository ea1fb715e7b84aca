"""What stands in a notebook's cells: its parameters, its code.

nbformat would take two seconds to import, so the notebooks are read as the JSON that they are.
"""

import ast
import json
from pathlib import Path


def given(namespace: dict) -> dict:
    """The parameters in a notebook's namespace: all plain values bound when this was first called there.

    A cell that is run again sees the same names, so values computed further down are never taken for parameters.
    """
    plain = (str, int, float, bool, list)
    names = namespace.setdefault(
        "_parameters_given",
        [n for n, v in namespace.items() if isinstance(v, plain) and not n.startswith("_") and n not in ("In", "Out")],
    )
    return {n: namespace[n] for n in names}


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
