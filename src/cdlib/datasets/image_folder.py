"""A folder of images of which somebody knows who gave which: anybody's own data.

    images              the folder; each image below it has one contributor
    contributors_csv    who: a csv with the columns file (relative to images) and contributor; without it, the contributor is
                        the first folder below `images`, whatever folders there are in that one

An image is turned upright as its EXIF says, and laid on white where it is transparent; grey becomes three equal channels, of
8 bits; of several frames the first counts. Then its shorter side is resized to `side_px` (Lanczos) and the centre cropped.

Images are decoded once and kept in runs/.images, under a hash of the files' names, sizes and times of change.

T  images        S  side_px
"""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import PIL
from PIL import Image, ImageOps
from safetensors.numpy import load as load_arrays

from cdlib import cache, measured, paths
from cdlib.datasets import files
from cdlib.errors import Refused

VERSION = 1  # of what is done to an image
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
EXTENSIONS = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff")
# Images too, so that to pass them over would take them from those who gave them.
OTHER_IMAGES = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".psd", ".svg", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf")
COLUMNS = {"file": ("file",), "contributor": ("contributor",)}
FEWEST = 3  # contributors: of two, there is no coalition that says more than the other
REDUCED = 4  # a JPEG may be decoded at a smaller size, of at least so many times side_px


def owners(params: dict) -> tuple[Path, dict[str, str]]:
    """The folder, and the contributor of each image file in it, sorted by file. Opens no image. Raises Refused."""
    root = files.folder(params, "the folder of your images, with one folder in it for each contributor", "images")
    try:
        there = paths.below(root)
    except OSError as error:
        raise Refused(f"images: {error.filename}: cannot be read: {error.strerror}: allow it, or move it away") from None
    if odd := [ascii(name) for name in there if any(c in "\r\n" or "\ud800" <= c <= "\udfff" for c in name)]:
        raise Refused(f"images: {root}: names that cannot be written, {files.some(odd)}: rename them")
    if others := [name for name in there if name.lower().endswith(OTHER_IMAGES)]:
        raise Refused(f"images: {root}: in a format that is not read, {files.some(others)}: save them as PNG or JPEG")
    found = [name for name in there if name.lower().endswith(EXTENSIONS)]
    if not found:
        raise Refused(f"images: {root}: no image in it: put a folder for each contributor there, with images ({_formats()})")
    owner = _by_csv(params, root, found) if params["contributors_csv"] else _by_folder(root, found)
    if len(set(owner.values())) < FEWEST:
        few = ", ".join(sorted(set(owner.values())))
        raise Refused(f"images: {root}: contributors: {few}: must be at least {FEWEST}, to be told apart by who is left out")
    return root, owner


def _formats() -> str:
    return ", ".join(extension[1:] for extension in EXTENSIONS)


def _by_folder(root: Path, found: list[str]) -> dict[str, str]:
    """The first folder below the root, for each file."""
    if loose := [name for name in found if "/" not in name]:
        raise Refused(
            f"images: {root}: in no contributor's folder, {files.some(loose)}: put each into one, or say whose they are "
            "in a csv (contributors_csv)"
        )
    owner = {name: name.split("/")[0] for name in found}
    folders = {p.name for p in root.iterdir() if p.is_dir() and p.name[0] != "." and p.name.lower() not in paths.LITTER}
    if empty := sorted(folders - set(owner.values())):
        raise Refused(f"images: {root}: contributors without images, {files.some(empty)}: add images or remove their folders")
    return owner


def _by_csv(params: dict, root: Path, found: list[str]) -> dict[str, str]:
    """As the csv says, for each file."""
    table = paths.given(params["contributors_csv"])
    if not os.path.isfile(table):
        raise Refused(f"contributors_csv: {table}: no such file: must be a csv with the columns {' and '.join(COLUMNS)}")
    owner = files.labels(table, root, COLUMNS)
    if no_image := sorted(set(owner) - set(found)):
        raise Refused(f"{table}: names what is no image in {root}, {files.some(no_image)}: remove their rows ({_formats()})")
    if nobody := [name for name in found if name not in owner]:
        raise Refused(f"{table}: has no row for {files.some(nobody)} in {root}: say whose they are or move them away")
    return {name: owner[name] for name in found}


