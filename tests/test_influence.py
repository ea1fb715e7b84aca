"""The TRAK family: equal to dense matrices written out here, and blind to order, copies and units."""

import numpy as np
import pandas as pd
import pytest
import torch

from cdlib.credit import influence, similarity
from cdlib.measure import sketches
from cdlib.models import families, gradients

METHODS = {
    "gradient_similarity": lambda train, queries, damping: similarity.cosine(train, queries),
    "trak": influence.trak,
    "d_trak": influence.d_trak,
    "journey_trak": influence.journey_trak,
    "relative_influence": influence.relative_influence,
    "renormalised_influence": influence.renormalised_influence,
}
TINY = {
    "family": "pixel", "noise_schedule": "linear",
    "network": dict(
        sample_size=4, in_channels=1, out_channels=1, block_out_channels=(4,), layers_per_block=1, norm_num_groups=2,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), mid_block_type=None, add_attention=False,
    ),
}  # fmt: skip
every = pytest.mark.parametrize("method", METHODS)
shapes = pytest.mark.parametrize(("n", "k"), [(7, 20), (30, 20), (20, 20)])


def drawn(n, k, n_queries=4, seed=0):
    """Features of training images and of queries, with a direction that all share."""
    draw = np.random.default_rng(seed)
    return draw.normal(size=(n, k)) + 1, draw.normal(size=(n_queries, k)) + 1


def dense(method, train, queries, damping):
    """Each method as the paper has it, one image and one query at a time, in float64."""
    train, queries = np.asarray(train, np.float64), np.asarray(queries, np.float64)
    inverse = np.linalg.inv(sum(np.outer(phi, phi) for phi in train) + damping * np.eye(train.shape[1]))
    below = {
        "relative_influence": lambda phi: np.linalg.norm(inverse @ phi),
        "renormalised_influence": lambda phi: np.linalg.norm(phi),
    }.get(method, lambda phi: 1.0)
    if method == "gradient_similarity":
        return [np.mean([phi @ q / np.linalg.norm(phi) / np.linalg.norm(q) for q in queries]) for phi in train]
    return [np.mean([q @ inverse @ phi / below(phi) for q in queries]) for phi in train]


@every
@shapes
@pytest.mark.parametrize("damping", [0.5, 30.0])
def test_scores_are_those_of_dense_matrices(method, n, k, damping):
    train, queries = drawn(n, k)
    assert METHODS[method](train, queries, damping) == pytest.approx(dense(method, train, queries, damping), rel=1e-9)


@every
def test_scores_from_a_network_are_those_of_dense_matrices_without_projection(method, one_thread):
    model = families.new(TINY, 0)
    x = torch.randn((12, 1, *model.noise_shape()), generator=torch.Generator().manual_seed(0))
    how = dict(timesteps=[100, 600], k=None, loss="square" if method == "d_trak" else "simple")
    train = gradients.features(model, x[:9], range(9), **how)
    queries = gradients.features(model, x[9:], range(3), of="generated", **how)
    if method == "journey_trak":
        queries = gradients.journey_features(model, range(3), 4, k=None)
    assert train.shape == (9, model.n_parameters())
    damping = influence.scale_free(train)
    expected = np.array(dense(method, train, queries, damping))
    assert METHODS[method](train, queries, damping) == pytest.approx(expected, rel=1e-6, abs=1e-6 * np.abs(expected).max())


class FoundByTraker:
    """The network's output that traker scores: L_Simple of an image, written out here, at given timesteps and noise."""

    def __init__(self, model, timesteps, slope):
        self.kept, self.t = model.forward_process.alphas_cumprod[timesteps].sqrt()[:, None, None, None], torch.tensor(timesteps)
        self.added, self.slope = (1 - self.kept**2).sqrt(), slope

    def get_output(self, network, weights, buffers, x, noise):
        noisy = self.kept * x + self.added * noise
        predicted = torch.func.functional_call(network, (weights, buffers), (noisy, self.t)).sample
        return (predicted - noise).square().mean()

    def get_out_to_loss_grad(self, network, weights, buffers, batch):
        return self.slope[:, None]


