"""A small convolutional classifier of digits, trained once for a run and kept with it.

It also learns to call noise no digit (all classes alike), so that what an untrained model draws scores near 1, not by chance.
Torch is imported where the network is used: who only asks which classifier it is starts in a second.

    K  classes
"""

from functools import lru_cache
from pathlib import Path

import numpy as np

from cdlib.base import hashing, seeds
from cdlib.base.machine import one_thread
from cdlib.data.datasets.digits import images_and_classes
from cdlib.measure.features import Feature
from cdlib.store import cache

STEPS, BATCH, NOISE, LR, HELD_OUT = 700, 64, 16, 3e-3, 0.2
LEAST_ACCURACY = 0.97


def network():
    """A torch module: float [B, 1, 8, 8] in [-1, 1] -> logits [B, 10]."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(1024, 10),
    )  # fmt: skip


def _noise(n: int, shape):
    """Images of nothing: Gaussian noise from faint to saturated, float tensor [n, C, H, W] in [-1, 1]."""
    import torch

    return (torch.randn(n, *shape) * torch.empty(n, 1, 1, 1).uniform_(0.1, 5)).clamp(-1, 1)


def scaled(images: np.ndarray):
    """uint8 to a float tensor in [-1, 1]."""
    import torch

    return torch.as_tensor(images).float() / 127.5 - 1


def prepare(folder: Path, params: dict) -> dict:
    """Train on four fifths of all digits, measure on the rest; kept in models/classifier.safetensors and .json.

    Returns accuracy (held out, 0..1), n_held_out, digest.
    Raises RuntimeError when the held-out accuracy is below 97 %: the property would mean nothing.
    """
    import torch
    from safetensors.torch import save

    path = folder / "models" / "classifier.safetensors"
    if found := cache.find(path):
        return found
    images, classes = images_and_classes()
    order = seeds.generator(0, "classifier split").permutation(len(images))
    held, used = np.split(order, [int(HELD_OUT * len(order))])
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.number(0, "classifier"))
        net = network()
        fit(net, scaled(images)[used], torch.as_tensor(classes)[used])
        accuracy = float((probabilities(net, images[held]).argmax(1) == classes[held]).mean())
    if accuracy < LEAST_ACCURACY:
        raise RuntimeError(f"the classifier's held-out accuracy is {accuracy:.3f}, below {LEAST_ACCURACY}")
    return cache.put(path, save(net.state_dict()), {"accuracy": accuracy, "n_held_out": len(held)})


def fit(net, x, y):
    """Train a network to tell classes, and to call noise none of them: tensors x float [n, C, H, W] in [-1, 1], y int [n]."""
    import torch

    optimizer = torch.optim.Adam(net.parameters(), lr=LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=STEPS)
    for _ in range(STEPS):
        rows = torch.randint(0, len(x), (BATCH,))
        loss = torch.nn.functional.cross_entropy(net(x[rows]), y[rows])
        (loss - net(_noise(NOISE, x.shape[1:])).log_softmax(1).mean()).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def about(folder: Path) -> dict:
    """accuracy, n_held_out and digest of the kept classifier. Raises Refused when it is not the one that was kept."""
    return cache.get(folder / "models" / "classifier.safetensors")


@lru_cache(maxsize=2)
def _load(folder: Path, digest: str):
    from safetensors.torch import load

    net = network()
    net.load_state_dict(load((folder / "models" / "classifier.safetensors").read_bytes()))
    return net


def feature(folder: Path) -> Feature:
    """p(y|x) by the kept classifier: uint8 [n, 1, 8, 8] -> float32 [n, K]. Raises Refused when it is not there."""
    digest = about(folder)["digest"]
    return Feature("probabilities", digest, lambda images: probabilities(_load(folder, digest), images), batch_size=256)


def embedding(folder: Path) -> Feature:
    """What the kept classifier sees before it tells classes: its last features, pooled, float32 [n, 64]. Raises as `feature`."""
    digest = about(folder)["digest"]

    def run(images):
        import torch

        features = _load(folder, digest)[:-3]  # without flattening, dropout and the linear head
        with torch.inference_mode():
            return features.eval()(scaled(images)).mean((2, 3)).numpy()

    return Feature("embedding", hashing.digest(f"pooled {digest}".encode()), run, batch_size=256)


def probabilities(net, images: np.ndarray) -> np.ndarray:
    """p(y|x), float32 [n, K], by a network."""
    import torch

    net.eval()
    with torch.inference_mode():
        return torch.cat([net(part).softmax(1) for part in scaled(images).split(256)]).numpy()