def planned(params: dict) -> tuple[int, int]:
    """How many contributors and images there are; opens no image. Raises Refused."""
    owner = _as_many(params)[1]
    return len(set(owner.values())), len(owner)


def _as_many(params: dict) -> tuple[Path, dict[str, str]]:
    """As `owners`, when there are as many as the parameters say."""
    root, owner = owners(params)
    n, asked = len(set(owner.values())), params["n_contributors"]
    if n != asked:
        raise Refused(f"n_contributors: {asked}: {root} has {n}: write {n}, and for n_coalitions {2 * n} or more")
    return root, owner


def check(params: dict):
    """Refuse files that do not fit the parameters, cannot be decoded, or are the same image of two contributors.

    Raises Refused. Keeps what it has decoded, for `load`.
    """
    _checked(params)


def load(params: dict) -> tuple[np.ndarray, pd.DataFrame]:
    """Images sorted by file, and who gave which.

    Returns uint8 [T, 3, S, S], 0..255, and a frame of image, contributor, class (the contributor again).
    Raises Refused as `check`.
    """
    images, owner = _checked(params)
    who = list(owner.values())
    return images, pd.DataFrame({"image": range(len(who)), "contributor": who, "class": who})


def notes(params: dict) -> list[str]:
    """Copies within a contributor, and files that are passed over. Raises Refused as `check`."""
    images, owner = _checked(params)
    copies = len(images) - len({image.tobytes() for image in images})
    others = [name for name in paths.below(paths.given(params["images"])) if name not in owner]
    found = [f"{copies} images are copies of others by the same contributor"] if copies else []
    return found + ([f"not images, passed over, {files.some(others)}"] if others else [])


def _checked(params: dict) -> tuple[np.ndarray, dict[str, str]]:
    """The images, and the contributor of each file, in the same order; what had to be decoded is kept. Raises Refused."""
    root, owner = _as_many(params)
    names, side, first = list(owner), params["side_px"], {}
    made_from = [VERSION, PIL.__version__, side, names, paths.stamp(root)]
    kept = paths.runs() / ".images" / f"{measured.digest(measured.canonical(made_from))[:32]}.safetensors"
    found = cache.find(kept)
    images = load_arrays(kept.read_bytes())["images"] if found else _decoded(root, names, side)
    for name, image in zip(names, images, strict=True):
        other = first.setdefault(image.tobytes(), name)
        if owner[other] != owner[name]:
            raise Refused(
                f"images: {root}: {other} and {name} are the same image ({side} pixels a side), of two contributors: leave it "
                "with one of them"
            )
    if not found:
        cache.put(kept, measured.save_arrays({"images": images}), {})
    return images, owner


def _decoded(root: Path, names: list[str], side_px: int) -> np.ndarray:
    """The images of some files below a folder: uint8 [T, 3, S, S]. Raises Refused with the names of those that cannot be."""
    with warnings.catch_warnings(), ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        warnings.simplefilter("ignore")  # of odd metadata, and of size, which is refused only beyond twice that
        found = list(pool.map(lambda name: _attempt(root / name, side_px), names))
    if wrong := {name: why for name, why in zip(names, found, strict=True) if isinstance(why, str)}:
        first = next(iter(wrong.values()))
        raise Refused(f"images: {root}: cannot be decoded, {files.some(list(wrong))}: replace or remove them ({first})")
    return np.stack(found)


def _attempt(path: Path, side_px: int) -> np.ndarray | str:
    """An image, or why it cannot be decoded."""
    try:
        return image(path, side_px)
    except Exception as error:  # decoders raise many kinds
        return " ".join(f"{type(error).__name__}: {error}".split()).replace(str(path), path.name)


def image(path: Path, side_px: int) -> np.ndarray:
    """One image, as the head of this module says: uint8 [3, S, S], 0..255. Raises what Pillow raises."""
    with Image.open(path, formats=FORMATS) as opened:
        opened.draft(None, (REDUCED * side_px, REDUCED * side_px))
        upright = ImageOps.exif_transpose(opened)
    pixels = np.asarray(ImageOps.fit(_rgb(upright), (side_px, side_px), Image.Resampling.LANCZOS))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _rgb(image: Image.Image) -> Image.Image:
    """The same in 8 bits a channel, on white."""
    if image.mode.startswith("I;16"):
        return Image.fromarray(np.round(np.asarray(image, np.float64) / 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("32 bits a pixel: save it with 8 or 16")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
