"""How unlike a model's images are to those that it was trained on, by the Fréchet distance of an embedding (FID).

Lower is better, so a contributor's credit is how far they lower it. Source: Heusel et al. 2017; the run chooses the embedding.

    n  images        T  training images        D  length of an embedding
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import load as load_arrays

from cdlib.measure import frechet, properties
from cdlib.store import cache, measured

DISTANCE = frechet.fid


def prepare(folder: Path, params: dict) -> dict:
    """Embed the training images; kept in models/training_<feature>.safetensors. Returns their number and length."""
    from cdlib.models import stages

    data, feature = stages.dataset(params), properties.feature(folder, params)
    origin = {"dataset": data.digest(), "feature": feature.digest}
    if found := cache.find(_path(folder, params), origin):
        return found
    embedding = feature(data.images[np.unique(data.contributors.image)])
    state = {"origin": origin, "n_images": len(embedding), "length": embedding.shape[1]}
    return cache.put(_path(folder, params), measured.save_arrays({"embedding": embedding}), state)


def _path(folder: Path, params: dict) -> Path:
    return folder / "models" / f"training_{params['feature']}.safetensors"


def settings(folder: Path, params: dict) -> dict:
    """The training images' embedding, and what makes it."""
    return {
        "reference": cache.get(_path(folder, params))["digest"],
        "feature": properties.feature(folder, params).digest,
    }


def per_image(folder: Path, params: dict, images: np.ndarray, distance=DISTANCE) -> dict:
    """The embedding of each image, float32 [n, D], and the distance of all of them, float64 [1]."""
    reference = load_arrays(_path(folder, params).read_bytes())["embedding"]
    embedding = properties.feature(folder, params)(images)
    return {"embedding": embedding, "distance": np.array([distance(embedding, reference)])}


def value(params: dict, arrays: dict) -> float:
    """The kept distance, in the square of the embedding's unit."""
    return float(arrays["distance"][0])
