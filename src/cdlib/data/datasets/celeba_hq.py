"""CelebA-HQ: faces of people who each have at least 15 images; each person is a contributor.

`data` is a folder with one sub-folder of images for each identity, or with images and a labels.csv that says whose they are,
in columns file (relative to the folder) and identity; filename and celeb, as in the released code, are read as well.

Differs: the paper drew 50 of 307 identities and published neither the seed nor the names, so another 50 are drawn here, and
the number of images is theirs, not 895.
Source: Karras et al. 2018; Na et al. 2022 (LatentHSJA), who chose the 307; appendix A.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from cdlib.base import seeds
from cdlib.base.errors import Refused
from cdlib.data.datasets import files, owners

LEAST_IMAGES = 15
N_IDENTITIES, N_IMAGES = 50, 895
LABELS = "labels.csv"
COLUMNS = {"file": ("file", "filename"), "identity": ("identity", "celeb")}


def planned(params: dict) -> tuple[int, int]:
    """How many contributors are asked for, and how many images the paper would have of them; opens no file."""
    n = params["n_contributors"]
    return n, round(n * N_IMAGES / N_IDENTITIES)


def _chosen(params: dict) -> tuple[Path, dict[str, str]]:
    """The folder, and the identity of each file of those that were drawn, sorted by file. Raises Refused."""
    n = params["n_contributors"]
    if params["side_px"] < 1:
        raise Refused(f"side_px: {params['side_px']}: must be at least 1")
    root = files.folder(params, f"a folder with one sub-folder of images for each identity, or with images and {LABELS}")
    if (root / LABELS).is_file():
        owner = owners.by_csv(root / LABELS, root, COLUMNS)[0]
    else:
        people = [p for p in root.iterdir() if p.is_dir() and p.name[0] != "."]
        owner = {f"{person.name}/{name}": person.name for person in people for name in files.listed(person)}
    counts = Counter(owner.values())
    able = sorted(identity for identity in counts if counts[identity] >= LEAST_IMAGES)
    if not 2 <= n <= len(able):
        raise Refused(
            f"n_contributors: {n}: must be 2 or more, and at most the identities with at least {LEAST_IMAGES} images each: "
            f"{root} has {len(able)} of them, among {len(counts)} identities"
        )
    drawn = {able[i] for i in seeds.generator(params["assignment_seed"], "identities").permutation(len(able))[:n]}
    return root, {file: owner[file] for file in sorted(owner) if owner[file] in drawn}


def check(params: dict):
    """Refuse labels that do not fit the files, and more contributors than have images enough; decodes nothing. Raises Refused."""
    _chosen(params)


def load(params: dict) -> tuple[np.ndarray, pd.DataFrame]:
    """Images of the people drawn, sorted by file name; the person is contributor and class.

    Returns uint8 [T, 3, S, S], 0..255, S = side_px, and a frame of image, contributor, class.
    Raises Refused as `check`, and with its name when an image cannot be decoded.
    """
    root, owner = _chosen(params)
    people = list(owner.values())
    table = pd.DataFrame({"image": range(len(people)), "contributor": people, "class": people})
    return files.images(root, list(owner), params["side_px"])[0], table
