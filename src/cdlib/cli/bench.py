"""How long a step and an image take on this machine, from a few of them; and how much work a run is.

Models have random weights here: their sizes and speeds are those of trained ones, and no data or pretrained part is needed.
"""

import contextlib
import resource
import time
from dataclasses import replace

import pandas as pd
import torch

from cdlib.base import machine, registry
from cdlib.base.machine import one_thread
from cdlib.data import design
from cdlib.measure.executors import tasks
from cdlib.models import families, gradients, procedures
from cdlib.models.families import ready
from cdlib.models.procedures import START
from cdlib.models.train import train

STEPS, WARM_UP = 5, 2
NOTEBOOK_SECONDS = 6  # of each notebook, beside its models: it starts, reads, draws
N_NOTEBOOKS = 8


def models(params: dict) -> tuple:
    """The full model and the pruned one."""
    full, sparse = (families.new(ready.built(params), 0, machine.device(params["device"])) for _ in range(2))
    sparse.prune(params["pruning_ratio"])
    return full, sparse


def seconds(params: dict, full, sparse, steps: int = STEPS) -> pd.DataFrame:
    """Seconds of one training step, and of one sampling step of one image: columns train, sample; rows full, sparse.

    Decoding latents is not counted.
    """
    how = replace(procedures.recipe(params, "finetune"), epochs=0)
    batch, rows = min(params["n_images"], params["sample_batch"]), {}
    with one_thread() if full.device == "cpu" else contextlib.nullcontext():
        for name, model in (("full", full), ("sparse", sparse)):
            x = model.initial_noise(range(how.batch_size))[:, None]
            x = torch.stack([x, x], 2) if model.moments else x
            step = _timed(lambda k, m=model, x=x: train(m, x, replace(how, steps=k), 0), steps, model.device)
            draw = _timed(lambda k, m=model: _sample(m, batch, k, params["precision"]), steps, model.device)
            rows[name] = {"train": step, "sample": draw / batch}
    return pd.DataFrame(rows).T


@torch.inference_mode()
def _sample(model, batch: int, steps: int, precision: str):
    """Some sampling steps of a batch of images."""
    model.unet.eval()
    x, t = model.initial_noise(range(batch)), torch.tensor(500, device=model.device)
    with torch.autocast(model.device.split(":")[0], torch.bfloat16, enabled=precision == "bf16"):
        for _ in range(steps):
            model.guided(x, t)


def _timed(work, steps: int, device: str) -> float:
    """Seconds of one step of `work(steps)`, after some to warm up."""
    for n in (WARM_UP, steps) if steps > 1 else (steps,):
        before = time.perf_counter()
        work(n)
        if device != "cpu":
            torch.cuda.synchronize(device)
    return (time.perf_counter() - before) / steps


def by_procedure(params: dict, each: pd.DataFrame, n_images: int) -> dict:
    """Estimated seconds of one model of everybody's images, by procedure (and plan.UNTRAINED), training and sampling together.

    Of gradient ascent as if everybody were unlearned; of influence unlearning its gradients, in steps of their own size.
    """
    drawn = params["n_images"] * params["sampling_steps"]
    found = {}
    for procedure, start in START.items():
        how, model = procedures.of(params, procedure), start or "full"
        size = how.batch_size * getattr(how, "draws", 1) / params["batch_size"]
        found[procedure] = how.n_steps(n_images) * size * each.train[model] + drawn * each["sample"][model]
    return found | {design.UNTRAINED: drawn * each["sample"]["full"]}


def gradient_seconds(params: dict, full) -> float:
    """Seconds of the gradient of one image's loss at one timestep, from eight images at some; 0 where none are asked for."""
    if not params["gradient_timesteps"]:
        return 0.0
    x, steps = full.initial_noise(range(8)).cpu()[:, None], gradients.evenly(min(5, params["gradient_timesteps"]))
    x = torch.stack([x, x], 2) if full.moments else x

    def work(times):
        for _ in range(times):
            gradients.features(full, x, range(len(x)), timesteps=steps, k=params["projection_dim"])

    with one_thread() if full.device == "cpu" else contextlib.nullcontext():
        return _timed(work, 2, full.device) / (len(x) * len(steps))


def total(params: dict, each: pd.DataFrame, gradient: float, n_images: int) -> float:
    """Estimated seconds of all notebooks of a run, on as many workers as it has.

    each, gradient    as `seconds` and `gradient_seconds` have measured them

    What the families make for themselves first (bases) is not counted, nor are pretrained features.
    """
    one = by_procedure(params, each, n_images)
    models = sum(n * one[procedure] for procedure, n in design.n_planned(params).items())
    # two losses of all training images and queries, and the journeys of the queries
    queries, timesteps = params["n_images"], params["gradient_timesteps"]
    features = 2 * (n_images + queries) * timesteps + queries * params["sampling_steps"]
    steps = 0 if params["full_path"] else procedures.recipe(params, "train").n_steps(n_images) * each["train"]["full"]
    steps += procedures.recipe(params, "prune").n_steps(n_images) * each["train"]["sparse"]
    if "cluster_entropy" in registry.properties(params):
        steps += params["n_reference"] * params["sampling_steps"] * each["sample"]["full"]
    return steps + (models + features * gradient) / tasks.n_workers(params) + N_NOTEBOOKS * NOTEBOOK_SECONDS


def peak_gb(device: str) -> float:
    """Most memory that this process has held, in GB: on the GPU where the models are there."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
