"""FID: known distances of Gaussians, an independent formula, and fewer images than dimensions."""

import numpy as np
import pytest
from scipy import linalg

from cdlib.measure.frechet import fid, kid

rng = np.random.default_rng(0)


def features(n, d, seed=0, shift=0.0):
    """Correlated features that are not normal."""
    draw = np.random.default_rng(seed)
    return draw.gamma(2, 1, (n, d)) @ draw.normal(size=(d, d)) / np.sqrt(d) + shift


def by_the_product(a, b):
    """The distance by the root of the product of both covariances, as FID is usually computed."""
    means, covariances = zip(*((x.mean(0), np.cov(x, rowvar=False)) for x in (a, b)), strict=True)
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    return np.square(means[0] - means[1]).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)


@pytest.mark.parametrize(("n", "d"), [(500, 64), (20, 64), (2, 5)])
def test_a_set_has_no_distance_to_itself(n, d):
    one = features(n, d)
    assert 0 <= fid(one, one) < 1e-12 * np.square(one - one.mean(0)).sum()
    assert fid(one, one[::-1]) < 1e-10 * np.square(one - one.mean(0)).sum()


def gaussian(mean, variances, axes, n=4000):
    """Features whose mean, and covariance (variances along axes), are these exactly."""
    drawn = np.random.default_rng(5).normal(size=(n, len(mean)))
    root = np.linalg.cholesky(np.linalg.inv(np.cov(drawn, rowvar=False)))
    return (drawn - drawn.mean(0)) @ root * np.sqrt(variances) @ axes.T + mean


def test_gaussians_with_commuting_covariances_have_the_closed_form():
    axes = linalg.qr(rng.normal(size=(6, 6)))[0]
    variance, other = rng.uniform(0.1, 4, (2, 6))
    mean, far = rng.normal(size=(2, 6))
    expected = np.square(mean - far).sum() + np.square(np.sqrt(variance) - np.sqrt(other)).sum()
    assert fid(gaussian(mean, variance, axes), gaussian(far, other, axes)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("n", "other", "d"), [(400, 400, 32), (300, 700, 48), (2000, 1500, 100)])
def test_it_agrees_with_the_root_of_the_product(n, other, d):
    a, b = features(n, d), features(other, d, seed=1, shift=0.3)
    assert fid(a, b) == pytest.approx(by_the_product(a, b), rel=1e-6)


def test_two_images_each_have_the_closed_form_of_two_segments():
    a, b = rng.normal(size=(2, 2, 30))
    u, v = np.diff(a, axis=0)[0] / np.sqrt(2), np.diff(b, axis=0)[0] / np.sqrt(2)
    expected = np.square(a.mean(0) - b.mean(0)).sum() + u @ u + v @ v - 2 * abs(u @ v)
    assert fid(a, b) == pytest.approx(expected, rel=1e-12)


def test_fewer_images_than_dimensions_are_as_far_apart_as_in_the_space_that_they_span():
    a, b = features(12, 8), features(10, 8, seed=1)
    axes = linalg.qr(rng.normal(size=(100, 100)))[0][:8]
    assert fid(a @ axes, b @ axes) == pytest.approx(by_the_product(a, b), rel=1e-9)


def test_the_order_of_the_sets_and_a_common_move_change_nothing():
    a, b = features(50, 16), features(70, 16, seed=1)
    axes = linalg.qr(rng.normal(size=(16, 16)))[0]
    assert fid(b, a) == pytest.approx(fid(a, b), rel=1e-12)
    assert fid(a @ axes + 5, b @ axes + 5) == pytest.approx(fid(a, b), rel=1e-10)


def test_half_precision_is_only_how_features_are_kept():
    a, b = features(80, 16).astype(np.float16), features(80, 16, seed=1).astype(np.float16)
    assert fid(a, b) == fid(a.astype(np.float64), b.astype(np.float64))


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (np.zeros((5, 3)), np.zeros((5, 4)), "of one D"),
        (np.zeros((1, 3)), np.zeros((5, 3)), "at least 2 images"),
        (np.zeros(5), np.zeros(5), "must be"),
        (np.full((5, 3), np.nan), np.zeros((5, 3)), "not finite"),
    ],
)
def test_what_cannot_be_compared_is_refused(one, other, said):
    with pytest.raises(ValueError, match=said):
        fid(one, other)


def test_kernel_distance_is_that_of_brute_force():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(7, 4)), rng.normal(0.5, 1, (9, 4))

    def kernel(a, b):
        return (a @ b / 4 + 1) ** 3

    within = [np.mean([kernel(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j]) for s in (x, y)]
    assert kid(x, y) == pytest.approx(sum(within) - 2 * np.mean([kernel(a, b) for a in x for b in y]))


def test_kernel_distance_of_like_sets_is_zero_on_average_whatever_their_size():
    rng = np.random.default_rng(4)
    for n in (10, 40):
        found = [kid(rng.normal(size=(n, 3)), rng.normal(size=(n, 3))) for _ in range(300)]
        assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(300)
        assert min(found) < 0
