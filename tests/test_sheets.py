"""No csv that people open runs what stands in it, and every name is read back as it was."""

import csv
import io
import re

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdlib import store
from cdlib.base import sheets
from cdlib.show import style, tables
from cdlib.show.statement import statement

NAMES = [
    "=HYPERLINK(1)",
    "@SUM(A1)",
    "-2+3",
    "+1",
    "\tx",
    " =1",
    "'=1",
    "''+1",
    "＝1",
    "Doe;=1+1",
    "Doe, @x",
    "'t Hooft",
    "007",
    "NA",
]
FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\r\n]")
texts = st.text(st.sampled_from("'=+-@＝\t\r\n;, a\"é") | st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


def formulas(written: bytes):
    """Cells that a spreadsheet runs, whatever it takes for the separator; numbers are none."""
    for mark in ",;\t":
        for row in csv.reader(io.StringIO(written.decode(), newline=""), delimiter=mark):
            yield from (cell for cell in row if FORMULA.match(cell) and not re.fullmatch(r"-?[\d.]+(e-?\d+)?", cell))


@given(texts)
def test_a_text_is_read_back_as_it_was_and_no_part_of_it_is_a_formula(text):
    written = sheets.safe(text)
    assert sheets.unsafe(written) == text
    assert not [part for part in re.split("[,;\t\r\n]", written) if FORMULA.match(part)]
    assert not FORMULA.match(written)


@given(texts)
def test_a_text_that_begins_no_formula_is_written_as_it_is(text):
    if not any(FORMULA.match(part.lstrip("'")) for part in re.split("[,;\t\r\n]", text)) and not set("\t\r\n") & set(text):
        assert sheets.safe(text) == text


@given(st.lists(texts.filter(lambda text: text and "\r" not in text), min_size=1))
def test_contributors_are_read_back_from_a_file_as_they_were(tmp_path_factory, names):
    path = tmp_path_factory.mktemp("sheets") / "a.csv"
    frame = pd.DataFrame({"contributor": names, "value": -0.5})
    path.write_bytes(sheets.write(frame))
    assert not list(formulas(path.read_bytes()))
    assert sheets.read(path).contributor.tolist() == names and (sheets.read(path).value == -0.5).all()


@pytest.fixture
def run(scratch):
    return store.Run("01_contributors", {"name": "mine", "so_far": False})


def frame():
    return pd.DataFrame({"contributor": NAMES, "class": NAMES, "group": pd.Categorical(NAMES), "value": -1.5, "n_images": 2})


WRITERS = {
    "a table of the store": lambda run, at: run.write("contributors", frame()),
    "a table of several notebooks": lambda run, at: run.write_part("attributions", frame()),
    "a table of the paper": lambda run, at: tables.write(frame().assign(procedure="x", lds_percent=1.0, low=0.0), at, "t", "."),
    "a figure": lambda run, at: style.save(style.Drawing(frame(), 0.3), at, "figure"),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_no_file_that_is_written_holds_a_formula(run, tmp_path, write, monkeypatch):
    monkeypatch.setattr(tables, "readable", lambda frame: pd.DataFrame({"a": ["b"]}))
    write(run, tmp_path / "figures")
    written = [path for folder in (run.results, tmp_path / "figures") for path in folder.rglob("*.csv")]
    assert written
    for path in written:
        assert not list(formulas(path.read_bytes()))
        assert sheets.read(path)[["contributor", "class", "group"]].eq(pd.Series(NAMES), axis=0).all(axis=None)


def test_the_store_reads_names_as_they_were(run):
    run.write("contributors", frame())
    run.write_part("attributions", frame())
    for table in ("contributors", "attributions"):
        assert run.table(table).contributor.tolist() == NAMES


def test_a_statement_holds_no_formula_and_its_decimal_text_keeps_its_sign(run, monkeypatch):
    rows = frame().assign(share_percent="-1.5", payout="-0.10", payout_low="-1.00", payout_high="0.00")
    monkeypatch.setattr(statement, "make", lambda run: statement.Statement(rows, "", ""))
    statement.write(run)
    written = (run.figures / "statement.csv").read_bytes()
    assert not list(formulas(written)) and written.count(b",-1.5,-0.10,-1.00,0.00\n") == len(NAMES)
    assert sheets.read(run.figures / "statement.csv").contributor.tolist() == NAMES
