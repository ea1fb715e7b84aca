"""How good the best images are: a quantile, the 90th percentile in the paper, of a score of each image (section 4.2)."""

from pathlib import Path

import numpy as np

from cdlib.measure import properties


def prepare(folder: Path, params: dict) -> dict:
    """Find what scores the images."""
    return settings(folder, params)


def settings(folder: Path, params: dict) -> dict:
    """What scores the images, and which quantile."""
    return {"score": properties.feature(folder, params).digest, "quantile": params["quantile"]}


def per_image(folder: Path, params: dict, images: np.ndarray) -> dict:
    """The score of each image, float32 [n]."""
    return {"score": properties.feature(folder, params)(images)}


def value(params: dict, arrays: dict) -> float:
    """The quantile of the kept scores, linearly interpolated, in the score's own unit."""
    return float(np.quantile(arrays["score"].astype(np.float64), params["quantile"]))
