"""A folder of images of which somebody knows who gave which: anybody's own data.

    images                the folder; each image below it has one contributor
    contributors_csv      who: a csv with a column of files (relative to images) and a column of contributors; without it, the
                          contributor is the first folder below `images`, whatever folders there are in that one
    file_column           what these columns are called; in a third one, opt_out, true leaves an image out
    contributor_column

Module files says what images are made of. They are decoded once and kept in runs/.images, under a hash of the files' names,
sizes and times of change.

T  images        S  side_px
"""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import PIL
from safetensors.numpy import load as load_arrays

from cdlib.base import hashing, paths
from cdlib.base.errors import Refused
from cdlib.data.datasets import files, owners
from cdlib.store import cache, measured

VERSION = 2  # of what is done to an image
# Images too, so that to pass them over would take them from those who gave them.
OTHER_IMAGES = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".psd", ".svg", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf")
OTHER_IMAGES += (".hif", ".rw2", ".exr", ".hdr", ".xcf", ".pcx", ".qoi", ".dds", ".icns", ".j2k", ".eps", ".pfm", ".dib")
FEWEST = 3  # contributors: of two, there is no coalition that says more than the other
FORMATS = ", ".join(extension[1:] for extension in files.EXTENSIONS)
REDUCED = 4  # a JPEG may be decoded at a smaller size, of at least so many times side_px


def given(params: dict) -> tuple[Path, dict[str, str]]:
    """The folder, and the contributor of each image file in it, sorted by file. Decodes no image. Raises Refused."""
    root = files.folder(params, "the folder of your images, with one folder in it for each contributor", "images")
    there = paths.below(root)
    if others := [name for name in there if name.lower().endswith(OTHER_IMAGES)]:
        raise Refused(f"images: {root}: in a format that is not read, {files.some(others)}: save them as PNG or JPEG")
    found = [name for name in there if files.is_image(root / name)]
    if odd := [name for name in found if owners.UNPRINTABLE.search(name)]:
        raise Refused(f"images: {root}: control characters in the names of {files.some(odd)}: rename them")
    if not found:
        kinds = Counter(Path(name).suffix.lower() or "without an ending" for name in there).most_common()
        but = f", but {files.some([f'{n} {kind}' for kind, n in kinds])}" if kinds else ""
        raise Refused(f"images: {root}: no image in it{but}: put a folder for each contributor there, with images ({FORMATS})")
    owner = _by_csv(params, root, found) if params["contributors_csv"] else _by_folder(root, found)
    if len(set(owner.values())) < FEWEST:
        few = ", ".join(sorted(set(owner.values())))
        raise Refused(f"images: {root}: contributors: {few}: must be at least {FEWEST}, to be told apart by who is left out")
    return root, owner


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
    owners.distinct(set(owner.values()), f"images: {root}")
    return owner


def _csv(params: dict, root: Path) -> tuple[dict[str, str], list[str], list[str]]:
    """What the csv says (owners.by_csv); nothing without one."""
    if not params["contributors_csv"]:
        return {}, [], []
    table = paths.given(params["contributors_csv"])
    columns = {name: (params[name],) for name in ("file_column", "contributor_column")}
    if not os.path.isfile(table):
        wanted = " and ".join(name for (name,) in columns.values())
        raise Refused(f"contributors_csv: {table}: no such file: must be a csv with the columns {wanted}")
    return owners.by_csv(table, root, columns)


def _by_csv(params: dict, root: Path, found: list[str]) -> dict[str, str]:
    """As the csv says, for each file that it does not leave out."""
    (owner, out, _), table = _csv(params, root), paths.given(params["contributors_csv"])
    if no_image := sorted({*owner, *out}.difference(found)):
        raise Refused(f"{table}: names what is no image in {root}, {files.some(no_image)}: remove their rows ({FORMATS})")
    if nobody := sorted(set(found).difference(owner, out)):
        raise Refused(f"{table}: has no row for {files.some(nobody)} in {root}: say whose they are or move them away")
    return {name: owner[name] for name in found if name in owner}


def planned(params: dict) -> tuple[int, int]:
    """How many contributors and images there are; opens no image. Raises Refused."""
    owner = _as_many(params)[1]
    return len(set(owner.values())), len(owner)


def _as_many(params: dict) -> tuple[Path, dict[str, str]]:
    """As `given`, when there are as many as the parameters say."""
    root, owner = given(params)
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

    Returns uint8 [T, 3, S, S], 0..255, and a frame of image, contributor, class (the contributor again); in its attrs,
    `opted_out` is the number of images that a csv leaves out.
    Raises Refused as `check`.
    """
    images, _, owner = _checked(params)
    who = list(owner.values())
    table = pd.DataFrame({"image": range(len(who)), "contributor": who, "class": who})
    table.attrs["opted_out"] = len(_csv(params, paths.given(params["images"]))[1])
    return images, table


def notes(params: dict) -> list[str]:
    """What is lost of some images, copies within a contributor, and what is left out. Raises Refused as `check`."""
    images, remarks, owner = _checked(params)
    root, names = paths.given(params["images"]), np.array(list(owner))
    _, out, unread = _csv(params, root)
    used = {*owner, *out}
    seen = Counter(pixels.tobytes() for pixels in images if not _blank(pixels))
    told = {remark: names[remarks[:, r]].tolist() for r, remark in enumerate(files.REMARKS)}
    told["of a single colour"] = [name for name, pixels in zip(owner, images, strict=True) if _blank(pixels)]
    told["left out, as opt_out says"] = out
    told["columns of the csv that are not read"] = unread
    told["not images, passed over"] = [name for name in paths.below(root) if name not in used]
    copies = seen.total() - len(seen)
    found = [f"{copies} images are copies of others by the same contributor"] if copies else []
    return found + [f"{what}, {files.some(which)}" for what, which in told.items() if which]


def _blank(pixels: np.ndarray) -> bool:
    return bool((pixels == pixels[:, :1, :1]).all())


def _checked(params: dict) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """Images, their remarks (files.REMARKS), and the contributor of each file, in one order; what is decoded is kept.

    Raises Refused.
    """
    root, owner = _as_many(params)
    names, side = list(owner), params["side_px"]
    made_from = [VERSION, PIL.__version__, side, names, paths.stamp(root)]
    kept = paths.runs() / ".images" / f"{hashing.digest(hashing.canonical(made_from))[:32]}.safetensors"
    found = cache.find(kept)
    if found:
        images, remarks = (load_arrays(kept.read_bytes())[name] for name in ("images", "remarks"))
    else:
        images, remarks = files.images(root, names, side, "images", REDUCED)
    _not_shared(images, owner, f"images: {root}")
    if not found:
        cache.put(kept, measured.save_arrays({"images": images, "remarks": remarks}), {})
    return images, remarks, owner


def _not_shared(images: np.ndarray, owner: dict[str, str], where: str):
    """Refuse images that are the same of two contributors; of a single colour they may be."""
    first, pairs = {}, []
    for name, pixels in zip(owner, images, strict=True):
        other = first.setdefault(pixels.tobytes(), name)
        if owner[other] != owner[name] and not _blank(pixels):
            pairs.append(f"{other} and {name}")
    if pairs:
        side = images.shape[-1]
        raise Refused(
            f"{where}: the same image of two contributors ({side} pixels a side), {files.some(pairs)}: leave one of each"
        )
