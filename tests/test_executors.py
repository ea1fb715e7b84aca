"""Executors: one contract, whatever dies."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cdlib.executors import EXECUTORS, processes

LOCAL = ["serial", "processes"]  # that of several machines is held to the same contract in test_cluster
WAIT_SECONDS = 30

# A worker holds the lock of its file for as long as it lives.
NAPPING = """
import fcntl, pathlib, sys, time
from cdlib.executors import processes

def nap(task):
    with open(task, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        pathlib.Path(task + ".asleep").touch()
        time.sleep(90)

if __name__ == "__main__":
    list(processes(nap, sys.argv[1:], 2))
"""


def note(task):
    """Leave a file; a task without a folder fails."""
    Path(task).touch()


def die_once(task):
    """Be killed the first time, as by a machine out of memory; be done the second time."""
    marker = Path(f"{task}.died")
    if task.endswith("fragile") and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    note(task)


def die(task):
    """Be killed every time."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_if_hopeless(task):
    """Be killed every time for one of the tasks; the others take a moment."""
    if task.endswith("hopeless"):
        die(task)
    time.sleep(0.1)
    note(task)


def until(claim):
    """Wait until a claim holds; says whether it ever did."""
    end = time.monotonic() + WAIT_SECONDS
    while not claim() and time.monotonic() < end:
        time.sleep(0.05)
    return claim()


def is_free(path):
    """Whether nobody alive holds the lock of a file."""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", LOCAL)
def test_every_task_comes_back_once_and_is_done(name, workers, tmp_path, server):
    tasks = [str(tmp_path / f"{k}") for k in range(5)]
    assert sorted(EXECUTORS[name](note, tasks, workers)) == [(task, None) for task in tasks]
    assert sorted(path.name for path in tmp_path.iterdir()) == list("01234")


@pytest.mark.parametrize("name", LOCAL)
def test_an_exception_comes_back_as_its_traceback_and_the_others_go_on(name, tmp_path, server):
    tasks = [str(tmp_path / "a"), str(tmp_path / "missing" / "b"), str(tmp_path / "c")]
    errors = dict(EXECUTORS[name](note, tasks, 2))
    assert errors.keys() == set(tasks)
    assert [task for task in tasks if errors[task] is None] == [tasks[0], tasks[2]]
    assert errors[tasks[1]].startswith("Traceback") and "FileNotFoundError" in errors[tasks[1]]


@pytest.mark.parametrize("name", EXECUTORS)
def test_no_tasks_are_done_at_once(name):
    assert list(EXECUTORS[name](note, [])) == []


def test_a_worker_that_is_killed_is_replaced_and_its_task_done(tmp_path, server):
    tasks = [str(tmp_path / name) for name in ("a", "fragile", "b")]
    assert sorted(processes(die_once, tasks, 2)) == [(task, None) for task in sorted(tasks)]
    assert Path(f"{tasks[1]}.died").exists() and all(Path(task).exists() for task in tasks)


def test_a_task_that_always_kills_its_worker_comes_back_as_failed(server):
    [(task, error)] = processes(die, ["hopeless"], 1)
    assert task == "hopeless"
    assert "worker process died" in error


@pytest.mark.parametrize("workers", [1, 2])
def test_the_others_go_on_beside_a_task_that_always_kills_its_worker(workers, tmp_path, server):
    hopeless, *tasks = [str(tmp_path / name) for name in ("hopeless", "a", "b", "c", "d")]
    errors = dict(processes(die_if_hopeless, [hopeless, *tasks], workers))
    assert errors.keys() == {hopeless, *tasks}
    assert [task for task in errors if errors[task]] == [hopeless]
    assert all(Path(task).exists() for task in tasks)


def test_workers_end_when_their_parent_is_killed(tmp_path):
    script, tasks = tmp_path / "napping.py", [tmp_path / "a", tmp_path / "b"]
    script.write_text(NAPPING)
    with subprocess.Popen([sys.executable, script, *tasks]) as parent:
        assert until(lambda: all(task.with_suffix(".asleep").exists() for task in tasks))
        assert not any(map(is_free, tasks))
        parent.kill()
    assert until(lambda: all(map(is_free, tasks)))
