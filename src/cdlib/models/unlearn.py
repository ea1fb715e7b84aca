"""Models for a coalition made from one of everybody, by unlearning the images of those who are absent (section D.4).

T  images        P  trained parameters        M  gradients in the Fisher matrix        G  those gradients, [M, P]

A method is f(model, x, removed, how, seed, checkpoint) and changes the model in place.

    x          float [T, V, ...]  everybody's prepared images (model.prepare), V views of each
    removed    bool [T]           those of the absent contributors; where nothing is removed, nothing is changed
    checkpoint                    where one that trains is kept while it lasts, or None (train.train)

The weights that it ends with are measured, and it starts from those that are evaluated. Raises NotFinite when a weight is
not finite afterwards.

Differs, from the released code, in both methods: it measures the average of the weights that goes on from the start model's
(EMA), of which 96.5 % is left after 40 steps of ascent, and 99.9 % after the one step of influence unlearning.
"""

import numpy as np
import torch

from cdlib.base import seeds
from cdlib.models.procedures import Influence, Recipe
from cdlib.models.train import NotFinite, drawn_loss, train

COLUMNS = 2**14  # of G in double precision at once


def gradient_ascent(model, x: torch.Tensor, removed: np.ndarray, how: Recipe, seed: int, checkpoint=None):
    """Raise the loss of the removed images, by the training loop with its sign turned.

    Source: Graves et al. 2021. The paper gives neither rate nor length; the released code takes 1e-5, and one pass.
    """
    if removed.any():
        train(model, x[torch.from_numpy(removed)], how, seed, ascend=True, checkpoint=checkpoint)
        _finite(model)


def influence(model, x: torch.Tensor, removed: np.ndarray, how: Influence, seed: int, checkpoint=None):
    """Add to the weights what removing the images would change to first order, times `how.ratio`.

    H^-1 (g_removed / T - g_retained T_removed / (T T_retained)), of gradients summed over images. H is the damped empirical
    Fisher matrix of everybody's images; where nobody stays, the second term is left out. Takes memory for G.

    Source: Izzo et al. 2021; Singh & Alistarh 2020 (WoodFisher). Differs, from the released code, where
        H     is of the retained images, its damping is 1, and its recursion never leaves the direction of the first gradient
        M     counts the retained classes, and so do T, T_removed and T_retained: each image weighs many times as much
        G     is drawn again for H; here the same gradients make both
    """
    if not removed.any():
        return
    x, draw = x.to(model.device), torch.Generator(model.device).manual_seed(seeds.number(seed, "unlearning"))
    rows = [torch.from_numpy(np.flatnonzero(which)).to(model.device) for which in (removed, ~removed)]
    weights = 1 / len(x), -len(rows[0]) / (len(x) * max(1, len(rows[1])))
    batches, weight = [], []
    for these, each in zip(rows, weights, strict=True):
        order = torch.randperm(len(these), generator=draw, device=model.device)
        for batch in these[order].split(how.batch_size) if len(these) else ():
            batches.append(batch)
            weight.append(each * len(batch))
    change = how.ratio * inverse_fisher(gradients(model, x, batches, how, draw), weight, how.damping)
    with torch.no_grad():
        for p, part in zip(model.parameters(), change.split([p.numel() for p in model.parameters()]), strict=True):
            p += part.view_as(p)
    _finite(model)


def gradients(model, x: torch.Tensor, batches: list, how: Influence, draw: torch.Generator) -> torch.Tensor:
    """The gradient of each batch's mean loss, over `how.draws` draws for each of its images: float [M, P].

    batches    int [B] each, rows of x
    """
    model.unet.eval()
    parameters, found = model.parameters(), torch.empty(len(batches), model.n_parameters(), device=model.device)
    for row, batch in zip(found, batches, strict=True):
        # Of an even number of draws, antithetic timesteps t and 999 - t are of one image.
        loss = drawn_loss(model, x, batch.repeat(how.draws), how, draw)
        row.copy_(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    return found


def inverse_fisher(gradients: torch.Tensor, weight, damping: float) -> torch.Tensor:
    """H^-1 G' a, where H = G' G / M + damping I: float [P], without any array of P x P.

    gradients    float [M, P]: G
    weight       float [M]: a

    WoodFisher's recursion is Woodbury's identity, a gradient at a time. Here it is taken at once, G' (G G' / M + damping I)^-1 a,
    for what H^-1 is applied to is itself a sum of the gradients. Takes O(M^2 P), and no memory beside that for G.
    """
    parts = gradients.split(COLUMNS, 1)
    kernel = sum(part.double() @ part.double().T for part in parts) / len(gradients)
    kernel.diagonal().add_(damping)
    solved = torch.linalg.solve(kernel, torch.as_tensor(weight, dtype=torch.double, device=gradients.device))
    return torch.cat([solved @ part.double() for part in parts]).to(gradients.dtype)


def _finite(model):
    if not all(p.isfinite().all() for p in model.parameters()):
        raise NotFinite("a weight is not finite after unlearning")


METHODS = {"gradient_ascent": gradient_ascent, "influence_unlearning": influence}
