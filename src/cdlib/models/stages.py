"""The two models that a run makes once: the full model, and the sparse one that approximates it (section 3.2).

models/full.safetensors      trained on everybody's images
models/sparse.safetensors    the full model pruned, then fine-tuned on everybody's images
models/inputs.safetensors    latents of the images, of the families that train on latents

What brings torch and diffusers is imported where a model is made: notebooks that only ask for paths start in a second.
"""

import contextlib
import json
import shutil
import time
from functools import lru_cache
from pathlib import Path

import numpy as np

from cdlib import store
from cdlib.base import hashing, machine, registry
from cdlib.base.errors import NotFinite, Refused
from cdlib.base.progress import Progress
from cdlib.data import datasets
from cdlib.models import checkpoint, families, pretrained
from cdlib.models.families import ready
from cdlib.models.procedures import Recipe, recipe
from cdlib.store import cache


def dataset(params: dict) -> datasets.Dataset:
    """The run's images and contributors, read once in a process."""
    return _dataset(hashing.canonical({n: params[n] for n in datasets.NAMES}))


@lru_cache(maxsize=2)
def _dataset(names: bytes) -> datasets.Dataset:
    return datasets.load(json.loads(names))


def frozen(folder: Path, params: dict) -> Path | None:
    """Folder of the part of the model that is not trained; None when there is none.

    Raises Refused when it is pretrained and cannot be found.
    """
    name = families.preset(params["model"]).get("frozen")
    if name in pretrained.PARTS:
        return pretrained.find(name, params)
    return folder / "models" / name if name else None


def config(folder: Path, params: dict) -> dict:
    """What the run's model is built from. Raises Refused when its frozen part is not there."""
    found, place = ready.built(params), frozen(folder, params)
    if place and not place.is_dir():
        raise Refused(f"{place}: not there; run the notebook that makes it: 02_train")
    return found | ({"frozen_digest": _frozen_digest(place, found["frozen"])} if place else {})


def _frozen_digest(place: Path, name: str) -> str:
    return pretrained.digest(place, name if name in pretrained.PARTS else None)


def needed(folder: Path, params: dict) -> Path | None:
    """Look for all pretrained parts and packages that the run takes, before any work; returns as `frozen`. Raises Refused."""
    features = [own["feature"] for name, own in registry.properties(params).items() if ":" not in name]
    for feature in (*features, params["embedding"], params["fid_embedding"] if params["n_unlearn"] else ""):
        for part in pretrained.NEEDS.get(feature, ()):
            pretrained.find(part, params)
    how = recipe(params, "train")
    steps = how.n_steps(datasets.planned(params)[1])
    if how.epochs and how.schedule != "one_cycle" and how.warmup_steps >= steps:
        raise Refused(f"train_warmup_steps: {how.warmup_steps}: must be less than the {steps} steps of train_epochs {how.epochs}")
    if params["optimizer"] == "adam_8bit":
        from cdlib.models.train import eight_bit

        eight_bit()
    place = frozen(folder, params)
    if ready.given(params):
        made = place is None or place.is_dir()
        ready.check(params, config(folder, params) if made else ready.built(params), place if made else None)
    fits(params)
    return place


def fits(params: dict):
    """Refuse a model that draws images of another size, or of other channels, than those of the dataset. Raises Refused."""
    network = families.preset(params["model"]) | (ready.config(params) if params["full_path"] else {})
    given, drawn = datasets.shape(params), families.drawn(params["model"], network)
    if given != drawn:
        images, model = (" x ".join(map(str, shape)) for shape in (given, drawn))
        key, change = ("model", "") if params["dataset"] in datasets.SHAPES else ("side_px", "another side_px, or ")
        raise Refused(
            f"{key}: {params[key]}: images of {params['dataset']} are {images} (channels, height, width), and "
            f"{params['full_path'] or params['model']} draws {model}: choose {change}another model"
        )


def base(run: store.Run) -> dict:
    """Make the frozen part of the model, when it is one that the run makes itself and has not yet; returns what it is."""
    place = needed(run.folder, run.params)
    if place is None:
        return {"frozen": "nothing: all of the network is trained"}
    if place.is_relative_to(run.folder):
        _make_base(run, place)
    return {"frozen": place.name, "digest": pretrained.digest(place)}


def _make_base(run: store.Run, place: Path):
    """Make a frozen part, unless the one that is there is the one that was made."""
    record = place.with_suffix(".json")
    whole = False
    with contextlib.suppress(FileNotFoundError, cache.Torn):
        whole = cache.read(record)["digest"] == pretrained.digest(place)
    if not whole:
        from cdlib.models import bases

        shutil.rmtree(place, ignore_errors=True)
        progress = Progress(f"{place.name}, step", bases.BASES[place.name][1], run.path("progress.json"))
        bases.make(place.name, place, progress.step)
        cache.write(record, {"digest": pretrained.digest(place)})
    for file in (record, *sorted(place.rglob("*.safetensors"))):
        run.made(file)


def inputs(folder: Path, params: dict, model, digest: str, ids: np.ndarray):
    """What a model is trained on, of the images with these ids: float [n, V, ...] (model.prepare).

    What takes a network to compute is computed once for all images and kept: models/inputs.safetensors.

    digest    the dataset's
    """
    from safetensors.torch import save

    if not model.encodes:
        return _fitting(model.prepare(dataset(params).images[ids], params["horizontal_flip"]), params, model)
    file = folder / "models" / "inputs.safetensors"
    origin = {"dataset": digest, "frozen": model.config["frozen_digest"], "flip": params["horizontal_flip"]}
    data = dataset(params)
    given = np.unique(data.contributors.image)
    kept = cache.find(file, origin)
    if not kept:
        x = model.prepare(data.images[given], params["horizontal_flip"]).contiguous()
        kept = cache.put(file, save({"x": x}), {"origin": origin})
    x = _inputs(file, kept["digest"])
    return _fitting(x[np.searchsorted(given, ids)], params, model)


