"""Coalitions: the released code's draws, the designs' promises, and what is known about repeats and complements."""

import numpy as np
import pytest

from cdlib.data import coalitions

KERNEL_20 = [
    {1, 4, 6, 8, 10, 11, 12, 13, 14, 15, 16, 19},
    {3, 10, 13, 15, 16, 18, 19},
    {0, 3, 6, 10, 12, 14, 15, 19},
    {1, 2, 4, 5, 6, 7, 12, 13, 15, 17, 18, 19},
]
DATAMODEL_20 = [{1, 2, 4, 6, 8, 10, 13, 17, 18, 19}, {1, 2, 3, 4, 6, 7, 10, 14, 16, 17}]


def who(row):
    return set(np.flatnonzero(row))


def test_kernel_draws_the_coalitions_of_the_released_code():
    assert [who(row) for row in coalitions.kernel(20, 4, seed=0)] == KERNEL_20
    assert who(coalitions.kernel(50, 1, seed=1)[0]) == {2, 3, 10, 19, 21, 24, 30, 31, 32, 33, 38, 40, 42, 44, 45, 48}
    assert coalitions.kernel(258, 8, seed=0).sum(1).tolist() == [166, 69, 81, 168, 257, 8, 256, 1]


def test_datamodel_draws_the_coalitions_of_the_released_code():
    assert [who(row) for row in coalitions.datamodel(20, 2, 0.5, seed=0)] == DATAMODEL_20


@pytest.mark.parametrize("n, sizes", [(20, [5, 10, 15]), (50, [12, 25, 37]), (258, [64, 129, 193])])
def test_datamodel_sizes_are_those_of_the_paper(n, sizes):
    assert [coalitions.datamodel(n, 3, alpha, 0).sum(1).tolist() for alpha in (0.25, 0.5, 0.75)] == [[size] * 3 for size in sizes]


@pytest.mark.parametrize("alpha", [-0.5, 0, 1, 1.5, 0.04, float("nan")])
def test_datamodel_refuses_alpha_that_leaves_nobody_in_or_out(alpha):
    with pytest.raises(ValueError, match=r"alpha must lie in \(0, 1\)"):
        coalitions.datamodel(20, 3, alpha, seed=0)


@pytest.mark.parametrize("design", [coalitions.kernel, coalitions.paired])
def test_the_first_rows_do_not_depend_on_how_many_are_drawn(design):
    assert np.array_equal(design(12, 31, seed=5)[:7], design(12, 7, seed=5))


@pytest.mark.parametrize("design", [coalitions.kernel, coalitions.paired])
def test_another_seed_draws_other_coalitions(design):
    assert (design(20, 10, seed=0) != design(20, 10, seed=1000)).any()


@pytest.mark.parametrize("design", [coalitions.kernel, coalitions.paired])
def test_no_design_draws_nobody_or_everybody(design):
    assert set(design(4, 300, seed=0).sum(1)) == {1, 2, 3}


def test_paired_rows_are_complements():
    members = coalitions.paired(9, 50, seed=3)
    assert np.array_equal(members[1::2], ~members[::2])


def test_paired_sizes_are_uniform():
    counts = np.bincount(coalitions.paired(11, 6000, seed=0).sum(1), minlength=12)[1:11]
    assert np.abs(counts - 600).max() < 4 * np.sqrt(2 * 600)


def test_kernel_weights_turn_paired_sizes_into_kernel_sizes():
    paired = coalitions.paired(11, 6000, seed=0)
    weights = coalitions.kernel_weights(paired)
    assert weights.mean() == pytest.approx(1)
    size = np.arange(1, 11)
    kernel = 1 / (size * (11 - size))
    shares = np.bincount(paired.sum(1), weights)[1:] / len(paired)
    assert shares == pytest.approx(kernel / kernel.sum(), abs=0.02)


def test_kernel_weights_refuse_nobody_and_everybody():
    for row in (coalitions.nobody(5), coalitions.everybody(5)):
        with pytest.raises(ValueError, match="nobody or everybody"):
            coalitions.kernel_weights(np.stack([np.eye(5, dtype=bool)[0], row]))


def test_each_contributor_is_left_out_once():
    assert coalitions.leave_one_out(6).sum(1).tolist() == [5] * 6
    assert who(coalitions.leave_one_out(4)[1]) == {0, 2, 3}


def test_everybody_holds_all_and_nobody_none():
    assert coalitions.everybody(3).tolist() == [True] * 3 and coalitions.nobody(3).tolist() == [False] * 3


def test_remove_top_removes_the_highest_and_keep_top_keeps_them():
    values = [0.1, 5.0, -2.0, 3.0, 1.0]
    assert who(coalitions.remove_top(values, 0.4)) == {0, 2, 4}
    assert who(coalitions.keep_top(values, 0.6)) == {1, 3, 4}


@pytest.mark.parametrize("n, fraction, kept", [(20, 0.6, 12), (100, 0.29, 29), (258, 0.4, 103), (7, 0.5, 3), (5, 0, 0)])
def test_a_fraction_is_rounded_down_whatever_its_float_error(n, fraction, kept):
    assert coalitions.keep_top(np.arange(n), fraction).sum() == kept


def test_equal_values_go_by_index():
    assert who(coalitions.keep_top(np.zeros(10), 0.3)) == {0, 1, 2}
    assert who(coalitions.remove_top(np.zeros(10), 0.3)) == set(range(3, 10))


def test_repeats_count_earlier_appearances():
    a, b = np.eye(3, dtype=bool)[:2]
    assert coalitions.repeats(np.stack([a, b, a, ~a, a, b])).tolist() == [0, 0, 1, 0, 2, 1]


def test_a_coalition_its_repeats_and_its_complement_are_one_cluster():
    a, b = np.eye(3, dtype=bool)[:2]
    assert coalitions.clusters(np.stack([b, a, ~b, b, ~a])).tolist() == [0, 1, 0, 0, 1]
