"""Images and who gave them, one module for each dataset.

A dataset module has two functions of the parameters:

    check(params)      refuses, before any work, what cannot be assigned
    load(params)       Dataset: the images, and who gave which

One more dataset is one more module and one line in DATASETS.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cdlib.datasets import digits

DATASETS = {"digits": digits}


@dataclass(frozen=True)
class Dataset:
    """Images and who gave them.

    images          uint8 [T, C, H, W], 0..255; row t is image id t
    contributors    frame of image (id), contributor (label), class (label of what is on it): the images that were given
    """

    images: np.ndarray
    contributors: pd.DataFrame

    def digest(self) -> str:
        """A hash of the images that were given and who gave them, whatever the order of the rows."""
        rows = self.contributors.sort_values("image")
        found = hashlib.sha256(rows[["image", "contributor"]].to_csv(index=False).encode())
        found.update(np.ascontiguousarray(self.images[rows.image]).tobytes())
        return found.hexdigest()[:16]


def load(params: dict) -> Dataset:
    """The dataset that the parameters name."""
    return Dataset(*DATASETS[params["dataset"]].load(params))


def check(params: dict):
    """Refuse parameters that this dataset cannot meet. Raises Refused."""
    DATASETS[params["dataset"]].check(params)
