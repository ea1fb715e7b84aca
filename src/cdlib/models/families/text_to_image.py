"""Text-to-image: a frozen Stable Diffusion, of which LoRA matrices on the attention are trained.

B  images in a batch        T  images        V  views of each (pixel)        r  rank of a LoRA pair A [r, in], B [out, r]

An image is trained on as the mean and the standard deviation of its latent, computed once and kept; the prompt is one for
all images, embedded once. Source: Hu et al. 2021; Rombach et al. 2022; section 4.2, appendix B.
Differs: the paper's text says 5.1M LoRA parameters at rank 256; rank 256 on these four projections has 51,019,776.
"""

from functools import lru_cache
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, PNDMScheduler, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from cdlib.base import seeds
from cdlib.base.errors import Refused
from cdlib.models import prune
from cdlib.models.families.pixel import Pixel

diffusers_logging.disable_progress_bar()  # they would fill notebooks and logs, for each coalition
transformers_logging.disable_progress_bar()
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
AT_ONCE = 16
LOCAL = dict(local_files_only=True)
WEIGHTS = dict(local_files_only=True, use_safetensors=True)


@lru_cache(maxsize=1)
def autoencoder(folder: Path, digest: str | None, device: str) -> AutoencoderKL:
    """The frozen autoencoder of a base model; digest tells another one in the same folder."""
    return AutoencoderKL.from_pretrained(folder / "vae", **WEIGHTS).eval().requires_grad_(False).to(device)


