"""Images drawn from a model: one sampler for all families."""

import numpy as np
import torch


def draw(model, n_images: int, steps: int, batch: int, precision: str = "fp32") -> np.ndarray:
    """The images of indices 0..n_images-1, uint8 [n_images, C, H, W].

    Image i starts from noise that belongs to i alone, so images do not depend on the batch, and every model starts from
    the same noise.
    """
    model.unet.eval()
    with torch.autocast(model.device.split(":")[0], torch.bfloat16, enabled=precision == "bf16"):
        parts = [model.draw(range(k, min(k + batch, n_images)), steps) for k in range(0, n_images, batch)]
    return torch.cat(parts).contiguous().numpy()
