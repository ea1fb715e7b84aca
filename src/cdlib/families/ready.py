"""A model that was trained before, elsewhere: taken as a run's full model instead of training one (parameter `full_path`).

    pixel, latent     a diffusers pipeline's folder: unet/config.json (a UNet2DModel), unet/diffusion_pytorch_model.safetensors,
                      and scheduler/scheduler_config.json where there is one
    text_to_image     a folder with pytorch_lora_weights.safetensors: LoRA matrices of the U-Net, all of one rank, which is alpha

Its network takes the place of the preset's, also for the models that are retrained.
"""

import json
from pathlib import Path

from cdlib import paths, pretrained
from cdlib.errors import Refused
from cdlib.families.presets import PRESETS

UNET = ("unet/config.json", "unet/diffusion_pytorch_model.safetensors")
LORA = ("pytorch_lora_weights.safetensors",)
MATRICES = (".lora_A.weight", ".lora_B.weight")


def _files(params: dict) -> list[Path]:
    """The files of the model, its weights last. Raises Refused when one is missing."""
    folder = paths.given(params["full_path"])
    files = [folder / name for name in (LORA if PRESETS[params["model"]]["family"] == "text_to_image" else UNET)]
    if gone := [file for file in files if not file.is_file()]:
        raise Refused(f"full_path: there is no {gone[0]}: must be the folder of a model in diffusers' layout, in safetensors")
    return files


def config(params: dict) -> dict:
    """What a preset's configuration is changed to: its network, or its rank. Raises Refused when the folder has no such model."""
    *about, weights = _files(params)
    if not about:
        ranks = {shape[0] for name, shape in _shapes(weights).items() if name.endswith(MATRICES[0])}
        if len(ranks) != 1:
            raise Refused(f"full_path: {weights}: LoRA matrices of ranks {sorted(ranks)}: must all have one")
        return {"rank": ranks.pop()}
    try:
        told = json.loads(about[0].read_bytes())
        kind = told.get("_class_name")
    except (ValueError, AttributeError) as error:
        raise Refused(f"full_path: {about[0]}: cannot be read: {error}") from None
    if kind != "UNet2DModel":
        raise Refused(f"full_path: {about[0]}: a {kind}: must be a UNet2DModel")
    return {"network": {name: value for name, value in told.items() if name[0] != "_"}}


def _shapes(weights: Path) -> dict[str, tuple]:
    """The shape of each tensor, by the name that the family gives it. Raises Refused when the file is none of safetensors."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, "pt") as file:
            return {name.removeprefix("unet."): tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    except SafetensorError as error:
        raise Refused(f"full_path: {weights}: cannot be read: {error}") from None


def tensors(params: dict) -> dict:
    """The weights by the names that the family gives them."""
    from safetensors.torch import load

    return {name.removeprefix("unet."): tensor for name, tensor in load(_files(params)[-1].read_bytes()).items()}


def digest(params: dict) -> str:
    """sha256 of the weights."""
    return pretrained.digest(_files(params)[-1])


def check(params: dict):
    """Refuse, before any work, weights of another network than its folder says, and another noise schedule than the run's."""
    found, weights = config(params), _files(params)[-1]
    shapes = _shapes(weights)
    if "rank" in found:
        if odd := sorted(name for name in shapes if not name.endswith(MATRICES)):
            raise Refused(f"full_path: {weights}: {odd[0]} is no LoRA matrix of the U-Net")
        return
    wanted = _wanted(found["network"], weights)
    if wrong := sorted(name for name in wanted.keys() | shapes.keys() if wanted.get(name) != shapes.get(name)):
        raise Refused(f"full_path: {weights}: not what its config.json says: {len(wrong)} tensors differ, the first: {wrong[0]}")
    _same_noise(paths.given(params["full_path"]), params["noise_schedule"])


def _wanted(network: dict, weights: Path) -> dict[str, tuple]:
    """The shapes that the weights of a network have."""
    import torch
    from diffusers import UNet2DModel

    try:
        with torch.device("meta"):
            return {name: tuple(tensor.shape) for name, tensor in UNet2DModel(**network).state_dict().items()}
    except (TypeError, ValueError) as error:
        raise Refused(f"full_path: {weights.parent / 'config.json'}: makes no UNet2DModel: {error}") from None


def _same_noise(folder: Path, schedule: str):
    """Refuse a model that was trained with another noise schedule, or to predict something else than the noise."""
    from cdlib.families.pixel import SCHEDULES

    file = folder / "scheduler" / "scheduler_config.json"
    if not file.is_file():
        return
    told = {"prediction_type": "epsilon", **json.loads(file.read_bytes())}
    for name, value in {**SCHEDULES[schedule], "prediction_type": "epsilon"}.items():
        if told.get(name, value) != value:
            raise Refused(f"full_path: {file}: {name}: {told[name]!r}: noise_schedule: {schedule} has {value!r}")