def found_by_traker(model, timesteps, train, queries, slope, folder, damping):
    """traker's scores [T, Q] without projection, from pairs of images [n, C, H, W] and noise [n, S, C, H, W]."""
    from trak import TRAKer
    from trak.projectors import NoOpProjector

    task = FoundByTraker(model, timesteps, slope)
    traker = TRAKer(
        model.unet, task, len(train[0]), folder, projector=NoOpProjector(device="cpu"), device="cpu",
        use_half_precision=False, lambda_reg=damping, logging_level="ERROR",
    )  # fmt: skip
    traker.load_checkpoint(model.state(), model_id=0)
    traker.featurize(train, num_samples=len(train[0]))
    traker.finalize_features()
    traker.start_scoring_checkpoint("queries", model.state(), 0, len(queries[0]))
    traker.score(queries, num_samples=len(queries[0]))
    return np.array(traker.finalize_scores("queries"))


@pytest.mark.filterwarnings("ignore:.*invalid escape sequence")  # of traker's docstrings, when compiled
def test_trak_is_what_traker_finds_up_to_its_scale(one_thread, tmp_path):
    """traker divides gradients by sqrt(P), G^-1 by its mean absolute entry, and multiplies by the slope of loss by output."""
    model, timesteps = families.new(TINY, 0), [100, 600]
    x = torch.randn((12, 1, *model.noise_shape()), generator=torch.Generator().manual_seed(0))
    how = dict(timesteps=timesteps, k=None)
    train = gradients.features(model, x[:9], range(9), **how)
    queries = gradients.features(model, x[9:], range(3), of="generated", **how)
    noise = [gradients._noise(range(n), timesteps, model.noise_shape(), 0, of) for n, of in ((9, "training"), (3, "generated"))]
    n_parameters, slope = train.shape[1], torch.linspace(0.2, 1, 9)
    damping = influence.scale_free(train)
    scores = found_by_traker(
        model, timesteps, (x[:9, 0], noise[0]), (x[9:, 0], noise[1]), slope, tmp_path, damping / n_parameters
    )
    kernel = train.T.astype(float) @ train + damping * np.eye(n_parameters)
    scale = n_parameters * np.abs(np.linalg.inv(kernel)).mean()
    expected = influence.trak(train, queries, damping) * slope.numpy() / scale
    assert scores.mean(1) == pytest.approx(expected, rel=1e-4)


def from_images(method, images, ids, folder):
    """The scores of images, uint8 [n, C, H, W], by id, from features of a small network."""
    model, how = families.new(TINY, 0), dict(timesteps=[100, 600], k=64, loss="square" if method == "d_trak" else "simple")
    ids = pd.Series(sketches.first_of_equal(images, ids), ids)
    prepared = dict(zip(ids, model.prepare(images), strict=True))

    def compute(parts):
        for part in parts:
            found = gradients.features(model, torch.stack([prepared[i] for i in part.tolist()]), part, **how)
            sketches.write(folder, {}, part, found)

    train, queries = sketches.kept(folder, {}, ids, compute), model.initial_noise(range(3))[:, None]
    if method == "journey_trak":
        queries = gradients.journey_features(model, range(3), 4, k=64)
    else:
        queries = gradients.features(model, queries, range(3), of="generated", **how)
    return pd.Series(METHODS[method](train, queries, None), ids.index)


@every
def test_from_images_to_credit_copies_count_the_same_and_no_order_matters(method, tmp_path, one_thread):
    images = np.random.default_rng(0).integers(0, 256, (12, 1, 4, 4), np.uint8)
    images, ids = np.concatenate([images, images[:4]]), np.arange(100, 116)
    owner, order = pd.Series([0] * 4 + [1] * 8 + [2] * 4, ids), np.random.default_rng(1).permutation(16)
    scores = from_images(method, images, ids, tmp_path / "one")
    assert scores.iloc[12:].to_numpy() == pytest.approx(scores.iloc[:4].to_numpy(), rel=1e-9)
    for how in similarity.HOW:
        credit = similarity.aggregate(scores, owner, 3, how)
        assert credit[2] == pytest.approx(credit[0], rel=1e-9) and credit[1] != pytest.approx(credit[0], rel=0.01)
    shuffled = from_images(method, images[order], ids[order], tmp_path / "two")
    np.testing.assert_allclose(shuffled[ids], scores, rtol=0, atol=1e-5 * scores.abs().max())


