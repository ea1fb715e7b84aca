"""Who is surely credited more than whom, and what that leaves open of everybody's rank.

All statements about one ranking hold at once: the confidence is that not one of them is wrong.

    N  contributors, of whom a greater credit ranks first
"""

import numpy as np

DRAWS = 10_000
AT_ONCE = 2_000_000  # numbers held at a time


def critical(covariance, freedom, confidence, seed=0):
    """How many standard errors a difference between two credits takes, so that all N (N - 1) / 2 can be judged at once.

    covariance   float [N, N]  of the credits' errors
    freedom      float         degrees of freedom it was judged with
    confidence   float         that no difference of nothing but noise is taken for a true one

    Returns float: the quantile of the largest |t| of all pairs. As the pairs share contributors, it is smaller than
    Bonferroni's or Holm's first step, which would hold for any dependence.
    Source: Hothorn, Bretz & Westfall 2008 (max-t); Tukey 1953 for equal variances.
    """
    n, rng = len(covariance), np.random.default_rng(seed)
    jitter = 1e-10 * (np.trace(covariance) / n or 1.0) * np.eye(n)  # credits that sum to a known value have a singular one
    root, unit = np.linalg.cholesky(covariance + jitter), _stderr(covariance)
    largest = np.zeros(DRAWS)
    for start in range(0, DRAWS, step := max(1, AT_ONCE // n**2)):
        size = min(step, DRAWS - start)
        errors = rng.standard_normal((size, n)) @ root.T / np.sqrt(rng.chisquare(freedom, (size, 1)) / freedom)
        apart = np.abs(errors[:, :, None] - errors[:, None])
        largest[start : start + size] = np.divide(apart, unit, out=np.zeros_like(apart), where=unit > 0).max((1, 2))
    return float(np.quantile(largest, confidence))


def above(value, covariance, freedom, confidence=0.95):
    """Whether i is surely credited more than j, bool [N, N].

    value   float [N]; the other arguments are those of `critical`
    """
    apart = np.subtract.outer(value, value)
    return apart > critical(covariance, freedom, confidence) * _stderr(covariance)


def rank(value):
    """Place of each, int [N]: 1 for the greatest credit; equals share the better place."""
    return 1 + np.less.outer(value, value).sum(1)


def interval(sure):
    """Lowest and highest place that each may truly have, (int [N], int [N]): all hold at once.

    sure   bool [N, N], of `above`
    Source: Mogstad, Romano, Shaikh & Wilhelm 2024, section 3.
    Differs: their bootstrap is replaced by t with the bootstrap's covariance, and pairs are judged in one step.
    """
    return 1 + sure.sum(0), len(sure) - sure.sum(1)


def groups(value, sure):
    """The groups that each is in, [N] lists of letters: those who share one cannot be told apart.

    A group is a longest stretch of the ranking in which nobody is surely credited more than another. Two who share no
    group differ surely, or there is a sure difference on the way from the one to the other.
    Source: Piepho 2004 (letters), for stretches of the ranking.
    """
    order = np.argsort(-np.asarray(value), kind="stable")
    sure, stretches = sure[np.ix_(order, order)], []
    for first in range(len(order)):
        end = first + 1
        while end < len(order) and not sure[first:end, end].any():
            end += 1
        if not stretches or end > stretches[-1].stop:
            stretches.append(slice(first, end))
    found = [[] for _ in order]
    for number, stretch in enumerate(stretches):
        for i in order[stretch]:
            found[i].append(_letter(number))
    return found


def _stderr(covariance):
    """Standard errors of the differences, float [N, N]."""
    variance = np.diag(covariance)
    return np.sqrt(np.maximum(np.add.outer(variance, variance) - 2 * covariance, 0))


def _letter(number):
    """a, b, ..., z, aa, ab, ..."""
    return (_letter(number // 26 - 1) if number >= 26 else "") + chr(ord("a") + number % 26)
