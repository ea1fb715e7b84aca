"""Distances of two sets of images by their features: Fréchet distance (FID), kernel distance (KID). Lower is more alike.

|m - m'|^2 + tr(C + C' - 2 (C^1/2 C' C^1/2)^1/2)        Source: Dowson & Landau 1982; Heusel et al. 2017

n  images        D  length of a feature        R  a root of a covariance: C = R' R

The trace of that root is the sum of the singular values of one covariance's root times the other's, so no root of a product of
covariances is taken: it is not symmetric, and where n is smaller than D its root comes out complex, or not at all.
"""

import numpy as np


def fid(features, other) -> float:
    """The distance of the Gaussians with the means and (unbiased) covariances of two sets of features.

    features, other    [n, D] and [n', D], n may be smaller than D

    Of few images it is biased upwards: compare only what is computed from equally many.
    Raises ValueError when they cannot be compared, or are not finite.
    """
    sets = _comparable(features, other)
    means = [values.mean(0) for values in sets]
    roots = [np.linalg.qr(v - m, "r") / np.sqrt(len(v) - 1) for v, m in zip(sets, means, strict=True)]
    return _distance(means[0], roots[0], means[1], roots[1])


def kid(features, other) -> float:
    """The squared maximum mean discrepancy of two sets of features by the kernel (x.y / D + 1)^3, unbiased: may be below zero.

    features, other    [n, D] and [n', D]

    Of all images at once; the usual mean over random blocks estimates the same with more noise.
    Raises ValueError as `fid`. Source: Binkowski et al. 2018, eq. 4.
    """
    x, y = _comparable(features, other)

    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a):
        k = kernel(a, a)
        return (k.sum() - np.trace(k)) / (len(a) * (len(a) - 1))

    return float(within(x) + within(y) - 2 * kernel(x, y).mean())


def _comparable(features, other) -> list[np.ndarray]:
    """Both in double precision. Raises ValueError when they cannot be compared, or are not finite."""
    sets = [np.asarray(values, np.float64) for values in (features, other)]
    shapes = [list(values.shape) for values in sets]
    if any(len(s) != 2 or s[0] < 2 for s in shapes) or shapes[0][1] != shapes[1][1]:
        raise ValueError(f"features {shapes[0]} and {shapes[1]}: must be [n, D], of one D and at least 2 images")
    if not all(np.isfinite(values).all() for values in sets):
        raise ValueError("features that are not finite: no distance")
    return sets


def _distance(mean, root, other_mean, other_root) -> float:
    between = np.linalg.svd(root @ other_root.T, compute_uv=False).sum()
    spread = np.square(root).sum() + np.square(other_root).sum() - 2 * between
    return float(np.square(np.subtract(mean, other_mean, dtype=np.float64)).sum() + max(spread, 0.0))
