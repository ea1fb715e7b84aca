"""Shapley values: equal to enumeration, exact on additive games, and with intervals that cover."""

from itertools import combinations
from math import comb

import numpy as np
import pytest

from cdlib.credit import attributions, shapley
from cdlib.data import coalitions


def all_coalitions(n):
    """Every coalition but nobody and everybody, with its probability under the Shapley kernel."""
    members = np.array([np.isin(range(n), s) for k in range(1, n) for s in combinations(range(n), k)])
    size = members.sum(1)
    return members, 1 / (np.array([comb(n, k) for k in size]) * size * (n - size))


def enumerated(game, n):
    """Shapley values by their definition (eq. 4)."""
    values = np.zeros(n)
    for i in range(n):
        others = [j for j in range(n) if j != i]
        for k in range(n):
            for s in combinations(others, k):
                without = np.isin(range(n), s)
                gain = game(without | np.isin(range(n), i)) - game(without)
                values[i] += gain / comb(n - 1, k) / n
    return values


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_value_of_a_game_that_is_known_whole_is_its_definition(n):
    v = np.random.default_rng(n).normal(size=2**n)
    defined = enumerated(lambda members: v[members @ 2 ** np.arange(n)], n)
    np.testing.assert_allclose(shapley.enumerated(v), defined, atol=1e-12)


def test_the_game_of_notebook_04_credits_who_shares_a_digit_with_half_of_it():
    members = coalitions.every(4)
    digits = members[:, 0] + 1.0 * (members[:, 1] | members[:, 2])
    np.testing.assert_allclose(shapley.enumerated(digits), [1, 0.5, 0.5, 0], atol=1e-12)
    some = members[1:-1], digits[1:-1], digits[0], digits[-1]
    weights = coalitions.kernel_weights(members[1:-1])
    np.testing.assert_allclose(shapley.shapley(*some, weights=weights, ridge=0, controls=0), [1, 0.5, 0.5, 0], atol=1e-9)


def additive(n, seed=0):
    values = np.random.default_rng(seed).exponential(size=n) / n
    return lambda members: members @ values, values


def saturating(n, seed=0):
    """v(S) = 1 - prod (1 - a_i); its values are an integral over the share of the others that is in."""
    a = np.random.default_rng(seed).uniform(0, 4 / n, n)
    nodes, weights = np.polynomial.legendre.leggauss(n)
    absent = 1 - np.outer((nodes + 1) / 2, a)
    values = weights / 2 @ (absent.prod(1, keepdims=True) / absent * a)
    return lambda members: 1 - np.where(members, 1 - a, 1).prod(-1), values


def measured(game, members, noise, seed, n_ends=5):
    """Utilities with noise, and replicates of v of nobody and of everybody."""
    rng, n = np.random.default_rng(seed), members.shape[1]
    ends = [game(end) + noise * rng.normal(size=n_ends) for end in (coalitions.nobody(n), coalitions.everybody(n))]
    return game(members) + noise * rng.normal(size=len(members)), *ends


def ours(members):
    return {"weights": coalitions.kernel_weights(members)}


def uneven(members):
    """A game with interactions of every order."""
    return np.sqrt(members @ np.arange(1, members.shape[-1] + 1)) + members[..., 0] * members[..., 3]


@pytest.mark.parametrize("game", [additive(5)[0], saturating(5)[0], uneven])
def test_all_coalitions_weighted_by_the_kernel_give_the_enumerated_values(game):
    members, kernel = all_coalitions(5)
    full = game(coalitions.everybody(5))
    for controls in (0, 4):
        values = shapley.shapley(members, game(members), 0.0, full, weights=kernel, ridge=0, controls=controls)
        assert values == pytest.approx(enumerated(game, 5), abs=1e-10)


@pytest.mark.parametrize("game", [additive(5)[0], saturating(5)[0], uneven])
def test_the_papers_estimator_on_many_kernel_draws_gives_the_enumerated_values(game):
    members, kernel = all_coalitions(5)
    many = np.repeat(members, np.rint(600 * kernel).astype(int), axis=0)
    values = shapley.paper(many, game(many), 0.0, game(coalitions.everybody(5)))
    assert values == pytest.approx(enumerated(game, 5), abs=1e-10)


def test_the_saturating_game_has_the_values_used_here():
    game, values = saturating(6)
    assert values == pytest.approx(enumerated(game, 6), abs=1e-12)


