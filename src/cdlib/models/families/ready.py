"""Models that were trained before: a run's full model (`full_path`), or the frozen part of one (`minisd_path`, `vqvae_path`).

    pixel, latent     a diffusers pipeline's folder: unet/config.json (a UNet2DModel), unet/diffusion_pytorch_model.safetensors,
                      and scheduler/scheduler_config.json where there is one
    text_to_image     a folder with pytorch_lora_weights.safetensors: LoRA matrices of the U-Net, all of one rank

The network of a full model takes the place of the preset's, and what it predicts, also for the models that are retrained.
"""

import json
import math
import re
import reprlib
from pathlib import Path

from cdlib.base import paths
from cdlib.base.errors import Refused
from cdlib.models import families, pretrained
from cdlib.models.families.presets import PRESETS

UNET = ("unet/config.json", "unet/diffusion_pytorch_model.safetensors")
LORA = ("pytorch_lora_weights.safetensors",)
MATRICES = (".lora_A.weight", ".lora_B.weight")
STEPS = 4  # of the image that is tried: the fewest that PNDM can start with
# Of a scheduler: what it may have, the first where it does not say.
NOISE = {
    "prediction_type": ("epsilon", "v_prediction"),
    "num_train_timesteps": (1000,),
    "trained_betas": (None,),
    "rescale_betas_zero_snr": (False,),
    "use_flow_sigmas": (False,),
    "timestep_type": ("discrete",),
}


def given(params: dict) -> list[str]:
    """The parameters that name a model which was trained before."""
    part = pretrained.PARTS.get(families.preset(params["model"]).get("frozen"))
    return [name for name in ("full_path", part.parameter if part else "") if params.get(name)]


def built(params: dict) -> dict:
    """What the run's model is built from, but for its frozen part. Raises Refused."""
    found = families.preset(params["model"])
    if found["family"] != "text_to_image":  # whose base model has its own
        found["noise_schedule"] = params["noise_schedule"]
    return found | (config(params) if params["full_path"] else {})


def _files(params: dict) -> list[Path]:
    """The files of the full model, its weights last. Raises Refused when one is missing."""
    folder = paths.given(params["full_path"])
    files = [folder / name for name in (LORA if PRESETS[params["model"]]["family"] == "text_to_image" else UNET)]
    if gone := [file for file in files if not file.is_file()]:
        raise Refused(f"full_path: there is no {gone[0]}: must be the folder of a model in diffusers' layout, in safetensors")
    return files


def config(params: dict) -> dict:
    """What a preset's configuration is changed to: network and prediction, or rank. Raises Refused when none can be taken."""
    *about, weights = _files(params)
    if not about:
        return {"rank": next(len(matrix) for name, matrix in tensors(params).items() if name.endswith(MATRICES[0]))}
    told, where = _told("full_path", about[0]), f"full_path: {about[0]}"
    if (kind := told.get("_class_name")) != "UNet2DModel":
        raise Refused(f"{where}: a {kind}: must be a UNet2DModel")
    network = {name: value for name, value in told.items() if name[0] != "_"}
    _can_be_pruned_and_drawn(where, network)
    scheduler = _scheduler(paths.given(params["full_path"]))
    told = _told("full_path", scheduler) if scheduler.is_file() else {}
    return {"network": network, "prediction_type": told.get("prediction_type", "epsilon")}


def _told(name: str, file: Path) -> dict:
    """What a json file says."""
    try:
        return dict(json.loads(file.read_bytes()))
    except (ValueError, TypeError) as error:
        raise Refused(f"{name}: {file}: cannot be read: {error}") from None


def _scheduler(folder: Path) -> Path:
    return folder / "scheduler" / "scheduler_config.json"


