"""Image files in a folder, and decoding them: what datasets of files share.

T  images         S  side_px
"""

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from cdlib import paths
from cdlib.errors import Refused

EXTENSIONS = (".jpg", ".jpeg", ".png")


def folder(params: dict, wanted: str) -> Path:
    """The folder that `data` names, from the repository's root; `wanted` says what it holds. Raises Refused when it is none."""
    if not params["data"]:
        raise Refused(f"data: '': must be {wanted}")
    given = str(paths.root() / os.path.expanduser(params["data"]))
    if os.path.isfile(given):
        raise Refused(f"data: {given}: is a file, not a folder: extract it first, then name {wanted}")
    if not os.path.isdir(given):
        raise Refused(f"data: {params['data']!r}: no such folder ({given}): must be {wanted}")
    return Path(given)


def listed(directory: Path) -> list[str]:
    """Names of a folder's image files, sorted; hidden files, and files that are neither JPEG nor PNG, are passed over."""
    return sorted(p.name for p in directory.iterdir() if p.suffix.lower() in EXTENSIONS and p.name[0] != "." and p.is_file())


def some(names: list[str]) -> str:
    """How many there are, and the first three by name."""
    return f"{len(names)}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"


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
