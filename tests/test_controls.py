"""The control rows: amount of data, and a regression that is not a credit."""

import numpy as np
import pytest

from cdlib.credit import controls, shapley
from cdlib.data import coalitions
from cdlib.judge import lds


def test_number_of_images_is_the_counts():
    assert controls.n_images([56, 3]).tolist() == [56.0, 3.0]


def test_the_ridge_datamodel_finds_the_slopes_of_an_additive_game():
    members, slopes = coalitions.datamodel(10, 200, 0.5, seed=0), np.random.default_rng(0).normal(size=10)
    found = controls.ridge_datamodel(members, 2 + members @ slopes)
    assert found - found.mean() == pytest.approx(slopes - slopes.mean(), abs=1e-2)


def test_the_ridge_datamodel_can_score_higher_than_the_shapley_values_without_being_a_credit():
    slopes = np.random.default_rng(0).uniform(0, 1, 8)

    def game(members):
        """Additive at half size, another order at small sizes."""
        size = members.sum(-1)
        return np.where(size < 4, members @ slopes[::-1], members @ slopes) * (size > 0)

    paired, half = coalitions.paired(8, 400, seed=0), coalitions.datamodel(8, 60, 0.5, seed=1)
    full = game(coalitions.everybody(8))
    credit = shapley.shapley(paired, game(paired), 0.0, full, weights=coalitions.kernel_weights(paired))
    fitted = controls.ridge_datamodel(half[:30], game(half[:30]))
    test, targets = half[30:], game(half[30:])[:, None]
    assert lds.lds(test, targets, fitted) > lds.lds(test, targets, credit) + 10
    assert abs(fitted.sum() - full) > 0.1 * full
