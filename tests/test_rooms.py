"""The folders of the library are its argument: imports point one way through them, and no folder or file grows too large."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "cdlib"

# From the ground up; a folder imports from itself and from those before it.
FLOORS = ["base", "store", "data", "models", "measure", "credit", "judge", "show", "cli"]
WITHOUT_TORCH = ["credit", "judge", "show"]
TORCH = {"torch", "torchvision", "torch_pruning", "diffusers", "peft"}
MOST_MODULES, MOST_LINES = 15, 300

# Built from halves, so that this file does not name what it looks for.
FOREIGN = ["/" + "root/", "/" + "home/", "/" + "Users/", "/" + "work/", "pypi" + ".org", "python" + "hosted"]


def dotted(path):
    """The full name of a module."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {dotted(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def floor(module):
    """The folder that a module is in; the package's own two files stand above and below all."""
    return (module.split(".") + [""])[1]


def imports(source):
    """Full names of all that a source imports, inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports inside the package are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def wrong_imports(module, source):
    """Those imports that point up, from a folder to a later one, or that bring torch where it must not be."""
    here = floor(module)
    for name in imports(source):
        there = floor(name)
        if name.startswith("cdlib.") and here in FLOORS and there in FLOORS and FLOORS.index(there) > FLOORS.index(here):
            yield f"{module} imports {name}"
        if name.split(".")[0] in TORCH and here in WITHOUT_TORCH:
            yield f"{module} imports {name}"


def imported(module):
    """The modules of the package that a module imports."""
    for name in imports(MODULES[module].read_text()):
        found = name if name in MODULES else name.rpartition(".")[0]
        if found in MODULES and found != module:
            yield found


def circle(graph):
    """Modules that import each other in a loop, as a path; empty when there is none."""
    done = set()

    def visit(module, path):
        if module in path:
            return [*path[path.index(module) :], module]
        if module not in done:
            for following in graph.get(module, ()):
                if found := visit(following, [*path, module]):
                    return found
            done.add(module)
        return []

    return next((found for module in graph if (found := visit(module, []))), [])


def prints(source):
    """Line numbers of the calls of print."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


def test_every_module_is_in_a_folder_of_the_argument():
    assert {floor(module) for module in MODULES} == {*FLOORS, "", "__main__"}


def test_imports_point_one_way():
    assert not [wrong for module, path in MODULES.items() for wrong in wrong_imports(module, path.read_text())]


def test_no_modules_import_each_other_in_a_circle():
    assert circle({module: list(imported(module)) for module in MODULES}) == []


def test_a_circle_is_seen():
    assert circle({"a": ["b"], "b": ["c"], "c": ["b"]}) == ["b", "c", "b"]
    assert circle({"a": ["b", "c"], "b": ["c"], "c": []}) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("cdlib.credit.shapley", "from cdlib.judge import lds"),
        ("cdlib.store.run", "import cdlib.show.tables"),
        ("cdlib.data.coalitions", "def draw():\n    from cdlib.models.train import train"),
        ("cdlib.models.train", "from cdlib.measure.utility import measure"),
        ("cdlib.show.figures", "def draw():\n    import torch.nn as nn"),
        ("cdlib.credit.leave_one_out", "from diffusers import UNet2DModel"),
    ],
)
def test_a_wrong_import_is_seen(module, source):
    assert len(list(wrong_imports(module, source))) == 1


def test_a_right_import_is_let_through():
    source = "import numpy as np\nfrom cdlib.credit import shapley\nfrom cdlib import store"
    assert not list(wrong_imports("cdlib.judge.lds", source))


def test_credit_judge_and_show_load_no_torch():
    light = [module for module in MODULES if floor(module) in WITHOUT_TORCH]
    code = f"import sys, {', '.join(light)}; sys.exit(' '.join(sorted({TORCH} & set(sys.modules))) or 0)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr


def test_only_the_command_line_prints():
    quiet = [module for module in MODULES if floor(module) not in ("cli", "__main__")]
    assert not [module for module in quiet if prints(MODULES[module].read_text())]


def test_a_print_is_seen():
    assert prints("import pprint\ndef show(x):\n    pprint.pprint(x)\n    print(x)\n") == [4]


def test_every_module_begins_with_a_docstring():
    assert not [module for module, path in MODULES.items() if not ast.get_docstring(ast.parse(path.read_text()))]


def test_no_module_is_too_long():
    lengths = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    assert not {module: n_lines for module, n_lines in lengths.items() if n_lines > MOST_LINES}, "is each still one idea?"


def test_no_folder_has_too_many_modules():
    folders = {path.parent for path in MODULES.values()}
    sizes = {folder.name: len([p for p in folder.glob("*.py") if p.stem != "__init__"]) for folder in folders}
    assert not {name: n for name, n in sizes.items() if n > MOST_MODULES}


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
