"""Who is in: the coalitions to measure.

Every row is made from (seed, row) alone, so the first rows of a design do not depend on how many are asked for.
Streams are those of `np.random.RandomState`, which numpy keeps unchanged for good.

    M  coalitions        N, n  contributors
"""

from collections import Counter

import numpy as np

from cdlib.base.errors import Refused
from cdlib.base.params import share


def kernel(n, m, seed):
    """Coalitions from the Shapley kernel, the paper's distribution mu (eq. 5).

    n, m   int   contributors, coalitions
    seed   int   row j is drawn with seed + j

    Returns bool [m, n]; sizes are 1..n-1, small and large ones most often; rows may repeat (`repeats`).
    Source: eq. 5; Covert & Lee 2021; the random stream is the released code's, so that its coalitions can be named.
    """
    sizes = np.arange(1, n)
    chance = (n - 1) / (sizes * (n - sizes))
    chance /= chance.sum()
    rows = np.zeros((m, n), bool)
    for row, rng in zip(rows, _streams(range(seed, seed + m)), strict=True):
        row[_drawn(n, rng.choice(sizes, size=1, p=chance)[0], rng)] = True
    return rows


def paired(n, m, seed):
    """Coalitions in complementary pairs, of sizes uniform on 1..n-1.

    Every size is seen equally often, and v(S) - v(not S) cancels what depends on size alike on both sides.
    An estimate of Shapley values from these rows must weigh them by `kernel_weights`.

    Returns bool [m, n]; row 2j + 1 is the complement of row 2j.
    """
    rows = np.zeros((m, n), bool)
    for j, rng in zip(range(0, m, 2), _streams([seed, j] for j in range((m + 1) // 2)), strict=True):
        rows[j, _drawn(n, rng.randint(1, n), rng)] = True
        rows[j + 1 : j + 2] = ~rows[j]
    return rows


def datamodel(n, m, alpha, seed):
    """Coalitions of one size, uniform: those that the LDS is judged on (eq. 10).

    alpha  float  share of contributors that is in, 0 < alpha < 1

    Returns bool [m, n], each row with floor(alpha n) members.
    Raises Refused (a ValueError) when that leaves nobody in, or nobody out.
    """
    size = share(n, alpha) if 0 < alpha < 1 else 0
    if size < 1:
        raise Refused(f"alpha={alpha} with {n} contributors: alpha must lie in (0, 1) and leave 1 to {n - 1} of them in")
    rows = np.zeros((m, n), bool)
    for row, rng in zip(rows, _streams(range(seed, seed + m)), strict=True):
        row[_drawn(n, size, rng)] = True
    return rows


def every(n):
    """All coalitions, bool [2^n, n]: contributor i is in row k when bit i of k is set."""
    return (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(bool)


def everybody(n):
    """The coalition of all, bool [n]."""
    return np.ones(n, bool)


def nobody(n):
    """The empty coalition, bool [n]."""
    return np.zeros(n, bool)


def leave_one_out(n):
    """Everybody but one, bool [n, n]: contributor i is out of row i."""
    return ~np.eye(n, dtype=bool)


def remove_top(values, fraction):
    """Everybody but the floor(n fraction) contributors of highest value, bool [n]; of equals the first goes first."""
    return ~keep_top(values, fraction)


def keep_top(values, fraction):
    """The floor(n fraction) contributors of highest value, bool [n]; of equals the first comes first."""
    values = np.asarray(values, float)
    members = nobody(len(values))
    members[np.argsort(-values, kind="stable")[: share(len(values), fraction)]] = True
    return members


def repeats(members):
    """How often each row was there before, int [M]: 0 at first, then 1, 2, ...; a repeat takes a new seed."""
    seen = Counter()
    times = []
    for key in map(bytes, np.asarray(members, bool)):
        times.append(seen[key])
        seen[key] += 1
    return np.array(times, int)


def clusters(members):
    """An id for each {S, complement of S}, int [M], in order of appearance: rows that share one are not independent."""
    members = np.asarray(members, bool)
    ids = {}
    return np.array([ids.setdefault(bytes(row ^ row[0]), len(ids)) for row in members], int)


def kernel_weights(members):
    """Importance weights mu(S) / q(S), float [M] of mean 1, that make rows of `paired` stand for the Shapley kernel.

    Raises ValueError when a row holds nobody or everybody: the kernel has no such rows.
    """
    members = np.asarray(members, bool)
    size, n = members.sum(1), members.shape[1]
    if np.any((size == 0) | (size == n)):
        raise ValueError("the Shapley kernel has no weight for nobody or everybody: leave these rows out")
    weights = 1 / (size * (n - size))
    return weights / weights.mean() if len(weights) else weights


def _streams(seeds):
    """The stream of each seed, one after the other: seeding again gives the same numbers as a new generator, and sooner."""
    rng = np.random.RandomState(0)
    for seed in seeds:
        rng.seed(seed)
        yield rng


def _drawn(n, size, rng):
    order = np.arange(n)
    rng.shuffle(order)
    return order[:size]
