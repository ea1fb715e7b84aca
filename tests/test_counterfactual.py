"""Counterfactual changes: known answers, and an interval that covers."""

import numpy as np
import pytest
from scipy import stats

from cdlib import store
from cdlib.base.errors import Missing
from cdlib.judge import counterfactual
from cdlib.show import figures


def test_relative_change_is_in_percent_of_the_full_model():
    assert counterfactual.relative_change([4.0, 5.0], [6.0]) == pytest.approx(-25)
    assert counterfactual.relative_change([6.6], [5.0, 7.0]) == pytest.approx(10)


def test_the_same_models_change_nothing():
    assert counterfactual.relative_change([2.0, 3.0], [2.0, 3.0]) == 0


def test_a_fall_of_a_negative_property_is_below_zero():
    assert counterfactual.relative_change([-10.0], [-5.0]) == pytest.approx(-100)
    assert counterfactual.relative_change([-2.5, -2.5], [-4.0, -6.0]) == pytest.approx(50)
    low, high = counterfactual.interval([-11.0, -9.0, -10.0], [-5.0, -5.1])
    assert low < counterfactual.relative_change([-11.0, -9.0, -10.0], [-5.0, -5.1]) < high < 0


@pytest.mark.parametrize("full", [[0.0], [0.0, 0.0], [1e-13], [-1e-13], [-1.0, 1.5], [0.4, -0.2, 0.1]])
def test_a_change_relative_to_nearly_nothing_is_not_defined(full):
    with pytest.raises(Missing, match="within its noise of 0: a relative change is not defined"):
        counterfactual.relative_change([1.0], full)


@pytest.mark.parametrize("full", [[1e-6], [1e-6, 1.1e-6], [0.4, 0.2, 0.1]])
def test_a_small_property_that_stands_out_of_its_noise_has_a_change(full):
    assert counterfactual.relative_change([0.0], full) == pytest.approx(-100)


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


@pytest.fixture
def here(scratch, tiny):
    """A run whose notebook 07 is at work."""
    return store.Run("07_counterfactual", tiny)


def test_a_change_that_is_not_defined_has_no_row_and_is_named(here):
    frame = counterfactual.frame(here, {("LOO", "remove_top_40"): [4.0], ("TRAK", "keep_top_60"): [0.0, 1.0]}, [0.0])
    assert frame.empty and list(frame) == counterfactual.COLUMNS
    assert list(here.left_out) == ["remove_top_40, LOO", "keep_top_60, TRAK"]
    assert "or defined" in figures.counterfactual(frame).missing


def test_the_frame_has_a_row_for_each_method_and_change(here):
    after = {("LOO", "remove_top_40"): [4.0, 5.0], ("LOO", "keep_top_60"): [6.6]}
    frame = counterfactual.frame(here, after, [6.0])
    assert list(frame) == ["method", "property", "change", "percent", "low", "high", "n_seeds"]
    assert frame.change.tolist() == ["remove_top_40", "keep_top_60"]
    assert frame.percent.tolist() == pytest.approx([-25, 10]) and frame.n_seeds.tolist() == [2, 1]
    assert frame.low[0] < -25 < frame.high[0] and np.isnan(frame.low[1])
