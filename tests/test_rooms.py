"""Imports point one way through the rooms: show -> judge -> credit -> measure -> models -> data -> ground."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "cdlib"

# From the ground up; a room imports from itself and from those above it in this table.
ROOMS = {
    "ground": [
        "__init__",
        "paths",
        "names",
        "params",
        "cells",
        "seeds",
        "writing",
        "versions",
        "cache",
        "measured",
        "snapshot",
        "sheets",
        "done",
        "store",
        "progress",
        "errors",
    ],
    "data": ["datasets", "contributors", "coalitions", "plan"],
    "models": ["machine", "recipes", "pretrained", "bases", "families", "train", "unlearn", "sample", "prune", "stages"]
    + ["checkpoint"],
    "measure": ["features", "fid", "properties", "utilities", "executors", "coalition", "gradients", "sketches", "bench"]
    + ["cluster"],
    "credit": ["shapley", "precision", "loo", "similarity", "influence", "controls", "attributions", "baselines"]
    + ["ranks", "shares"],
    "judge": ["lds", "counterfactual", "examples", "fidelity", "unlearning"],
    "show": [
        "lettering",
        "style",
        "tables",
        "figures",
        "agreement",
        "pictures",
        "schematic",
        "analysis",
        "reported",
        "paper",
        "overview",
        "provenance",
        "templates",
        "report",
        "terms",
        "statement",
    ],
    "run": ["command", "pace", "outlook", "run", "status", "check", "credited", "new", "photographs", "__main__"],
}
FLOORS = list(ROOMS)
ROOM_OF = {name: room for room, names in ROOMS.items() for name in names}
WITHOUT_TORCH = ["credit", "judge", "show"]
TORCH = {"torch", "torchvision", "torch_pruning", "diffusers", "peft"}

# Built from halves, so that this file does not name what it looks for.
FOREIGN = ["/" + "root/", "/" + "home/", "/" + "Users/", "/" + "work/", "pypi" + ".org", "python" + "hosted"]

MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}


def head(module):
    """The part of a module's name that has a room: "families" of "families.pixel"."""
    return module.split(".")[0]


def imports(source, package="cdlib"):
    """Full names of all that a source imports, inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
            origin = ".".join([*base, *filter(None, [node.module])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def wrong_imports(module, source, package="cdlib"):
    """Those imports that point up, from a room to a later one, or that bring torch where it must not be."""
    room = ROOM_OF.get(head(module), "run")
    for name in imports(source, package):
        library, _, rest = name.partition(".")
        if library == "cdlib" and FLOORS.index(ROOM_OF.get(head(rest), "ground")) > FLOORS.index(room):
            yield f"{module} ({room}) imports {name} ({ROOM_OF[head(rest)]})"
        if library in TORCH and room in WITHOUT_TORCH:
            yield f"{module} ({room}) imports {name}"


def prints(source):
    """Line numbers of the calls of print."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


def test_every_module_has_exactly_one_room():
    assert sum(map(len, ROOMS.values())) == len(ROOM_OF), "a name stands in two rooms"
    homeless = [module for module in MODULES if head(module) not in ROOM_OF]
    assert not homeless, f"give these a room in ROOMS: {homeless}"


def test_every_name_in_the_table_is_a_module():
    missing = sorted(set(ROOM_OF) - {head(module) for module in MODULES})
    assert not missing, f"no module in src/cdlib: {missing}"


def test_imports_point_one_way():
    wrong = []
    for module, path in MODULES.items():
        package = ".".join(path.parent.relative_to(PACKAGE.parent).parts)
        wrong += wrong_imports(module, path.read_text(), package)
    assert not wrong


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("shapley", "from cdlib import coalitions, lds"),
        ("store", "import cdlib.tables"),
        ("coalitions", "def draw():\n    from cdlib.train import fit"),
        ("train", "from . import utilities"),
        ("train", "from .utilities import measure"),
        ("tables", "from cdlib import __main__"),
        ("figures", "def draw():\n    import torch.nn as nn"),
        ("loo", "from diffusers import UNet2DModel"),
    ],
)
def test_a_wrong_import_is_seen(module, source):
    assert len(list(wrong_imports(module, source))) == 1


def test_a_relative_import_in_a_folder_is_seen():
    assert not list(wrong_imports("families.pixel", "from . import latent\nfrom .. import store", "cdlib.families"))
    assert list(wrong_imports("families.pixel", "from .. import lds", "cdlib.families"))


def test_a_right_import_is_let_through():
    source = "import numpy as np\nfrom cdlib import __version__, coalitions, shapley\nfrom cdlib.store import Run"
    assert not list(wrong_imports("lds", source))


def test_credit_judge_and_show_load_no_torch():
    light = [f"cdlib.{module}" for module in MODULES if ROOM_OF.get(head(module)) in WITHOUT_TORCH]
    assert light, "no module of these rooms exists"
    code = f"import sys, {', '.join(light)}; sys.exit(' '.join(sorted({TORCH} & set(sys.modules))) or 0)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr


def test_only_the_command_line_prints():
    quiet = [module for module in MODULES if ROOM_OF.get(head(module)) != "run"]
    assert not [module for module in quiet if prints(MODULES[module].read_text())]


def test_a_print_is_seen():
    assert prints("import pprint\ndef show(x):\n    pprint.pprint(x)\n    print(x)\n") == [4]


def test_every_module_begins_with_a_docstring():
    assert not [module for module, path in MODULES.items() if not ast.get_docstring(ast.parse(path.read_text()))]


def test_no_module_has_over_300_lines():
    lengths = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    assert not {module: n_lines for module, n_lines in lengths.items() if n_lines > 300}, "is each still one idea?"


def test_no_file_names_this_machine_or_a_registry():
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    named = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in paths
        if path.is_file()
        for word in FOREIGN
        if word.encode() in path.read_bytes()
    ]
    assert not named, named
