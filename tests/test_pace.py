"""The rate at which coalitions are measured: what workers do is told from when records were written."""

import pytest

from cdlib.cli import pace

NOW = 1e9


def staggered(workers, seconds, n, end=NOW):
    """When each of n coalitions was written, by workers that never rest and end one after the other, and its seconds."""
    return [(end - i * seconds / workers, seconds) for i in range(n)]


@pytest.mark.parametrize(("workers", "seconds", "n"), [(1, 10, 200), (2, 10, 400), (8, 7200, 4), (16, 1000, 300)])
def test_as_many_are_under_way_at_once_as_there_are_workers(workers, seconds, n):
    found = pace.present(staggered(workers, seconds, n), NOW)
    assert found.at_once == pytest.approx(workers, rel=0.1)
    assert found.per_hour == pytest.approx(3600 / seconds * workers, rel=0.1)


def test_a_run_that_has_ended_was_no_slower():
    at_work, ended = (pace.present(staggered(2, 10, 60, NOW - ago), NOW) for ago in (0, 1800))
    assert ended.n == at_work.n == 60
    assert ended.at_once == pytest.approx(at_work.at_once, rel=0.05)


def test_other_work_in_between_makes_it_no_slower():
    found = pace.present(staggered(2, 10, 60, NOW - 1800) + staggered(2, 10, 60), NOW)
    assert found.n == 120 and found.at_once == pytest.approx(2, rel=0.1)
    assert found.seconds == pytest.approx(2 * 300, rel=0.1)


def test_what_is_older_than_an_hour_or_of_a_clock_ahead_does_not_count():
    assert pace.present([(NOW - 3600, 10), (NOW + 1, 10)], NOW) is None
    assert pace.present([(NOW - 3599, 10), (NOW + 1, 10)], NOW).n == 1


def test_what_was_copied_here_says_nothing_of_the_rate():
    copied = [(NOW - 60, 10.0)] * 100
    assert pace.present(copied, NOW, workers=2) is None
    assert pace.present(copied, NOW).n == 100


def test_the_time_left_is_that_of_the_missing_by_their_procedures_shared_by_those_at_once():
    each = pace.each({"retrain": [1.0, 4.0, 100.0], "finetune": [2.0], "sparse_finetune": []})
    assert each == {"retrain": 4.0, "finetune": 2.0}
    assert pace.left({"retrain": 10, "finetune": 5, "sparse_finetune": 9}, each, 2.0) == (10 * 4 + 5 * 2) / 2
