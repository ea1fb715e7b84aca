"""One table over all runs that have been drawn: Table 1 of the paper, with a column for each."""

from cdlib.base import paths, sheets
from cdlib.base.disk import write_bytes
from cdlib.show import reported, tables
from cdlib.show.paper import PLUS_MINUS
from cdlib.show.tables import Table

RUNS = ("digits", "faces", "painters", *reported.SETTINGS, *(f"{name}_released" for name in reported.SETTINGS))


def table_1(written=True):
    """Table 1 over the finished runs that have left one in figures/: a `Table`, or None when none has.

    written    whether to write figures/table_1.csv, .md, .tex and figures/paper/reported.csv
    """
    folder = paths.figures("paper").parent
    if written:
        write_bytes(folder / "paper" / "reported.csv", reported.FILE.read_bytes())
    found = {name: folder / name / "table_1.csv" for name in RUNS if (folder / name / "table_1.csv").is_file()}
    if not found:
        return None
    caption = "LDS (%) at α = 0.5, of every run: digits are a small CIFAR-20, faces a small CelebA-HQ, painters a small ArtBench."
    table = Table(tables.joined({name: sheets.read(path) for name, path in found.items()}), caption)
    rows = reported.read()
    context = f"The paper reports, on its own data sets and models{PLUS_MINUS}:"
    if written:
        tables.write(table.frame, folder, "table_1", table.caption, (context, reported.readable(rows[rows["table"] == "1"])))
    return table