def _can_be_pruned_and_drawn(where: str, network: dict):
    """Refuse networks whose kind is known to fail, with the reason."""
    must = {
        "resnet_time_scale_shift": ("default", "pruning cannot keep the halves of its time embedding together"),
        "num_class_embeds": (None, "it draws by class, and images have no class here"),
        "class_embed_type": (None, "it draws by class, and images have no class here"),
        "out_channels": (network.get("in_channels"), "as in_channels: it predicts more than the noise, such as a variance"),
    }
    for key, (value, why) in must.items():
        if (found := network.get(key, value)) != value:
            raise Refused(f"{where}: {key}: {found}: must be {value}: {why}")
    if type(side := network.get("sample_size")) is not int:
        raise Refused(f"{where}: sample_size: {side}: must be a whole number, the side of what it draws: write it there")


def _rank(where: str, matrices: dict) -> int:
    """The rank of LoRA matrices. Raises Refused for others than those that this family trains."""
    kinds = {
        "LoRA of a text encoder, which is frozen here: must be of the U-Net alone": lambda n: n.startswith("text_encoder"),
        "no LoRA matrix of the U-Net: must be named *.lora_A.weight, *.lora_B.weight": lambda n: not n.endswith(MATRICES),
        "convolutional LoRA: must be on the attention's linear layers": lambda n: matrices[n].ndim != 2,
    }
    for why, is_one in kinds.items():
        if odd := sorted(filter(is_one, matrices)):
            raise Refused(f"{where}: {odd[0]} ({len(odd)} such): {why}")
    ranks = {len(matrix) for name, matrix in matrices.items() if name.endswith(MATRICES[0])}
    if len(ranks) != 1:
        raise Refused(f"{where}: LoRA matrices of ranks {sorted(ranks)}: must all have one")
    return ranks.pop()


def tensors(params: dict) -> dict:
    """The weights by the names that the family gives them; of LoRA, B times alpha / rank, for alpha is the rank here."""
    from safetensors import SafetensorError, safe_open

    weights = _files(params)[-1]
    where = f"full_path: {weights}"
    try:
        with safe_open(weights, "pt") as file:
            found = {name.removeprefix("unet."): file.get_tensor(name) for name in file.keys()}
            about = json.loads((file.metadata() or {}).get("lora_adapter_metadata", "{}"))
    except SafetensorError as error:
        raise Refused(f"{where}: cannot be read: {error}") from None
    if weights.name not in LORA:
        return found
    about = {name.removeprefix("unet."): value for name, value in about.items()}
    if odd := [name for name in ("alpha_pattern", "use_rslora", "use_dora") if about.get(name)]:
        raise Refused(f"{where}: LoRA with {odd[0]}: must have one alpha, and a scale of alpha / r")
    rank, aside = _rank(where, found), weights.parent / "adapter_config.json"
    if aside.is_file() and (alpha := _told("full_path", aside).get("lora_alpha", rank)) != rank:
        raise Refused(f"{where}: adapter_config.json has lora_alpha {alpha}: must be r, {rank}, or in the weights' metadata")
    scale = about.get("lora_alpha", rank) / rank
    return {name: matrix * scale if name.endswith(MATRICES[1]) else matrix for name, matrix in found.items()}


def digest(params: dict) -> str:
    """sha256 of the weights."""
    return pretrained.digest(_files(params)[-1])


def check(params: dict, config: dict, frozen: Path | None):
    """Try the models that are given, on the CPU, before any work: a loss, an image, pruning, and a loss after it.

    config    of the run's model
    frozen    folder of its frozen part; None when there is none, or not yet

    Raises Refused for another noise process than the run's, for weights of another network, and for whatever fails.
    """
    base = [name for name in given(params) if name != "full_path"]
    places = {"full_path": paths.given(params["full_path"])} if params["full_path"] and "noise_schedule" in config else {}
    for name, folder in (places | dict.fromkeys(base, frozen)).items():
        if (file := _scheduler(folder)).is_file():
            _same_noise(f"{name}: {file}", _told(name, file), config.get("noise_schedule"))
    where = f"full_path: {_files(params)[-1]}" if params["full_path"] else f"{base[0]}: {frozen}"
    model = _done(where, "making its network", lambda: families.new(config, 0, "cpu", frozen))
    if params["full_path"]:
        _take(where, model, tensors(params))
    _try(where, model, params)


