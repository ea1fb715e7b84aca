"""What a wished precision takes: the number that is foretold is about the number that it takes."""

import math

import numpy as np
import pytest

from cdlib.credit import attributions, precision
from cdlib.credit.shapley import Credit
from cdlib.data import coalitions

N, NOISE, N_ENDS = 6, 0.4, 5
WORTH = np.array([1.5, 1.1, 0.8, 0.3, 0.2, 0.1])


def game(m, seed, estimator="ours", noise=NOISE, ends_noise=0.0):
    """m coalitions of an additive game with noise: who was in, their values, and v of nobody and of everybody."""
    rng = np.random.default_rng(seed)
    members = (coalitions.paired if estimator == "ours" else coalitions.kernel)(N, m, 1000 * seed)
    ends = (end + ends_noise * rng.normal(size=N_ENDS) for end in (0.0, WORTH.sum()))
    return members, members @ WORTH + noise * rng.normal(size=m), *ends


def credit(m, seed, estimator="ours", **noise):
    """Their credit."""
    return attributions.ESTIMATORS[estimator](*game(m, seed, estimator, **noise), resamples=200)


def values(m, seed, estimator="ours", **noise):
    """The same without intervals: float [N]."""
    members, utility, empty, full = game(m, seed, estimator, **noise)
    return attributions.points(empty, full)[estimator](members, utility)


def of(value, stderr, again):
    return Credit(np.array(value, float), np.array(stderr, float), None, None, again=np.array(again, float))


@pytest.mark.parametrize("estimator", ["ours", "paper"])
def test_with_the_coalitions_foretold_the_values_scatter_by_the_wished_standard_error(estimator):
    m, wish = 120, 0.03
    now = [precision.stderr(credit(m, seed, estimator)) for seed in range(20)]
    foretold = m + np.array([precision.more_for_stderr(one, 0.0, m, wish) for one in now])
    scatter = np.std([values(int(np.median(foretold)), seed, estimator) for seed in range(100, 200)], axis=0, ddof=1)
    assert scatter.max() == pytest.approx(wish, rel=0.3)
    assert np.all(foretold < 3 * np.median(foretold)) and np.all(foretold > np.median(foretold) / 3)


def test_with_the_coalitions_foretold_the_top_is_the_right_one_nearly_always():
    m, noise = 60, 0.8
    now = [precision.margin(credit(m, seed, noise=noise), 3) for seed in range(20)]
    foretold = m + int(np.median([precision.more_for_top(one, m) for one in now]))
    assert foretold > 1.5 * m
    right = [set(np.argsort(-values(foretold, seed, noise=noise))[:3]) == {0, 1, 2} for seed in range(100, 200)]
    assert np.mean(right) > 0.9
    found = [credit(foretold, seed, noise=noise) for seed in range(200, 220)]
    assert np.median([precision.margin(one, 3) for one in found]) == pytest.approx(precision.Z, rel=0.4)
    assert np.median([precision.same_top(one, 3) for one in found]) > 0.85


def test_noise_of_the_ends_is_foretold_as_what_coalitions_leave():
    noises = {"noise": 0.0, "ends_noise": 0.5}
    scatter = np.std([values(1000, seed, **noises) for seed in range(100)], axis=0, ddof=1)
    foretold = np.mean([precision.ends(*game(2, seed, **noises)[2:], N) ** 2 for seed in range(100)]) ** 0.5
    assert scatter == pytest.approx(np.full(N, foretold), rel=0.25)


def test_the_ends_part_is_the_error_of_the_difference_of_their_means_shared_by_all():
    assert precision.ends([1.0, 3.0], [7.0, 7.0, 7.0, 7.0], 4) == pytest.approx(math.sqrt(2 / 2) / 4)
    assert precision.ends([1.0], [7.0], 4) == 0


def test_a_wish_that_is_met_takes_no_more():
    assert precision.more_for_stderr(0.1, 0.0, 50, 0.1) == precision.more_for_stderr(0.1, 0.0, 50, 0.3) == 0
    assert precision.more_for_top(1.96, 50) == precision.more_for_top(7.0, 50) == precision.more_for_top(math.inf, 50) == 0


