"""The eight notebooks keep the house rules: short, stripped, plain code, parameters that papermill understands.

A rule is a function of a notebook that yields what is wrong with it; each is also shown a notebook that breaks it.
"""

import ast
import re
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
NAMES = [
    "01_contributors",
    "02_train",
    "03_prune",
    "04_shapley",
    "05_baselines",
    "06_lds",
    "07_counterfactual",
    "08_figures",
]
PARAMS = sorted((ROOT / "params").glob("*.yaml"))

# papermill reads a parameters cell line by line and misses a line with a second "=" or with a union for a type.
PARAMETER = re.compile(
    r"(?P<name>[a-z]\w*): (?P<type>str|int|float|bool|list\[(?:str|int|float)\]) = (?P<value>[^=#]+?) +# [^=]+"
)
ABSOLUTE_PATH = re.compile(r"""["'](?:/\w|~|[A-Za-z]:[\\/])""")


def load(name):
    """A notebook of the repository."""
    path = FOLDER / f"{name}.ipynb"
    if not path.exists():
        pytest.fail(f"notebooks/{name}.ipynb is missing", pytrace=False)
    return nbformat.read(path, as_version=4)


def is_parameters(cell):
    """Whether papermill takes a cell for the one to put parameters after."""
    return "parameters" in cell["metadata"].get("tags", [])