def _same_noise(where: str, told: dict, schedule: str | None):
    """Refuse another noise process than the run's, or, without a schedule, than PNDM has with the same settings."""
    import diffusers

    from cdlib.models.families.pixel import SCHEDULES

    for key, allowed in NOISE.items():
        if (found := told.get(key, allowed[0])) not in allowed:
            raise Refused(f"{where}: {key}: {reprlib.repr(found)}: must be {' or '.join(map(str, allowed))}")
    kind = told.get("_class_name", "?")
    try:
        own = getattr(diffusers, kind).from_config(told).alphas_cumprod
    except Exception:  # whatever a scheduler of another kind raises
        needs = "must be one that adds noise in 1,000 steps, such as DDPMScheduler"
        raise Refused(f"{where}: {kind} has no alphas_cumprod: {needs}") from None
    ours = diffusers.DDPMScheduler(**SCHEDULES[schedule]) if schedule else diffusers.PNDMScheduler.from_config(told)
    if not own.allclose(ours.alphas_cumprod, rtol=1e-3):
        t = int((own - ours.alphas_cumprod).abs().argmax())
        betas = ", ".join(f"{key} {told.get(key)}" for key in ("beta_schedule", "beta_start", "beta_end"))
        must = f"must be {ours.alphas_cumprod[t]:.4f}, as with noise_schedule: {schedule or 'PNDM'}"
        raise Refused(f"{where}: {kind}, {betas}: alphas_cumprod is {own[t]:.4f} at t = {t}: {must}")


def _take(where: str, model, tensors: dict):
    """Give a model its weights. Raises Refused where a name or a shape is not the network's."""
    found, wanted = ({name: tuple(tensor.shape) for name, tensor in each.items()} for each in (tensors, model.state()))
    on, must = ({re.sub(r".*attn\d\.|\.lora_.*", "", name) for name in each} for each in (found, wanted))
    if "rank" in model.config and on < must:
        more = "as the models that are retrained have it"
        raise Refused(f"{where}: LoRA on {', '.join(sorted(on))} only: must be on {', '.join(sorted(must))}, {more}")
    if wrong := sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)):
        shapes = f"{found.get(wrong[0], 'none')}: must be {wanted.get(wrong[0], 'none')}"
        raise Refused(f"{where}: {len(wrong)} tensors differ from the network's, the first: {wrong[0]}: {shapes}")
    model.load_state(tensors)


def _try(where: str, model, params: dict):
    """Refuse a model with which something fails that the run does."""
    import torch

    def loss(model) -> float:
        model.unet.eval()
        with torch.no_grad():
            value = float(model.loss(model.initial_noise([0]), torch.tensor([999]), model.initial_noise([1])))
        if not math.isfinite(value):
            raise ValueError(f"it is {value}")
        return value

    _done(where, "its loss", lambda: loss(model))
    if model.frozen or not model.encodes:
        _done(where, "drawing an image", lambda: model.draw([0], min(STEPS, params["sampling_steps"])))
    _done(where, "pruning", lambda: model.prune(params["pruning_ratio"]))
    pruned = _done(where, "its loss after pruning", lambda: loss(model))
    again = _done(where, "loading it again", lambda: loss(families.restore(model.config, model.state(), "cpu", model.frozen)))
    if not math.isclose(pruned, again, rel_tol=1e-3):
        raise Refused(f"{where}: its loss is {pruned:.4f} after pruning, and {again:.4f} when loaded again: use another network")


def _done(where: str, what: str, work):
    """What `work` returns. Raises Refused, in one line, for whatever it raises."""
    try:
        return work()
    except Refused:
        raise
    except Exception as error:  # whatever a network of somebody else raises
        said = " ".join(str(error).split())[:200]
        raise Refused(f"{where}: {what} fails: {type(error).__name__}: {said}") from error
