"""Gradient features of a run's images: computed once, by the run's workers, and kept by image id.

    runs/<name>/gradients/<what>-<hash>/<hash>.safetensors, .json    those of some images (module cache), by a hash of
                                                                     all that decides them, and of the images' ids

T  training images        Q  generated images (queries): those that the property was computed from        k  dimension
"""

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors.numpy import load as load_arrays

from cdlib import store
from cdlib.base import disk, hashing, machine
from cdlib.base.errors import Missing
from cdlib.base.progress import Progress
from cdlib.measure import executors
from cdlib.measure.executors import tasks
from cdlib.models import stages
from cdlib.store import cache, measured

VERSION = 1  # of what features are
AT_ONCE = 64  # images in a part: what a kill can lose of a worker's time
WHAT = {  # whose gradients, of which loss (gradients.LOSSES); the journey has a loss of its own
    "training, simple": ("training", "simple"),
    "training, square": ("training", "square"),
    "generated, simple": ("generated", "simple"),
    "generated, square": ("generated", "square"),
    "journey": ("generated", "journey"),
}


def features(run: store.Run, what: str, key: str) -> np.ndarray:
    """Features by the full model: float32 [T, k] in the order of the image ids, or [Q, k] in that of the queries.

    what    one of WHAT
    key     of the measured coalition whose images are the queries

    An image's noise at a timestep is its own, by image id (of copies: of the first of them), or, with `gradient_noise: shared`,
    that of the timestep. The paper has "one instance of noise" at each timestep, which can mean either.

    Raises Refused when the full model is missing, RuntimeError when a part cannot be computed, and with `so_far`, which computes
    none, Missing when not all are there.
    Source: section 4.3, "gradients are computed using the original model"; appendix C.
    """
    of, loss = WHAT[what]
    p = run.params
    settings = {
        "version": VERSION,
        "model": cache.get(stages.path(run.folder, "full"))["digest"],
        "what": what,
        "images": stages.dataset(p).digest() if of == "training" else key,
        "timesteps": p["sampling_steps"] if loss == "journey" else p["gradient_timesteps"],
        "k": p["projection_dim"],
        "noise": p["gradient_noise"],
        "seed": p["train_seed"],
    }
    if of == "training":
        ids = np.unique(stages.dataset(p).contributors.image)
        ids = first_of_equal(stages.dataset(p).images[ids], ids)
    else:
        ids = np.arange(len(run.measured.arrays(key)["images"]))
    folder = run.folder / "gradients" / f"{what.replace(', ', '_')}-{hashing.digest(hashing.canonical(settings))[:12]}"

    def compute(parts):
        if run.so_far:
            raise Missing(f"gradients of {sum(map(len, parts))} of {len(np.unique(ids))} {of} images are not computed")
        progress = Progress(f"gradients: {what}, parts of {AT_ONCE} images", len(parts), run.path("progress.json"))
        asked = {"params": p | {"device": machine.device(p["device"])}, "folder": folder.name, "settings": settings}
        path = tasks.common(run.folder, asked)
        for task, error in executors.run(p, compute_one, [(path, part.tolist()) for part in parts]):
            if error:
                disk.stop_if_unwritable(error)
                raise RuntimeError(f"gradients, {what}, of images {task[-1][0]} to {task[-1][-1]}: {error.strip()}")
            progress.step()

    return kept(folder, settings, ids, compute)


def compute_one(task: tuple):
    """Compute the features of some images and keep them: (file of what was asked, ids). Runs in a worker."""
    from cdlib.models import gradients

    run_folder, asked = tasks.read_common(task[0])
    params, settings, ids = asked["params"], asked["settings"], np.asarray(task[1])
    of, loss = WHAT[settings["what"]]
    how = {"k": settings["k"], "seed": settings["seed"]}
    with machine.one_thread():
        model = _model(run_folder, hashing.canonical(params), settings["model"])
        if loss == "journey":
            found = gradients.journey_features(model, ids, settings["timesteps"], **how)  # whose noise is always its own
        else:
            x = _inputs(run_folder, params, model, settings, ids)
            timesteps = gradients.evenly(settings["timesteps"])
            noisy = ids if settings["noise"] == "own" else np.zeros_like(ids)
            found = gradients.features(model, x, noisy, loss=loss, timesteps=timesteps, of=of, **how)
    write(run_folder / "gradients" / asked["folder"], settings, ids, found)


@lru_cache(maxsize=1)
def _model(folder: Path, params: bytes, digest: str):
    return stages.load(folder, json.loads(params), "full")


def _inputs(folder: Path, params: dict, model, settings: dict, ids: np.ndarray):
    """What the loss is computed of: the training images, or the queries, prepared as for training."""
    if settings["what"].startswith("training"):
        return stages.inputs(folder, params, model, settings["images"], ids)
    return model.prepare(measured.Measured(folder / "measured").arrays(settings["images"])["images"][ids], False)


def first_of_equal(images, ids) -> np.ndarray:
    """For each image the smallest id of those that are the same image, so that copies have one noise, and one feature.

    images    [n, ...]  of one dtype
    ids       int [n]

    Returns int [n].
    """
    first, contents = {}, [hashing.digest(np.ascontiguousarray(image).tobytes()) for image in images]
    for content, i in zip(contents, np.asarray(ids).tolist(), strict=True):
        first[content] = min(i, first.get(content, i))
    return np.array([first[content] for content in contents], np.int64)


def kept(folder: Path, settings: dict, ids, compute: Callable) -> np.ndarray:
    """Features of images, of which those not yet in the folder are computed first.

    settings    plain JSON values: all that decides the features
    ids         int [n]; what has one id is computed once
    compute     called with parts, int [<= AT_ONCE] each, of the images that are missing; must `write` those of each

    Returns float32 [n, k], in the order of the ids.
    """
    ids, rows = np.asarray(ids, np.int64), _rows(folder, settings)
    missing = np.array([i for i in np.unique(ids) if i not in rows], np.int64)
    if len(missing):
        compute([missing[i : i + AT_ONCE] for i in range(0, len(missing), AT_ONCE)])
        rows = _rows(folder, settings)
    return np.stack([rows[i] for i in ids.tolist()])


def write(folder: Path, settings: dict, ids: np.ndarray, found: np.ndarray):
    """Keep the features of some images, float [n, k], in a file of their own."""
    ids = np.asarray(ids, np.int64)
    path = folder / f"{hashing.digest(hashing.canonical(ids.tolist()))[:32]}.safetensors"
    cache.put(path, measured.save_arrays({"ids": ids, "features": np.asarray(found, np.float32)}), {"origin": settings})


def _rows(folder: Path, settings: dict) -> dict:
    """Feature by image id, of all parts in a folder that were made with these settings."""
    rows = {}
    for path in sorted(folder.glob("*.safetensors")):
        if cache.find(path, settings):
            part = load_arrays(path.read_bytes())
            rows |= zip(part["ids"].tolist(), part["features"], strict=True)
    return rows
