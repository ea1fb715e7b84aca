"""Progress: the time left, few lines in a log, one line in a notebook, and a file for others."""

import json
from types import SimpleNamespace

import pytest

from cdlib.base import progress


@pytest.fixture
def clock(monkeypatch):
    """The time in seconds, which passes when the test says so."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def work(steps, seconds, clock, file=None):
    """Progress of as many steps, each of which takes some seconds."""
    shown = progress.Progress("coalitions", steps, file)
    for _ in range(steps):
        clock.seconds += seconds
        shown.step()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (90000, "25 h 00 min"),
        (360_000, "4 d 04 h"),
    ],
)
def test_a_duration_is_said_as_a_person_says_it(seconds, said):
    assert progress.duration(seconds) == said


@pytest.mark.parametrize(
    ("done", "seconds", "said"),
    [
        (0, 5, "steps: 0 of 12"),
        (3, 30, "steps: 3 of 12, 1 min 30 s left"),
        (11, 110, "steps: 11 of 12, 10 s left"),
        (12, 120, "steps: 12 of 12, took 2 min 00 s"),
    ],
)
def test_the_rest_takes_as_long_for_each_step_as_what_is_done(done, seconds, said):
    assert progress.line("steps", done, 12, seconds) == said


def test_a_log_gets_a_plain_line_at_most_every_ten_seconds_and_the_last_one(clock, capsys):
    work(25, 1.0, clock)
    assert capsys.readouterr() == (
        "",
        "coalitions: 0 of 25\ncoalitions: 10 of 25, 15 s left\ncoalitions: 20 of 25, 5 s left\ncoalitions: 25 of 25, took 25 s\n",
    )


def test_a_notebook_gets_one_line_updated_in_place(clock, capsys, monkeypatch):
    lines = []
    display = SimpleNamespace(update=lambda data, raw: lines.append(data["text/plain"]))
    monkeypatch.setattr(progress, "_kernel_display", lambda: display)
    work(10, 0.25, clock)
    assert [line.split(",")[0] for line in lines] == [f"coalitions: {k} of 10" for k in (0, 2, 4, 6, 8, 10)]
    assert capsys.readouterr() == ("", "")


def test_the_file_says_what_the_last_line_said(clock, capsys, tmp_path):
    work(3, 20.0, clock, tmp_path / "progress.json")
    state = json.loads((tmp_path / "progress.json").read_bytes())
    assert state == {"label": "coalitions", "done": 3, "total": 3, "seconds": 60.0}
    assert progress.line(**state) == capsys.readouterr().err.splitlines()[-1]


def test_nothing_to_do_says_nothing(clock, capsys, tmp_path):
    work(0, 0, clock, tmp_path / "progress.json")
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "progress.json").exists()
