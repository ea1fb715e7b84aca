"""Whose each image is: a csv that tells it, and contributors' names that can be told apart."""

import csv
import io
import os
import re
import unicodedata
from collections import Counter
from itertools import pairwise
from pathlib import Path, PureWindowsPath

from cdlib.base.errors import Refused
from cdlib.data.datasets.files import some

OPT_OUT = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False, "": False}
UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
TURNING = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # the direction of what follows
DIFFERENCES = {  # that nobody sees, or that nobody means
    "invisible characters, such as a zero-width space": lambda s: "".join(c for c in s if unicodedata.category(c) != "Cf"),
    "the kind or number of spaces": lambda s: re.sub(r"\s+", " ", s),
    "a space at an end": str.strip,
    "capitals (or ß)": str.casefold,
    "accents as one character or as two (NFC, NFD)": lambda s: unicodedata.normalize("NFC", s),
}


def alike(name: str, but: str = "") -> str:
    """What names that look alike have in common, whatever their DIFFERENCES but for one."""
    for difference, removed in DIFFERENCES.items():
        name = name if difference == but else removed(name)
    return name


def distinct(names: set[str], where: str):
    """Refuse contributors' names that look alike, and those with control characters or with none to be seen."""
    if odd := sorted(n for n in names if UNPRINTABLE.search(n) or TURNING.search(n) or not alike(n)):
        raise Refused(f"{where}: control, bidirectional or only invisible characters in the names of {some(odd)}: rename them")
    ordered = pairwise(sorted(names, key=lambda n: (alike(n), n)))
    pairs = [
        f"{a!r} and {b!r} differ in {' and '.join(d for d in DIFFERENCES if alike(a, d) != alike(b, d))}"
        for a, b in ordered
        if alike(a) == alike(b)
    ]
    if pairs:
        raise Refused(f"{where}: contributors whose names look alike, {some(pairs)}: write one name for one contributor")


def _rows(path: Path) -> tuple[list[str], list[dict]]:
    """Header and rows of a csv, separated by commas, semicolons or tabs. Raises Refused."""
    data, bad = path.read_bytes(), f"{path}: cannot be read as comma-separated text in UTF-8"
    if b"\0" in data:
        raise Refused(f"{bad}: it is in UTF-16: save it as CSV UTF-8")
    try:
        text = data.decode("utf-8-sig")
        first = text.partition("\n")[0]
        comma = max(",;\t", key=lambda mark: len(next(csv.reader([first], delimiter=mark), [])))
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=comma, skipinitialspace=True)
        head = [name.strip() for name in next(reader, [])]
        rows = [(reader.line_num, fields) for fields in reader if any(map(str.strip, fields))]
    except UnicodeDecodeError:
        raise Refused(f"{bad}: it is in Latin-1 or another 8-bit encoding: save it as CSV UTF-8") from None
    except csv.Error as error:
        raise Refused(f"{bad}: {error}") from None
    if head and (long := [f"line {line}" for line, fields in rows if len(fields) > len(head)]):
        raise Refused(f'{path}: more fields than the header has in {some(long)}: write names as "Doe{comma} Jane", in quotes')
    return head, [dict(zip(head, fields, strict=False)) for _, fields in rows]


def by_csv(path: Path, root: Path, columns: dict[str, tuple]) -> tuple[dict[str, str], list[str], list[str]]:
    """Whose each file is, by a csv with a row for each; files whose contributor opts out (column opt_out); columns not read.

    root       what the files are relative to
    columns    what the column of files may be called, and then what the column of their owners may be, by the parameter's name

    Raises Refused when it cannot be read, lacks a column, or names a file that is not there, twice, or for nobody.
    """
    head, rows = _rows(path)
    file, owner = (next((n for n in names if n in head), None) for names in columns.values())
    for (key, names), found in zip(columns.items(), (file, owner), strict=True):
        if not found or head.count(found) > 1:
            choose = f", or name it (--{key.replace('_', '-')}, {key})" if key.endswith("_column") else ""
            raise Refused(f"{path}: columns {', '.join(head) or 'none'}: one must be {' or '.join(names)}{choose}")
    files = [os.path.normpath(row.get(file, "").strip().replace("\\", "/")) for row in rows]
    if whole := [f for f in files if f.startswith(("/", "~/", "file:")) or PureWindowsPath(f).is_absolute()]:
        raise Refused(f"{path}: absolute paths, {some(whole)}: write each relative to {root}")
    if missing := [name for name in files if not (root / name).is_file()]:
        raise Refused(f"{path}: names files that are not there, {some(missing)}: add them or remove their rows")
    if twice := [name for name, n in Counter(files).items() if n > 1]:
        raise Refused(f"{path}: names files more than once, {some(twice)}: leave one row for each")
    who = {name: row.get(owner, "") for name, row in zip(files, rows, strict=True)}
    if nobody := [name for name in who if not who[name].strip()]:
        raise Refused(f"{path}: {owner} is empty for {some(nobody)}: say whose they are or remove their rows")
    distinct(set(who.values()), f"{path}: {owner}")
    out = {name: row.get("opt_out", "").strip() for name, row in zip(files, rows, strict=True)}
    if unknown := [f"{name}: {word}" for name, word in out.items() if word.lower() not in OPT_OUT]:
        raise Refused(f"{path}: opt_out is neither true nor false for {some(unknown)}: write true or false")
    left = [name for name in who if OPT_OUT[out[name].lower()]]
    return (
        {name: who[name].strip() for name in who if name not in set(left)},
        left,
        [name for name in head if name not in (file, owner, "opt_out")],
    )
