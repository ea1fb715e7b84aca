"""Kinds of diffusion model behind one small protocol, one module for each kind.

A family is a class whose instances have

    unet                              the network that is trained
    loss(images, timesteps, noise)    the training loss of a batch (eq. 1), a scalar tensor
    draw(indices, steps)              images for image indices, uint8 [B, C, H, W]
    config                            plain values from which `new` builds the same network again

and `save` / `load` of this module. One more family is one more module and one line in FAMILIES.
"""

import hashlib
import json
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from cdlib import measured
from cdlib.errors import Refused
from cdlib.families import pixel

FAMILIES = {"pixel": pixel.Pixel}
PRESETS = {name: "pixel" for name in pixel.PRESETS}


def preset(name: str) -> dict:
    """The configuration of a model by its name in the parameter file. Raises Refused when there is none."""
    if name not in PRESETS:
        raise Refused(f"model: {name!r}: must be one of {', '.join(PRESETS)}")
    return {"family": PRESETS[name], **pixel.PRESETS[name]}


def new(config: dict, seed: int, device: str = "cpu"):
    """A randomly initialised model; the same seed gives the same weights."""
    return FAMILIES[config["family"]].new(config, seed, device)


def device(name: str) -> str:
    """`auto` is the first GPU where there is one, and the CPU elsewhere."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def save(model, path: Path, about: dict, raw: dict | None = None) -> dict:
    """Write a model's weights (safetensors) and, beside them, what is needed to build it again (json).

    raw    weights behind the average (train.Trained.raw), kept so that the average can be continued

    Writes `path` and `path` with suffix .json, last; returns what the latter holds.
    """
    tensors = model.state() | {f"raw.{name}": tensor for name, tensor in (raw or {}).items()}
    data = save_tensors({k: v.detach().cpu().contiguous() for k, v in tensors.items()})
    state = {
        "config": model.config,
        "digest": hashlib.sha256(data).hexdigest(),
        "parameters": model.n_parameters(),
        **about,
    }
    path.with_suffix(".json").unlink(missing_ok=True)  # never old words beside new weights
    measured.write_bytes(path, data)
    measured.write_bytes(path.with_suffix(".json"), json.dumps(state, indent=1).encode())
    return state


def about(path: Path) -> dict | None:
    """What stands beside a saved model, or None when it was not saved to its end."""
    try:
        return json.loads(path.with_suffix(".json").read_bytes()) if path.is_file() else None
    except (FileNotFoundError, ValueError):
        return None


def whole(path: Path) -> dict:
    """What stands beside a saved model. Raises Refused when it, or its weights, are not those that were saved."""
    state = about(path)
    if not state or hashlib.sha256(path.read_bytes()).hexdigest() != state["digest"]:
        raise Refused(f"{path}: missing or changed since it was saved; run the notebook that makes it: 02_train or 03_prune")
    return state


def load(path: Path, device: str = "cpu"):
    """A saved model, bit for bit. Pruned models are rebuilt from the shapes of their tensors.

    Raises Refused when the file is missing or not the one that was saved.
    """
    return _restore(path, device)[0]


def continuing(path: Path, device: str = "cpu"):
    """A saved model with its raw weights, and its average (EMAModel) where it stopped; the average is None without one."""
    model, raw, state = _restore(path, device)
    if not raw:
        return model, None
    average = EMAModel([p for p in model.unet.parameters() if p.requires_grad], decay=state["recipe"]["ema_decay"])
    average.optimization_step = state["ema_step"]
    model.unet.load_state_dict(raw, strict=True)
    return model, average


def _restore(path: Path, device: str):
    """The model, its raw weights (empty without an average), and what stands beside it."""
    state = whole(path)
    tensors = load_tensors(path.read_bytes())
    raw = {name.removeprefix("raw."): tensors.pop(name) for name in list(tensors) if name.startswith("raw.")}
    return FAMILIES[state["config"]["family"]].restore(state["config"], tensors, device), raw, state
