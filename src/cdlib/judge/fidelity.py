"""How well the property of the cheap models stands in for that of retrained ones: correlation, with intervals (eq. 6).

M  coalitions measured both ways
"""

import numpy as np
from scipy import stats


def pearson(retrained, cheap, *, level=0.95):
    """Linear correlation and its interval, by Fisher's z: (r, low, high).

    retrained, cheap   float [M]

    The ends are NaN of fewer than 4 coalitions, and all are where one of the two is constant.
    """
    return _with_interval(_correlation(retrained, cheap), len(retrained), lambda r: 1.0, level)


def spearman(retrained, cheap, *, level=0.95):
    """Rank correlation and its interval, as `pearson`.

    Source: Bonett & Wright 2000 (the variance of z).
    """
    ranks = stats.rankdata(retrained), stats.rankdata(cheap)
    return _with_interval(_correlation(*ranks), len(retrained), lambda r: 1 + r**2 / 2, level)


def said(words, r):
    """The correlation in words with a place for it; "not defined" of a constant."""
    return "not defined" if np.isnan(r) else words.format(r)


def _correlation(a, b):
    a, b = (np.asarray(x, float) - np.mean(x) for x in (a, b))
    scale = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / scale) if scale > 0 else np.nan


def _with_interval(r, n, spread, level):
    if n < 4 or np.isnan(r):
        return r, np.nan, np.nan
    z = np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12))
    reach = stats.norm.ppf((1 + level) / 2) * np.sqrt(spread(r) / (n - 3))
    return r, float(np.tanh(z - reach)), float(np.tanh(z + reach))
