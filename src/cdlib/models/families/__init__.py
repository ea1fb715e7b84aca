"""Kinds of diffusion model behind one small protocol, one module for each kind.

A family is a class whose instances have

    unet                           the network; parameters() of it are trained, state() and load_state(tensors) are those
    prepare(images, flip)          what is trained on, float [T, views, ...]; kept by the run when `encodes`
    batch(x, generator)            what noise is added to, from prepared images [B, ...]
    loss(x, timesteps, noise)      the training loss of a batch (eq. 1), a scalar tensor
    draw(indices, steps)           images for image indices, uint8 [B, C, H, W]
    prune(ratio)                   removes the fraction `ratio` of what can be trained, in place
    config                         plain values from which `new` builds the same network again

and `save` / `load` of this module. One more family is one more module and one line in FAMILIES. Torch and diffusers are
imported where a model is made: who only asks for names and files starts in a second.
"""

from importlib import import_module
from pathlib import Path

from cdlib.base.errors import Refused
from cdlib.models.families.presets import PRESETS
from cdlib.store import cache

FAMILIES = {"pixel": "Pixel", "latent": "Latent", "text_to_image": "TextToImage"}  # module -> class


def preset(name: str) -> dict:
    """The configuration of a model by its name in the parameter file. Raises Refused when there is none."""
    if name not in PRESETS:
        raise Refused(f"model: {name!r}: must be one of {', '.join(PRESETS)}")
    return {key: value for key, value in PRESETS[name].items() if key not in ("minutes", "scale")}


def drawn(name: str, config: dict) -> tuple[int, int, int]:
    """C, H, W of the images that a model draws, by its name and its configuration."""
    network, scale = config["network"], PRESETS[name].get("scale")
    side = network["sample_size"] * (scale or 1)
    return 3 if scale else network["in_channels"], side, side


def _family(config: dict):
    """The class of a configuration's family."""
    return getattr(import_module(f"cdlib.models.families.{config['family']}"), FAMILIES[config["family"]])


def new(config: dict, seed: int, device: str = "cpu", frozen: Path | None = None):
    """A randomly initialised model; the same seed gives the same weights.

    frozen    folder of the part that is not trained, in diffusers' layout, of the families that have one
    """
    return _family(config).new(config, seed, device, frozen)


def restore(config: dict, tensors: dict, device: str = "cpu", frozen: Path | None = None):
    """A model with saved tensors, whose shapes tell how it was pruned."""
    return _family(config).restore(config, tensors, device, frozen)


def save(model, path: Path, about: dict, raw: dict | None = None) -> dict:
    """Write a model's weights (safetensors) and, beside them, what is needed to build it again (json).

    raw    weights behind the average (train.Trained.raw), kept so that the average can be continued

    Writes `path` and `path` with suffix .json (module cache); returns what the latter holds.
    """
    from safetensors.torch import save as save_tensors

    tensors = model.state() | {f"raw.{name}": tensor for name, tensor in (raw or {}).items()}
    data = save_tensors({k: v.detach().cpu().contiguous() for k, v in tensors.items()})
    return cache.put(path, data, {"config": model.config, "parameters": model.n_parameters(), **about})


def load(path: Path, device: str = "cpu", frozen: Path | None = None):
    """A saved model, bit for bit. Pruned models are rebuilt from the shapes of their tensors.

    Raises Refused when the file is missing or not the one that was saved.
    """
    return _restore(path, device, frozen)[0]


def continuing(path: Path, device: str = "cpu", frozen: Path | None = None):
    """A saved model with its raw weights, and its average (EMAModel) where it stopped; the average is None without one."""
    from diffusers.training_utils import EMAModel

    model, raw, state = _restore(path, device, frozen)
    if not raw:
        return model, None
    average = EMAModel(model.parameters(), decay=state["recipe"]["ema_decay"])
    average.optimization_step = state["ema_step"]
    model.load_state(raw)
    return model, average


def _restore(path: Path, device: str, frozen: Path | None):
    """The model, its raw weights (empty without an average), and what stands beside it."""
    from safetensors.torch import load as load_tensors

    state = cache.get(path)
    tensors = load_tensors(path.read_bytes())
    raw = {name.removeprefix("raw."): tensors.pop(name) for name in list(tensors) if name.startswith("raw.")}
    return restore(state["config"], tensors, device, frozen), raw, state
