"""A property of the user's own: a function `package.module:function` of images, uint8 [n, 3, H, W] (0..255).

It returns one number for each image, float [n], of which `aggregate` makes one; or one number for all. It must give the same
numbers for the same images, and hold nothing on a device: each worker imports it anew, from the repository's folder or from
what is installed.

    mean          of the numbers
    percentile    their quantile (parameter `quantile`)
    entropy       of how often each number occurs, in nats: the function names a class, or a bin (eq. 8)
"""

import inspect
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from pathlib import Path

import numpy as np

from cdlib.base import hashing, paths
from cdlib.base.errors import Refused
from cdlib.measure.properties.cluster_entropy import entropy

TRIED = 16  # images on which a function is tried before a run


def prepare(folder: Path, params: dict) -> dict:
    """Try the function on a few training images; returns as `tried`."""
    from cdlib.models import stages

    return tried(params, stages.dataset(params).images)


def tried(params: dict, images: np.ndarray) -> dict:
    """Try the function on a few images, before any work.

    Returns the function, what it gives (one number for each image, or for all), and its seconds for the images of one model.
    Raises Refused when it raises, gives no numbers or wrongly many, or other numbers for the same images.
    """
    few, name = images[np.linspace(0, len(images) - 1, TRIED).astype(int)], params["property"]
    found = per_image(Path(), params, few)["value"]
    before = time.perf_counter()
    again = per_image(Path(), params, few)["value"]
    seconds = (time.perf_counter() - before) * params["n_images"] / TRIED
    if not np.array_equal(found, again):
        raise Refused(f"property: {name}: gives other numbers for the same images: it must depend on nothing but the images")
    what = "one number for each image" if found.ndim and len(found) == len(few) else "one number for all images"
    return {"function": name, "gives": what, "seconds_for_each_model": round(seconds, 3)}


def settings(folder: Path, params: dict) -> dict:
    """The function, the source that it stands in, and how its numbers become one."""
    found = {"function": params["property"], "source": _found(params["property"])[1], "aggregate": params["aggregate"]}
    return found | ({"quantile": params["quantile"]} if params["aggregate"] == "percentile" else {})


def per_image(folder: Path, params: dict, images: np.ndarray) -> dict:
    """What the function gives: float64 [n], or [1] where it gives one number for all.

    Raises Refused, by the function's name, when it raises, or what it gives is not finite or of another shape.
    """
    name = params["property"]
    call = function(name)
    try:
        given = call(np.repeat(images, 3, axis=1) if images.shape[1] == 1 else images.copy())
        found = np.asarray(given, np.float64)
    except Exception as error:
        raise Refused(f"property: {name}: raised {type(error).__name__}: {error}") from error
    if found.shape not in ((), (len(images),)):
        raise Refused(
            f"property: {name}: gave an array {list(found.shape)} for {len(images)} images: must be [{len(images)}] or one number"
        )
    if not np.isfinite(found).all():
        wrong = np.atleast_1d(found)[~np.isfinite(np.atleast_1d(found))]
        raise Refused(f"property: {name}: gave {wrong[0]} for {len(wrong)} of {len(images)} images: must be finite numbers")
    return {"value": np.atleast_1d(found)}


def value(params: dict, arrays: dict) -> float:
    """The kept numbers as one; one number for all stays as it is. The entropy of one image is 0."""
    found = arrays["value"]
    if len(found) == 1 < params["n_images"]:
        return float(found[0])
    if params["aggregate"] == "entropy":
        return entropy(found)
    return float(found.mean() if params["aggregate"] == "mean" else np.quantile(found, params["quantile"]))


def function(name: str) -> Callable:
    """The function of a name. Raises Refused when there is none."""
    return _found(name)[0]


@lru_cache(maxsize=8)
def _found(name: str) -> tuple[Callable, str]:
    """The function of a name, and a hash of the source that it stood in when it was imported: another may give other numbers."""
    module, _, attribute = name.partition(":")
    if str(paths.root()) not in sys.path:
        sys.path.append(str(paths.root()))
    try:
        found = getattr(import_module(module), attribute, None)
    except Exception as error:  # whatever the user's module does when it is imported
        raise Refused(f"property: {name}: {module} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise Refused(f"property: {name}: {module} has no function {attribute}")
    try:
        return found, hashing.digest(Path(inspect.getsourcefile(found)).read_bytes())
    except (TypeError, OSError):  # not written in Python
        return found, name
