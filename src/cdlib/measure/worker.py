"""One coalition, measured: its model is made, its images are drawn, their property is computed. The work of a worker."""

import contextlib
import json
import time
from functools import lru_cache
from pathlib import Path

import numpy as np

from cdlib.base import disk, hashing, machine, registry
from cdlib.base.errors import Refused
from cdlib.data import contributors
from cdlib.measure import properties
from cdlib.models import checkpoint, families, procedures, sample, stages, unlearn
from cdlib.models.procedures import START
from cdlib.models.train import NotFinite, train
from cdlib.store import cache, measured
from cdlib.store.measured import Measured

KEPT_IMAGES = 64
LARGE_PX = 64


def measure(folder: str, params: dict, spec: dict, keeps: tuple = ()):
    """Measure what a specification says (utility.specifications) and keep it in the run's folder.

    keeps    features of all images that are kept beside the record, in half precision (design.Wanted)

    What another run on the same folder has measured meanwhile is not measured again. A training that was stopped goes on from
    its checkpoint; the seconds are those of all its sittings. The trained model is kept too when `keep_models` says so.

    Raises NotFinite when the loss or the property is not a finite number.
    """
    folder, key = Path(folder), Measured.key(spec)
    store = Measured(folder / "measured")
    with contextlib.suppress(Refused):
        if store.complete(key, [properties.kept_as(name, properties.feature(folder, params, name).digest) for name in keeps]):
            return
    _look(folder, hashing.canonical(params), START[spec["procedure"]])
    before = time.perf_counter()
    with machine.one_thread(), checkpoint.of(folder, params, f"coalitions/{key}") as kept:
        model = _model(folder, params, spec, kept)
        trained = time.perf_counter()
        train_seconds = kept.seconds + trained - before
        images = sample.draw(
            model, spec["sampler"]["n_images"], spec["sampler"]["steps"], params["sample_batch"], params["precision"]
        )
        values, arrays = {}, {"images": images[: _n_kept(spec, images.shape[-1], keeps)]}
        for name, own in registry.properties(params).items():
            if ":" in name and properties.named(name).settings(folder, own) != spec["properties"][name]:
                raise Refused(f"property: {name}: its source has changed since this coalition was asked for; run again")
            per_image = properties.named(name).per_image(folder, own, images)
            values[name] = properties.named(name).value(own, per_image)
            arrays |= {f"{name}/{key}": array for key, array in per_image.items()}
        for name in keeps:
            feature = properties.feature(folder, params, name)
            arrays[properties.kept_as(name, feature.digest)] = feature(images).astype(np.float16)
        if not np.isfinite(list(values.values())).all():
            raise NotFinite(f"property not finite: {values}")
        sample_seconds = time.perf_counter() - trained
        if params["keep_models"] != "none":
            place = stages.path(folder, f"coalitions/{key}")
            families.save(model, place, {"coalition": spec, "train_seconds": train_seconds})
        store.write(spec, values, arrays, train_seconds, sample_seconds)


@lru_cache(maxsize=8)
def _look(folder: Path, params: bytes, start: str | None):
    """Wait until the files that were there when this was asked for are seen here too, as a shared folder may show them late.

    Once in a process; who needs a file that is still not there says so.
    """

    def there() -> bool:
        with contextlib.suppress(Refused):
            if start:
                cache.get(stages.path(folder, start))
            properties.settings(folder, json.loads(params))
            return True
        return False

    disk.seen(there)


def _n_kept(spec: dict, side_px: int, keeps) -> int:
    """How many images of a model are kept: 64, or 16 large ones; 64 where features are kept too, for Figure 11.

    Of a full model all, for they are the queries of the baselines; of a retrained one 64 large ones too where there are no more,
    for Figures 4, 9 and 10 choose among them by their score.
    """
    n, few = spec["sampler"]["n_images"], spec["sampler"]["n_images"] <= KEPT_IMAGES
    if "0" not in spec["members"]:
        return n
    return KEPT_IMAGES if side_px <= LARGE_PX or keeps or (few and spec["procedure"] == "retrain") else KEPT_IMAGES // 4


def _model(folder: Path, params: dict, spec: dict, kept: checkpoint.Checkpoint):
    """The model of a coalition: start weights, then trained on the coalition's images, or without the others' by unlearning.

    Nobody's trained model, everybody's unlearned one, and a given one stay as they start.
    """
    procedure, seed, average = spec["procedure"], spec["seed"], None
    table, start = stages.dataset(params).contributors, START[procedure]
    ids, digest = contributors.images_of(table, measured.members([spec["members"]])[0]), spec["dataset"]["digest"]
    how = procedures.of(params, procedure)
    if start is None:
        model = families.new(spec["model"], seed, machine.device(params["device"]), stages.frozen(folder, params))
    else:
        path = stages.path(folder, start)
        if cache.get(path)["digest"] != spec["start"]:
            raise Refused(f"{path}: another model since this coalition was asked for; run the notebook again")
        if procedure in unlearn.METHODS:
            everybody, model = np.unique(table.image), stages.load(folder, params, start)
            x, removed = stages.inputs(folder, params, model, digest, everybody), ~np.isin(everybody, ids)
            unlearn.METHODS[procedure](model, x, removed, how, seed, checkpoint=kept)
            return model
        if procedure == "given":
            return stages.load(folder, params, start)
        model, average = stages.started(folder, params, start)
    if len(ids):
        train(model, stages.inputs(folder, params, model, digest, ids), how, seed, average, checkpoint=kept)
    return model
