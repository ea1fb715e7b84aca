"""Images and who gave them, one module for each dataset.

A dataset module has three functions of the parameters:

    planned(params)    how many contributors and images there are to be, without opening any image
    check(params)      refuses, before any work, what cannot be assigned
    load(params)       the images, and who gave which (Dataset)

and may have notes(params), lines about what is allowed and yet worth knowing.

One more dataset is one more module and one line in DATASETS.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module

import numpy as np
import pandas as pd

DATASETS = ("digits", "faces", "painters", "cifar20", "celeba_hq", "artbench", "image_folder")
# The parameters that decide which images there are, and who gave them.
NAMES = ("dataset", "data", "images", "contributors_csv", "classes", "side_px", "n_contributors", "assignment_seed")
NAMES += ("file_column", "contributor_column", "owners_per_class", "images_per_contributor")
SHAPES = {"digits": (1, 8), "faces": (3, 32), "painters": (3, 32), "cifar20": (3, 32)}  # channels and side, where they are given


@dataclass(frozen=True)
class Dataset:
    """Images and who gave them.

    images          uint8 [T, C, H, W], 0..255; row t is image id t
    contributors    frame of image (id), contributor (label), class (label of what is on it): the images that were given;
                    perhaps group (a word for kinds of contributors, to be told apart in figures)
    """

    images: np.ndarray
    contributors: pd.DataFrame

    def digest(self) -> str:
        """A hash of the images that were given and who gave them, whatever the order of the rows; computed once."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        rows = self.contributors.sort_values("image")
        found = hashlib.sha256(rows[["image", "contributor"]].to_csv(index=False).encode())
        for image in rows.image:
            found.update(np.ascontiguousarray(self.images[image]))
        return found.hexdigest()[:16]


def _module(params: dict):
    return import_module(f"cdlib.data.datasets.{params['dataset']}")


def load(params: dict) -> Dataset:
    """The dataset that the parameters name."""
    return Dataset(*_module(params).load(params))


def shape(params: dict) -> tuple[int, int, int]:
    """C, H, W of the images, without opening any."""
    channels, side = SHAPES.get(params["dataset"], (3, params["side_px"]))
    return channels, side, side


def planned(params: dict) -> tuple[int, int]:
    """How many contributors and images there are to be, without opening any image."""
    return _module(params).planned(params)


def notes(params: dict) -> list[str]:
    """What is worth knowing about the data before a run; one line for each."""
    return getattr(_module(params), "notes", lambda params: [])(params)


def check(params: dict):
    """Refuse parameters that this dataset cannot meet. Raises Refused."""
    _module(params).check(params)
