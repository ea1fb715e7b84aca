"""Global properties of a model: a number that its images have together (section 2.2).

A property module has

    prepare(folder, params)             makes what the property needs, once, in <folder>/models; returns what is worth showing
    settings(folder, params)            what can change the value, for the key of a measured coalition
    per_image(folder, params, images)   uint8 [n, C, H, W] -> name -> array [n, ...], kept with each measured coalition
    value(params, arrays)               those arrays -> float

Because the arrays are kept, a property can be bootstrapped or recomputed without any model. One more property is one more
module and its name in names.FEATURES, with what it can be computed from (module features).
"""

from importlib import import_module
from pathlib import Path


def named(name: str):
    """The property module of a name in the parameter file."""
    return import_module(f"cdlib.properties.{name}")


def kept_as(name: str) -> str:
    """Under which name a feature of all images is kept with a measured coalition."""
    return f"embedding/{name}"


def feature(folder: Path, params: dict, name: str | None = None):
    """What the run's property is computed from, or another by its name: a features.Feature.

    Raises Refused when its weights are not there.
    """
    from cdlib import features, machine
    from cdlib.properties import classifier

    own, name = {"digits_classifier": classifier.feature, "digits_embedding": classifier.embedding}, name or params["feature"]
    return own[name](folder) if name in own else features.FEATURES[name](params, machine.device(params["device"]))
