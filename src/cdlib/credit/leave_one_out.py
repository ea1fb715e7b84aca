"""Leave-one-out: what the property loses when one contributor's data go.

N  contributors        S, S'  seeds
"""

import numpy as np
from scipy import stats

from cdlib.credit.shapley import Credit


def by_contributor(members, targets):
    """v(everybody but i) for each contributor i, whatever the order of the rows: float [N, S].

    members  bool  [K, N]  who was in; each contributor is out once at most
    targets  float [K, S]

    NaN for a contributor who is never out: that model was not measured.
    Raises ValueError when a row leaves out another number than one, or two rows leave out the same one.
    """
    members, targets = np.asarray(members, bool), np.asarray(targets, float)
    out = (~members).argmax(1)
    if len(set(out)) != len(out) or not (members.sum(1) == members.shape[1] - 1).all():
        raise ValueError(f"{len(out)} coalitions leave out {len(set(out))} contributors: each must leave out one, another one")
    found = np.full((members.shape[1], targets.shape[1]), np.nan)
    found[out] = targets
    return found


def loo(full, without, *, level=0.95):
    """Leave-one-out credit of each contributor, with intervals from replicate seeds.

    full     float [S]      property of the full model, one for each seed
    without  float [N, S']  property of the model retrained without contributor i; NaN where that is not measured

    The noise of a seed is taken to be alike for all these models, so it is pooled over them: a few seeds suffice.

    Returns Credit, with NaN for all but the value when no model has two seeds, and for the value too of a contributor
    without any.
    Source: eq. 11.
    """
    full, without = np.asarray(full, float), np.asarray(without, float)
    there = ~np.isnan(without)
    n_seeds = np.where(there.any(1), there.sum(1), np.nan)
    means = np.where(there, without, 0).sum(1) / n_seeds
    value = full.mean() - means
    freedom = full.size - 1 + there.sum() - there.any(1).sum()
    if freedom == 0:
        unknown = np.full(len(value), np.nan)
        return Credit(value, unknown, unknown, unknown)
    squares = full.var() * full.size + ((without - means[:, None])[there] ** 2).sum()
    stderr = np.sqrt(squares / freedom * (1 / full.size + 1 / n_seeds))
    reach = stats.t.ppf((1 + level) / 2, freedom) * stderr
    return Credit(value, stderr, value - reach, value + reach)
