"""Pretrained parts: what each is, where it comes from, and which copy on this machine is used.

A part is the folder or file that its parameter names; where that is empty, the copy in the cache of its library, downloaded
when it is not there yet. Each is pinned: a folder by a revision of its hub, a file by its sha256. A folder that a parameter
names is taken as it is, so that it may hold another model; its `digest` goes into the key of all that is measured with it.

Weights are safetensors, or one of two pinned .pth files that are read without running code. No model brings code of its own.
"""

from dataclasses import dataclass
from pathlib import Path

from cdlib.base import hashing, paths
from cdlib.base.errors import Refused
from cdlib.store.cache import sha256


@dataclass(frozen=True)
class Part:
    """A pretrained part, as published.

    source      repository on the Hugging Face hub, or the address of a file
    pin         revision of that repository (40 hexadecimal digits), or sha256 of that file (64)
    parameter   that names a local copy
    files       what is needed of it: names or patterns, relative to its folder; of a file its name
    also        what is used where it is there
    """

    what: str
    source: str
    pin: str
    megabytes: float
    licence: str
    parameter: str
    files: tuple[str, ...]
    also: tuple[str, ...] = ()

    @property
    def is_file(self) -> bool:
        return self.source.startswith("https://")


PARTS = {
    "vqvae": Part(
        what="the VQ-VAE of faces of 256 x 256 pixels",
        source="CompVis/ldm-celebahq-256",
        pin="03978f22272a3c2502da709c3940e227c9714bdd",
        megabytes=221,
        licence="Apache-2.0",
        parameter="vqvae_path",
        files=("vqvae/config.json", "vqvae/diffusion_pytorch_model.safetensors"),
    ),
    "minisd": Part(
        what="Stable Diffusion v1 for images of 256 x 256 pixels, without its safety checker",
        source="lambdalabs/miniSD-diffusers",
        pin="26ed8a9bfbf76f46a6cf60517dde321f900c44ce",
        megabytes=4265,
        licence="CreativeML OpenRAIL-M",
        parameter="minisd_path",
        files=(
            "model_index.json",
            "scheduler/scheduler_config.json",
            "text_encoder/config.json",
            "text_encoder/model.safetensors",
            "tokenizer/*",
            "unet/config.json",
            "unet/diffusion_pytorch_model.safetensors",
            "vae/config.json",
            "vae/diffusion_pytorch_model.safetensors",
        ),
    ),
    "blip_vqa": Part(
        what="BLIP for visual question answering, of which only the image tower is used",
        source="Salesforce/blip-vqa-base",
        pin="787b3d35d57e49572baabd22884b3d5a05acf072",
        megabytes=1539,
        licence="BSD-3-Clause",
        parameter="blip_path",
        files=("config.json", "model.safetensors", "preprocessor_config.json"),
    ),
    "clip_b32": Part(
        what="OpenAI's CLIP ViT-B/32",
        source="timm/vit_base_patch32_clip_224.openai",
        pin="a6f597a30f7b82c51704746581f9a4e41421e878",
        megabytes=605,
        licence="Apache-2.0",
        parameter="clip_b32_path",
        files=("open_clip_model.safetensors",),
        also=("open_clip_config.json",),
    ),
    "clip_l14": Part(
        what="OpenAI's CLIP ViT-L/14",
        source="timm/vit_large_patch14_clip_224.openai",
        pin="18d0535469bb561bf468d76c1d73aa35156c922b",
        megabytes=1711,
        licence="Apache-2.0",
        parameter="clip_l14_path",
        files=("open_clip_model.safetensors",),
        also=("open_clip_config.json",),
    ),
    "inception": Part(
        what="Inception v3, which tells the 1,000 classes of ImageNet",
        source="https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth",
        pin="0cc3c7bd75056d25e46cba549dc184522069b81e9787eff6df84f397bd52a5ef",
        megabytes=109,
        licence="BSD-3-Clause",
        parameter="inception_path",
        files=("inception_v3_google-0cc3c7bd.pth",),
    ),
    "aesthetic": Part(
        what="LAION's aesthetic predictor v1, a linear head over CLIP ViT-L/14",
        source="https://github.com/LAION-AI/aesthetic-predictor/raw/main/sa_0_4_vit_l_14_linear.pth",
        pin="2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba",
        megabytes=0.004,
        licence="MIT",
        parameter="aesthetic_path",
        files=("sa_0_4_vit_l_14_linear.pth",),
    ),
}

# Those that each feature (module features) takes.
NEEDS = {
    "inception_v3": ("inception",),
    "inception_pool": ("inception",),
    "blip_vqa": ("blip_vqa",),
    "clip_b32": ("clip_b32",),
    "clip_l14": ("clip_l14",),
    "laion_aesthetic": ("clip_l14", "aesthetic"),
}


def find(name: str, params: dict) -> Path:
    """The folder, or file, of a part (PARTS): a local copy when its parameter names one, else cached or downloaded.

    Raises Refused when a needed file is missing, when a .pth file is not the pinned one, or when it cannot be downloaded.
    """
    part = PARTS[name]
    given = params.get(part.parameter)
    path, needs = paths.root() / Path(given).expanduser() if given else _fetched(part), ", ".join(part.files)
    origin = f"{part.parameter}: {given}" if given else f"{part.source} at {part.pin}, cached in {path}"
    if part.is_file and path.is_dir():
        path = path / part.files[0]
    if not path.exists():
        raise Refused(f"{origin}: there is no {path}; it must be {part.what}: {needs}")
    if part.is_file:
        if sha256(path) != part.pin:
            raise Refused(f"{origin}: sha256 is {sha256(path)}, must be {part.pin}: get {part.source} again")
        return path
    missing = [file for file in part.files if not any(path.glob(file))]
    if missing:
        raise Refused(
            f"{origin}: {missing[0]} is missing; it must hold {needs}. Where there are only .bin weights, load them once"
            f" with use_safetensors=False, save_pretrained into a folder, and name that in {part.parameter}"
        )
    return path


def digest(path: Path, name: str | None = None) -> str:
    """sha256 over the weights and the configuration of a part: of a file its bytes, of a folder also the names in it.

    name   the part (PARTS): other files that lie in its folder do not count; without it all .safetensors, .pth and .json do
    """
    if path.is_file():
        return sha256(path)
    patterns = PARTS[name].files + PARTS[name].also if name else ("**/*.safetensors", "**/*.pth", "**/*.json")
    files = sorted({file for pattern in patterns for file in path.glob(pattern) if file.is_file()})
    return hashing.digest(hashing.canonical([[file.relative_to(path).as_posix(), sha256(file)] for file in files]))


def _fetched(part: Part) -> Path:
    """The cached copy, downloaded when there is none. Raises Refused when it cannot be."""
    try:
        return _file(part) if part.is_file else _folder(part)
    except Exception as error:  # hub, proxy, socket and disk each raise their own kind
        why = " ".join(str(error).split()).split(". ")[0]
        raise Refused(
            f"{part.parameter}: empty, and this cannot be downloaded: {part.what}; {part.megabytes:g} MB from {part.source}"
            f" at {part.pin}, licence {part.licence} ({type(error).__name__}: {why});"
            f" get {', '.join(part.files)} where there is a network, and name the copy in {part.parameter}"
        ) from error


def _folder(part: Part) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(part.source, revision=part.pin, allow_patterns=[*part.files, *part.also]))


def _file(part: Part) -> Path:
    from torch import hub

    file = Path(hub.get_dir()) / "checkpoints" / part.files[0]
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        hub.download_url_to_file(part.source, str(file), hash_prefix=part.pin, progress=False)
    return file
