"""Image files in a folder, and decoding them: what datasets of files share.

T  images         S  side_px
"""

import csv
import os
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from cdlib import paths
from cdlib.errors import Refused

EXTENSIONS = (".jpg", ".jpeg", ".png")


def folder(params: dict, wanted: str, key: str = "data") -> Path:
    """The folder that the parameter `key` names; `wanted` says what it holds. Raises Refused when it is none."""
    if not params[key]:
        raise Refused(f"{key}: '': must be {wanted}")
    given = paths.given(params[key])
    if os.path.isfile(given):
        raise Refused(f"{key}: {given}: is a file, not a folder: extract it first, then name {wanted}")
    if not os.path.isdir(given):
        raise Refused(f"{key}: {params[key]!r}: no such folder ({given}): must be {wanted}")
    return given


def listed(directory: Path) -> list[str]:
    """Names of a folder's image files, sorted; hidden files, and files that are neither JPEG nor PNG, are passed over."""
    return sorted(p.name for p in directory.iterdir() if p.suffix.lower() in EXTENSIONS and p.name[0] != "." and p.is_file())


def some(names: list[str]) -> str:
    """How many there are, and the first three by name."""
    return f"{len(names)}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"


def labels(path: Path, root: Path, columns: dict[str, tuple]) -> dict[str, str]:
    """Whose each file is, by a csv with a row for each.

    root       what the files are relative to
    columns    what the column of files may be called, and then what the column of their owners may be

    Raises Refused when it cannot be read, lacks a column, or names a file that is not there, twice, or for nobody.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as opened:
            reader = csv.DictReader(opened, skipinitialspace=True)
            given, rows = reader.fieldnames or [], list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise Refused(f"{path}: cannot be read as comma-separated text in UTF-8: {error}") from None
    file, owner = (next((n for n in names if n in given), None) for names in columns.values())
    for names in [names for names, found in zip(columns.values(), (file, owner), strict=True) if not found]:
        commas = ", and commas must separate them" if len(given) == 1 and {";", "\t"} & set(given[0]) else ""
        raise Refused(f"{path}: columns {', '.join(given) or 'none'}: one must be {' or '.join(names)}{commas}")
    pairs = [(os.path.normpath((row[file] or "").strip().replace("\\", "/")), (row[owner] or "").strip()) for row in rows]
    if missing := [name for name, _ in pairs if not (root / name).is_file()]:
        raise Refused(f"{path}: names files that are not there, {some(missing)}: add them or remove their rows")
    if twice := [name for name, n in Counter(name for name, _ in pairs).items() if n > 1]:
        raise Refused(f"{path}: names files more than once, {some(twice)}: leave one row for each")
    if nobody := [name for name, who in pairs if not who]:
        raise Refused(f"{path}: {owner} is empty for {some(nobody)}: say whose they are or remove their rows")
    return dict(pairs)


def image(path: Path, side_px: int) -> np.ndarray:
    """One image, as RGB: its shorter side resized to side_px (Lanczos), then the centre cropped.

    Transparency is dropped, grey becomes three equal channels, and an image of that size already is kept to the bit.

    Returns uint8 [S, S, 3], 0..255.
    Raises Refused with the file's name when it is empty, cut off, neither JPEG nor PNG, or has more than 8 bits of grey.
    """
    try:
        with Image.open(path, formats=["JPEG", "PNG"]) as opened:
            deep = opened.mode.startswith("I")
            whole = opened.convert("RGBA" if opened.mode == "P" else opened.mode).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Refused(f"{path}: cannot be decoded as JPEG or PNG, replace it: {error}") from None
    if deep:
        raise Refused(f"{path}: has more than 8 bits of grey: save it with 8")
    return np.asarray(ImageOps.fit(whole, (side_px, side_px), Image.Resampling.LANCZOS))


def images(paths: list[Path], side_px: int) -> np.ndarray:
    """Every image, in the order of the paths, in one array made once: uint8 [T, 3, S, S], 0..255. Raises Refused as `image`."""
    pixels = np.empty((len(paths), 3, side_px, side_px), np.uint8)
    for t, path in enumerate(paths):
        pixels[t] = image(path, side_px).transpose(2, 0, 1)
    return pixels
