"""Diffusion in pixel space: a U-Net that predicts the noise (DDPM), sampled by DDIM.

B  images in a batch        pixels are in [-1, 1] inside the model and uint8 outside
"""

import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

from cdlib import prune, seeds

BETAS = dict(num_train_timesteps=1000, beta_schedule="linear", beta_start=1e-4, beta_end=0.02)
NOISE_SEED = 0


class Pixel:
    """A DDPM over pixels.

    unet      UNet2DModel: (float [B, C, H, W], int [B]) -> predicted noise [B, C, H, W]
    config    keyword arguments of UNet2DModel, and the family's name
    """

    def __init__(self, unet: UNet2DModel, config: dict, device: str = "cpu"):
        self.unet, self.config, self.device = unet.to(device), config, device
        self.forward_process = DDPMScheduler(**BETAS)

    @classmethod
    def new(cls, config: dict, seed: int, device: str = "cpu") -> "Pixel":
        """Randomly initialised, by torch's own initialisation."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.number(seed, "weights"))
            unet = UNet2DModel(**{k: v for k, v in config.items() if k != "family"})
        return cls(unet, config, device)

    @classmethod
    def restore(cls, config: dict, tensors: dict, device: str = "cpu") -> "Pixel":
        """From saved tensors, whose shapes tell how the network was pruned."""
        model = cls.new(config, seed=0)
        prune.reshape(model.unet, tensors)
        model.unet.load_state_dict(tensors, strict=True)
        return cls(model.unet, config, device)

    def state(self) -> dict:
        """The weights by name."""
        return self.unet.state_dict()

    def n_parameters(self) -> int:
        return sum(p.numel() for p in self.unet.parameters())

    def example(self) -> tuple:
        """Inputs of one forward pass."""
        c, side = self.config["in_channels"], self.config["sample_size"]
        return torch.zeros(1, c, side, side, device=self.device), torch.ones(1, dtype=torch.long, device=self.device)

    def prepare(self, images) -> torch.Tensor:
        """What is trained on: uint8 [T, C, H, W] -> float [T, C, H, W] in [-1, 1], on the model's device."""
        return torch.as_tensor(images).to(self.device).float() / 127.5 - 1

    def loss(self, x: torch.Tensor, timesteps: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Mean squared error of the predicted noise (eq. 1), over the batch and the pixels.

        x, noise     float [B, C, H, W]
        timesteps    int [B], 0..999
        """
        noisy = self.forward_process.add_noise(x, noise, timesteps)
        return torch.nn.functional.mse_loss(self.unet(noisy, timesteps).sample.float(), noise)

    def initial_noise(self, indices) -> torch.Tensor:
        """x_T of each image index, [B, C, H, W]: the same for every model, whatever the batch."""
        c, side = self.config["in_channels"], self.config["sample_size"]
        draws = [
            torch.randn(c, side, side, generator=torch.Generator().manual_seed(seeds.number(NOISE_SEED, "image", int(i))))
            for i in indices
        ]
        return torch.stack(draws).to(self.device)

    @torch.inference_mode()
    def draw(self, indices, steps: int) -> torch.Tensor:
        """Images for image indices, by DDIM without added noise: uint8 [B, C, H, W], on the CPU.

        Source: Song et al. 2020 (DDIM, eta = 0), appendix B.
        """
        solver = DDIMScheduler(**BETAS)
        solver.set_timesteps(steps)
        x = self.initial_noise(indices)
        for t in solver.timesteps:
            x = solver.step(self.unet(x, t.to(self.device)).sample.float(), t, x).prev_sample
        return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()
