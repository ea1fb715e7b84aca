"""Leave-one-out: eq. 11, with the noise of seeds pooled over the models."""

import numpy as np
import pytest
from scipy import stats

from cdlib import loo


def test_credit_is_what_the_property_loses():
    assert loo.loo([6.0, 6.2], [[5.0, 5.2], [6.5, 6.7]]).value == pytest.approx([1.0, -0.5])


def test_with_one_contributor_it_is_students_t_test():
    full, without = [6.0, 6.3, 5.9], [5.0, 5.4]
    credit, expected = loo.loo(full, [without]), stats.ttest_ind(full, without).confidence_interval(0.95)
    assert (credit.low[0], credit.high[0]) == pytest.approx((expected.low, expected.high))


def test_one_seed_of_each_model_has_no_standard_error():
    credit = loo.loo([6.0], [[5.0], [6.5]])
    assert credit.value == pytest.approx([1.0, -0.5])
    assert np.isnan([credit.stderr, credit.low, credit.high]).all()


def test_seeds_of_the_full_model_alone_suffice():
    credit = loo.loo([6.0, 6.2, 5.8], [[5.0], [6.5]])
    assert credit.stderr == pytest.approx(np.full(2, 0.2 * np.sqrt(1 / 3 + 1)))


def test_intervals_cover_at_their_nominal_rate():
    rng, truth = np.random.default_rng(0), np.linspace(-0.5, 1, 8)
    inside = []
    for _ in range(300):
        credit = loo.loo(6 + 0.4 * rng.normal(size=4), 6 - truth[:, None] + 0.4 * rng.normal(size=(8, 2)))
        inside.append((credit.low <= truth) & (truth <= credit.high))
    assert np.mean(inside) == pytest.approx(0.95, abs=0.025)
