"""Leave-one-out: eq. 11, with the noise of seeds pooled over the models."""

import numpy as np
import pytest
from scipy import stats

from cdlib.credit import leave_one_out


def test_credit_is_what_the_property_loses():
    assert leave_one_out.loo([6.0, 6.2], [[5.0, 5.2], [6.5, 6.7]]).value == pytest.approx([1.0, -0.5])


def test_with_one_contributor_it_is_students_t_test():
    full, without = [6.0, 6.3, 5.9], [5.0, 5.4]
    credit, expected = leave_one_out.loo(full, [without]), stats.ttest_ind(full, without).confidence_interval(0.95)
    assert (credit.low[0], credit.high[0]) == pytest.approx((expected.low, expected.high))


def test_one_seed_of_each_model_has_no_standard_error():
    credit = leave_one_out.loo([6.0], [[5.0], [6.5]])
    assert credit.value == pytest.approx([1.0, -0.5])
    assert np.isnan([credit.stderr, credit.low, credit.high]).all()


def test_seeds_of_the_full_model_alone_suffice():
    credit = leave_one_out.loo([6.0, 6.2, 5.8], [[5.0], [6.5]])
    assert credit.stderr == pytest.approx(np.full(2, 0.2 * np.sqrt(1 / 3 + 1)))


def test_intervals_cover_at_their_nominal_rate():
    rng, truth = np.random.default_rng(0), np.linspace(-0.5, 1, 8)
    inside = []
    for _ in range(300):
        credit = leave_one_out.loo(6 + 0.4 * rng.normal(size=4), 6 - truth[:, None] + 0.4 * rng.normal(size=(8, 2)))
        inside.append((credit.low <= truth) & (truth <= credit.high))
    assert np.mean(inside) == pytest.approx(0.95, abs=0.025)


def test_a_contributor_whose_model_is_missing_has_no_credit_and_the_others_keep_theirs():
    members, targets = np.delete(~np.eye(4, dtype=bool), 2, 0), [[5.0, 5.2], [6.0, 6.2], [4.0, np.nan]]
    without = leave_one_out.by_contributor(members, targets)
    assert np.isnan(without[2]).all()
    credit = leave_one_out.loo([6.0, 6.2], without)
    assert credit.value == pytest.approx([1.0, 0.0, np.nan, 2.1], nan_ok=True)
    noise = np.sqrt(3 * 0.02 / 3)  # three models with two seeds, 0.2 apart
    assert credit.stderr == pytest.approx(noise * np.sqrt([1, 1, np.nan, 1.5]), nan_ok=True)


@pytest.mark.parametrize("members", [np.ones((1, 4), bool), np.repeat(~np.eye(4, dtype=bool)[:1], 2, 0)])
def test_coalitions_that_do_not_leave_out_one_each_are_refused(members):
    with pytest.raises(ValueError, match="each must leave out one, another one"):
        leave_one_out.by_contributor(members, np.zeros((len(members), 1)))
