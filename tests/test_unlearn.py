"""Unlearning: the exact inverse, the right direction, nothing where nothing is to be unlearned, and every family."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_gradients import CONFIGS
from test_gradients import made as model_of

from cdlib.data.datasets.digits import images_and_classes
from cdlib.models import unlearn
from cdlib.models.families import new
from cdlib.models.families.pixel import Pixel
from cdlib.models.procedures import Influence, Recipe
from cdlib.models.train import NotFinite, drawn_loss, train

pytestmark = pytest.mark.usefixtures("one_thread")
ASCENT = Recipe(steps=0, epochs=1, lr=1e-3, schedule="constant", batch_size=4, timesteps="antithetic")
INFLUENCE = Influence(ratio=0.5, damping=0.1, batch_size=4, draws=2, timesteps="antithetic")
HOW = {"gradient_ascent": ASCENT, "influence_unlearning": INFLUENCE}
every_method = pytest.mark.parametrize("method", HOW)


class Dot(torch.nn.Module):
    """A network of 20 parameters."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, 1, 3, padding=1), torch.nn.Tanh(), torch.nn.Conv2d(1, 1, 3, padding=1)
        )

    def forward(self, x, timesteps):
        return SimpleNamespace(sample=self.layers(x) * (1 + timesteps.reshape(-1, 1, 1, 1) / 1000))


