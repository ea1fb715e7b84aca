"""The Inception Score (eq. 7): how surely each image belongs to a class, and how many classes there are.

IS = exp( E_x KL( p(y|x) || p(y) ) ), from 1 to the number of classes; higher is better. Source: Salimans et al. 2016.
"""

from pathlib import Path

import numpy as np

from cdlib.measure import properties


def inception_score(probabilities: np.ndarray) -> float:
    """The score of class probabilities p(y|x), float [n, K]; all images in one split, as in the paper's setting."""
    p = np.asarray(probabilities, np.float64)
    marginal = p.mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        divergence = np.where(p > 0, p * np.log(p / marginal), 0.0).sum(1)
    return float(np.exp(divergence.mean()))


def prepare(folder: Path, params: dict) -> dict:
    """Train the classifier that stands in for Inception v3 on small images; or find Inception v3."""
    if params["feature"] == "inception_v3":
        return settings(folder, params)
    from cdlib.measure.properties import classifier, contributor_classifier

    trained = classifier if params["feature"] == "digits_classifier" else contributor_classifier
    return trained.prepare(folder, params)


def settings(folder: Path, params: dict) -> dict:
    """The classifier's weights decide the value."""
    return {"classifier": properties.feature(folder, params).digest, "splits": 1}


def per_image(folder: Path, params: dict, images: np.ndarray) -> dict:
    """p(y|x) of each image, float [n, K]; of ImageNet's 1,000 classes in half precision, for 10,240 images are kept so."""
    found = properties.feature(folder, params)(images)
    return {"probabilities": found.astype(np.float16) if params["feature"] == "inception_v3" else found}


def value(params: dict, arrays: dict) -> float:
    """The score from the kept probabilities."""
    return inception_score(arrays["probabilities"])
