"""Global properties of a model: a number that its images have together (section 2.2).

A property module has

    prepare(folder, params)             makes what the property needs, once, in <folder>/models; returns what is worth showing
    settings(folder, params)            what can change the value, for the key of a measured coalition
    per_image(folder, params, images)   uint8 [n, C, H, W] -> name -> array [n, ...], kept with each measured coalition
    value(params, arrays)               those arrays -> float

Because the arrays are kept, a property can be bootstrapped or recomputed without any model. One more property is one more
module and its name in names.FEATURES, with what it can be computed from (module features). A function of the user's own,
`package.module:function`, is one too (module own).

A run has its property, which its tables and figures are about, and may have others (`also`) of the same images.
"""

from importlib import import_module
from pathlib import Path

import pandas as pd

from cdlib.base import registry

# Features that a run trains itself: where they are.
TRAINED = {
    "digits_classifier": ("classifier", "feature"),
    "digits_embedding": ("classifier", "embedding"),
    "contributor_classifier": ("contributor_classifier", "feature"),
}


def named(name: str):
    """The property module of a name in the parameter file."""
    return import_module(f"cdlib.measure.properties.{'own' if ':' in name else name}")


def prepare(folder: Path, params: dict) -> pd.DataFrame:
    """Make what each property of a run needs; returns what is worth showing of each."""
    found = {name: named(name).prepare(folder, own) for name, own in registry.properties(params).items()}
    return pd.DataFrame([{"property": name, "what": what, "is": str(x)} for name, f in found.items() for what, x in f.items()])


def tried(params: dict) -> list[dict]:
    """What came of trying each function of the user's own on a few training images (own.tried); mostly empty. Raises Refused."""
    asked = {name: own for name, own in registry.properties(params).items() if ":" in name}
    if not asked:
        return []
    from cdlib.models import stages

    return [named(name).tried(own, stages.dataset(params).images) for name, own in asked.items()]


def settings(folder: Path, params: dict) -> dict:
    """What can change the value of each property of a run, by its name."""
    return {name: named(name).settings(folder, own) for name, own in registry.properties(params).items()}


def kept_as(name: str, digest: str) -> str:
    """Under which name a feature of all images is kept with a measured coalition; other weights give another name."""
    return f"embedding/{name}/{digest[:16]}"


def feature(folder: Path, params: dict, name: str | None = None):
    """What the run's property is computed from, or another by its name: a features.Feature.

    Raises Refused when its weights are not there.
    """
    from cdlib.base import machine
    from cdlib.measure import features

    name = name or params["feature"]
    if name in TRAINED:
        module, function = TRAINED[name]
        return getattr(import_module(f"cdlib.measure.properties.{module}"), function)(folder)
    return features.FEATURES[name](params, machine.device(params["device"]))


def files(folder: Path) -> list[Path]:
    """What a run has made for its properties: all of <folder>/models but the models and their inputs."""
    found = sorted([*(folder / "models").glob("*.safetensors"), *(folder / "models").glob("*.json")])
    return [path for path in found if path.stem not in ("full", "sparse", "inputs")]