def code_cells(notebook):
    """Code cells without the parameters."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and not is_parameters(cell)]


def parameter_lines(notebook):
    """The lines of the parameters cell."""
    return [line for cell in notebook["cells"] if is_parameters(cell) for line in cell["source"].splitlines()]


def parameters(notebook):
    """Value of each parameter that a notebook declares."""
    found = filter(None, map(PARAMETER.fullmatch, parameter_lines(notebook)))
    return {match["name"]: ast.literal_eval(match["value"]) for match in found}


def type_of(value):
    """The annotation that fits a value: "int", "list[float]"."""
    if isinstance(value, list):
        return f"list[{type(value[0]).__name__}]" if len(set(map(type, value))) == 1 else "list"
    return type(value).__name__


def stripped(notebook):
    """No outputs, no counts, and no metadata but the tags: none of papermill's or JupyterLab's."""
    if extra := set(notebook["metadata"]) - {"kernelspec", "language_info"}:
        yield f"metadata {extra}: run `make format`"
    for number, cell in enumerate(notebook["cells"], 1):
        if cell.get("outputs") or cell.get("execution_count") is not None:
            yield f"cell {number} has outputs: run `make format`"
        if extra := set(cell["metadata"]) - {"tags"}:
            yield f"cell {number} has metadata {extra}: run `make format`"


def runs_anywhere(notebook):
    """The kernel is the one that every environment has."""
    if notebook["metadata"].get("kernelspec", {}).get("name") != "python3":
        yield "the kernelspec must be named python3"


def short(notebook):
    """7 to 14 cells, at most 9 lines of code in each, imports aside; the parameters may be longer."""
    if not 7 <= len(notebook["cells"]) <= 14:
        yield f"{len(notebook['cells'])} cells: write 7 to 14"
    for cell in code_cells(notebook):
        if (lines := len([x for x in cell["source"].splitlines() if not x.startswith(("import ", "from "))])) > 9:
            yield f"{lines} lines in a cell: {cell['source'][:40]}"


def introduced(notebook):
    """The first cell says what is read and written, where it stands in the paper, and how long it takes."""
    first = notebook["cells"][0]
    if first["cell_type"] != "markdown" or not re.match(r"# \d\. \S", first["source"]):
        yield "the first cell must be markdown with the title `# 4. Shapley values`"
    for word in ("Reads:", "Writes:", "Paper:", "Time:"):
        if word not in first["source"]:
            yield f"the first cell lacks {word}"


def parametrised(notebook):
    """One parameters cell of lines `name: type = value  # comment`, with values of that type."""
    if (n_cells := sum(map(is_parameters, notebook["cells"]))) != 1:
        yield f"{n_cells} cells are tagged parameters: tag one"
    if not parameter_lines(notebook):
        yield "no parameters"
    for line in parameter_lines(notebook):
        match = PARAMETER.fullmatch(line)
        if not match:
            yield f"write `name: type = value  # comment`, with one = and a plain type: {line}"
            continue
        try:
            found = type_of(ast.literal_eval(match["value"]))
        except (ValueError, SyntaxError):
            yield f"not a plain value: {line}"
            continue
        if found != match["type"] and not (found == "list" and match["value"] == "[]"):
            yield f"the value is {found}: {line}"


def plain(notebook):
    """Code a reader can follow: nothing defined, no shell, no magic, no absolute path."""
    for cell in code_cells(notebook):
        source = cell["source"]
        if re.search(r"^\s*[!%]", source, re.MULTILINE):
            yield f"shell or magic: {source[:40]}"
            continue
        defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
        if any(isinstance(node, defined) for node in ast.walk(ast.parse(source))):
            yield f"define it in the library: {source[:40]}"
        if "sys.path" in source or ABSOLUTE_PATH.search(source):
            yield f"an absolute path or sys.path: {source[:40]}"


def shown(notebook):
    """Each code cell ends in an expression, which Jupyter shows."""
    for cell in code_cells(notebook):
        if re.search(r"^\s*[!%]", cell["source"], re.MULTILINE):
            continue
        body = ast.parse(cell["source"]).body
        if not body or not isinstance(body[-1], ast.Expr) or cell["source"].rstrip().endswith(";"):
            yield f"end in something to look at: {cell['source'][:40]}"


RULES = [stripped, runs_anywhere, short, introduced, parametrised, plain, shown]


def test_the_notebooks_are_these_eight():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_notebook_keeps_the_rule(name, rule):
    assert not list(rule(load(name)))


@pytest.mark.parametrize("name", NAMES)
def test_notebook_is_valid_and_numbered(name):
    notebook = load(name)
    nbformat.validate(notebook)
    assert notebook["cells"][0]["source"].startswith(f"# {int(name[:2])}. ")


@pytest.mark.parametrize("name", NAMES)
def test_papermill_sees_every_parameter(name):
    notebook = load(name)
    seen = papermill.inspect_notebook(FOLDER / f"{name}.ipynb")
    assert {key: ast.literal_eval(entry["default"]) for key, entry in seen.items()} == parameters(notebook)


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_those_of_the_digits_run(name):
    digits = yaml.safe_load((ROOT / "params" / "digits.yaml").read_text())
    declared = parameters(load(name))
    differ = {key: value for key, value in declared.items() if key not in digits or digits[key] != value}
    assert not differ, f"params/digits.yaml says { ({key: digits.get(key) for key in differ}) }"
    assert {key: type(value) for key, value in declared.items()} == {key: type(digits[key]) for key in declared}


def test_the_digits_run_names_every_parameter():
    from cdlib.base.params import Params

    assert set(yaml.safe_load((ROOT / "params" / "digits.yaml").read_text())) == set(Params.model_fields)


@pytest.mark.parametrize("path", PARAMS, ids=lambda path: path.stem)
def test_every_parameter_of_a_run_is_read_by_a_notebook(path):
    declared = set().union(*(parameters(load(name)) for name in NAMES))
    unread = set(yaml.safe_load(path.read_text())) - declared
    assert not unread, f"no notebook declares {sorted(unread)}"


def example():
    """A notebook that keeps every rule."""
    head = "# 4. Shapley values\nReads: a.csv. Writes: b.csv. Paper: eq. 5. Time: 3 min."
    lines = 'dataset: str = "digits"  # the data\nseeds: list[int] = [0, 1]   # of the draw\nrate: float = 1.0e-3  # a step'
    tagged = nbformat.v4.new_code_cell(lines, metadata={"tags": ["parameters"]})
    cells = [nbformat.v4.new_markdown_cell(head), tagged]
    for _ in range(3):
        cells += [nbformat.v4.new_markdown_cell("**Draw.**"), nbformat.v4.new_code_cell('x = f"{dataset}/a"\nx')]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def edit(number, **fields):
    """A change of one cell of a notebook."""
    return lambda notebook: notebook["cells"][number].update(fields)


BREACHES = {
    "output": (stripped, edit(3, outputs=[nbformat.v4.new_output("stream", text="1")])),
    "count": (stripped, edit(3, execution_count=1)),
    "papermill in a cell": (stripped, edit(1, metadata={"tags": ["parameters"], "papermill": {"status": "completed"}})),
    "papermill": (stripped, lambda notebook: notebook["metadata"].update(papermill={})),
    "other kernel": (runs_anywhere, lambda notebook: notebook["metadata"]["kernelspec"].update(name="cdlib")),
    "no kernel": (runs_anywhere, lambda notebook: notebook["metadata"].clear()),
    "too few cells": (short, lambda notebook: notebook["cells"].pop() and notebook["cells"].pop()),
    "too many cells": (short, lambda notebook: notebook["cells"].extend(notebook["cells"][2:] * 2)),
    "long cell": (short, edit(3, source="x = 1\n" * 9 + "x")),
    "no title": (introduced, edit(0, source="Reads: Writes: Paper: Time:")),
    "no time": (introduced, edit(0, source="# 4. Shapley\nReads: a. Writes: b. Paper: eq. 5.")),
    "begins with code": (introduced, lambda notebook: notebook["cells"].pop(0)),
    "no tag": (parametrised, edit(1, metadata={})),
    "two tags": (parametrised, edit(3, metadata={"tags": ["parameters"]})),
    "no parameters": (parametrised, edit(1, source="")),
    "second =": (parametrised, edit(1, source="rate: float = 1.0  # step, default = 1")),
    "optional": (parametrised, edit(1, source="rate: float | None = 1.0  # a step")),
    "literal": (parametrised, edit(1, source='dataset: Literal["digits"] = "digits"  # the data')),
    "no type": (parametrised, edit(1, source="rate = 1.0  # a step")),
    "no comment": (parametrised, edit(1, source="rate: float = 1.0")),
    "other type": (parametrised, edit(1, source="rate: float = 1  # a step")),
    "mixed list": (parametrised, edit(1, source="rates: list[float] = [1.0, 2]  # steps")),
    "derived value": (parametrised, edit(1, source="n_rows: int = n_pairs + 2  # drawn")),
    "several lines": (parametrised, edit(1, source="seeds: list[int] = [\n    0,\n]  # of the draw")),
    "def": (plain, edit(3, source="def f():\n    pass\nf()")),
    "class": (plain, edit(3, source="class A:\n    pass\nA()")),
    "lambda": (plain, edit(3, source="f = lambda x: x\nf(1)")),
    "shell": (plain, edit(3, source="!ls")),
    "magic": (plain, edit(3, source="x\n%matplotlib inline")),
    "sys.path": (plain, edit(3, source='import sys\nsys.path.append("a")')),
    "absolute path": (plain, edit(3, source='open("/data/a.csv")')),
    "home": (plain, edit(3, source="open('~/a.csv')")),
    "drive": (plain, edit(3, source="open('C:/a.csv')")),
    "ends in an assignment": (shown, edit(3, source="x = 1")),
    "ends in a loop": (shown, edit(3, source="for x in y:\n    x")),
    "silenced": (shown, edit(3, source="x;")),
    "empty cell": (shown, edit(3, source="")),
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_good_notebook_keeps_the_rule(rule):
    assert not list(rule(example()))


@pytest.mark.parametrize(("rule", "spoil"), BREACHES.values(), ids=BREACHES)
def test_a_breach_is_seen(rule, spoil):
    notebook = example()
    spoil(notebook)
    assert list(rule(notebook))