def test_without_ridge_controls_and_weights_it_is_the_papers():
    members = coalitions.kernel(10, 60, seed=0)
    problem = members, uneven(members), 0.3, 4.0
    assert shapley.shapley(*problem, ridge=0, controls=0) == pytest.approx(shapley.paper(*problem), abs=1e-10)


def test_the_papers_closed_form_is_eq_7_of_covert_and_lee():
    members = coalitions.kernel(6, 80, seed=0)
    x, v, empty, full = members.astype(float), uneven(members), 0.3, 4.0
    inverse, b, one = np.linalg.inv(x.T @ x / 80), x.T @ (v - empty) / 80, np.ones(6)
    expected = inverse @ (b - one * (one @ inverse @ b - full + empty) / (one @ inverse @ one))
    assert shapley.paper(members, v, empty, full) == pytest.approx(expected, abs=1e-10)


def test_additive_games_are_recovered_exactly():
    game, values = additive(12)
    drawn, paired = coalitions.kernel(12, 60, seed=1), coalitions.paired(12, 60, seed=1)
    full = values.sum() + 2
    assert shapley.paper(drawn, game(drawn) + 2, 2.0, full) == pytest.approx(values, abs=1e-10)
    assert shapley.shapley(paired, game(paired) + 2, 2.0, full, ridge=0) == pytest.approx(values, abs=1e-10)
    assert shapley.shapley(paired, game(paired) + 2, 2.0, full, **ours(paired)) == pytest.approx(values, abs=1e-6)


@pytest.mark.parametrize("ridge", [0, 0.5, "cv"])
def test_values_sum_to_full_minus_empty(ridge):
    members = coalitions.paired(9, 60, seed=2)
    utility = np.random.default_rng(0).normal(size=60)
    assert shapley.shapley(members, utility, 1.5, 7.25, ridge=ridge, **ours(members)).sum() == pytest.approx(5.75)
    assert shapley.paper(members, utility, 1.5, 7.25).sum() == pytest.approx(5.75)


def test_too_few_independent_coalitions_are_counted():
    pairs = np.concatenate([np.eye(8, dtype=bool)[:5], ~np.eye(8, dtype=bool)[:5], np.eye(8, dtype=bool)[:5]])
    for estimate in (shapley.paper, lambda *rows: shapley.shapley(*rows, ridge=0, controls=0)):
        with pytest.raises(ValueError, match="15 coalitions cannot tell 8 contributors apart: measure at least 2 more"):
            estimate(pairs, pairs.sum(1) / 8, 0.0, 1.0)
        enough = np.concatenate([pairs, np.eye(8, dtype=bool)[5:7]])
        assert estimate(enough, enough.sum(1) / 8, 0.0, 1.0) == pytest.approx(np.full(8, 1 / 8))


def test_with_ridge_fewer_pairs_than_contributors_still_give_values_and_intervals():
    game, values = additive(20)
    members = coalitions.paired(20, 32, seed=0)
    with pytest.raises(ValueError, match="more independent"):
        shapley.shapley(members, game(members), 0.0, values.sum(), ridge=0)
    credit = shapley.intervals(members, *measured(game, members, 0.1, seed=0), **ours(members))
    assert np.isfinite([credit.value, credit.stderr]).all()
    assert np.mean((credit.low <= values) & (values <= credit.high)) >= 0.8


def test_a_ridge_cannot_be_chosen_from_one_coalition():
    with pytest.raises(ValueError, match="at least 2 independent coalitions"):
        shapley.ridge_strength(coalitions.paired(6, 2, seed=0), [0.2, 0.8], 0.0, 1.0)


def test_an_interpolating_fit_has_no_standard_error():
    members = np.eye(6, dtype=bool)[:5]
    credit = shapley.intervals(members, np.arange(5.0), 0.0, 10.0, ridge=0, controls=0)
    assert np.isfinite(credit.value).all()
    assert np.isnan([credit.stderr, credit.low, credit.high]).all()


@pytest.mark.parametrize("curve", [lambda u: u**2, lambda u: u * (2 - u), lambda u: u**3 - u + 1])
def test_games_of_size_alone_give_the_equal_split(curve):
    members = coalitions.kernel(15, 40, seed=4)
    empty, full = curve(0.0), curve(1.0)
    for ridge in (0, "cv"):
        values = shapley.shapley(members, curve(members.mean(1)), empty, full, ridge=ridge)
        assert values == pytest.approx(np.full(15, (full - empty) / 15), abs=1e-9)


