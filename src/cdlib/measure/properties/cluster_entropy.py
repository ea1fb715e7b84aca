"""How evenly a model's images fall into clusters of the full model's images (eq. 8): the paper's demographic diversity.

H = - sum_k p_k ln p_k, from 0 to ln K; higher is more diverse. Source: section 4.2; appendix A; Luccioni et al. 2023.

    n  images        K  clusters        D  length of an embedding        R  reference images
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import load as load_arrays
from scipy.cluster import hierarchy

from cdlib.measure import properties
from cdlib.store import cache, measured


def entropy(cluster: np.ndarray) -> float:
    """Entropy (eq. 8) of the clusters that images fall into, int [n], by the natural logarithm."""
    share = np.unique(cluster, return_counts=True)[1] / len(cluster)
    return float(-(share * np.log(share)).sum()) + 0.0  # of one cluster 0.0, not -0.0


def ward(embeddings: np.ndarray, n_clusters: int) -> np.ndarray:
    """The cluster of each reference image, int [R] from 0, by Ward linkage of Euclidean distances.

    Differs: the released code takes Ward's linkage of inner products, subtracted from the largest.
    """
    return hierarchy.fcluster(hierarchy.linkage(embeddings.astype(np.float64), "ward"), n_clusters, "maxclust") - 1


def assign(embeddings: np.ndarray, reference: np.ndarray, cluster: np.ndarray, how: str = "nearest_mean") -> np.ndarray:
    """The reference cluster of each image, int [n].

    embeddings    float [n, D]
    reference     float [R, D], whose clusters are int [R]
    how           nearest_mean: the cluster whose mean is nearest | average_linkage: that with the largest mean inner product

    Differs: the paper says only that images are assigned; average_linkage is what the released code does.
    """
    means = np.stack([reference[cluster == k].mean(0) for k in range(cluster.max() + 1)]).astype(np.float64)
    products = embeddings @ means.T
    if how == "average_linkage":
        return products.argmax(1)
    return (np.square(means).sum(1) - 2 * products).argmin(1)


def prepare(folder: Path, params: dict) -> dict:
    """Draw images from the full model and cluster them; kept in models/clusters.safetensors and .json.

    Returns the number of clusters, their sizes, and the entropy of the reference images.
    """
    from cdlib.base import machine
    from cdlib.models import sample, stages

    path = _path(folder)
    origin = _origin(folder, params)
    if found := cache.find(path, origin):
        return found
    with machine.one_thread():
        model = stages.load(folder, params, "full")
        images = sample.draw(model, params["n_reference"], params["sampling_steps"], params["sample_batch"], params["precision"])
        reference = properties.feature(folder, params)(images)
    cluster = ward(reference, params["n_clusters"])
    data = measured.save_arrays({"embeddings": reference, "cluster": cluster.astype(np.int64)})
    shown = {"clusters": len(np.unique(cluster)), "sizes": np.bincount(cluster).tolist(), "entropy": entropy(cluster)}
    state = cache.put(path, data, {"origin": origin, **shown})
    del model
    machine.empty_cache()
    return state


def about(folder: Path, params: dict) -> dict:
    """What stands beside the kept clusters. Raises Refused when they are not those of this full model and these parameters."""
    return cache.get(_path(folder), _origin(folder, params))


def _path(folder: Path) -> Path:
    return folder / "models" / "clusters.safetensors"


def _origin(folder: Path, params: dict) -> dict:
    """What the clusters come from."""
    from cdlib.models import stages

    names = ("n_clusters", "n_reference", "sampling_steps", "precision")
    full = cache.get(stages.path(folder, "full"))["digest"]
    return {"full": full, "feature": properties.feature(folder, params).digest} | {n: params[n] for n in names}


def settings(folder: Path, params: dict) -> dict:
    """The clusters, what makes the embeddings, and how images are assigned."""
    return {
        "clusters": about(folder, params)["digest"],
        "feature": properties.feature(folder, params).digest,
        "assignment": params["assignment"],
    }


def per_image(folder: Path, params: dict, images: np.ndarray) -> dict:
    """Embedding, float32 [n, D], and cluster, int [n], of each image."""
    kept = load_arrays(_path(folder).read_bytes())
    embeddings = properties.feature(folder, params)(images)
    return {"embedding": embeddings, "cluster": assign(embeddings, kept["embeddings"], kept["cluster"], params["assignment"])}


def centres(folder: Path) -> np.ndarray:
    """The mean embedding of each reference cluster, float64 [K, D]."""
    kept = load_arrays(_path(folder).read_bytes())
    return np.stack([kept["embeddings"][kept["cluster"] == k].mean(0, dtype=float) for k in range(kept["cluster"].max() + 1)])


def value(params: dict, arrays: dict) -> float:
    """The entropy from the kept clusters, in nats."""
    return entropy(arrays["cluster"])