def test_half_the_standard_error_takes_four_times_the_coalitions():
    assert precision.more_for_stderr(0.2, 0.0, 50, 0.1) == 150
    assert precision.more_for_top(0.98, 50) == 150


def test_a_smaller_wish_more_noise_and_noisier_ends_take_more():
    wishes = [precision.more_for_stderr(0.2, 0.01, 50, wish) for wish in (0.3, 0.2, 0.15, 0.1, 0.05, 0.02, 0.01)]
    assert wishes == sorted(wishes) and wishes[:2] == [0, 0] and len(set(wishes)) == 6 and wishes[-1] == math.inf
    noises = [precision.more_for_stderr(now, 0.01, 50, 0.1) for now in (0.1, 0.12, 0.2, 0.4)]
    assert noises == sorted(set(noises))
    ends = [precision.more_for_stderr(0.2, noise, 50, 0.1) for noise in (0.0, 0.02, 0.05, 0.09)]
    assert ends == sorted(set(ends))
    margins = [precision.more_for_top(margin, 50) for margin in (2.0, 1.0, 0.5, 0.1, 0.0)]
    assert margins == sorted(set(margins)) and margins[-1] == math.inf


def test_a_wish_below_the_noise_of_the_ends_takes_more_seeds_until_half_of_it_is_theirs():
    ends, seeds, wish = 0.05, 4, 0.02
    assert precision.more_for_stderr(0.2, ends, 50, wish) == math.inf
    all_seeds = seeds + precision.more_ends(ends, seeds, wish)
    left = [ends * math.sqrt(seeds / n) for n in (all_seeds, all_seeds - 1)]
    assert left[0] <= wish / math.sqrt(2) < left[1]
    assert precision.more_ends(0.01, seeds, wish) == 0


def test_replicates_are_spread_by_the_standard_errors_and_stay_around_the_values():
    again = np.random.default_rng(0).normal([1.0, 5.0, 2.0], [0.1, 0.2, 0.0], (500, 3))
    found = precision.spread(of([1, 4, 2], [0.3, 0.3, 0.0], again))
    assert found.std(0, ddof=1) == pytest.approx([0.3, 0.3, 0.0])
    assert found.mean(0) == pytest.approx([1, 4, 2])


def test_values_that_err_together_are_told_apart_sooner():
    rng = np.random.default_rng(0)
    common, own = rng.normal(size=(2000, 1)), rng.normal(size=(2000, 2))
    together, apart = common + 0.1 * own, own
    stderr = [together.std(0, ddof=1), apart.std(0, ddof=1)]
    margins = [precision.margin(of([1, 0], s, a), 1) for s, a in zip(stderr, (together, apart), strict=True)]
    assert margins == pytest.approx([1 / (0.1 * math.sqrt(2)), 1 / math.sqrt(2)], rel=0.05)


def test_the_pair_that_is_hardest_to_tell_apart_decides():
    again = np.random.default_rng(0).normal(size=(4000, 4)) * [1, 0.1, 0.1, 1]
    found = of([4, 3, 1, 0.5], again.std(0, ddof=1), again)
    assert precision.margin(found, 2) == pytest.approx(min(2 / math.hypot(0.1, 0.1), 2.5 / math.hypot(0.1, 1)), rel=0.05)


def test_the_share_of_the_same_top_is_counted():
    again = np.array([[3, 2, 0], [3, 0, 2], [3, 2, 0], [3, 2, 0]])
    found = of([3, 1.5, 0.5], np.std(again, 0, ddof=1), again)
    assert (precision.same_top(found, 1), precision.same_top(found, 2)) == (1, 0.75)


def test_equal_values_are_never_told_apart():
    again = np.random.default_rng(0).normal(size=(50, 3))
    found = of([2, 1, 1], again.std(0, ddof=1), again)
    assert precision.margin(found, 2) == 0 and precision.more_for_top(precision.margin(found, 2), 50) == math.inf


def test_values_without_noise_are_told_apart():
    assert precision.margin(of([2, 1], [0, 0], np.tile([2.0, 1.0], (9, 1))), 1) > precision.Z
