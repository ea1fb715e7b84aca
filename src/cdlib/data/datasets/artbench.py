"""ArtBench, Post-Impressionism: 5,000 paintings by 258 artists; each artist is a contributor.

`data` is the extracted folder artbench-10-imagefolder-split. Its other styles, and its test images, are not used.
Source: Liao et al. 2022; appendix A.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from cdlib.base.errors import Refused
from cdlib.data.datasets import files

STYLE = "train/post_impressionism"
N_ARTISTS, N_IMAGES = 258, 5_000


def planned(params: dict) -> tuple[int, int]:
    """How many contributors and images the paper has; opens no file."""
    return N_ARTISTS, N_IMAGES


def artist(name: str) -> str:
    """Whose painting a file is: its name up to the first underscore, or nothing when there is none."""
    return name.partition("_")[0] if "_" in name else ""


def _paintings(params: dict) -> tuple[Path, list[str]]:
    """The folder of the style, and its files, sorted by name. Raises Refused."""
    if params["n_contributors"] != N_ARTISTS:
        raise Refused(f"n_contributors: {params['n_contributors']}: must be {N_ARTISTS}, one for each artist")
    if params["side_px"] < 1:
        raise Refused(f"side_px: {params['side_px']}: must be at least 1")
    style = files.folder(params, "the extracted folder artbench-10-imagefolder-split") / STYLE
    if not style.is_dir():
        raise Refused(
            f"data: {style}: no such folder: data must be the extracted artbench-10-imagefolder-split, with {STYLE} in it"
        )
    names = files.listed(style)
    if nobody := [name for name in names if not artist(name)]:
        raise Refused(
            f"data: {style}: no artist before an underscore in the names of {files.some(nobody)}: rename or remove them"
        )
    artists = len({artist(name) for name in names})
    if (len(names), artists) != (N_IMAGES, N_ARTISTS):
        raise Refused(
            f"data: {style}: {len(names)} images by {artists} artists, must be {N_IMAGES} by {N_ARTISTS}: extract it again"
        )
    return style, names


def check(params: dict):
    """Refuse an archive that is not extracted or not complete; decodes nothing. Raises Refused."""
    _paintings(params)


def load(params: dict) -> tuple[np.ndarray, pd.DataFrame]:
    """Paintings sorted by file name; the artist is contributor and class.

    Returns uint8 [T, 3, S, S], 0..255, S = side_px, and a frame of image, contributor, class.
    Raises Refused as `check`, and with its name when a painting cannot be decoded.
    """
    style, names = _paintings(params)
    artists = [artist(name) for name in names]
    table = pd.DataFrame({"image": range(len(names)), "contributor": artists, "class": artists})
    return files.images(style, names, params["side_px"])[0], table