def _fitting(x, params: dict, model):
    """The same, when the images have the size that the model draws. Raises Refused."""
    if tuple(x.shape[-3:]) != model.noise_shape():
        shapes = f"{tuple(x.shape[-3:])}, and {params['model']} takes {model.noise_shape()}"
        raise Refused(f"side_px: {params['side_px']}: images of {params['dataset']} give {shapes}")
    return x


@lru_cache(maxsize=1)
def _inputs(file: Path, digest: str):
    """The kept inputs, float [T, V, ...]."""
    from safetensors.torch import load

    return load(file.read_bytes())["x"]  # not mapped: a file that is changed in place would change it


def path(folder: Path, name: str) -> Path:
    """The weights of the `full` or the `sparse` model."""
    return folder / "models" / f"{name}.safetensors"


def full(run: store.Run) -> dict:
    """Train the full model, or take the given one, unless this run has it; returns what stands beside it, with the losses."""
    built, device = config(run.folder, run.params), machine.device(run["device"])
    if run["full_path"]:
        return _given(run, built, device)
    model = families.new(built, run["train_seed"], device, frozen(run.folder, run.params))
    how = recipe(run.params, "train")
    origin = {"recipe": how.as_dict(), "model": model.config, "seed": run["train_seed"], "dataset": dataset(run.params).digest()}
    return _keep(run, "full", origin, lambda: model, how)


def _given(run: store.Run, built: dict, device: str) -> dict:
    """The full model that was trained before, kept as the run's own; it has no losses. Raises Refused when images do not fit."""
    kept, origin = path(run.folder, "full"), {"given": ready.digest(run.params), "model": built}
    for file in (kept, kept.with_suffix(".json")):
        run.made(file)
    if about := cache.find(kept, origin):
        return about
    model, data = families.restore(built, ready.tensors(run.params), device, frozen(run.folder, run.params)), dataset(run.params)
    inputs(run.folder, run.params, model, data.digest(), data.contributors.image.to_numpy()[:1])
    told = {"origin": origin, "train_seconds": 0.0, "ema_step": 0, "device": machine.device_name(device), "losses": []}
    return families.save(model, kept, told)


def sparse(run: store.Run) -> dict:
    """Prune the full model and fine-tune it on everybody's images, unless this run has it; returns what stands beside it."""
    how = recipe(run.params, "prune")
    start = cache.get(path(run.folder, "full"))
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
    model, _ = started(run.folder, run.params, "full")
    model.prune(run["pruning_ratio"])
    return model


def load(folder: Path, params: dict, name: str):
    """The `full` or the `sparse` model, as it is evaluated."""
    return families.load(path(folder, name), machine.device(params["device"]), _same_frozen(folder, params, name))


def started(folder: Path, params: dict, name: str) -> tuple:
    """The `full` or the `sparse` model to train on, and its average where that is continued (else None)."""
    if params["ema"] != "continued":
        return load(folder, params, name), None
    return families.continuing(path(folder, name), machine.device(params["device"]), _same_frozen(folder, params, name))


def _same_frozen(folder: Path, params: dict, name: str) -> Path | None:
    """Folder of the frozen part. Raises Refused when it is not the one that this model was trained with."""
    place, trained_with = frozen(folder, params), cache.get(path(folder, name))["config"].get("frozen_digest")
    if place and config(folder, params)["frozen_digest"] != trained_with:
        part = families.preset(params["model"])["frozen"]
        raise Refused(f"{path(folder, name)}: was trained with another {part}; run 02_train again, or name that one")
    return place


def _keep(run: store.Run, name: str, origin: dict, start, how: Recipe) -> dict:
    """Train what `start` returns on everybody's images and save it, unless the kept model has this very origin."""
    from cdlib.models.train import train

    for file in (path(run.folder, name), path(run.folder, name).with_suffix(".json")):
        run.made(file)
    if about := cache.find(path(run.folder, name), origin):
        checkpoint.forget(run.folder, {name})
        return about
    data = dataset(run.params)
    model, everybody = start(), np.unique(data.contributors.image)
    with _refused(name), machine.one_thread(), checkpoint.of(run.folder, run.params, name) as kept:
        x = inputs(run.folder, run.params, model, data.digest(), everybody)
        progress = Progress(f"{name} model, step", how.n_steps(len(x)), run.path("progress.json"))
        before = time.perf_counter()
        trained = train(model, x, how, run["train_seed"], progress=progress.step, checkpoint=kept)
        seconds = kept.seconds + time.perf_counter() - before
        saved = cache.find(path(run.folder, name), origin) or families.save(  # another run on this folder may have been first
            model,
            path(run.folder, name),
            {
                "origin": origin,
                "recipe": how.as_dict(),
                "train_seconds": seconds,
                "ema_step": trained.ema_step,
                "device": machine.device_name(model.device),
                "losses": [float(f"{v:.6g}") for v in trained.losses],
            },
            trained.raw,
        )
    del model, x, trained
    machine.empty_cache()
    return saved


@contextlib.contextmanager
def _refused(name: str):
    """Tell a training that came to nothing as one line, by the model and its parameters. Raises Refused."""
    stage = {"full": "train", "sparse": "prune"}[name]
    try:
        yield
    except NotFinite as error:
        raise Refused(f"{name} model: {error} ({stage}_lr, {stage}_steps)") from None
