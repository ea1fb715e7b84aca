"""What each image is turned into: class probabilities, an embedding, or a score.

One contract for all: FEATURES[name](params, device) is a Feature, which maps uint8 [n, C, H, W] to float32 [n, ...]. Grey
images count as coloured ones. The networks are pretrained parts (`pretrained`); they are read on first use and kept.

    n  images        C  colours: 1 or 3        H, W  sides in pixels
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from cdlib.base import hashing
from cdlib.base.errors import Refused
from cdlib.models import pretrained

VERSION = 1  # of what is done to the images before a network sees them
GRID = 8  # cells a side
ARCHITECTURES = {"clip_b32": "ViT-B-32-quickgelu", "clip_l14": "ViT-L-14-quickgelu"}  # open_clip's names


@dataclass(frozen=True)
class Feature:
    """A function of images, uint8 [n, C, H, W] -> float32 [n, ...], that does not depend on how they are batched.

    digest   of its weights and of VERSION, for the key of what is measured with it
    """

    kind: Literal["probabilities", "embedding", "score"]
    digest: str
    run: Callable[[np.ndarray], np.ndarray]
    batch_size: int = 64

    def __call__(self, images: np.ndarray) -> np.ndarray:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise Refused(f"images: {images.dtype} {list(images.shape)}: must be uint8 [n, 1 or 3, H, W]")
        batches = [self.run(images[i : i + self.batch_size]) for i in range(0, len(images), self.batch_size)]
        return np.concatenate(batches).astype(np.float32)


def inception_v3(params: dict, device: str) -> Feature:
    """p(y|x) over the 1,000 classes of ImageNet, float32 [n, 1000], by torchvision's Inception v3.

    Images are stretched to 299 x 299 pixels, bilinear, and scaled to [-1, 1].
    """
    return _inception(*_found("inception", params), device)


def inception_pool(params: dict, device: str) -> Feature:
    """What Inception v3 pools before it tells classes, float32 [n, 2048]; images as for `inception_v3`."""
    return _inception(*_found("inception", params), device, pool=True)


def blip_vqa(params: dict, device: str) -> Feature:
    """The embedding of BLIP's image tower, float32 [n, 768], not normalised: what the paper clusters faces by.

    Differs: images are resized by torchvision, not Pillow: up to two grey levels apart, in few pixels.
    """
    return _blip(*_found("blip_vqa", params), device)


def clip_b32(params: dict, device: str) -> Feature:
    """The CLIP ViT-B/32 embedding, of length 1, float32 [n, 512]."""
    return _clip(*_found("clip_b32", params), device, ARCHITECTURES["clip_b32"])


def clip_l14(params: dict, device: str) -> Feature:
    """The CLIP ViT-L/14 embedding, of length 1, float32 [n, 768]."""
    return _clip(*_found("clip_l14", params), device, ARCHITECTURES["clip_l14"])


def laion_aesthetic(params: dict, device: str) -> Feature:
    """LAION's aesthetic score, float32 [n], from about 1 to 10, higher is better: a linear function of `clip_l14`.

    Raises Refused when the embedding has not the length that the head was made for.
    """
    import torch

    embed, (path, digest) = clip_l14(params, device), _found("aesthetic", params)
    head = {name: tensor.numpy() for name, tensor in torch.load(path, map_location="cpu", weights_only=True).items()}

    def run(images):
        embeddings = embed(images)
        if embeddings.shape[1] != head["weight"].shape[1]:
            raise Refused(f"clip_l14_path: embeddings of length {embeddings.shape[1]}: must be {head['weight'].shape[1]}")
        return embeddings @ head["weight"][0] + head["bias"][0]

    return Feature("score", _digest("laion_aesthetic", embed.digest, digest), run)


def colourfulness(params: dict, device: str) -> Feature:
    """How colourful an image is, float32 [n]; 0 when it is grey. Source: Hasler & Suesstrunk 2003."""

    def run(images):
        red, green, blue = np.moveaxis(_coloured(images).astype(np.float64), 1, 0)
        opponents = np.stack([red - green, (red + green) / 2 - blue])
        return np.hypot(*opponents.std((2, 3))) + 0.3 * np.hypot(*opponents.mean((2, 3)))

    return Feature("score", _digest("colourfulness"), run)


def pooled_pixels(params: dict, device: str) -> Feature:
    """Means of the pixels in each cell of an 8 x 8 grid, float32 [n, C * 64] in [0, 1].

    Raises Refused when the cells would not be equal.
    """

    def run(images):
        n, colours, height, width = images.shape
        if height % GRID or width % GRID:
            raise Refused(f"images: {height} x {width} pixels: both sides must be multiples of {GRID} for pooled_pixels")
        return images.reshape(n, colours, GRID, height // GRID, GRID, width // GRID).mean((3, 5)).reshape(n, -1) / 255

    return Feature("embedding", _digest("pooled_pixels"), run)


FEATURES = {
    load.__name__: load
    for load in (
        inception_v3,
        inception_pool,
        blip_vqa,
        clip_b32,
        clip_l14,
        laion_aesthetic,
        colourfulness,
        pooled_pixels,
    )
}


def _found(name: str, params: dict) -> tuple[Path, str]:
    path = pretrained.find(name, params)
    return path, pretrained.digest(path, name)


def _digest(name: str, *weights: str) -> str:
    return hashing.digest(hashing.canonical([name, VERSION, *weights]))


def _coloured(images: np.ndarray) -> np.ndarray:
    return np.repeat(images, 3, axis=1) if images.shape[1] == 1 else images


def _filled(network, state: dict, path: Path):
    """A network with its weights, for inference. Raises Refused when one is missing or has another shape."""
    try:
        missing = network.load_state_dict(state, strict=False).missing_keys
    except RuntimeError as error:
        raise Refused(f"{path}: weights of another network: {str(error).splitlines()[-1].strip()}") from None
    if missing:
        raise Refused(f"{path}: weights of another network: {len(missing)} are missing, such as {missing[0]}")
    return network.eval()


@lru_cache(maxsize=4)
def _inception(path: Path, digest: str, device: str, pool: bool = False) -> Feature:
    import torch
    from torchvision import models

    empty = models.inception_v3(weights=None, init_weights=False, transform_input=False)
    network = _filled(empty, torch.load(path, map_location="cpu", weights_only=True), path).to(device)
    if pool:
        network.fc = torch.nn.Identity()

    @torch.inference_mode()
    def run(images):
        x = torch.tensor(_coloured(images), device=device).float() / 255
        x = torch.nn.functional.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)
        found = network(2 * x - 1)
        return (found if pool else found.softmax(1)).cpu().numpy()

    if pool:
        return Feature("embedding", _digest("inception_pool", digest), run)
    return Feature("probabilities", _digest("inception_v3", digest), run)


@lru_cache(maxsize=4)
def _blip(path: Path, digest: str, device: str) -> Feature:
    import torch
    from safetensors import safe_open
    from transformers import BlipConfig, BlipImageProcessor, BlipVisionModel

    tower = "vision_model."
    with safe_open(path / "model.safetensors", "pt") as file:
        state = {name.removeprefix(tower): file.get_tensor(name) for name in file.keys() if name.startswith(tower)}
    empty = BlipVisionModel(BlipConfig.from_pretrained(path, local_files_only=True).vision_config)
    network = _filled(empty, state, path).to(device)
    resized = BlipImageProcessor.from_pretrained(path, local_files_only=True)

    @torch.inference_mode()
    def run(images):
        x = resized(torch.tensor(_coloured(images)), return_tensors="pt", input_data_format="channels_first")
        return network(x["pixel_values"].to(device)).pooler_output.cpu().numpy()

    return Feature("embedding", _digest("blip_vqa", digest), run)


@lru_cache(maxsize=4)
def _clip(path: Path, digest: str, device: str, architecture: str) -> Feature:
    import open_clip
    import torch
    from PIL import Image

    # A configuration beside the weights is a model's own; OpenAI's weights are for QuickGELU, whatever it says.
    own = (path / "open_clip_config.json").is_file()
    source = (f"local-dir:{path}",) if own else (architecture, str(path / "open_clip_model.safetensors"))
    network, resized = open_clip.create_model_from_pretrained(*source, device=device, force_quick_gelu=True)
    network.eval()

    @torch.inference_mode()
    def run(images):
        x = torch.stack([resized(Image.fromarray(image)) for image in _coloured(images).transpose(0, 2, 3, 1)])
        return network.encode_image(x.to(device), normalize=True).cpu().numpy()

    return Feature("embedding", _digest("clip", digest), run)
