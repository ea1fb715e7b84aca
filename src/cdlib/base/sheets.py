"""Tidy csv files that people open in spreadsheets: no text in them is a formula there, and it is read back as it was.

Where a cell could begin with = + - @ (of any width, after spaces too), a tab or a line break, an apostrophe stands before it: at
the head of a text, and after what a spreadsheet may take for a separator. Text that has such apostrophes already gets one more.
"""

import re
from pathlib import Path

import pandas as pd

# Contributors may be called 007, NA or None.
AS_WRITTEN = {"dtype": {"contributor": str, "members": str}, "keep_default_na": False, "na_values": [""]}
FORMULA = r"('*)(?=[^\S\t\r\n]*[=+\-@＝＋－＠]|[\t\r\n])"
UNSAFE, SAFE = (re.compile(rf"(^|[,;\t\r\n]){kept}{FORMULA}") for kept in ("", "'"))


def safe(text: str) -> str:
    """The text as no spreadsheet runs it."""
    return UNSAFE.sub(r"\1'\2", text)


def unsafe(text: str) -> str:
    """The text that `safe` was given."""
    return SAFE.sub(r"\1\2", text)


def _each(frame: pd.DataFrame, change, but=()) -> pd.DataFrame:
    """The frame with every text in it changed, but for some columns."""
    found = frame.copy()
    for name in frame.select_dtypes(exclude=["number", "bool"]).columns.difference(but, sort=False):
        values = [change(value) if isinstance(value, str) else value for value in frame[name]]
        found[name] = pd.Series(values, frame.index, object)
    return found


def write(frame: pd.DataFrame, numbers=()) -> bytes:
    """A frame as csv, in UTF-8.

    numbers    columns of decimal text, which stays what it is, with its sign
    """
    return _each(frame, safe, numbers).to_csv(index=False, lineterminator="\n").encode()


def read(path: Path) -> pd.DataFrame:
    """The frame of a csv by `write`; contributors are text whatever they look like, and only what is empty is missing."""
    return _each(pd.read_csv(path, **AS_WRITTEN), unsafe).infer_objects()
