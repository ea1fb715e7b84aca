"""Executors: one contract, whatever dies."""

import fcntl
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest

from cdlib.measure.executors import EXECUTORS, local, ray
from cdlib.measure.executors.local import processes
from cdlib.measure.executors.tasks import Where, n_places
from cdlib.store.run import machine

LOCAL = ["serial", "processes"]  # that of several machines is held to the same contract in test_cluster
WAIT_SECONDS = 120

# A worker holds the lock of its file for as long as it lives.
NAPPING = """
import fcntl, pathlib, sys, time
from cdlib.measure.executors.local import processes

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


def see_cuda(task):
    """Leave whether this is a fork of a process that has initialised CUDA, and so cannot use it."""
    from torch import cuda

    Path(task).write_text(f"{os.getpid()} {cuda._is_in_bad_fork()}")


def measure_and_see_cuda(task):
    """The same after importing what measuring takes."""
    import cdlib.measure.worker
    import cdlib.models.families.text_to_image  # noqa: F401

    see_cuda(task)


def seen_in_workers(tmp_path, n=2, see=see_cuda):
    """What `see_cuda` leaves in workers: (process, whether CUDA is lost) of each task."""
    tasks = [str(tmp_path / f"{k}") for k in range(n)]
    assert [error for _, error in processes(see, tasks, n)] == [None] * n
    return [tuple(Path(task).read_text().split()) for task in tasks]


def take_turns(turn, n_gpus):
    """The GPUs that the next two workers begin on, of so many simulated ones."""
    taken = []
    cuda = {"is_available": lambda: True, "device_count": lambda: n_gpus, "set_device": taken.append}
    with mock.patch.multiple("torch.cuda", **cuda), mock.patch.object(local, "_end_with_parent"):
        local._begin(turn)
        local._begin(turn)
    return taken


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


def test_no_worker_is_forked_from_a_process_that_has_used_cuda(tmp_path, server):
    assert {lost for _, lost in seen_in_workers(tmp_path, see=measure_and_see_cuda)} == {"False"}


USED = """
import sys
from pathlib import Path
from cdlib.measure.executors import local
sys.path.insert(0, sys.argv[1])
from test_executors import seen_in_workers
if __name__ == "__main__":
    local.PRELOADED[:] = ["diffusers.utils"]
    print(seen_in_workers(Path(sys.argv[2])))
"""


def test_a_server_that_imports_diffusers_is_seen(tmp_path):
    (tmp_path / "used.py").write_text(USED)
    command = [sys.executable, tmp_path / "used.py", Path(__file__).parent, tmp_path]
    assert "True" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_each_worker_takes_the_next_gpu():
    turn = multiprocessing.Value("i", 0)
    assert [*take_turns(turn, 3), *take_turns(turn, 3)] == [0, 1, 2, 0]


def test_workers_wait_for_the_next_tasks_on_cpus_and_end_on_gpus(tmp_path, server):
    """Those on a GPU would hold its memory."""
    first, *again = ({pid for pid, _ in seen_in_workers(tmp_path, 1)} for _ in range(3))
    assert again == [first, first]
    assert list(processes(note, [str(tmp_path / "a")], 1, Where("cuda"))) == [(str(tmp_path / "a"), None)]
    assert not local.WAITING.keys() & {1}


QUOTAS = {
    "v2": {"/sys/fs/cgroup/cpu.max": "100000 100000"},
    "v1": {"/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
}


def eight_cores(monkeypatch, quota):
    """A machine of eight cores, and these files of a control group."""
    group = "/sys/fs/cgroup/"
    exists, opened = os.path.exists, open
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(os.path, "exists", lambda path: path in quota if str(path).startswith(group) else exists(path))
    monkeypatch.setattr(
        "builtins.open", lambda path, *a, **k: io.StringIO(quota[path]) if path in quota else opened(path, *a, **k)
    )


@pytest.mark.parametrize(("quota", "cores"), [({}, 8), (QUOTAS["v1"], 1), (QUOTAS["v2"], 1)], ids=["none", *QUOTAS])
def test_a_quota_of_one_core_is_one_place_for_ray_too(quota, cores, monkeypatch):
    told = {}
    monkeypatch.setattr(ray, "_connect", lambda ray, address, **how: told.update(how))
    eight_cores(monkeypatch, quota)
    with ray._connected(mock.Mock(), ""):
        assert n_places() == told["num_cpus"] == cores
    assert machine().endswith(f" {cores} cores")
