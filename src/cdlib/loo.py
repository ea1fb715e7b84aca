"""Leave-one-out: what the property loses when one contributor's data go.

N  contributors        S, S'  seeds
"""

import numpy as np
from scipy import stats

from cdlib.shapley import Credit


def by_contributor(members, targets):
    """v(everybody but i) for each contributor i, whatever the order of the rows: float [N, S].

    members  bool  [N, N]  who was in; each contributor is out once
    targets  float [N, S]

    Raises ValueError when a contributor is never out, or more than once.
    """
    members = np.asarray(members, bool)
    out = (~members).argmax(1)
    if len(out) != members.shape[1] or len(set(out)) != len(out) or not (members.sum(1) == members.shape[1] - 1).all():
        raise ValueError(f"{len(set(out))} of {members.shape[1]} contributors were left out, each must be, once")
    return np.asarray(targets, float)[np.argsort(out)]


def loo(full, without, *, level=0.95):
    """Leave-one-out credit of each contributor, with intervals from replicate seeds.

    full     float [S]      property of the full model, one for each seed
    without  float [N, S']  property of the model retrained without contributor i

    The noise of a seed is taken to be alike for all these models, so it is pooled over them: a few seeds suffice.

    Returns Credit, with NaN for all but the value when no model has two seeds.
    Source: eq. 11.
    """
    full, without = np.asarray(full, float), np.asarray(without, float)
    value = full.mean() - without.mean(1)
    freedom = full.size - 1 + without.size - len(without)
    if freedom == 0:
        unknown = np.full(len(value), np.nan)
        return Credit(value, unknown, unknown, unknown)
    squares = full.var() * full.size + (without.var(1) * without.shape[1]).sum()
    noise = squares / freedom * (1 / full.size + 1 / without.shape[1])
    stderr = np.full(len(value), np.sqrt(noise))
    reach = stats.t.ppf((1 + level) / 2, freedom) * stderr
    return Credit(value, stderr, value - reach, value + reach)
