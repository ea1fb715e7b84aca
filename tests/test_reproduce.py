"""docs/reproduce.md: every table and figure of the paper, and nothing that is neither committed nor made."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from cdlib.base import params, paths
from cdlib.show import paper

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
EVERYTHING = {f"Table {k}" for k in range(1, 10)} | {f"Figure {k}" for k in range(1, 13)}
FORMS = {"table": ("csv", "md", "tex"), "figure": ("pdf", "png", "csv")}


def rows():
    """The rows of the two tables on tables and figures: {"Table 1": its cells}."""
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("|")]
    return {cells[0]: cells for cells in found if re.fullmatch(r"(Table|Figure) \d+", cells[0])}


def named():
    """Every file that is named, in code or as a link."""
    links = {os.path.normpath(f"docs/{link}") for link in re.findall(r"\]\(([^)]+)\)", TEXT)}
    return set(re.findall(r"`((?:figures|params|src)/[^`\s]+)`", TEXT)) | links


def made(file):
    """Whether notebook 08 makes a file, by the table of makers for the model of that run."""
    found = re.fullmatch(r"figures/(\w+?)/((table|figure)_\d+)(_reported)?\.(\w+)", file)
    if not found:
        return bool(re.fullmatch(r"figures/table_1\.(csv|md|tex)", file))
    run, name, kind, reported, form = found.groups()
    values = params.load(paths.params(run))
    return name in paper.MAKERS[paper.family(values["model"])] and (form == "csv" if reported else form in FORMS[kind])


@pytest.fixture(scope="module")
def tracked():
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"], capture_output=True
    )
    return set(listed.stdout.decode().split())


def test_every_table_and_figure_of_the_paper_stands_there_once():
    firsts = re.findall(r"^\| ((?:Table|Figure) \d+) \|", TEXT, re.M)
    assert sorted(firsts) == sorted(EVERYTHING)


def test_every_file_is_in_the_repository_or_made_by_notebook_08(tracked):
    assert named()
    assert not [file for file in named() if file not in tracked and not made(file)]


@pytest.mark.parametrize("name", sorted(EVERYTHING))
def test_a_row_names_its_notebook_its_own_files_and_its_status(name):
    _, claim, notebook, files, obtained, status = rows()[name]
    assert paths.notebook(notebook).is_file() and claim and obtained
    stem = name.lower().replace(" ", "_")
    assert re.findall(r"/((?:table|figure)_\d+)\.", files) and set(re.findall(r"/((?:table|figure)_\d+)\.", files)) == {stem}
    assert all(made(file) for file in re.findall(r"`([^`]+)`", files))
    assert status in ("run", "laptop form") or status.startswith("not run: ")


@pytest.mark.parametrize("name", sorted(EVERYTHING))
def test_a_row_names_every_laptop_run_that_has_the_table_or_figure(name):
    stem = name.lower().replace(" ", "_")
    runs = {run for run in ("digits", "faces", "painters") if made(f"figures/{run}/{stem}.csv")}
    listed = set(re.findall(r"figures/(\w+)/", rows()[name][3]))
    assert listed <= runs
    assert listed == runs or stem in paper.UNLEARNED  # which only digits are asked for


def test_a_file_that_nothing_makes_is_seen():
    assert made("figures/digits/table_3.csv") and made("figures/faces/table_1_reported.csv")
    assert not made("figures/faces/table_3.csv") and not made("figures/digits/figure_2.md") and not made("figures/digits/lds.csv")


def test_nothing_is_left_to_be_filled_in():
    assert not re.search(r"[{}]|TODO|TBD", TEXT)
