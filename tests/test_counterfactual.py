"""Counterfactual changes: known answers, and an interval that covers."""

import numpy as np
import pytest
from scipy import stats

from cdlib import counterfactual


def test_relative_change_is_in_percent_of_the_full_model():
    assert counterfactual.relative_change([4.0, 5.0], [6.0]) == pytest.approx(-25)
    assert counterfactual.relative_change([6.6], [5.0, 7.0]) == pytest.approx(10)


def test_the_same_models_change_nothing():
    assert counterfactual.relative_change([2.0, 3.0], [2.0, 3.0]) == 0


def test_a_property_of_0_is_refused():
    with pytest.raises(ValueError, match="is 0"):
        counterfactual.relative_change([1.0], [0.0])


def test_with_one_full_model_the_interval_is_that_of_t():
    after = np.array([4.0, 4.5, 5.2])
    expected = stats.t.interval(0.95, 2, after.mean(), stats.sem(after))
    assert counterfactual.interval(after, [5.0]) == pytest.approx([100 * (end / 5 - 1) for end in expected])


def test_one_seed_has_no_interval():
    assert np.isnan(counterfactual.interval([4.0], [5.0, 5.1])).all()


def test_seeds_that_agree_have_an_interval_of_no_width():
    assert counterfactual.interval([4.0, 4.0], [5.0, 5.0]) == pytest.approx((-20, -20))


def test_the_interval_covers_at_its_nominal_rate():
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(1000):
        low, high = counterfactual.interval(5 + 0.3 * rng.normal(size=3), 6 + 0.3 * rng.normal(size=5))
        inside.append(low <= -100 / 6 <= high)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.025)


def test_the_frame_has_a_row_for_each_method_and_change():
    after = {("LOO", "remove_top_40"): [4.0, 5.0], ("LOO", "keep_top_60"): [6.6]}
    frame = counterfactual.frame(after, [6.0], property="inception_score")
    assert list(frame) == ["method", "property", "change", "percent", "low", "high", "n_seeds"]
    assert frame.change.tolist() == ["remove_top_40", "keep_top_60"]
    assert frame.percent.tolist() == pytest.approx([-25, 10]) and frame.n_seeds.tolist() == [2, 1]
    assert frame.low[0] < -25 < frame.high[0] and np.isnan(frame.low[1])
