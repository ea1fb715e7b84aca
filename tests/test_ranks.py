"""Ranks with confidence: intervals cover the true places of all at once, groups hold nobody who is surely above another."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cdlib.credit import attributions, ranking
from cdlib.data import coalitions
from cdlib.judge import fidelity

N = 12


def covariance(rng, n):
    """Of errors that go together, of unequal size."""
    root = rng.normal(size=(n, n)) + 2 * np.eye(n)
    return root @ root.T / n


def sure_of(pairs, n):
    """bool [n, n] with those (i, j): i is surely credited more than j."""
    sure = np.zeros((n, n), bool)
    for i, j in pairs:
        sure[i, j] = True
    return sure


def covered(true, sure):
    """Whether every true place lies in its interval."""
    low, high = ranking.interval(sure)
    place = ranking.rank(true)
    return bool(np.all((low <= place) & (place <= high)))


def test_of_two_contributors_the_critical_value_is_that_of_t():
    found = ranking.critical(np.diag([1.0, 3.0]), 10, 0.95)
    assert found == pytest.approx(stats.t.ppf(0.975, 10), rel=0.03)


def test_of_equal_variances_the_critical_value_is_tukeys_and_below_bonferronis():
    found = ranking.critical(np.eye(N), 30, 0.95)
    assert found == pytest.approx(stats.studentized_range.ppf(0.95, N, 30) / np.sqrt(2), rel=0.02)
    assert found < stats.t.ppf(1 - 0.025 / (N * (N - 1) / 2), 30)


def test_what_all_errors_have_in_common_changes_no_comparison():
    rng = np.random.default_rng(0)
    value, errors = rng.normal(size=N), covariance(rng, N)
    assert np.array_equal(ranking.above(value, errors, 20), ranking.above(value, errors + 5, 20))


def test_more_confidence_makes_fewer_differences_sure():
    rng = np.random.default_rng(1)
    value, errors = 4 * rng.normal(size=N), covariance(rng, N)
    less, more = (ranking.above(value, errors, 20, confidence) for confidence in (0.8, 0.99))
    assert (more <= less).all() and more.sum() < less.sum()


def test_credits_known_without_error_have_their_own_rank():
    low, high = ranking.interval(ranking.above(np.array([3.0, 1.0, 2.0]), np.zeros((3, 3)), 5))
    assert low.tolist() == high.tolist() == [1, 3, 2]


def test_equal_credits_share_the_better_rank():
    assert ranking.rank(np.array([2.0, 5.0, 2.0, -1.0])).tolist() == [2, 1, 2, 4]


@pytest.mark.parametrize("spread", [0.0, 1.5])
def test_rank_intervals_hold_all_true_ranks_at_the_nominal_rate(spread):
    """True credits so far apart, with errors of variance about 5; 0: all equal, where every sure difference is an error."""
    rng, times, freedom, n = np.random.default_rng(2), 300, 25, 6
    errors, true, hits = covariance(rng, n), spread * np.arange(n), 0
    root = np.linalg.cholesky(errors)
    for _ in range(times):
        judged = errors * rng.chisquare(freedom) / freedom  # the errors' size is not known either
        hits += covered(true, ranking.above(true + root @ rng.standard_normal(n), judged, freedom))
    assert hits / times > 0.95 - 3 * np.sqrt(0.95 * 0.05 / times)
    if spread == 0:
        assert hits / times < 0.95 + 3 * np.sqrt(0.95 * 0.05 / times)  # and no more cautious than that


def test_rank_intervals_from_measured_coalitions_hold_all_true_ranks():
    """The whole way: coalitions of a noisy game, our estimator, its covariance."""
    rng, hits, times, n = np.random.default_rng(3), 0, 30, 6
    for seed in range(times):
        true = rng.normal(size=n)
        members = coalitions.paired(n, 60, seed)
        utility = members @ true + rng.normal(size=60)
        ends = true.sum() + 0.3 * rng.normal(size=4), 0.3 * rng.normal(size=4)
        credit = attributions.of_pairs(members, utility, ends[1], ends[0])
        hits += covered(true, ranking.above(credit.value, credit.covariance, credit.freedom))
    assert hits >= 26  # of 30: with .95, fewer come once in 300 times


@pytest.mark.parametrize(
    ("n", "pairs", "letters"),
    [
        (3, [], ["a", "a", "a"]),
        (3, [(0, 2)], ["a", "a b", "b"]),
        (3, [(0, 1), (0, 2), (1, 2)], ["a", "b", "c"]),
        (4, [(0, 2), (0, 3), (1, 3)], ["a", "a b", "b c", "c"]),
        (4, [(1, 2)], ["a", "a", "b", "b"]),  # the first two cannot be told from the last, but the second and third can
        (1, [], ["a"]),
    ],
)
def test_groups_are_those_known(n, pairs, letters):
    value = -np.arange(n, dtype=float)
    assert [" ".join(found) for found in ranking.groups(value, sure_of(pairs, n))] == letters


def test_after_z_come_two_letters():
    n = 30
    sure = np.triu(np.ones((n, n), bool), 1)
    assert ranking.groups(-np.arange(n), sure)[24:29] == [["y"], ["z"], ["aa"], ["ab"], ["ac"]]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0, 7.0]), min_size=1, max_size=9), st.randoms(use_true_random=False))
def test_nobody_shares_a_group_with_one_surely_above_and_everybody_has_one(value, chance):
    value, n = np.array(value), len(value)
    greater = [(i, j) for i in range(n) for j in range(n) if value[i] > value[j]]
    sure = sure_of([pair for pair in greater if chance.random() < 0.4], n)
    found = ranking.groups(value, sure)
    assert all(found)
    assert not [(i, j) for i, j in zip(*np.nonzero(sure), strict=True) if set(found[i]) & set(found[j])]
    low, high = ranking.interval(sure)
    assert ((low <= ranking.rank(value)) & (ranking.rank(value) <= high)).all()


def test_the_covariance_of_a_credit_has_its_standard_errors_and_keeps_the_sum():
    rng = np.random.default_rng(4)
    members = coalitions.paired(6, 60, 0)
    utility = members @ rng.normal(size=6) + rng.normal(size=60)
    credit = attributions.of_pairs(members, utility, 0.0, 3.0)  # ends without noise: the sum of the credits is known
    assert np.sqrt(np.diag(credit.covariance)) == pytest.approx(credit.stderr)
    assert credit.covariance.sum() == pytest.approx(0, abs=1e-9 * np.trace(credit.covariance))


def test_intervals_of_a_correlation_cover_at_the_nominal_rate():
    rng, times, true = np.random.default_rng(5), 1000, 0.8
    draws = rng.multivariate_normal([0, 0], [[1, true], [true, 1]], (times, 20))
    rank_correlation = 6 / np.pi * np.arcsin(true / 2)  # of two normal variables
    for of, target in ((fidelity.pearson, true), (fidelity.spearman, rank_correlation)):
        found = np.array([of(*pairs.T) for pairs in draws])
        assert 0.92 < ((found[:, 1] <= target) & (target <= found[:, 2])).mean() < 0.98


def test_a_correlation_of_few_or_of_constants_has_no_interval():
    assert fidelity.spearman([1, 2, 3], [1, 3, 2]) == pytest.approx((0.5, np.nan, np.nan), nan_ok=True)
    assert np.isnan(fidelity.pearson([1, 2, 3, 4, 5], [1, 1, 1, 1, 1])).all()