@every
@shapes
def test_shuffling_the_images_and_the_queries_changes_no_score(method, n, k):
    train, queries = drawn(n, k)
    order = np.random.default_rng(1).permutation(n)
    assert METHODS[method](train[order], queries[::-1], None) == pytest.approx(METHODS[method](train, queries, None)[order])


@every
@shapes
def test_exact_copies_have_the_same_score_and_their_givers_the_same_credit(method, n, k):
    train, queries = drawn(n, k)
    scores = METHODS[method](np.concatenate([train, train[:3]]), queries, None)
    assert scores[-3:] == pytest.approx(scores[:3], rel=1e-9)
    owner = pd.Series([0] * 3 + [1] * (n - 3) + [2] * 3)
    for how in ("sum", "average", "max"):
        credit = similarity.aggregate(pd.Series(scores), owner, 3, how)
        assert credit[2] == pytest.approx(credit[0], rel=1e-9)


@every
def test_images_without_gradient_get_nothing_and_change_nothing_though_the_other_kernel_is_used(method):
    train, queries = drawn(7, 20)
    padded = METHODS[method](np.concatenate([train, np.zeros((20, 20))]), queries, 0.5)
    assert padded[:7] == pytest.approx(METHODS[method](train, queries, 0.5), rel=1e-9)
    assert not padded[7:].any()


@shapes
def test_scores_do_not_depend_on_the_unit_of_the_features(n, k):
    train, queries = drawn(n, k)
    assert influence.trak(1e-4 * train, 1e-4 * queries) == pytest.approx(influence.trak(train, queries), rel=1e-9)


@shapes
def test_the_scale_free_damping_is_a_tenth_of_the_mean_eigenvalue(n, k):
    train, _ = drawn(n, k)
    eigenvalues = np.sort(np.linalg.eigvalsh(train.T @ train))[-min(n, k) :]
    assert influence.scale_free(train) == pytest.approx(0.1 * eigenvalues.mean())
    assert influence.scale_free(train.astype(np.float32), 2) == pytest.approx(2 * eigenvalues.mean(), rel=1e-5)


def test_much_damping_leaves_inner_products():
    train, queries = drawn(7, 20)
    assert 1e12 * influence.trak(train, queries, 1e12) == pytest.approx(train @ queries.mean(0), rel=1e-6)


def test_without_damping_a_training_image_as_query_has_itself_as_its_only_influence():
    train, _ = drawn(7, 20)
    assert influence.trak(train, train[2:3], 1e-9) == pytest.approx(np.eye(7)[2], abs=1e-6)


def test_d_trak_has_the_damping_of_projections_with_entries_of_deviation_1():
    train, queries = drawn(7, 20)
    longer = np.sqrt(20)
    assert influence.d_trak(train, queries) == pytest.approx(influence.trak(longer * train, longer * queries, 0.5), rel=1e-9)


def test_journey_trak_averages_over_steps_and_queries():
    train, queries = drawn(7, 20, n_queries=12)
    steps = queries.reshape(4, 3, 20)
    each = np.mean([influence.trak(train, steps[:, t], 0.5) for t in range(3)], 0)
    assert influence.journey_trak(train, steps, 0.5) == pytest.approx(each, rel=1e-9)
    assert influence.journey_trak(train, steps.mean(1), 0.5) == pytest.approx(each, rel=1e-9)


def test_a_kernel_that_cannot_be_inverted_is_refused():
    train, queries = drawn(7, 20)
    with pytest.raises(ValueError, match="damping=0: the kernel of 8 images is singular"):
        influence.trak(np.concatenate([train, train[:1]]), queries, 0)


@every
def test_features_that_cannot_be_compared_are_refused(method):
    train, queries = drawn(7, 20)
    for bad in (queries[:, :19], queries[:0]):
        with pytest.raises(ValueError, match=r"\[7, 20\] and"):
            METHODS[method](train, bad, None)
    queries[0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        METHODS[method](train, queries, None)
