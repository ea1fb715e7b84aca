"""Latent diffusion: a frozen VQ-VAE makes images small, and a U-Net learns the small ones.

B  images in a batch        T  images        V  views of each (pixel)

The latent of an image is the encoder's output before quantisation; decoding quantises first. Nothing is scaled.
Source: Rombach et al. 2022; appendix B.
"""

from functools import lru_cache
from pathlib import Path

import torch
from diffusers import VQModel

from cdlib.models.families.pixel import Pixel

AT_ONCE = 32
MOST_CELLS = 2**15  # of the latents decoded at once: each is compared with every code of the codebook


@lru_cache(maxsize=1)
def autoencoder(folder: Path, device: str, digest: str | None) -> VQModel:
    """The frozen VQ-VAE in a folder of diffusers' layout (config.json and safetensors, perhaps under vqvae/)."""
    folder = folder / "vqvae" if (folder / "vqvae").is_dir() else folder
    vae = VQModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    return vae.eval().requires_grad_(False).to(device)


class Latent(Pixel):
    """A latent diffusion model.

    unet      UNet2DModel over latents [B, C, h, w]
    frozen    folder of the VQ-VAE
    """

    encodes = True  # latents are computed once for a run and kept
    clips = False  # latents have no bounds

    @property
    def autoencoder(self) -> VQModel:
        """Loaded when it is first needed: training on kept latents does not need it."""
        return autoencoder(self.frozen, self.device, self.config.get("frozen_digest"))

    @torch.inference_mode()
    def prepare(self, images, flip: bool = False) -> torch.Tensor:
        """What is trained on: uint8 [T, 3, H, W] -> latents, float [T, V, C, h, w], on the CPU."""
        parts = []
        for part in torch.as_tensor(images).split(AT_ONCE):
            views = Pixel.prepare(self, part, flip)
            latents = self.autoencoder.encode(views.flatten(0, 1).to(self.device)).latents
            parts.append(latents.unflatten(0, views.shape[:2]).float().cpu())
        return torch.cat(parts)

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        """Pixels in [-1, 1] of latents."""
        return torch.cat([self.autoencoder.decode(part).sample for part in x.split(min(AT_ONCE, MOST_CELLS // x[0, 0].numel()))])
