"""LDS: equal to scipy's Spearman, with intervals that each say what they are."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cdlib.base.errors import Missing
from cdlib.credit import shapley
from cdlib.data import coalitions
from cdlib.judge import lds

N, B, S = 12, 40, 3


def retrained(noise=0.3, n_subsets=B, n_seeds=S, seed=0):
    """Test coalitions, noisy additive targets, and the values that made them."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=N)
    members = coalitions.datamodel(N, n_subsets, 0.5, seed=1000 * seed)
    return members, (members @ values)[:, None] + noise * rng.normal(size=(n_subsets, n_seeds)), values


def test_predictions_add_up_the_members_credits():
    assert lds.predict([[True, False, True], [False, False, False]], [1.5, 10.0, -0.25]) == pytest.approx([1.25, 0.0])


def test_equal_credits_predict_exactly_equal_sums():
    members = coalitions.datamodel(200, 50, 0.5, seed=0)
    assert len(set(lds.predict(members, np.full(200, 0.1)))) == 1


@pytest.mark.parametrize("ties", [False, True])
def test_spearman_is_scipys(ties):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 30))
    if ties:
        a, b = np.round(a), np.round(b)
    expected = [stats.spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    assert lds.spearman(a, b) == pytest.approx(expected, abs=1e-12)


def test_a_constant_ranks_nothing():
    assert lds.spearman(np.ones(5), np.arange(5)) == 0
    members, targets, _ = retrained()
    assert lds.lds(members, targets, np.full(N, 0.1)) == 0
    assert lds.lds(members, targets, np.zeros(N)) == 0


def test_lds_is_the_mean_of_scipys_spearman_over_seeds():
    members, targets, values = retrained()
    guess = values + np.random.default_rng(1).normal(size=N)
    expected = [stats.spearmanr(members @ guess, targets[:, s]).statistic for s in range(S)]
    assert lds.lds(members, targets, guess) == pytest.approx(100 * np.mean(expected))


def test_perfect_credit_scores_100_and_its_opposite_minus_100():
    members, targets, values = retrained(noise=0)
    assert lds.lds(members, targets, values) == pytest.approx(100)
    assert lds.lds(members, targets, -values) == pytest.approx(-100)


def test_scale_and_a_common_bonus_change_nothing():
    members, targets, values = retrained()
    assert lds.lds(members, targets, 3 * values + 7) == pytest.approx(lds.lds(members, targets, values))


def test_the_ceiling_is_scipys_spearman_between_seeds():
    _, targets, _ = retrained()
    pairs = [stats.spearmanr(targets[:, s], targets[:, t]).statistic for s in range(S) for t in range(S) if s != t]
    assert lds.ceiling(targets) == pytest.approx(100 * np.mean(pairs))
    assert np.isnan(lds.ceiling(targets[:, :1]))
    assert lds.ceiling(targets[:, [0, 0]]) == pytest.approx(100)


def test_the_interval_of_the_paper_and_that_of_t_differ_by_2_69_with_three_seeds():
    problem = retrained()
    scores = [lds.lds(problem[0], problem[1][:, [s]], problem[2]) for s in range(S)]
    low, high = lds.interval_paper(*problem)
    assert [low, high] == pytest.approx(np.mean(scores) + np.array([-1.96, 1.96]) * np.std(scores) / np.sqrt(3))
    assert lds.interval_seeds(*problem) == pytest.approx(stats.t.interval(0.95, 2, np.mean(scores), stats.sem(scores)), abs=1e-9)
    assert np.diff(lds.interval_seeds(*problem)) / (high - low) == pytest.approx(2.69, abs=0.005)


def test_one_seed_has_no_interval_over_seeds():
    members, targets, values = retrained(n_seeds=1)
    assert np.isnan(lds.interval_seeds(members, targets, values)).all()


def test_the_interval_over_subsets_is_the_same_again():
    assert lds.interval_subsets(*retrained()) == lds.interval_subsets(*retrained())


def test_the_interval_over_subsets_resamples_all_seeds_of_a_coalition_together():
    members, targets, values = retrained(n_seeds=1)
    once, thrice = (lds.interval_subsets(members, np.repeat(targets, k, 1), values) for k in (1, 3))
    assert once == pytest.approx(thrice)


def test_the_interval_over_subsets_is_that_of_a_loop():
    members, targets, values = retrained()
    drawn = np.random.default_rng(0).integers(B, size=(200, B))
    scores = [lds.lds(members[rows], targets[rows], values) for rows in drawn]
    expected = np.quantile(scores, [0.025, 0.975])
    assert lds.interval_subsets(members, targets, values, resamples=200) == pytest.approx(expected)


def test_the_interval_over_subsets_covers_at_its_nominal_rate():
    _, _, values = retrained()
    rng, scale = np.random.default_rng(0), np.sqrt(N) / 2

    def problem(n_subsets, seed):
        members = coalitions.datamodel(N, n_subsets, 0.5, seed=10**4 * seed)
        common, noise = rng.normal(size=(n_subsets, 1)), rng.normal(size=(n_subsets, S))
        return members, (members @ values)[:, None] + scale * (common + noise / 3), values

    truth = lds.lds(*problem(8000, 1000))
    inside = [low <= truth <= high for low, high in (lds.interval_subsets(*problem(60, k), resamples=200) for k in range(150))]
    assert 0.88 <= np.mean(inside) <= 0.99


def attributions(**methods):
    frames = [pd.DataFrame({"method": m, "contributor": list("abcdefghijkl"), "value": v}) for m, v in methods.items()]
    return pd.concat(frames).assign(property="inception_score")


def test_judge_joins_contributors_by_label_and_not_by_position():
    members, targets, values = retrained()
    frame = attributions(ours=values, control=np.ones(N)).sample(frac=1, random_state=0)
    judged = lds.judge(frame, list("abcdefghijkl"), members, targets, property="inception_score", alpha=0.5)
    ours = judged[judged.method == "ours"].set_index("interval")
    assert ours.lds_percent.tolist() == pytest.approx([lds.lds(members, targets, values)] * 3)
    assert tuple(ours.loc["subsets", ["low", "high"]]) == lds.interval_subsets(members, targets, values)
    assert tuple(ours.loc["seeds", ["low", "high"]]) == lds.interval_seeds(members, targets, values)
    assert tuple(ours.loc["paper", ["low", "high"]]) == lds.interval_paper(members, targets, values)
    assert (judged.ceiling_percent == lds.ceiling(targets)).all() and (judged.n_coalitions == B).all()
    assert (judged[judged.method == "control"].lds_percent == 0).all()


def test_judge_has_the_columns_of_lds_csv_and_with_one_seed_only_the_interval_over_subsets():
    members, targets, values = retrained(n_seeds=1)
    frame = attributions(ours=values)
    judged = lds.judge(frame, list("abcdefghijkl"), members, targets, property="inception_score", alpha=0.5)
    columns = "method property alpha lds_percent low high interval ceiling_percent n_coalitions"
    assert list(judged) == columns.split()
    assert judged.interval.tolist() == ["subsets"] and judged.ceiling_percent.isna().all()


def test_judge_names_the_method_that_lacks_a_contributor():
    members, targets, values = retrained()
    frame = attributions(ours=values, theirs=values).iloc[:-1]
    with pytest.raises(ValueError, match="^theirs: no value of inception_score"):
        lds.judge(frame, list("abcdefghijkl"), members, targets, property="inception_score", alpha=0.5)


def test_the_curve_scores_growing_prefixes_and_leaves_out_those_too_short():
    members, targets, values = retrained(noise=0.01)
    rows = coalitions.kernel(N, 60, seed=0)

    def estimate(members, utility):
        return shapley.paper(members, utility, 0.0, values.sum())

    curve = lds.curve(estimate, rows, rows @ values, [5, 30, 60], members, targets)
    assert curve.n_coalitions.unique().tolist() == [30, 60]
    assert curve.lds_percent.to_numpy() == pytest.approx(lds.lds(members, targets, values), abs=1e-6)
    assert list(lds.curve(estimate, rows, rows @ values, [5], members, targets)) == list(curve)


def test_a_method_that_lacks_one_credit_has_no_lds_and_the_others_have_theirs():
    members, targets, values = retrained()
    frame = attributions(ours=values, theirs=np.where(np.arange(N) == 4, np.nan, values))
    judged = lds.judge_all(frame, list("abcdefghijkl"), {"inception_score": {0.5: (members, targets)}})
    assert judged[judged.method == "theirs"][["lds_percent", "low", "high"]].isna().all(axis=None)
    assert judged[judged.method == "ours"].lds_percent.to_numpy() == pytest.approx(lds.lds(members, targets, values))


def test_without_test_coalitions_the_tables_have_their_columns_and_no_rows():
    judged = lds.judge_all(attributions(ours=np.ones(N)), list("abcdefghijkl"), {"inception_score": {}})
    assert list(judged) == lds.COLUMNS and judged.empty
    rows = coalitions.kernel(N, 20, seed=0)
    curves = lds.curves([("paper", "retrain", (rows, np.ones(20)))], {"paper": None}, {}, property="inception_score")
    assert curves.columns.tolist() == ["procedure", "estimator", "property", "alpha", *lds.CURVE] and curves.empty


def test_fewer_than_three_test_coalitions_cannot_be_ranked():
    members, targets, _ = retrained()
    assert lds.enough(members[:3], targets[:3])[0].tolist() == members[:3].tolist()
    with pytest.raises(Missing, match="^2 test coalitions are measured, and at least 3 can be ranked"):
        lds.enough(members[:2], targets[:2])


def test_test_coalitions_that_are_all_alike_rank_nothing():
    members, targets, _ = retrained()
    with pytest.raises(Missing, match=f"^all {B} test coalitions have the same property: a rank correlation is not defined"):
        lds.enough(members, np.ones_like(targets))


def test_few_test_coalitions_or_a_perfect_order_of_them_give_no_interval():
    members, targets, values = retrained()
    assert np.isnan(lds.interval_subsets(members[:4], targets[:4], values)).all()
    assert np.isfinite(lds.interval_subsets(members[:5], targets[:5], -np.arange(N))).all()
    assert np.isnan(lds.interval_subsets(members[:6], (members[:6] @ values)[:, None], values)).all()
    assert lds.interval_subsets(members, targets, np.ones(N)) == (0.0, 0.0)  # which ranks no coalitions at all
