"""Diffusion in pixel space: a U-Net that predicts the noise (DDPM) or the velocity, sampled by DDIM.

B  images in a batch        T  images        V  views of each: 2 (the image and its mirror) when half are flipped, else 1

Pixels are in [-1, 1] inside the model and uint8 outside.
"""

import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

from cdlib.base import seeds
from cdlib.models import prune

NOISE_SEED = 0
SCHEDULES = {
    "linear": dict(num_train_timesteps=1000, beta_schedule="linear", beta_start=1e-4, beta_end=0.02),
    "scaled_linear": dict(num_train_timesteps=1000, beta_schedule="scaled_linear", beta_start=0.0015, beta_end=0.0195),
}


class Pixel:
    """A DDPM over pixels.

    unet      UNet2DModel: (float [B, C, H, W], int [B]) -> predicted noise, or velocity, [B, C, H, W]
    config    a preset (families.presets), with `noise_schedule` (linear | scaled_linear) and `prediction_type` (epsilon without)
    """

    encodes = False  # what is trained on is made from the images in no time, so it is not kept
    moments = False  # what is trained on is not a mean and a standard deviation
    clips = True  # the clean image that the solver sees, to [-1, 1]

    def __init__(self, unet: UNet2DModel, config: dict, device: str = "cpu", frozen=None):
        self.unet, self.config, self.device, self.frozen = unet.to(device), config, device, frozen
        if device != "cpu":
            self.unet.to(memory_format=torch.channels_last)
        self.betas = SCHEDULES[config["noise_schedule"]] | {"prediction_type": config.get("prediction_type", "epsilon")}
        self.forward_process = DDPMScheduler(**self.betas)

    @classmethod
    def new(cls, config: dict, seed: int, device: str = "cpu", frozen=None) -> "Pixel":
        """Randomly initialised, by torch's own initialisation."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.number(seed, "weights"))
            unet = UNet2DModel(**config["network"])
        return cls(unet, config, device, frozen)

    @classmethod
    def restore(cls, config: dict, tensors: dict, device: str = "cpu", frozen=None) -> "Pixel":
        """From saved tensors, whose shapes tell how the network was pruned."""
        model = cls.new(config, seed=0, frozen=frozen)
        prune.reshape(model.unet, tensors)
        model.unet.load_state_dict(tensors, strict=True)
        return cls(model.unet, config, device, frozen)

    def parameters(self) -> list:
        """What is trained: all of the U-Net."""
        return list(self.unet.parameters())

    def state(self) -> dict:
        """The weights by name."""
        return self.unet.state_dict()

    def load_state(self, tensors: dict):
        """Take other weights of the same shapes."""
        self.unet.load_state_dict(tensors, strict=True)

    def n_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def prune(self, ratio: float):
        """Remove the fraction `ratio` of the channels, in place."""
        prune.prune(self.unet, ratio, self._example())

    def noise_shape(self) -> tuple:
        """C, H, W of what noise is added to."""
        network = self.config["network"]
        return network["in_channels"], network["sample_size"], network["sample_size"]

    def _example(self) -> tuple:
        """Inputs of one forward pass."""
        return torch.zeros(1, *self.noise_shape(), device=self.device), torch.ones(1, dtype=torch.long, device=self.device)

    def prepare(self, images, flip: bool = False) -> torch.Tensor:
        """What is trained on: uint8 [T, C, H, W] -> float [T, V, C, H, W] in [-1, 1], on the CPU."""
        x = torch.as_tensor(images).float() / 127.5 - 1
        return torch.stack([x, x.flip(-1)], 1) if flip else x[:, None]

    def batch(self, x: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """What noise is added to, from prepared images [B, ...]; here the same."""
        return x

    def loss(self, x: torch.Tensor, timesteps: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Mean squared error of the predicted noise (eq. 1) or velocity, over the batch and the pixels.

        x, noise     float [B, C, H, W]
        timesteps    int [B], 0..999

        Source of the velocity: Salimans & Ho 2022.
        """
        process = self.forward_process
        target = process.get_velocity(x, noise, timesteps) if process.config.prediction_type == "v_prediction" else noise
        return torch.nn.functional.mse_loss(self.predict(process.add_noise(x, noise, timesteps), timesteps).float(), target)

    def idle_loss(self, x: torch.Tensor) -> float:
        """The loss of a model that predicts 0 for prepared images: the mean square of the noise, or of the velocity.

        Latents are taken to have mean square 1.
        """
        if self.forward_process.config.prediction_type == "epsilon" or self.moments:
            return 1.0
        kept = self.forward_process.alphas_cumprod.mean().item()
        return kept + (1 - kept) * x.square().mean().item()

    def predict(self, noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The noise, or velocity, in float [B, C, H, W] at timesteps int [B] or []."""
        return self.unet(noisy, timesteps).sample

    def guided(self, noisy: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """What sampling takes for the prediction."""
        return self.predict(noisy, timestep)

    def solver(self, steps: int):
        """DDIM without added noise, in so many steps. Source: Song et al. 2020 (eta = 0), appendix B."""
        solver = DDIMScheduler(**self.betas, clip_sample=self.clips)
        solver.set_timesteps(steps)
        return solver

    def initial_noise(self, indices) -> torch.Tensor:
        """x_T of each image index, [B, C, H, W]: the same for every model, whatever the batch."""
        generators = [torch.Generator().manual_seed(seeds.number(NOISE_SEED, "image", int(i))) for i in indices]
        return torch.stack([torch.randn(self.noise_shape(), generator=g) for g in generators]).to(self.device)

    @torch.inference_mode()
    def draw(self, indices, steps: int) -> torch.Tensor:
        """Images for image indices, in so many steps of the solver: uint8 [B, C, H, W], on the CPU."""
        solver = self.solver(steps)
        x = self.initial_noise(indices)
        for t, there in zip(solver.timesteps, solver.timesteps.to(self.device), strict=True):  # no copy inside the loop
            x = solver.step(self.guided(x, there).float(), t, x).prev_sample
        with torch.autocast(self.device.split(":")[0], enabled=False):
            pixels = self.decode(x.float())
        return ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        """Pixels in [-1, 1] of what was denoised; here the same."""
        return x
