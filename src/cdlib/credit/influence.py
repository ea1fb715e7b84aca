"""Influence of training images on generated ones, from features of both (gradients.features).

T  training images        Q  generated images (queries)        k  dimension of the features
Phi [T, k]  features of the training images; phi_j its rows        G = Phi' Phi + lambda I, [k, k]

Each method is f(train, queries, damping) -> float [T]: a score of each training image, averaged over the queries. It is linear
in the queries, so it sees their mean only. The paper sums scores over a contributor's images (similarity.aggregate). One model is
scored: S = 1 in the paper too. Gradient similarity (eq. 12) is `similarity.cosine` of the features.

A damping (lambda) is None for the scale-free one, or a number in the square of the features' unit.
"""

import numpy as np

FACTOR = 0.1
D_TRAK = 0.5


def scale_free(train, factor=FACTOR) -> float:
    """A damping that grows with the features: `factor` times the mean diagonal of the kernel, Phi' Phi or Phi Phi', the smaller.

    That is the mean eigenvalue of G - lambda I, not counting those that are zero because there are few images.
    Source: Grosse et al. 2023, for the factor 0.1.
    """
    train = np.asarray(train)
    return factor * float(np.einsum("jd,jd->", train, train, dtype=float)) / min(train.shape)


def trak(train, queries, damping=None):
    """Phi G^-1 q, averaged over the queries q.

    train    float [T, k]  gradients of L_Simple
    queries  float [Q, k]  of the same

    Returns float [T].
    Source: eq. 13-14 (Park et al. 2023). Differs: traker divides gradients of P parameters by sqrt(P); its lambda is this / P;
    its scores are these, divided by P times the mean absolute entry of G^-1, times the slope of the loss by the model's output.
    """
    train, queries = _checked(train, queries)
    return _influence(train, damping) @ queries.mean(0)


def d_trak(train, queries, damping=None):
    """TRAK with gradients of L_Square in both places.

    train    float [T, k]  gradients of L_Square
    queries  float [Q, k]  of the same
    damping  None: the paper's 0.5, which is for projections with entries N(0, 1); ours keep lengths, so it is 0.5 / k

    Returns float [T].
    Source: eq. 15-16 (Zheng et al. 2023).
    """
    return trak(train, queries, D_TRAK / np.shape(train)[1] if damping is None else damping)


def journey_trak(train, queries, damping=None):
    """TRAK of what is predicted at the steps of each query's generation.

    train    float [T, k]                gradients of L_Simple
    queries  float [Q, k] or [Q, T', k]  gradients of L_Simple^t at T' steps, or their mean (gradients.journey_features)

    Returns float [T].
    Source: eq. 17-18 (Georgiev et al. 2023), as Zheng et al. 2023 do it.
    """
    queries = np.asarray(queries)
    return trak(train, queries.reshape(-1, queries.shape[-1]), damping)


def relative_influence(train, queries, damping=None):
    """TRAK divided by |G^-1 phi_j|.

    train    float [T, k]  gradients of L_Simple
    queries  float [Q, k]  of the same

    Returns float [T]; 0 for a feature of zeros.
    Source: eq. 19-20 (Barshan et al. 2020).
    """
    train, queries = _checked(train, queries)
    influence = _influence(train, damping)
    return _per_length(influence @ queries.mean(0), influence)


def renormalised_influence(train, queries, damping=None):
    """TRAK divided by |phi_j|.

    train    float [T, k]  gradients of L_Simple
    queries  float [Q, k]  of the same

    Returns float [T]; 0 for a feature of zeros.
    Source: eq. 21-22 (Hammoudeh & Lowd 2022).
    """
    train, queries = _checked(train, queries)
    return _per_length(_influence(train, damping) @ queries.mean(0), train)


def _influence(train, damping):
    """Phi G^-1, float [T, k], from the smaller kernel: it is (Phi Phi' + lambda I)^-1 Phi as well (Woodbury's identity).

    Raises ValueError when there is nothing to invert.
    """
    damping = scale_free(train) if damping is None else damping
    few = len(train) < train.shape[1]
    kernel = train @ train.T if few else train.T @ train
    kernel[np.diag_indices_from(kernel)] += damping
    if damping <= 0 and np.linalg.matrix_rank(kernel) < len(kernel):
        raise ValueError(f"damping={damping}: the kernel of {len(train)} images is singular; write a larger one")
    return np.linalg.solve(kernel, train) if few else np.linalg.solve(kernel, train.T).T


def _checked(train, queries):
    """Both as float64. Raises ValueError when they cannot be compared."""
    train, queries = np.asarray(train, float), np.asarray(queries, float)
    if train.ndim != 2 or queries.ndim != 2 or train.shape[1] != queries.shape[1] or not len(queries):
        raise ValueError(f"features {list(train.shape)} and {list(queries.shape)}: must be [T, k] and [Q, k], of one k")
    if not (np.isfinite(train).all() and np.isfinite(queries).all()):
        raise ValueError("features that are not finite: compute them again")
    return train, queries


def _per_length(values, vectors):
    """Values [n, ...] divided by the lengths of vectors [n, d]; 0 where that is 0."""
    length = np.sqrt(np.einsum("id,id->i", vectors, vectors)).reshape(-1, *[1] * (values.ndim - 1))
    return np.divide(values, length, out=np.zeros_like(values), where=length > 0)
