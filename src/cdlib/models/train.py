"""The one training loop: full models, retraining, fine-tuning and sparsified fine-tuning.

They differ by start weights, images and recipe only (section 3.2: "the diffusion loss objective used to train the original
model is used for all fine-tuning").
"""

import importlib
from dataclasses import dataclass

import numpy as np
import torch
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel

from cdlib.base import seeds
from cdlib.base.errors import NotFinite, Refused, Untrained
from cdlib.models.checkpoint import Checkpoint, Training
from cdlib.models.procedures import Recipe

FEWEST_STEPS = 40  # after fewer, a training may not have begun to learn: it is not judged
MOST_LOSS = 0.9  # that a training may end with, of what predicting nothing gives


def _optimizer(parameters, recipe: Recipe, steps: int):
    how = dict(lr=recipe.lr, weight_decay=recipe.weight_decay)
    if recipe.optimizer == "adam_8bit":
        optimizer = eight_bit().Adam8bit(parameters, **how)
    else:
        optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer](parameters, fused=True, **how)
    if recipe.schedule == "one_cycle":
        return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=steps)
    kind = "constant_with_warmup" if recipe.schedule == "constant" else recipe.schedule
    return optimizer, get_scheduler(kind, optimizer, num_warmup_steps=recipe.warmup_steps, num_training_steps=steps)


def eight_bit():
    """The optimisers of bitsandbytes, whose state takes a quarter of the memory. Raises Refused without that package."""
    try:
        return importlib.import_module("bitsandbytes").optim
    except ImportError:
        raise Refused("optimizer: 'adam_8bit': needs bitsandbytes: uv pip install bitsandbytes, or write adam") from None


def _rows(now: Training, n: int, recipe: Recipe, device: str) -> torch.Tensor:
    """Rows of the next step's images: drawn with replacement, or by passes."""
    if not recipe.epochs:
        return torch.randint(0, n, (recipe.batch_size,), generator=now.draw, device=device)
    k = now.step % -(-n // recipe.batch_size)
    if k == 0:
        now.order = torch.randperm(n, generator=now.draw, device=device)
    return now.order[k * recipe.batch_size : (k + 1) * recipe.batch_size]


def _timesteps(n: int, recipe: Recipe, draw: torch.Generator, device: str) -> torch.Tensor:
    if recipe.timesteps == "uniform":
        return torch.randint(0, 1000, (n,), generator=draw, device=device)
    half = torch.randint(0, 1000, ((n + 1) // 2,), generator=draw, device=device)
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


def drawn_loss(model, x: torch.Tensor, rows: torch.Tensor, how, draw: torch.Generator) -> torch.Tensor:
    """The loss of some images, each at a timestep, of a view and with a noise that are drawn: a scalar.

    x       float [T, V, ...]: prepared images (model.prepare), V views of each
    rows    int [B]: which of them; one that is named twice is drawn for twice
    how     its `timesteps` and `precision` (recipes)
    """
    t = _timesteps(len(rows), how, draw, model.device)
    views = torch.randint(0, x.shape[1], (len(rows),), generator=draw, device=model.device) if x.shape[1] > 1 else 0
    batch = model.batch(x[rows, views], draw)
    noise = torch.randn(batch.shape, generator=draw, device=model.device)
    with torch.autocast(model.device.split(":")[0], torch.bfloat16, enabled=how.precision == "bf16"):
        return model.loss(batch, t, noise)


def train(
    model,
    x: torch.Tensor,
    recipe: Recipe,
    seed: int,
    average: EMAModel | None = None,
    progress=None,
    ascend: bool = False,
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Train a model in place; with an average (ema), the model ends with the averaged weights.

    x             float [T, V, ...]: prepared images (model.prepare), V views of each
    average       the start model's average, for ema = continued (families.continuing)
    progress      called after each step; with a number of steps and their seconds, for those of earlier sittings
    ascend        raise the loss, instead of lowering it
    checkpoint    where the training is kept while it lasts, and goes on from: on a CPU to the very same bits

    All random numbers are drawn on the model's device, and nothing in the loop waits for it, but a checkpoint. Raises NotFinite;
    Untrained when a descent ends near the loss of a model that predicts nothing (`_learned`).
    """
    device = model.device
    draw = torch.Generator(device).manual_seed(seeds.number(seed, "training"))
    parameters, steps = model.parameters(), recipe.n_steps(len(x))
    optimizer, schedule = _optimizer(parameters, recipe, steps)
    if recipe.ema == "none":
        average = None
    elif recipe.ema == "fresh" or average is None:
        average = EMAModel(parameters, decay=recipe.ema_decay, use_ema_warmup=False)
    now = Training(model, optimizer, schedule, average, draw)
    if checkpoint:
        checkpoint.begin(now, {"recipe": recipe.as_dict(), "seed": seed, "ascend": ascend, "x": x})
        if progress and now.step:
            progress(now.step, checkpoint.seconds)
    x = x.to(device)
    if recipe.compile:
        model.unet.compile()
    model.unet.train()
    while now.step < steps:
        loss = drawn_loss(model, x, _rows(now, len(x), recipe, device), recipe, draw)
        (-loss if ascend else loss).backward()
        if recipe.grad_clip:
            torch.nn.utils.clip_grad_norm_(parameters, recipe.grad_clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if average:
            average.step(parameters)
        now.losses.append(loss.detach())
        if checkpoint and checkpoint.due() and now.step < steps:
            _finite(now.losses, steps)
            checkpoint.write(now)
        if progress:
            progress()
    losses = _finite(now.losses, steps)
    if not ascend:
        _learned(losses, recipe, model.idle_loss(x))
    if not average:
        return Trained(losses, {}, 0)
    raw = {name: tensor.detach().clone() for name, tensor in model.state().items()}
    average.copy_to(parameters)
    return Trained(losses, raw, average.optimization_step)


def _finite(losses: list, steps: int) -> np.ndarray:
    """The losses so far, float32 [steps]. Raises NotFinite."""
    losses = torch.stack(losses).cpu().numpy() if losses else np.zeros(0, np.float32)
    if not np.isfinite(losses).all():
        raise NotFinite(f"the loss of step {int(np.argmin(np.isfinite(losses))) + 1} of {steps} is not finite")
    return losses


def _learned(losses: np.ndarray, recipe: Recipe, idle: float):
    """Refuse a model whose mean loss over the last tenth of the steps is above MOST_LOSS times `idle`. Raises Untrained.

    idle    the loss of a model that predicts 0 (idle_loss): of noise 1, whatever the images and the start weights

    A diverged model ends there, or higher. The mean over a tenth of the steps averages the draws of timesteps.
    """
    last = max(1, len(losses) // 10)
    if len(losses) >= FEWEST_STEPS and (end := losses[-last:].mean()) > MOST_LOSS * idle:
        raise Untrained(
            f"the loss ends at {end:.2f} (mean of the last {last} of {len(losses)} steps), and predicting nothing gives "
            f"{idle:.2g}: lower the learning rate ({recipe.lr:g}) or take more steps"
        )