def test_a_strong_ridge_gives_the_equal_split():
    members = coalitions.paired(8, 40, seed=0)
    assert shapley.shapley(members, uneven(members), 0.0, 4.0, ridge=1e9) == pytest.approx(np.full(8, 0.5), abs=1e-6)


def test_more_noise_chooses_a_stronger_ridge():
    game, values = additive(12)
    members = coalitions.paired(12, 120, seed=0)
    noise = np.random.default_rng(0).normal(size=120)
    strengths = [
        shapley.ridge_strength(members, game(members) + sd * noise, 0.0, values.sum(), **ours(members)) for sd in (0.0, 0.05, 1.0)
    ]
    assert strengths[0] == shapley.RIDGES[0] and strengths[0] < strengths[1] < strengths[2]


def test_a_contributor_who_adds_nothing_gets_0_within_the_interval():
    n, hits = 10, []
    game, _ = saturating(n - 1)
    for seed in range(40):
        members = coalitions.paired(n, 80, seed)
        noisy = measured(lambda rows: game(rows[..., :-1]), members, 0.03, seed)
        credit = shapley.intervals(members, *noisy, resamples=100, **ours(members))
        hits.append(credit.low[-1] <= 0 <= credit.high[-1])
        assert credit.value[-1] < credit.value.mean()
    assert np.mean(hits) >= 0.85


def test_controls_and_pairs_beat_the_papers_design_on_a_saturating_noisy_game():
    game, values = saturating(20)
    squares = []
    for seed in range(20):
        drawn, paired = coalitions.kernel(20, 160, 1000 * seed), coalitions.paired(20, 160, seed)
        v, empty, full = measured(game, drawn, 0.02, seed)
        theirs = shapley.paper(drawn, v, empty.mean(), full.mean())
        v, empty, full = measured(game, paired, 0.02, seed)
        squares.append([theirs - values, shapley.shapley(paired, v, empty.mean(), full.mean(), **ours(paired)) - values])
    error = np.sqrt(np.square(squares).mean((0, 2)))
    assert error[1] < 0.5 * error[0]


@pytest.mark.parametrize("n, n_rows, noise", [(8, 40, 0.1), (12, 100, 0.05), (20, 60, 0.1)])
@pytest.mark.parametrize("kind", [additive, saturating])
@pytest.mark.parametrize("estimator", ["paper", "no ridge", "ridge"])
def test_intervals_cover_at_their_nominal_rate(estimator, kind, n, n_rows, noise):
    inside = []
    for seed in range(30):
        game, values = kind(n, seed)
        if estimator == "paper":
            members = coalitions.kernel(n, n_rows, 1000 * seed)
            settings = {"ridge": 0, "controls": 0}
        else:
            members = coalitions.paired(n, n_rows, seed)
            settings = {"ridge": 0 if estimator == "no ridge" else "cv", **ours(members)}
        credit = shapley.intervals(members, *measured(game, members, noise, seed), resamples=100, **settings)
        inside.append((credit.low <= values) & (values <= credit.high))
    assert 0.88 <= np.mean(inside) <= 0.995


def test_the_noise_of_nobody_and_everybody_enters_every_interval():
    game, values = additive(10)
    members = coalitions.paired(10, 400, seed=0)
    v, full = game(members), values.sum()
    quiet = shapley.intervals(members, v, 0.0, full, ridge=0, resamples=50)
    assert quiet.stderr == pytest.approx(np.zeros(10), abs=1e-10)
    for ends in ([-0.1, 0.0, 0.1], [full]), ([0.0], [full - 0.1, full, full + 0.1]):
        noisy = shapley.intervals(members, v, *ends, ridge=0, resamples=1000)
        assert noisy.stderr == pytest.approx(np.full(10, 0.1 / np.sqrt(3) / 10), rel=0.2)


def test_copied_rows_add_no_certainty():
    game, _ = additive(8)
    members = coalitions.paired(8, 40, seed=0)
    v, empty, full = measured(game, members, 0.05, seed=0)
    copied, copies = np.tile(members, (2, 1)), np.tile(v, 2)
    once = shapley.intervals(members, v, empty, full, ridge=0)
    twice = shapley.intervals(copied, copies, empty, full, ridge=0)
    assert twice.value == pytest.approx(once.value) and twice.stderr == pytest.approx(once.stderr)
    strengths = [shapley.ridge_strength(*rows, 0.0, 1.0) for rows in ((members, v), (copied, copies))]
    assert strengths[0] == strengths[1]