@pytest.fixture
def dot():
    """That network as a model, and 10 images of 4 x 4 pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, x = Pixel(Dot(), CONFIGS["pixel"]), torch.randn(10, 1, 1, 4, 4)
    return model, x


@pytest.fixture(scope="module")
def digits():
    """A small model trained on 120 digits, zeros and ones: its weights, the images, and which are ones."""
    torch.set_num_threads(1)
    images, classes = images_and_classes()
    chosen = np.concatenate([np.flatnonzero(classes == k)[:60] for k in (0, 1)])
    model = new(CONFIGS["pixel"], 0)
    x = model.prepare(images[chosen])
    train(model, x, Recipe(steps=150, lr=4e-3, schedule="one_cycle", batch_size=32, timesteps="antithetic"), 0)
    return {name: t.clone() for name, t in model.state().items()}, x, classes[chosen] == 1


def weights(model):
    """All that is trained, flat."""
    return torch.cat([p.detach().flatten() for p in model.parameters()]).clone()


def without(method, model, x, removed, how=None, seed=0):
    """The weights after unlearning."""
    unlearn.METHODS[method](model, x, np.asarray(removed), how or HOW[method], seed)
    return weights(model)


def dense(gradients, damping):
    """H, as a matrix."""
    gradients = gradients.double()
    return gradients.T @ gradients / len(gradients) + damping * torch.eye(gradients.shape[1])


@pytest.fixture
def seen(monkeypatch):
    """The gradients and the batches of each call."""
    seen, compute = [], unlearn.gradients

    def remember(model, x, batches, how, draw):
        seen.append((compute(model, x, batches, how, draw), batches))
        return seen[-1][0].clone()

    monkeypatch.setattr(unlearn, "gradients", remember)
    return seen


# The inverse.


@pytest.mark.parametrize("damping", [1e-4, 1e-2, 1.0, 100.0])
@pytest.mark.parametrize("n", [1, 3, 40])
def test_the_inverse_is_that_of_the_matrix(n, damping):
    draw = torch.Generator().manual_seed(0)
    gradients, weight = torch.randn(n, 12, generator=draw), torch.randn(n, generator=draw)
    expected = torch.linalg.solve(dense(gradients, damping), gradients.double().T @ weight.double())
    found = unlearn.inverse_fisher(gradients, weight, damping)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * expected.abs().max())


def test_it_is_where_the_recursion_over_gradients_ends():
    draw, damping, n = torch.Generator().manual_seed(0), 0.1, 7
    gradients, weight = torch.randn(n, 12, generator=draw).double(), torch.randn(n, generator=draw).double()
    inverse = torch.eye(12, dtype=torch.double) / damping
    for g in gradients:  # Singh & Alistarh 2020, eq. 2
        inverse -= torch.outer(inverse @ g, inverse @ g) / (n + g @ inverse @ g)
    torch.testing.assert_close(unlearn.inverse_fisher(gradients, weight, damping), inverse @ (gradients.T @ weight))


def test_columns_are_taken_in_parts(monkeypatch):
    gradients = torch.randn(5, 30, generator=torch.Generator().manual_seed(0))
    expected = unlearn.inverse_fisher(gradients, [1.0, 2, 3, 4, 5], 0.1)
    monkeypatch.setattr(unlearn, "COLUMNS", 7)
    torch.testing.assert_close(unlearn.inverse_fisher(gradients, [1.0, 2, 3, 4, 5], 0.1), expected)


@pytest.mark.parametrize("batch_size", [1, 4], ids=["by image", "by batch"])
def test_the_weights_change_by_the_formula_with_a_dense_inverse(dot, seen, batch_size):
    model, x = dot
    removed, before = np.arange(10) % 3 == 0, weights(model)
    after = without("influence_unlearning", model, x, removed, replace(INFLUENCE, batch_size=batch_size, ratio=0.7))
    [(gradients, batches)] = seen
    assert sorted(torch.cat(batches).tolist()) == list(range(10)) and max(map(len, batches)) == batch_size
    of = {True: torch.zeros(20, dtype=torch.double), False: torch.zeros(20, dtype=torch.double)}
    for g, batch in zip(gradients, batches, strict=True):
        [gone] = {bool(removed[i]) for i in batch}
        of[gone] += len(batch) * g.double()
    step = of[True] / 10 - of[False] * 4 / (10 * 6)
    expected = 0.7 * torch.linalg.inv(dense(gradients, 0.1)) @ step
    np.testing.assert_allclose(after - before, expected, rtol=0, atol=1e-5 * expected.abs().max())


def test_a_gradient_is_that_of_the_mean_over_images_and_draws_in_antithetic_pairs(dot, monkeypatch):
    model, x = dot
    used, loss = [], model.loss
    monkeypatch.setattr(model, "loss", lambda *batch: used.append(batch) or loss(*batch))
    rows = torch.tensor([5, 2, 7])
    [found] = unlearn.gradients(model, x, [rows], replace(INFLUENCE, draws=4), torch.Generator().manual_seed(3))
    [(images, t, noise)] = used
    assert [int(((image == x[:, 0]).flatten(1).all(1)).nonzero()) for image in images] == [5, 2, 7] * 4
    assert (t.view(2, 2, 3)[0] + t.view(2, 2, 3)[1] == 999).all() and len(set(t.tolist())) == 12
    each = [
        torch.autograd.grad(loss(a[None], b[None], c[None]), model.parameters()) for a, b, c in zip(images, t, noise, strict=True)
    ]
    expected = torch.stack([torch.cat([g.flatten() for g in gradient]) for gradient in each]).mean(0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * expected.abs().max())


# The direction.


@every_method
def test_the_removed_images_loss_rises_more_than_that_of_the_others(digits, method):
    state, x, ones = digits
    how = {
        "gradient_ascent": replace(ASCENT, lr=3e-4, batch_size=16),
        "influence_unlearning": replace(INFLUENCE, batch_size=16, damping=1.0),
    }

    def loss(model, rows):
        with torch.no_grad():
            return drawn_loss(model, x, torch.from_numpy(rows).repeat(20), INFLUENCE, torch.Generator().manual_seed(1)).item()

    for removed in (ones, ~ones):
        model = new(CONFIGS["pixel"], 0)
        model.load_state(state)
        rows = np.flatnonzero(removed), np.flatnonzero(~removed)
        before = [loss(model, r) for r in rows]
        without(method, model, x, removed, how[method])
        rises = [loss(model, r) - b for r, b in zip(rows, before, strict=True)]
        assert rises[0] > 0.005 and rises[0] > 1.1 * rises[1], rises


def test_ascent_is_training_with_the_sign_turned(dot):
    model, x = dot
    start = {name: t.clone() for name, t in model.state().items()}
    one = replace(ASCENT, lr=1e-4)
    up = without("gradient_ascent", model, x[:4], np.ones(4, bool), one) - torch.cat([t.flatten() for t in start.values()])
    model.load_state(start)
    before = weights(model)
    train(model, x[:4], one, 0)
    torch.testing.assert_close(up, before - weights(model), rtol=0, atol=1e-7)
    assert (up != 0).any()


# Who is removed.


@every_method
def test_where_nothing_is_removed_nothing_is_changed(dot, method):
    model, x = dot
    before = weights(model)
    assert torch.equal(without(method, model, x, np.zeros(10, bool)), before)


def test_where_everything_is_removed_the_loss_of_all_is_raised(dot, seen):
    model, x = dot
    before = weights(model)
    after = without("influence_unlearning", model, x, np.ones(10, bool))
    [(gradients, batches)] = seen
    mean = sum(len(b) * g for g, b in zip(gradients, batches, strict=True)) / 10
    expected = 0.5 * torch.linalg.inv(dense(gradients, 0.1)) @ mean.double()
    np.testing.assert_allclose(after - before, expected, rtol=0, atol=1e-5 * expected.abs().max())
    assert not torch.equal(without("gradient_ascent", model, x, np.ones(10, bool)), after)


def test_ascent_sees_the_removed_images_only(dot, monkeypatch):
    model, x = dot
    given = []
    monkeypatch.setattr(unlearn, "train", lambda model, x, how, seed, ascend, checkpoint: given.append((x, seed, ascend)))
    without("gradient_ascent", model, x, np.arange(10) > 7, seed=5)
    [(images, seed, ascend)] = given
    assert torch.equal(images, x[8:]) and (seed, ascend) == (5, True)


@every_method
def test_the_seed_decides_the_weights(dot, method):
    model, x = dot
    start, found = {name: t.clone() for name, t in model.state().items()}, []
    for seed in (0, 0, 1):
        model.load_state(start)
        torch.rand(seed + 1)  # no global random numbers are used
        found.append(without(method, model, x, np.arange(10) < 5, seed=seed))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


@every_method
@pytest.mark.parametrize("kind", CONFIGS)
def test_what_is_trained_of_every_family_is_changed_and_nothing_else(kind, method):
    model, x = model_of(kind)
    ours = {id(p) for p in model.parameters()}
    frozen = [p.detach().clone() for p in model.unet.parameters() if id(p) not in ours]
    assert bool(frozen) == (kind == "text_to_image")
    before = weights(model)
    after = without(method, model, x, [True, False, True, False, False])
    assert after.isfinite().all() and ((after != before).float().mean() > 0.9)
    assert all(map(torch.equal, frozen, (p for p in model.unet.parameters() if id(p) not in ours)))


@every_method
def test_a_model_that_was_destroyed_is_told(dot, method):
    model, x = dot
    how = {"gradient_ascent": replace(ASCENT, lr=1e39, batch_size=10), "influence_unlearning": replace(INFLUENCE, ratio=1e42)}
    with pytest.raises(NotFinite):
        without(method, model, x, np.arange(10) < 5, how[method])
