"""Scikit-learn's handwritten digits, 8x8: real images that need no download.

Digits 0-4 come from one contributor each and digits 5-9 from three each, all giving equally many images: counting images
says nothing, and who alone supplies a digit matters more to the variety of what is drawn.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from cdlib.base import seeds
from cdlib.base.errors import Refused

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def images_and_classes() -> tuple[np.ndarray, np.ndarray]:
    """All 1,797 digits: uint8 [T, 1, 8, 8], 0..255, and which digit each is, int [T]."""
    # the very file that scikit-learn's load_digits reads: importing scikit-learn takes longer than all of `cdlib status`
    file = Path(find_spec("sklearn").origin).parent / "datasets" / "data" / "digits.csv.gz"
    data = np.loadtxt(file, delimiter=",")
    return np.round(data[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8), data[:, -1].astype(int)


def check(params: dict):
    """Refuse more owners than a digit has images for. Raises Refused."""
    each = params["images_per_contributor"]
    counts = np.bincount(images_and_classes()[1], minlength=10)
    for digit, owners in enumerate(params["owners_per_class"]):
        if owners > len(LETTERS):
            raise Refused(f"owners_per_class: {owners} for digit {digit}: at most {len(LETTERS)}")
        if owners * each > counts[digit]:
            raise Refused(
                f"owners_per_class: {owners} for digit {digit} with images_per_contributor {each}: needs {owners * each} images, "
                f"there are {counts[digit]}: at most {counts[digit] // owners} images for each of {owners} owners"
            )
    n = sum(params["owners_per_class"])
    if params["n_contributors"] not in (0, n):
        raise Refused(f"n_contributors: {params['n_contributors']}: must be 0, or as owners_per_class says: {n}")
    if sum(params["owners_per_class"]) < 2:
        raise Refused(f"owners_per_class: {params['owners_per_class']}: must make at least 2 contributors")


def planned(params: dict) -> tuple[int, int]:
    """How many contributors and images there are to be."""
    n = sum(params["owners_per_class"])
    return n, n * params["images_per_contributor"]


def load(params: dict) -> tuple[np.ndarray, pd.DataFrame]:
    """Images, and who gave which: contributor `3` alone gives threes, `7a`, `7b` and `7c` share the sevens."""
    check(params)
    images, classes = images_and_classes()
    each, rows = params["images_per_contributor"], []
    for digit, owners in enumerate(params["owners_per_class"]):
        order = seeds.generator(params["assignment_seed"], "owners", digit).permutation(np.flatnonzero(classes == digit))
        for k in range(owners):
            label = str(digit) if owners == 1 else f"{digit}{LETTERS[k]}"
            rows += [(int(i), label, str(digit)) for i in sorted(order[k * each : (k + 1) * each])]
    return images, pd.DataFrame(rows, columns=["image", "contributor", "class"])
