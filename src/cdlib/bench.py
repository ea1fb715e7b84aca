"""How long a step and an image take on this machine, from a few of them."""

import time
from dataclasses import replace

import torch

from cdlib import families, machine, prune, recipes, sample
from cdlib.machine import one_thread
from cdlib.train import train

STEPS, WARM_UP = 5, 2


def models(params: dict) -> tuple:
    """The full model and the pruned one, with random weights: their sizes and speeds are those of trained ones."""
    device = machine.device(params["device"])
    full, sparse = (families.new(families.preset(params["model"]), 0, device) for _ in range(2))
    prune.prune(sparse.unet, params["pruning_ratio"], sparse.example())
    return full, sparse


def seconds(params: dict, full, sparse) -> dict:
    """Estimated seconds of one model by procedure, training and sampling together."""
    n, steps = params["n_images"], params["sampling_steps"]
    batch = min(n, params["sample_batch"])
    found = {}
    for procedure, model in (("retrain", full), ("finetune", full), ("sparse_finetune", sparse)):
        how = recipes.recipe(params, "train" if procedure == "retrain" else "finetune")
        with one_thread():
            step = _timed(lambda k, m=model, h=how: train(m, _images(m), replace(h, steps=k), 0), STEPS)
            draw = _timed(lambda k, m=model: sample.draw(m, batch, k, batch, params["precision"]), STEPS)
        found[procedure] = how.steps * step + steps * draw * n / batch
    return found


def _images(model) -> torch.Tensor:
    c, side = model.config["in_channels"], model.config["sample_size"]
    return torch.zeros(256, c, side, side, dtype=torch.uint8)


def _timed(work, steps: int) -> float:
    """Seconds of one step of `work(steps)`."""
    work(WARM_UP)
    before = time.perf_counter()
    work(steps)
    return (time.perf_counter() - before) / steps
