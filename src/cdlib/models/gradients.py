"""Features of images for the methods of the TRAK family: projected gradients of a diffusion model's loss.

B  images at once        S  timesteps        V  views of each image        P  trained parameters        k  projected to

Gradients are linear in the loss: an image's timesteps share one backward pass, and their mean is projected.
Source: Park et al. 2023; Zheng et al. 2023; appendix C. Differs, from the released code:
    noise       is keyed by image and timestep, not by the place of the image in its batch
    images      are joined by id; they were shuffled
    mirrors     are not taken where images are flipped in training; there it is as chance has it
    projection  keeps lengths; theirs has entries N(0, 1): sqrt(k) times longer, and a damping of 0.5 there is 0.5 / k here
"""

from functools import lru_cache

import numpy as np
import torch
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from cdlib.base import seeds
from cdlib.models.train import NotFinite

LOSSES = ("simple", "square")
MEMORY = {"cpu": 2**27, "gpu": 2**33}  # on the CPU more is slower: large arrays are paged in anew each time
COPIES = 4  # of an image's gradient, while it is made, averaged and projected
ACTIVATIONS = 4  # memory of a forward and backward pass, as a multiple of what the forward pass saves


def evenly(n: int, n_timesteps: int = 1000) -> list[int]:
    """`n` timesteps evenly spaced in [1, T], counted from 0 as the families do: 0, 10, .., 990 for 100 (appendix C)."""
    return [i * n_timesteps // n for i in range(n)]


def features(model, x, ids, *, loss="simple", timesteps=None, k=4096, seed=0, of="training", memory_bytes=None) -> np.ndarray:
    """Projected gradient of each image's loss, averaged over timesteps, with respect to what is trained of the model.

    x             float [n, V, ...]  prepared images (model.prepare)
    ids           int [n]            image ids, which choose the noise; one id for all: one noise
    loss          "simple": L_Simple, the family's own loss (eq. 1); "square": L_Square, the mean square of the network's output
    timesteps     int [S], 0..999    100 evenly spaced ones without; one alone restricts the loss to it (L_Simple^t)
    k             dimension of the features; None leaves gradients as they are; from k = P on, inner products are exact
    seed          of noise and projection
    of            "training" or "generated": what the ids count
    memory_bytes  for gradients and activations, about; an image at one timestep may need more. None: as in MEMORY

    Noise of their own makes the scores of the TRAK family noisy: of two draws, those of 500 digits correlate at .23; with one
    noise for all training images, at .85 (the released code's is that of a place in the batch).

    Returns float32 [n, k]. Raises NotFinite.
    Source: eq. 14 (simple) and 16 (square).
    """
    x = torch.as_tensor(x)[:, :1]
    clean, timesteps = x[:, :, 0] if model.moments else x, evenly(100) if timesteps is None else timesteps
    return _features(model, clean, ids, loss, timesteps, k, seed, of, memory_bytes)


def journey_features(model, indices, steps: int, *, k=4096, seed=0, memory_bytes=None) -> np.ndarray:
    """Projected gradient of L_Simple^t at each step of an image's generation, averaged over the steps.

    At each step, what the model then predicts as the clean image (`journey`) gets fresh noise of that timestep. Scores are linear
    in the queries' features, so the average over steps may be taken of these.

    indices    int [n]  of the generated images
    steps      of the solver

    Returns float32 [n, k]. Raises NotFinite.
    Source: Zheng et al. 2023; eq. 17. Differs: the paper's released code takes, of pixels and VQ-VAE latents, the noisy images of
    a new, stochastic generation as they are, at timesteps 9 too low, against noise that was never added; of Stable Diffusion,
    every other latent of the generation, which is noisy already, with noise of its timestep added once more.
    """
    clean, timesteps = journey(model, indices, steps)
    return _features(model, clean, indices, "simple", timesteps, k, seed, "generated", memory_bytes)


@torch.no_grad()
def journey(model, indices, steps: int) -> tuple[torch.Tensor, list[int]]:
    """The clean image that the model predicts at each step of a generation: float [n, S, C, H, W], and the timesteps [S].

    The generation is that of `model.draw`. Clipped where the solver clips; PNDM visits a timestep twice: the second visit counts.
    """
    model.unet.eval()
    solver = model.solver(steps)
    velocity = solver.config.prediction_type == "v_prediction"
    x, predicted = model.initial_noise(indices), {}
    for t in solver.timesteps:
        told, signal = model.guided(x, t.to(model.device)).float(), solver.alphas_cumprod[int(t)]
        clean = signal**0.5 * x - (1 - signal) ** 0.5 * told if velocity else (x - (1 - signal) ** 0.5 * told) / signal**0.5
        predicted[int(t)] = clean.clamp(-1, 1) if solver.config.get("clip_sample") else clean
        x = solver.step(told, t, x).prev_sample
    return torch.stack(list(predicted.values()), 1), list(predicted)


def project(gradients: torch.Tensor, k: int, seed: int) -> torch.Tensor:
    """A count-sketch: float [B, P] -> [B, k]. Unbiased for inner products, whose error falls as 1 / sqrt(k).

    Each coordinate has a random sign and goes to one of k buckets; any k neighbours go to different ones, in rounds, so nothing
    collides when k >= P. Drawn on the CPU, and gathered, not scattered: the same on every device, but for rounding.
    Source: Charikar et al. 2002; Weinberger et al. 2009.
    """
    order, sign = _sketch(gradients.shape[1], k, seed, str(gradients.device))
    return gradients.index_select(1, order).mul_(sign).unflatten(1, (-1, k)).sum(1)


@lru_cache(maxsize=1)
def _sketch(n: int, k: int, seed: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Which coordinate goes to each bucket in each round, and its sign, 0 where none is left: int32 and int8 [rounds * k]."""
    draw, rounds = seeds.generator(seed, "count-sketch"), -(-n // k)
    order = draw.permuted(np.tile(np.arange(k, dtype=np.int32), (rounds, 1)), axis=1)
    order += k * np.arange(rounds, dtype=np.int32)[:, None]
    sign = draw.integers(0, 2, order.shape, np.int8) * 2 - 1
    sign[order >= n] = 0
    return tuple(torch.from_numpy(a.ravel()).to(device) for a in (order.clip(max=n - 1), sign))


class _Loss(torch.nn.Module):
    """The loss of an image at some timesteps, as a module: functional_call gives its network other weights."""

    def __init__(self, model, loss: str):
        super().__init__()
        self.unet, self.model, self.loss = model.unet.eval(), model, loss

    def forward(self, x, timesteps, noise):
        x = x.expand_as(noise)
        if self.loss == "simple":
            return self.model.loss(x, timesteps, noise)
        noisy = self.model.forward_process.add_noise(x, noise, timesteps)
        return self.model.predict(noisy, timesteps).float().square().mean()


def _features(model, x, ids, loss, timesteps, k, seed, of, memory_bytes) -> np.ndarray:
    """Features of clean images, float [n, 1 or S, C, H, W]."""
    ids, timesteps = np.asarray(ids).tolist(), np.asarray(timesteps).tolist()
    if loss not in LOSSES or len(ids) != len(x):
        raise ValueError(f"loss={loss!r}, {len(ids)} ids, {len(x)} images: write one of {', '.join(LOSSES)}, and an id for each")
    network, ours = _Loss(model, loss), {id(p) for p in model.parameters()}
    trained = {name: p for name, p in network.named_parameters() if id(p) in ours}
    weights = {name: p.detach() for name, p in trained.items()}
    many = vmap(grad(lambda w, *batch: functional_call(network, w, batch)), (None, 0, None, 0))
    x, t, parts = x.to(model.device), torch.as_tensor(timesteps, device=model.device), []
    n_images, n_timesteps = _at_once(network, weights, x, t, memory_bytes or MEMORY["cpu" if model.device == "cpu" else "gpu"])
    for rows in torch.arange(len(x)).split(n_images):
        total = 0
        for steps in torch.arange(len(t)).split(n_timesteps):
            clean = x[rows][:, steps] if x.shape[1] > 1 else x[rows]
            noise = _noise([ids[i] for i in rows], [timesteps[s] for s in steps], x.shape[2:], seed, of).to(model.device)
            if n_images > 1:
                with sdpa_kernel(SDPBackend.MATH):  # the other kinds of attention have no rule for vmap
                    found = many(weights, clean, t[steps], noise).values()
            else:
                found = [g[None] for g in torch.autograd.grad(network(clean[0], t[steps], noise[0]), list(trained.values()))]
            total += torch.cat([g.flatten(1) for g in found], 1) * (len(steps) / len(t))
            del found
        parts.append((project(total, k, seed) if k else total).cpu())
    if not (found := torch.cat(parts)).isfinite().all():
        raise NotFinite("the gradient of an image is not finite")
    return found.numpy()


def _noise(ids, timesteps, shape, seed: int, of: str) -> torch.Tensor:
    """The noise of some images at some timesteps, float [n, S, C, H, W]: each belongs to image and timestep alone."""
    numbers = [seeds.number(seed, f"noise of {of} image {i}", t) for i in ids for t in timesteps]
    noise = [torch.randn(shape, generator=torch.Generator().manual_seed(number)) for number in numbers]
    return torch.stack(noise).unflatten(0, (len(ids), -1))


def _at_once(network: _Loss, weights: dict, x, t, memory_bytes: int) -> tuple[int, int]:
    """How many images, and how many timesteps of each, fit in memory: from what one forward pass keeps for its backward pass."""
    saved = {}

    def note(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with sdpa_kernel(SDPBackend.MATH), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network(x[0, :1], t[:1], torch.zeros_like(x[0, :1]))
    weighed = {p.untyped_storage().data_ptr() for p in network.parameters()}
    activations = ACTIVATIONS * sum(size for where, size in saved.items() if where not in weighed)
    gradient = COPIES * sum(w.nbytes for w in weights.values())
    n_timesteps = min(len(t), max(1, (memory_bytes - gradient) // activations))
    return min(len(x), max(1, memory_bytes // (gradient + n_timesteps * activations))), n_timesteps