@lru_cache(maxsize=4)
@torch.no_grad()
def embed(folder: Path, digest: str | None, prompts: tuple, device: str) -> torch.Tensor:
    """Embeddings of prompts by the frozen text encoder, once in a process, float [prompts, tokens, width]."""
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", **LOCAL)
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", **WEIGHTS).eval().to(device)
    length = tokenizer.model_max_length
    tokens = tokenizer(list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    return encoder(tokens.input_ids.to(device))[0].float()


class TextToImage(Pixel):
    """Stable Diffusion with LoRA.

    unet      UNet2DConditionModel with peft's LoRA layers
    config    rank, prompt, guidance (1 is none), sample_size of the latents
    frozen    folder of the base model in diffusers' layout: unet, vae, text_encoder, tokenizer, scheduler
    """

    encodes = True
    moments = True

    def __init__(self, unet: UNet2DConditionModel, config: dict, device: str = "cpu", frozen: Path | None = None):
        self.unet, self.config, self.device, self.frozen = unet.to(device), config, device, frozen
        if device != "cpu":
            self.unet.to(memory_format=torch.channels_last)
        if frozen is None:
            self.scheduler = PNDMScheduler(skip_prk_steps=True)
            self.prompt = self.negative = torch.zeros(1, 77, unet.config.cross_attention_dim, device=device)
        else:
            self.scheduler = PNDMScheduler.from_pretrained(frozen / "scheduler", **LOCAL)
            self.prompt, self.negative = embed(frozen, config.get("frozen_digest"), (config["prompt"], ""), device).split(1)
        self.forward_process = DDPMScheduler.from_config(self.scheduler.config)

    @property
    def vae(self) -> AutoencoderKL:
        """Loaded when it is first needed: training on kept latents does not need it."""
        return autoencoder(self.frozen, self.config.get("frozen_digest"), self.device)

    @classmethod
    def new(cls, config: dict, seed: int, device: str = "cpu", frozen: Path | None = None, ranks: dict | None = None):
        """The base model with new LoRA layers, which change nothing until they are trained (B is zero).

        frozen   folder of the base model; None: random weights of the same sizes, to be counted and timed
        ranks    rank by name of the layer, of pruned models; every layer has config["rank"] without
        """
        if frozen is None:
            unet = UNet2DConditionModel(**config["network"])
        else:
            unet = UNet2DConditionModel.from_pretrained(frozen / "unet", **WEIGHTS)
        unet.requires_grad_(False)
        rank = config["rank"]
        pattern = dict(rank_pattern=ranks, alpha_pattern=ranks) if ranks else {}
        lora = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=list(ranks or TARGETS), **pattern)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.number(seed, "weights"))
            unet.add_adapter(lora)
        return cls(unet, config, device, frozen)

    @classmethod
    def restore(cls, config: dict, tensors: dict, device: str = "cpu", frozen: Path | None = None) -> "TextToImage":
        """From saved LoRA matrices, whose shapes tell the ranks."""
        ranks = {name.removesuffix(".lora_A.weight"): len(t) for name, t in tensors.items() if name.endswith(".lora_A.weight")}
        model = cls.new(config, 0, device, frozen, ranks)
        model.load_state(tensors)
        return model

    def parameters(self) -> list:
        """What is trained: the LoRA matrices."""
        return [p for p in self.unet.parameters() if p.requires_grad]

    def state(self) -> dict:
        """The LoRA matrices by name."""
        return get_peft_model_state_dict(self.unet)

    def load_state(self, tensors: dict):
        """Take other LoRA matrices of the same shapes."""
        set_peft_model_state_dict(self.unet, tensors)

    def prune(self, ratio: float):
        """Remove the fraction `ratio` of the LoRA parameters, whole ranks at a time, in place."""
        tensors = prune.lora(self.state(), ratio)
        if not tensors:
            raise Refused(f"pruning_ratio: {ratio}: leaves nothing of the LoRA parameters; must be smaller")
        self.unet = self.restore(self.config, tensors, self.device, self.frozen).unet

    def noise_shape(self) -> tuple:
        """C, H, W of a latent."""
        side = self.unet.config.sample_size
        return self.unet.config.in_channels, side, side

    @torch.inference_mode()
    def prepare(self, images, flip: bool = False) -> torch.Tensor:
        """Mean and standard deviation of each latent: uint8 [T, 3, H, W] -> float [T, V, 2, C, h, w], on the CPU."""
        parts = []
        for part in torch.as_tensor(images).split(AT_ONCE):
            views = Pixel.prepare(self, part, flip)
            latent = self.vae.encode(views.flatten(0, 1).to(self.device)).latent_dist
            moments = torch.stack([latent.mean, latent.std], 1) * self.vae.config.scaling_factor
            parts.append(moments.unflatten(0, views.shape[:2]).float().cpu())
        return torch.cat(parts)

    def batch(self, x: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """A latent drawn for each image: [B, 2, C, h, w] -> [B, C, h, w]."""
        mean, std = x.unbind(1)
        return mean + std * torch.randn(mean.shape, generator=draw, device=x.device)

    def predict(self, noisy: torch.Tensor, timesteps: torch.Tensor, prompt: torch.Tensor | None = None) -> torch.Tensor:
        """The noise, or velocity, in float [B, C, h, w] at timesteps int [B] or [], with the run's prompt or another."""
        prompt = self.prompt if prompt is None else prompt
        return self.unet(noisy, timesteps, encoder_hidden_states=prompt.expand(len(noisy), -1, -1)).sample

    def guided(self, noisy: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """What sampling takes for the prediction, with classifier-free guidance. Source: Ho & Salimans 2022."""
        noise, guidance = self.predict(noisy, timestep), self.config["guidance"]
        if guidance == 1:
            return noise
        without = self.predict(noisy, timestep, self.negative)
        return without + guidance * (noise - without)

    def solver(self, steps: int):
        """PNDM, on the base model's own chain. Source: Liu et al. 2022; appendix B.

        Its `steps_offset` is smaller where the first of so many steps would be past the end of the chain.
        """
        offset = min(self.scheduler.config.steps_offset, 999 - (steps - 1) * (1000 // steps))
        solver = PNDMScheduler.from_config(self.scheduler.config, steps_offset=offset)
        solver.set_timesteps(steps)
        return solver

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        """Pixels in [-1, 1] of latents."""
        return torch.cat([self.vae.decode(part).sample for part in (x / self.vae.config.scaling_factor).split(AT_ONCE)])
