"""Images and who gave them, one module for each dataset.

A dataset module has two functions of the parameters:

    check(params)      refuses, before any work, what cannot be assigned
    load(params)       Dataset: the images, and who gave which

One more dataset is one more module and one line in DATASETS.
"""

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


def load(params: dict) -> Dataset:
    """The dataset that the parameters name."""
    return Dataset(*DATASETS[params["dataset"]].load(params))


def check(params: dict):
    """Refuse parameters that this dataset cannot meet. Raises Refused."""
    DATASETS[params["dataset"]].check(params)
