"""The files around the library say the same things, and what they say is true."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import cdlib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.lstrip().startswith("#")]
MAKEFILE = (ROOT / "Makefile").read_text()
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKS = sorted({(page, link) for page in PAGES for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())})


def is_exact(line):
    """Whether a line of the lock is `name==version`, with at most a marker: no range, address, hash or option."""
    return re.fullmatch(r"[\w.-]+==[\w.+!-]+( ; [^@]+)?", line) is not None and "--" not in line


def read(name):
    """A YAML file at the top of the repository."""
    return yaml.safe_load((ROOT / name).read_text())


def recipe(target):
    """The lines that make runs for a target."""
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert found, f"the Makefile has no target {target}"
    return found[1]


def test_the_lock_has_exact_versions_only():
    assert LOCK
    assert not [line for line in LOCK if not is_exact(line)]


@pytest.mark.parametrize(
    "line",
    [
        "numpy",
        "numpy>=2.0",
        "numpy==2.*",
        "numpy==2.4.6 --hash=sha256:00",
        "numpy @ https://example.org/numpy.whl",
        "--extra-index-url https://example.org",
        "-e .",
    ],
)
def test_a_loose_line_is_seen(line):
    assert not is_exact(line)


def test_the_lock_has_every_dependency():
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    locked = {canonicalize_name(Requirement(line).name) for line in LOCK}
    missing = {canonicalize_name(Requirement(wish).name) for wish in wanted} - locked
    assert not missing, f"run `make lock`: {missing}"


def test_conda_installs_the_lock():
    environment = read("environment.yml")
    assert environment["name"] == PROJECT["name"]
    assert environment["dependencies"] == [
        f"python{PROJECT['requires-python']}",
        "pip",
        {"pip": ["-r requirements.lock", "-e ."]},
    ]


def test_the_version_is_the_same_everywhere():
    assert PROJECT["version"] == cdlib.__version__ == read("CITATION.cff")["version"]


def test_the_citation_is_the_paper():
    citation = read("CITATION.cff")
    paper = citation["preferred-citation"]
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == PROJECT["license"]
    assert paper["title"] == "An Efficient Framework for Crediting Data Contributors of Diffusion Models"
    assert [author["family-names"] for author in paper["authors"]] == ["Lu", "Lin", "Kim", "Lee"]
    assert paper["year"] == 2025


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("digits", "cdlib run params/digits.yaml"),
        ("smoke", "cdlib run params/smoke.yaml"),
        ("run", "cdlib run $(PARAMS)"),
        ("lab", "jupyter lab"),
        ("test", 'pytest -q -n auto --dist loadfile -m "not slow and not gpu"'),
        ("slow", "pytest -q -m slow"),
        ("lint", "ruff format --check"),
        ("format", "nbstripout"),
        ("lock", "uv pip compile"),
    ],
)
def test_make_runs(target, command):
    assert command in recipe(target)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE))))
def test_the_readme_names_targets_that_exist(target):
    assert recipe(target)


@pytest.mark.parametrize(("page", "link"), LINKS, ids=[f"{page.name}: {link}" for page, link in LINKS])
def test_a_page_links_to_files_that_exist(page, link):
    assert (page.parent / link).exists(), f"{page.name} links to {link}, which is not there"


def test_the_readme_is_read_in_five_minutes():
    assert len(README.split()) <= 1500


def commands(folder, **scripts):
    """The environment of a process that finds these shell scripts before any other command."""
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "PYENV_ROOT": str(folder / "none"), "MAKEFLAGS": ""}


def made(tmp_path, *words, **pythons):
    """make in a copy of what it reads, where these Pythons are found: says how it ended."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    env = commands(tmp_path / "bin", **{f"python3.{minor}": pythons.get(f"on_{minor}", "exit 127") for minor in range(11, 15)})
    env.pop("PYTHON", None)
    return subprocess.run(["make", *words], cwd=tmp_path, env=env, capture_output=True, text=True)


def test_make_takes_the_newest_python_that_works(tmp_path):
    """A shim of pyenv ends in "command not found", and Debian's Python in an error where python3-venv is not installed."""
    ask = ["-s", "--eval=which: ; @echo $(PYTHON)", "which"]
    assert made(tmp_path, *ask, on_13="exit 1", on_12="exit 0", on_11="exit 0").stdout == "python3.12\n"


@pytest.mark.parametrize("words", [[], ["PYTHON=python3.10"], [f"PYTHON={os.devnull}"]])
def test_make_says_which_python_it_needs(words, tmp_path):
    done = made(tmp_path, ".venv/.ready", *words)
    assert done.returncode == 2 and done.stderr.startswith(
        "Python 3.11 to 3.14 with venv is needed; say where it is: make PYTHON="
    )


@pytest.mark.parametrize(("fails", "status"), [("nothing", 0), ("python3.13", 7), ("python3.11", 7)])
def test_the_gate_tests_on_two_pythons_and_fails_with_either(fails, status, tmp_path):
    gate, here = ROOT / ".ci" / "run", tmp_path / ".ci" / "run"
    assert os.access(gate, os.X_OK)
    here.parent.mkdir()
    here.write_bytes(gate.read_bytes())
    pythons = {f"python3.{minor}": f"echo python3.{minor}" for minor in (11, 13)}
    env = commands(tmp_path / "bin", make=f'echo "$@"; case "$*" in *{fails}*) exit 7;; esac', **pythons)
    done = subprocess.run(["bash", here], env=env, capture_output=True, text=True)
    part, whole = done.stdout.splitlines()
    assert "VENV=.venv-3.13" in part and all((ROOT / file).is_file() for file in re.findall(r"tests/\S+", part))
    assert whole == "--no-print-directory test PYTHON=python3.11"
    assert done.returncode == status


def test_hooks_need_no_network():
    for repository in read(".pre-commit-config.yaml")["repos"]:
        assert repository["repo"] == "local"
        assert all(hook["entry"].startswith(".venv/bin/") for hook in repository["hooks"])


def test_make_format_strips_what_the_hook_strips():
    noise = re.search(r"^NOISE := (.+)$", MAKEFILE, re.MULTILINE)[1]
    hooks = {hook["id"]: hook["entry"] for hook in read(".pre-commit-config.yaml")["repos"][0]["hooks"]}
    assert hooks["nbstripout"] == f'.venv/bin/nbstripout --extra-keys "{noise}"'
