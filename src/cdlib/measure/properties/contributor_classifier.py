"""A small convolutional classifier of who gave an image, trained once on the run's own images and kept with the run.

It gives any images an Inception-style score (eq. 7): how surely a generated image is one contributor's kind, and how many kinds
there are. As the classifier of digits, it learns to call noise nobody's.

    n  images        N  contributors
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from scipy import stats
from torch import nn

from cdlib.base import hashing, seeds
from cdlib.base.errors import Refused
from cdlib.base.machine import one_thread
from cdlib.measure.features import Feature
from cdlib.measure.properties.classifier import fit, probabilities, scaled
from cdlib.models import stages
from cdlib.store import cache

SIDE_PX, HELD_OUT, LEVEL = 32, 0.2, 0.01


def network(colours: int, n_contributors: int) -> nn.Sequential:
    """float [B, C, H, W] in [-1, 1], any size from 8 pixels on -> logits [B, N]; larger images are made smaller first."""
    return nn.Sequential(
        _Smaller(), nn.Conv2d(colours, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(0.3),
        nn.Linear(1024, n_contributors),
    )  # fmt: skip


class _Smaller(nn.Module):
    """Means of pixels, such that no side has over 32."""

    def forward(self, x):
        height, width = (min(side, SIDE_PX) for side in x.shape[2:])
        return nn.functional.adaptive_avg_pool2d(x, (height, width))


def _path(folder: Path) -> Path:
    return folder / "models" / "contributor_classifier.safetensors"


def prepare(folder: Path, params: dict) -> dict:
    """Train on four fifths of each contributor's images, measure on the rest; kept in models/contributor_classifier.safetensors.

    Returns accuracy (held out, 0..1), n_held_out, n_contributors, colours, digest.
    Raises Refused when held-out images are not recognised more often than by chance: the property would mean nothing.
    """
    data = stages.dataset(params)
    origin = {"dataset": data.digest()}
    if found := cache.find(_path(folder), origin):
        return found
    table = data.contributors.sort_values("image")
    images, who = data.images[table.image], table.contributor.astype("category").cat.codes.to_numpy().astype(int)
    held = _held_out(who)
    n, colours = who.max() + 1, images.shape[1]
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.number(0, "contributor classifier"))
        net = network(colours, n)
        fit(net, scaled(images[~held]), torch.as_tensor(who[~held]))
        right = int((probabilities(net, images[held]).argmax(1) == who[held]).sum())
    often = np.bincount(who).max() / len(who)
    if not held.any() or stats.binomtest(right, held.sum(), often, "greater").pvalue > LEVEL:
        raise Refused(
            f"feature: contributor_classifier: {right} of {held.sum()} images that it had not seen were recognised, which is "
            "no better than chance: the contributors' images are too alike, or too few, for this score; choose another property"
        )
    state = {"origin": origin, "accuracy": right / int(held.sum()), "n_held_out": int(held.sum())}
    return cache.put(_path(folder), save_tensors(net.state_dict()), state | {"n_contributors": int(n), "colours": colours})


def _held_out(who: np.ndarray) -> np.ndarray:
    """A fifth of each contributor's images, bool [n]; none of those who gave fewer than five."""
    order, held = seeds.generator(0, "contributor classifier split").permutation(len(who)), np.zeros(len(who), bool)
    for k in range(who.max() + 1):
        own = order[who[order] == k]
        held[own[: int(HELD_OUT * len(own))]] = True
    return held


@lru_cache(maxsize=2)
def _load(path: Path, digest: str, colours: int, n_contributors: int) -> nn.Sequential:
    net = network(colours, n_contributors)
    net.load_state_dict(load_tensors(path.read_bytes()))
    return net


def feature(folder: Path) -> Feature:
    """p(y|x) by the kept classifier: uint8 [n, C, H, W] -> float32 [n, N]. Raises Refused when it is not there."""
    about = cache.get(_path(folder))

    def run(images):
        net = _load(_path(folder), about["digest"], about["colours"], about["n_contributors"])
        return probabilities(net, images)

    digest = hashing.digest(f"contributors {about['digest']}".encode())
    return Feature("probabilities", digest, run, batch_size=256)
