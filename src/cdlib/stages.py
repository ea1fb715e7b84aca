"""The two models that a run makes once: the full model, and the sparse one that approximates it (section 3.2).

models/full.safetensors      trained on everybody's images
models/sparse.safetensors    the full model pruned, then fine-tuned on everybody's images

What brings torch and diffusers is imported where a model is made: notebooks that only ask for paths start in a second.
"""

import contextlib
import json
import time
from functools import lru_cache
from pathlib import Path

import numpy as np

from cdlib import datasets, families, machine, measured, store
from cdlib.errors import Refused
from cdlib.progress import Progress
from cdlib.recipes import Recipe, recipe


def dataset(params: dict) -> datasets.Dataset:
    """The run's images and contributors, read once in a process."""
    names = ("dataset", "owners_per_class", "images_per_contributor", "assignment_seed")
    return _dataset(measured.canonical({n: params[n] for n in names}))


@lru_cache(maxsize=2)
def _dataset(names: bytes) -> datasets.Dataset:
    return datasets.load(json.loads(names))


def path(folder: Path, name: str) -> Path:
    """The weights of the `full` or the `sparse` model."""
    return folder / "models" / f"{name}.safetensors"


def full(run: store.Run) -> dict:
    """Train the full model, unless this run has it; returns what stands beside it, with the losses."""
    model = families.new(families.preset(run["model"]), run["train_seed"], machine.device(run["device"]))
    how = recipe(run.params, "train")
    origin = {"recipe": how.as_dict(), "model": model.config, "seed": run["train_seed"], "dataset": dataset(run.params).digest()}
    return _keep(run, "full", origin, lambda: model, how)


def sparse(run: store.Run) -> dict:
    """Prune the full model and fine-tune it on everybody's images, unless this run has it; returns what stands beside it."""
    how = recipe(run.params, "prune")
    start = families.whole(path(run.folder, "full"))
    origin = {
        "recipe": how.as_dict(),
        "start": start["digest"],
        "pruning_ratio": run["pruning_ratio"],
        "seed": run["train_seed"],
    }
    return _keep(run, "sparse", origin, lambda: pruned(run), how)


def pruned(run: store.Run):
    """The full model with the fraction `pruning_ratio` of its channels removed, not yet fine-tuned.

    The weights that are pruned are those that would be trained on: the raw ones when an average is continued, as in the
    released code, the evaluated ones otherwise.
    """
    from cdlib import prune

    load = families.continuing if run["ema"] == "continued" else lambda *a: (families.load(*a), None)
    model, _ = load(path(run.folder, "full"), machine.device(run["device"]))
    prune.prune(model.unet, run["pruning_ratio"], model.example())
    return model


def _keep(run: store.Run, name: str, origin: dict, start, how: Recipe) -> dict:
    """Train what `start` returns on everybody's images and save it, unless the kept model has this very origin."""
    from cdlib.train import train

    run.made(path(run.folder, name))
    with contextlib.suppress(Refused):
        about = families.whole(path(run.folder, name))
        if about["origin"] == json.loads(json.dumps(origin)):
            return about
    data = dataset(run.params)
    model, everybody = start(), np.unique(data.contributors.image)
    progress = Progress(f"{name} model, step", how.steps, run.path("progress.json"))
    before = time.perf_counter()
    with machine.one_thread():
        trained = train(model, data.images[everybody], how, run["train_seed"], progress=progress.step)
    return families.save(
        model,
        path(run.folder, name),
        {
            "origin": origin,
            "recipe": how.as_dict(),
            "train_seconds": time.perf_counter() - before,
            "ema_step": trained.ema_step,
            "device": machine.device_name(model.device),
            "losses": [float(f"{v:.6g}") for v in trained.losses],
        },
        trained.raw,
    )
