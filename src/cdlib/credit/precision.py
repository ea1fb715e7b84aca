"""How many more coalitions a wished precision of the credits takes, going by those measured so far.

M  coalitions measured        N  contributors        R  bootstrap replicates        k  contributors of highest value

A standard error has two parts, se^2 = ends^2 + rest^2. More coalitions lower the rest, as 1 / sqrt(M); they leave the noise
of v(everybody) and v(nobody), which goes as 1 / sqrt(seeds). Errors are the largest over the contributors, so that what is
told holds for each. Everything here is an estimate: its own error is that of a standard error, and of a gap, squared.
"""

import math

import numpy as np

from cdlib.credit.shapley import Credit

Z = 1.96  # standard errors that two values must be apart to count as told apart


def stderr(credit: Credit) -> float:
    """The largest standard error of a contributor, in the property's own unit; NaN when there are too few coalitions."""
    return float(credit.stderr.max())


def ends(empty, full, n: int) -> float:
    """The part of every standard error that comes from the ends, for the values sum to their difference.

    empty, full    float [seeds]  v of nobody and of everybody; of a single one the noise is not known, and left out as in
                                  `shapley.intervals`
    n              int            contributors

    Returns sqrt(var(empty) / seeds + var(full) / seeds) / N, in the property's own unit.
    """
    return math.sqrt(sum(np.var(end, ddof=1) / len(end) for end in (empty, full) if len(end) > 1)) / n


def more_for_stderr(now: float, ends: float, n_measured: int, wish: float) -> float:
    """How many more coalitions bring the standard error from `now` to `wish`: M (now^2 - ends^2) / (wish^2 - ends^2) - M.

    Returns 0 when it is there already; inf when the noise of the ends alone is larger (then: `more_ends`).
    """
    if now <= wish:
        return 0
    if wish <= ends:
        return math.inf
    return math.ceil(n_measured * ((now**2 - ends**2) / (wish**2 - ends**2) - 1))


def more_ends(ends: float, n_seeds: int, wish: float) -> int:
    """How many more seeds of each end make their noise half of the wished variance: seeds ends^2 / (wish^2 / 2) - seeds.

    n_seeds    that each end has now (the fewer, where they differ)
    """
    return max(math.ceil(n_seeds * (2 * ends**2 / wish**2 - 1)), 0)


def spread(credit: Credit) -> np.ndarray:
    """The bootstrap replicates around the values, each contributor's as wide as its standard error: float [R, N].

    The standard errors are larger than the replicates show, by the degrees of freedom and by what the ridge shrinks away.
    """
    off = credit.again - credit.again.mean(0)
    width = off.std(0, ddof=1)
    return credit.value + off * np.divide(credit.stderr, width, out=np.ones_like(width), where=width > 0)


def top(credit: Credit, k: int) -> np.ndarray:
    """The k contributors of highest value, bool [N]; of equals the first comes first."""
    members = np.zeros(len(credit.value), bool)
    members[np.argsort(-credit.value, kind="stable")[:k]] = True
    return members


def margin(credit: Credit, k: int) -> float:
    """How many standard errors the top k are above the others: the least over all pairs, mostly the k-th and the next.

    The standard error is that of the pair's difference, from the replicates: two credits are not independent. NaN when
    there are too few coalitions.
    """
    inside, again = top(credit, k), spread(credit)
    gap = credit.value[inside][:, None] - credit.value[~inside]
    width = (again[:, inside][:, :, None] - again[:, ~inside][:, None]).std(0, ddof=1)
    return float(np.where(gap > 0, gap / np.maximum(width, np.finfo(float).tiny), 0).min())


def same_top(credit: Credit, k: int) -> float:
    """The share of the replicates whose k contributors of highest value are the same, 0..1."""
    inside, again = top(credit, k), spread(credit)
    return float((again[:, inside].min(1) > again[:, ~inside].max(1)).mean())


def more_for_top(margin: float, n_measured: int, z: float = Z) -> float:
    """How many more coalitions bring the top k z standard errors above the others: M (z / margin)^2 - M.

    Returns 0 when they are already; inf when two are equal.
    """
    if margin >= z:
        return 0
    return math.ceil(n_measured * ((z / margin) ** 2 - 1)) if margin > 0 else math.inf
