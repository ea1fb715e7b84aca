"""The one training loop: full models, retraining, fine-tuning and sparsified fine-tuning.

They differ by start weights, images and recipe only (section 3.2: "the diffusion loss objective used to train the original
model is used for all fine-tuning").
"""

from dataclasses import dataclass

import numpy as np
import torch
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel

from cdlib import seeds
from cdlib.recipes import Recipe


class NotFinite(ArithmeticError):
    """A loss or a property was NaN or infinite."""


def _optimizer(parameters, recipe: Recipe, device: str):
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    optimizer = kinds[recipe.optimizer](parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    if recipe.schedule == "one_cycle":
        return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=recipe.steps)
    kind = "constant_with_warmup" if recipe.schedule == "constant" else recipe.schedule
    return optimizer, get_scheduler(kind, optimizer, num_warmup_steps=recipe.warmup_steps, num_training_steps=recipe.steps)


def _timesteps(n: int, recipe: Recipe, draw: torch.Generator) -> torch.Tensor:
    if recipe.timesteps == "uniform":
        return torch.randint(0, 1000, (n,), generator=draw)
    half = torch.randint(0, 1000, ((n + 1) // 2,), generator=draw)
    return torch.cat([half, 999 - half])[:n]


@dataclass(frozen=True)
class Trained:
    """What training leaves behind beside the model's weights.

    losses      float32 [steps]
    raw         the weights before they were replaced by their average, name -> tensor; empty without an average
    ema_step    how many steps the average has seen
    """

    losses: np.ndarray
    raw: dict
    ema_step: int


def train(model, images, recipe: Recipe, seed: int, average: EMAModel | None = None, progress=None) -> Trained:
    """Train a model in place; with an average (ema), the model ends with the averaged weights.

    images      uint8 [T, C, H, W]
    average     the start model's average, for ema = continued (families.continuing)
    progress    called after each step

    Raises NotFinite.
    """
    draw = torch.Generator().manual_seed(seeds.number(seed, "training"))
    x = model.prepare(images)
    parameters = [p for p in model.unet.parameters() if p.requires_grad]
    optimizer, schedule = _optimizer(parameters, recipe, model.device)
    if recipe.ema == "fresh" or (recipe.ema == "continued" and average is None):
        average = EMAModel(parameters, decay=recipe.ema_decay, use_ema_warmup=False)
    losses = []
    model.unet.train()
    for _ in range(recipe.steps):
        rows = torch.randint(0, len(x), (recipe.batch_size,), generator=draw)
        t = _timesteps(len(rows), recipe, draw).to(model.device)
        batch = x[rows.to(model.device)]
        noise = torch.randn(batch.shape, generator=draw).to(model.device)
        if recipe.horizontal_flip:
            flip = torch.rand(len(rows), generator=draw).to(model.device) < 0.5
            batch = torch.where(flip[:, None, None, None], batch.flip(-1), batch)
        with torch.autocast(model.device.split(":")[0], torch.bfloat16, enabled=recipe.precision == "bf16"):
            loss = model.loss(batch, t, noise)
        loss.backward()
        if recipe.grad_clip:
            torch.nn.utils.clip_grad_norm_(parameters, recipe.grad_clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if recipe.ema != "none":
            average.step(parameters)
        losses.append(loss.detach())
        if progress:
            progress()
    losses = torch.stack(losses).cpu().numpy() if losses else np.zeros(0, np.float32)
    if not np.isfinite(losses).all():
        raise NotFinite(f"the loss of step {int(np.argmin(np.isfinite(losses))) + 1} of {recipe.steps} is not finite")
    if recipe.ema == "none":
        return Trained(losses, {}, 0)
    raw = {name: tensor.detach().clone() for name, tensor in model.state().items()}
    average.copy_to(parameters)
    return Trained(losses, raw, average.optimization_step)
