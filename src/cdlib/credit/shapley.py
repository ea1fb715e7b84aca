"""Shapley values from measured coalitions.

Reads arrays, returns arrays: nothing here trains, samples or draws images.

    M  coalitions measured        N  contributors        R  replicate measurements
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from cdlib.base.errors import Missing
from cdlib.data import coalitions

RIDGES = np.geomspace(1e-8, 2, 40)  # stronger ones shrink so much that no interval around what is left would cover
FOLDS = 10


class TooFewCoalitions(Missing):
    """The rows cannot tell the contributors apart."""


@dataclass(frozen=True)
class Credit:
    """Credit of each contributor, with its uncertainty.

    value      float [N]  in the property's own unit
    stderr     float [N]  standard error; NaN where nothing is left to judge it by
    low, high  float [N]  ends of the interval
    ridge      float      strength of the ridge that was used
    covariance float [N, N]  of the errors, by which contributors are compared (module ranking); None where nothing tells it
    freedom    float      degrees of freedom that it was judged with
    again      float [R, N]  bootstrap replicates of the value, as drawn: `stderr` adds what they miss; None where there are none
    """

    value: np.ndarray
    stderr: np.ndarray
    low: np.ndarray
    high: np.ndarray
    ridge: float = 0.0
    covariance: np.ndarray | None = None
    freedom: float = np.nan
    again: np.ndarray | None = None


def enumerated(utility):
    """Shapley value of each contributor when v of every coalition is known.

    utility   float [2^N]   v(S), in the order of `coalitions.every`

    Returns float [N].
    Source: eq. 4.
    """
    utility = np.asarray(utility, float)
    n, rows = len(utility).bit_length() - 1, np.arange(len(utility))
    weight = 1 / (n * special.binom(n - 1, np.minimum(coalitions.every(n).sum(1), n - 1)))
    without = [rows[rows >> i & 1 == 0] for i in range(n)]
    return np.array([weight[out] @ (utility[out | 1 << i] - utility[out]) for i, out in enumerate(without)])


def paper(members, utility, empty, full):
    """Shapley value of each contributor: the closed form of eq. 5, with the sampled A = X'X / M.

    The rows must be drawn from the Shapley kernel (`coalitions.kernel`), so all weigh the same.

    members      bool  [M, N]  who was in each coalition
    utility      float [M]     v(S), in the property's own unit
    empty, full  float         v of nobody and of everybody, same unit

    Returns float [N], which sums to full - empty.
    Raises TooFewCoalitions (a ValueError), saying how many more it takes, when the rows cannot tell the contributors
    apart.
    Source: Covert & Lee 2021, eq. 7.
    """
    x, utility = np.asarray(members, float), np.asarray(utility, float)
    m, n = x.shape
    _require_rank(x - x.mean(1, keepdims=True))
    system = np.block([[x.T @ x / m, np.ones((n, 1))], [np.ones((1, n)), np.zeros((1, 1))]])
    return np.linalg.solve(system, np.append(x.T @ (utility - empty) / m, full - empty))[:n]


def shapley(members, utility, empty, full, *, weights=None, ridge="cv", controls=4):
    """Shapley value of each contributor, by weighted constrained least squares with size control variates and ridge.

    The rows, times their weights, must stand for the Shapley kernel: rows of `coalitions.kernel` as they are, rows of
    `coalitions.paired` with `coalitions.kernel_weights`.

    members      bool  [M, N]     who was in each coalition
    utility      float [M]        v(S), in the property's own unit
    empty, full  float            v of nobody and of everybody, same unit
    weights      float [M]        of the rows; None: all alike
    ridge        "cv" or float    shrinks towards the equal split: r leaves about 1 / (1 + r) of the differences between
                                  contributors; "cv" is `ridge_strength`
    controls     int              number of size controls u (1 - u) (2u - 1)^k, k = 0, 1, ..., with u = |S| / N: games
                                  of |S| alone that are 0 for nobody and everybody, so they credit nobody. They take up
                                  how the property grows with the amount of data, and move no Shapley value

    Returns float [N], which sums to full - empty. With ridge=0, controls=0 and no weights it is `paper`.
    Raises TooFewCoalitions (a ValueError) when ridge is 0 and the rows cannot tell the contributors apart, or when the size
    controls leave nothing of them.
    """
    n = np.shape(members)[1]
    weights = _given(weights, members)
    if ridge == "cv":
        ridge = ridge_strength(members, utility, empty, full, weights=weights, controls=controls)
    x, y = _free(members, utility, empty, full, weights, controls)
    if ridge == 0:
        _require_rank(x)
    return (full - empty) / n + _differences(*_moments(x, y, weights), ridge)


def ridge_strength(members, utility, empty, full, *, weights=None, controls=4):
    """Strength of the ridge that best predicts coalitions left out: of `RIDGES`, by 10-fold cross-validation.

    Arguments are those of `shapley`. Complements and repeats of a coalition are left out together, and the size controls
    are fitted without them: otherwise a few rows would predict those left out perfectly.

    Returns float.
    Raises TooFewCoalitions (a ValueError) when there are not two independent coalitions, or with one part of them left out
    the size controls leave nothing of the others.
    """
    weights = _given(weights, members)
    cluster = coalitions.clusters(members)
    if len(set(cluster)) < 2:
        raise TooFewCoalitions("choosing the ridge takes at least 2 independent coalitions")
    error = np.zeros(len(RIDGES))
    for fold in range(min(FOLDS, cluster.max() + 1)):
        out = cluster % FOLDS == fold
        kept = np.where(out, 0, weights)
        x, y = _free(members, utility, empty, full, kept, controls)
        fitted = _differences(*_moments(x, y, kept), RIDGES)
        error += weights[out] @ (y[out, None] - x[out] @ fitted.T) ** 2
    return float(RIDGES[error.argmin()])


def intervals(members, utility, empty, full, *, weights=None, ridge="cv", controls=4, resamples=500, seed=0, level=0.95):
    """Shapley values with standard errors and intervals, by bootstrap over coalitions.

    `intervals(..., ridge=0, controls=0)` is for `paper`; the other arguments are those of `shapley`, but

    empty, full  float or float [R]  replicate measurements: their means are used, their noise enters the intervals
                                     (that of a single one is unknown, and left out)
    resamples    int                 number of resamples
    level        float               nominal coverage

    Complements and repeats of a coalition are resampled together, by random weights of mean 1 (no resample loses
    rank), with the ridge chosen once, on all rows. With C independent coalitions and d degrees of freedom fitted, the
    variance is enlarged by C / (C - d), and t has C - d. Of the size controls half count in d where every coalition has its
    complement, for the odd ones alone tell these apart, and all where one lacks it. What the ridge may have shrunk away is
    added to the variance, taking the true differences to be as large as this strength is best for: shrunk values alone look
    too certain.

    Returns Credit, with NaN for all but the value and the ridge when C - d < 1: too few rows to judge their own noise.
    Raises TooFewCoalitions as `shapley`.
    Source: Rubin 1981 (weights); Nychka 1988 (intervals around shrunk estimates cover on average over contributors).
    """
    empty, full = np.atleast_1d(empty), np.atleast_1d(full)
    weights, cluster = _given(weights, members), coalitions.clusters(members)
    problem = (members, utility, empty.mean(), full.mean())
    if ridge == "cv":
        ridge = ridge_strength(*problem, weights=weights, controls=controls)
    value = shapley(*problem, weights=weights, ridge=ridge, controls=controls)
    n, n_clusters = len(value), cluster.max() + 1
    kept, shrunk_away = _shrinkage(*_free(*problem, weights, controls), weights, ridge)
    spare = n_clusters - np.trace(kept) - (controls // 2 if _in_pairs(members) else controls)
    if spare < 1:
        unknown = np.full(n, np.nan)
        return Credit(value, unknown, unknown, unknown, ridge)

    rng = np.random.default_rng(seed)
    again, sums = np.empty((resamples, n)), _sums(members, utility, controls)
    for row in again:
        ends = _mean_again(empty, rng), _mean_again(full, rng)
        chance = weights * rng.standard_exponential(n_clusters)[cluster]
        row[:] = (ends[1] - ends[0]) / n + _differences(*sums(chance / chance.sum(), *ends), ridge)
    covariance = (np.cov(again.T) + shrunk_away) * n_clusters / spare
    stderr = np.sqrt(np.diag(covariance))
    reach = special.stdtrit(spare, (1 + level) / 2) * stderr  # quantile of t
    return Credit(value, stderr, value - reach, value + reach, ridge, covariance, float(spare), again)


def _in_pairs(members):
    rows = {bytes(row) for row in np.asarray(members, bool)}
    return all(bytes(~row) in rows for row in np.asarray(members, bool))


def _given(weights, members):
    return np.ones(len(members)) if weights is None else np.asarray(weights, float)


def _free(members, utility, empty, full, weights, controls):
    """Membership float [M, N] and outcome float [M] once the constraint and the size controls are taken out of both.

    Values that sum to full - empty are the equal split plus differences that sum to 0: those see only 1_S - |S| / N.
    """
    x = np.asarray(members, float)
    u = x.mean(1, keepdims=True)
    y = np.asarray(utility, float)[:, None] - empty - u * (full - empty)
    columns = np.hstack([x - u, y])
    if controls:
        h = _size_controls(u, controls)
        root = np.sqrt(weights)[:, None]
        before = np.linalg.norm(root * columns[:, :-1])
        columns = columns - h @ np.linalg.lstsq(root * h, root * columns, rcond=1e-10)[0]
        if np.linalg.norm(root * columns[:, :-1]) <= 1e-6 * before:  # what is left is rounding
            raise TooFewCoalitions(f"{(weights > 0).sum()} coalitions are no more than {controls} size controls take up")
    return columns[:, :-1], columns[:, -1]


def _size_controls(u, controls):
    return u * (1 - u) * (2 * u - 1) ** np.arange(controls)


def _sums(members, utility, controls):
    """`_moments` of `_free`, as a function (share, empty, full) of the rows' shares, float [M] of sum 1, and the ends.

    Products of the columns are all that it sums, so many resamples of the same rows take little time.
    """
    x = np.asarray(members, float)
    u = x.mean(1, keepdims=True)
    outcome = np.asarray(utility, float)[:, None], np.ones_like(u), u
    columns = np.ascontiguousarray(np.hstack([_size_controls(u, controls), x - u, *outcome]).T)

    def sums(share, empty, full):
        products = (columns * share) @ columns.T
        h, free = products[:controls, :controls], products[controls:, controls:]
        mixed = products[:controls, controls:]
        free = free - mixed.T @ np.linalg.pinv(h, rcond=1e-12, hermitian=True) @ mixed
        return free[:-3, :-3], free[:-3, -3:] @ np.array([1, -empty, empty - full])

    return sums


def _moments(x, y, weights):
    share = x.T * (weights / weights.sum())
    return share @ x, share @ y


def _differences(gram, moment, ridge):
    """Differences from the equal split, float [..., N], which sum to 0; one row for each ridge [...]."""
    return np.linalg.solve(_penalised(gram, ridge), moment[:, None])[..., 0]


def _penalised(gram, ridge):
    """gram + ridge in units of its mean eigenvalue, float [..., N, N]; 1 / N fills the direction that x never takes."""
    n = len(gram)
    unit = np.trace(gram) / (n - 1)
    return gram + unit * (np.multiply.outer(ridge, np.eye(n)) + 1 / n)


def _shrinkage(x, y, weights, ridge):
    """What the ridge keeps of the differences, and the covariance of what it shrinks away, float [N, N] each.

    A ridge is best when the differences between contributors have variance noise / (rows x ridge); that is assumed of
    them here. The noise is the mean squared residual, with no degrees of freedom taken off yet.
    """
    gram, moment = _moments(x, y, weights)
    kept = np.linalg.solve(_penalised(gram, ridge), gram)
    if ridge == 0:
        return kept, np.zeros((len(gram), len(gram)))
    n = len(gram)
    noise = np.average((y - x @ _differences(gram, moment, ridge)) ** 2, weights=weights)
    n_rows = weights.sum() ** 2 / (weights**2).sum()
    spread = noise / (n_rows * ridge * np.trace(gram) / (n - 1))
    lost = np.eye(n) - 1 / n - kept
    return kept, spread * lost @ lost.T


def _mean_again(replicates, rng):
    """A resampled mean of replicates: of one fewer than there are, which makes its variance unbiased."""
    return rng.choice(replicates, max(len(replicates) - 1, 1)).mean()


def _require_rank(x):
    missing = x.shape[1] - 1 - (np.linalg.matrix_rank(x) if len(x) else 0)
    if missing > 0:
        raise TooFewCoalitions(
            f"{len(x)} coalitions cannot tell {x.shape[1]} contributors apart: "
            f"measure at least {missing} more independent ones (complements and repeats add none)"
        )