def test_a_weight_of_k_is_k_rows():
    members, weights = coalitions.kernel(8, 40, seed=0), np.arange(40) % 3 + 1
    v = uneven(members) + np.random.default_rng(0).normal(size=40)
    for ridge in (0, 0.5, "cv"):
        weighted = shapley.shapley(members, v, 0.0, 6.0, weights=weights, ridge=ridge)
        rows = np.repeat(np.arange(40), weights)
        assert shapley.shapley(members[rows], v[rows], 0.0, 6.0, ridge=ridge) == pytest.approx(weighted)


def test_intervals_are_the_same_for_the_same_seed():
    members = coalitions.paired(8, 40, seed=0)
    v = uneven(members) + np.random.default_rng(0).normal(size=40)
    first, again, other = (shapley.intervals(members, v, 0.0, 6.0, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.stderr, again.stderr) and (first.stderr != other.stderr).any()
    assert np.array_equal(first.value, other.value)


def test_intervals_are_around_the_estimators_values():
    members = coalitions.kernel(8, 60, seed=0)
    v = uneven(members) + np.random.default_rng(0).normal(size=60)
    theirs = shapley.intervals(members, v, [0.0, 0.2], [6.0, 6.4], ridge=0, controls=0)
    assert theirs.value == pytest.approx(shapley.paper(members, v, 0.1, 6.2))
    best = shapley.intervals(members, v, [0.0, 0.2], [6.0, 6.4])
    assert best.value == pytest.approx(shapley.shapley(members, v, 0.1, 6.2))
    assert best.ridge == shapley.ridge_strength(members, v, 0.1, 6.2)


def test_permuting_contributors_permutes_values():
    members = coalitions.paired(9, 60, seed=0)
    v = uneven(members) + np.random.default_rng(0).normal(size=60)
    order = np.random.default_rng(1).permutation(9)
    for estimate in (shapley.paper, shapley.shapley):
        values = estimate(members, v, 0.0, 6.0)
        assert estimate(members[:, order], v, 0.0, 6.0) == pytest.approx(values[order], abs=1e-9)
    credit = shapley.intervals(members, v, 0.0, 6.0)
    assert shapley.intervals(members[:, order], v, 0.0, 6.0).stderr == pytest.approx(credit.stderr[order])


def test_the_order_of_rows_changes_no_value_of_the_papers():
    members = coalitions.kernel(9, 60, seed=0)
    order = np.random.default_rng(1).permutation(60)
    values = shapley.paper(members, uneven(members), 0.0, 6.0)
    assert shapley.paper(members[order], uneven(members)[order], 0.0, 6.0) == pytest.approx(values)


def test_with_half_of_the_coalitions_the_standard_errors_are_larger():
    n, rng, widths = 10, np.random.default_rng(0), []
    for trial in range(12):
        truth, members = rng.normal(size=n), coalitions.paired(n, 80, seed=1000 * trial)
        utility, ends = members @ truth + 0.5 * rng.normal(size=80), (np.zeros(2), np.full(2, truth.sum()))
        credits = [attributions.of_pairs(members[:m], utility[:m], *ends) for m in (40, 80)]
        widths.append([credit.stderr.mean() for credit in credits])
    half, all_of_them = np.mean(widths, axis=0)
    assert half > np.sqrt(2) * all_of_them  # and more, for half of them spare fewer degrees of freedom


def test_coalitions_that_the_size_controls_take_up_are_too_few_and_not_a_credit():
    members = coalitions.paired(12, 40, seed=0)
    for rows in (slice(0, 0), slice(0, 2), slice(0, 4), slice(0, 8, 2)):
        with pytest.raises(shapley.TooFewCoalitions):
            attributions.of_pairs(members[rows], members[rows].sum(1).astype(float), 0.0, 12.0)


def test_without_their_complements_coalitions_spare_fewer_degrees_of_freedom():
    rng, n = np.random.default_rng(0), 8
    members = coalitions.paired(n, 60, seed=0)
    utility = members @ rng.normal(size=n) + 0.3 * rng.normal(size=60)
    assert np.isfinite(attributions.of_pairs(members[:24], utility[:24], 0.0, 1.0).stderr).all()
    singles = members[:22:2]
    credit = shapley.intervals(singles, utility[:22:2], 0.0, 1.0, weights=coalitions.kernel_weights(singles), ridge=1e-8)
    assert np.isnan(credit.stderr).all()  # 11 coalitions less 7 differences and 4 controls
