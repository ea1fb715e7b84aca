"""The Ray executor: the contract of all executors, on two machines; and whatever is lost."""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cdlib import store
from cdlib.base import disk
from cdlib.base.errors import Refused
from cdlib.data.design import Wanted
from cdlib.measure import utility
from cdlib.measure.executors import EXECUTORS, ray
from cdlib.measure.executors.tasks import Where, read_common

TESTS = Path(__file__).resolve().parent
WAIT_SECONDS = 60
MEMBERS = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0], [0, 1, 0, 1]], bool)
WANTED = Wanted("some coalitions", "sparse_finetune", MEMBERS, np.array([0, 1, 0, 0]))

# A driver, of one worker at most, that waits for tasks which hold a lock for as long as their workers live.
DRIVER = """
import sys
from cdlib.measure.executors import EXECUTORS
from cdlib.measure.executors.tasks import Where
from test_cluster import hold

list(EXECUTORS["ray"](hold, sys.argv[2:], 1, Where(address=sys.argv[1])))
"""


def until(claim):
    """Wait until a claim holds; says whether it ever did."""
    end = time.monotonic() + WAIT_SECONDS
    while not claim() and time.monotonic() < end:
        time.sleep(0.05)
    return claim()


def note(task):
    """Leave a file; one task is killed the first time, one always, and one without a folder fails."""
    if task.endswith("hopeless"):
        os.kill(os.getpid(), signal.SIGKILL)
    if task.endswith("fragile") and not Path(f"{task}.died").exists():
        Path(f"{task}.died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    Path(task).touch()


def hold(task):
    """Hold the lock of a file until another file lets go, or this worker's end."""
    with open(task, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(f"{os.environ.get('CUDA_VISIBLE_DEVICES')}\n")
        file.flush()
        assert until(lambda: Path(task).with_name("go").exists())


def is_held(path):
    """Whether a task holds the lock of its file now."""
    if not path.exists() or not path.read_text():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.fixture(scope="module")
def machines():
    """A Ray cluster of two machines on this one: one core each, and a GPU of the first that is only declared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS.parent / "src"), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("CDLIB_ROOT", str(TESTS.parent))
        ray._ray()
        from ray.cluster_utils import Cluster

        one = {"num_cpus": 1, "include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
        found = Cluster(initialize_head=True, head_node_args={**one, "num_gpus": 1})
        found.add_node(**one)
        yield found
        found.shutdown()


@pytest.fixture
def there(machines):
    """Where tasks are done: on a core each of the two machines."""
    return Where(address=machines.address)


@pytest.fixture(scope="module")
def outcome(machines, tmp_path_factory):
    """The tasks of one run, of which some fail, and how they came back."""
    folder = tmp_path_factory.mktemp("outcome")
    tasks = [str(folder / name) for name in ("hopeless", "fragile", "a", "missing/b", "c")]
    return tasks, list(EXECUTORS["ray"](note, tasks, 0, Where(address=machines.address)))


def test_every_task_comes_back_once_and_the_others_of_one_that_fails_are_done(outcome):
    tasks, found = outcome
    assert sorted(task for task, _ in found) == sorted(tasks)
    assert [task for task, error in found if error is None] and all(Path(t).exists() for t, error in found if error is None)
    assert {task for task, error in found if error} == {tasks[0], tasks[3]}


def test_an_exception_comes_back_as_its_traceback(outcome):
    tasks, found = outcome
    error = dict(found)[tasks[3]]
    assert error.startswith("Traceback") and "FileNotFoundError" in error


def test_a_worker_that_is_killed_is_replaced_and_its_task_done(outcome):
    tasks, found = outcome
    assert Path(f"{tasks[1]}.died").exists() and dict(found)[tasks[1]] is None


def test_a_task_that_always_kills_its_worker_comes_back_as_failed(outcome):
    tasks, found = outcome
    assert dict(found)[tasks[0]].splitlines()[-1].startswith("WorkerCrashedError: its worker or its machine was lost")


def test_values_are_those_of_the_serial_executor_bit_for_bit(made, run, machines):
    values = {"executor": "ray", "ray_address": machines.address, "name": "other"}
    there = store.Run(run.notebook, run.params | values)
    shutil.copytree(made, there.folder)
    tables = [utility.measure(r, WANTED).drop(columns=["train_seconds", "sample_seconds"]) for r in (run, there)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert tables[0].key.is_unique and len(tables[0]) == len(MEMBERS)
    for key in tables[0].key:
        a, b = run.measured.arrays(key), there.measured.arrays(key)
        assert a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


def test_the_tasks_of_a_machine_that_is_lost_are_done_by_the_others(machines, there, tmp_path):
    tasks = [tmp_path / name for name in "abc"]
    third = machines.add_node(num_cpus=1, include_log_monitor=False)

    def lose():
        until(lambda: all(map(is_held, tasks)))
        machines.remove_node(third, allow_graceful=False)
        until(lambda: not all(map(is_held, tasks)))
        (tmp_path / "go").touch()

    losing = threading.Thread(target=lose)
    losing.start()
    found = dict(EXECUTORS["ray"](hold, list(map(str, tasks)), 0, there))
    losing.join()
    assert found == {str(task): None for task in tasks}
    assert sorted(len(task.read_text().splitlines()) for task in tasks) == [1, 1, 2]


def test_two_tasks_share_a_gpu_and_see_it_alone(machines, tmp_path):
    tasks = [tmp_path / name for name in "ab"]

    def let_go():
        seen.append(until(lambda: all(map(is_held, tasks))))
        (tmp_path / "go").touch()

    seen, letting = [], threading.Thread(target=let_go)
    letting.start()
    found = dict(EXECUTORS["ray"](hold, list(map(str, tasks)), 0, Where("cuda", 0.5, machines.address)))
    letting.join()
    assert seen == [True] and not any(found.values())
    assert [task.read_text() for task in tasks] == ["0\n", "0\n"]


def test_more_gpus_than_a_machine_has_are_refused_at_once_and_what_there_is_is_named(machines):
    began = time.monotonic()
    with pytest.raises(Refused, match="gpus_per_coalition: 2: no machine of the Ray cluster has that") as refused:
        list(EXECUTORS["ray"](note, ["never"], 0, Where("cuda", 2.0, machines.address)))
    there = set(str(refused.value).partition("there are: ")[2].split("; "))
    assert there == {"1 cores, 1 GPUs", "1 cores, 0 GPUs"}
    assert "\n" not in str(refused.value) and time.monotonic() - began < WAIT_SECONDS / 2


@pytest.mark.parametrize(("gpus", "places"), [(1.0, 5), (0.5, 10), (0.3, 15), (0.6, 5), (2.0, 2), (4.0, 1), (8.0, 0)])
def test_places_are_counted_on_each_machine_and_on_each_gpu(gpus, places):
    class Ray:
        @staticmethod
        def nodes():
            there = [({"CPU": 8.0, "GPU": 4.0}, True), ({"GPU": 1.0}, True), ({"CPU": 2.0}, True), ({"GPU": 8.0}, False)]
            return [{"Resources": resources, "Alive": alive} for resources, alive in there]

    assert ray._places(Ray, Where("cuda", gpus)) == places
    assert ray._places(Ray, Where("cpu", gpus)) == 10


def test_an_address_where_nothing_answers_is_refused_in_one_line(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    began = time.monotonic()
    with pytest.raises(Refused, match=f"^ray_address: {address}: no Ray cluster answers there") as refused:
        list(EXECUTORS["ray"](note, ["never"], 0, Where(address=address)))
    assert "\n" not in str(refused.value) and time.monotonic() - began < WAIT_SECONDS / 2


def test_without_ray_it_is_refused_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(Refused, match=r'^executor: ray: Ray is not installed; install it: uv pip install -e "\.\[ray\]"$'):
        list(EXECUTORS["ray"](note, ["never"]))


def test_tasks_end_when_nobody_waits_for_them_any_more(there, tmp_path):
    first, *tasks = [tmp_path / name for name in ("first", "a", "b", "c", "d")]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "go").touch()
    found = EXECUTORS["ray"](hold, [str(tmp_path / "elsewhere" / "first"), *map(str, tasks)], 0, there)
    assert next(found) == (str(tmp_path / "elsewhere" / "first"), None)
    assert until(lambda: all(map(is_held, tasks[:2])))
    found.close()
    assert until(lambda: not any(map(is_held, tasks)))
    assert not any(task.exists() for task in tasks[2:])


def test_no_more_workers_than_asked_for_are_at_work_and_they_end_when_their_driver_is_killed(there, tmp_path):
    tasks = [tmp_path / "a", tmp_path / "b"]
    with subprocess.Popen([sys.executable, "-c", DRIVER, there.address, *tasks]) as driver:
        assert until(lambda: is_held(tasks[0]))
        time.sleep(1)
        driver.kill()
    assert until(lambda: not is_held(tasks[0]))
    assert not tasks[1].exists()


def test_a_ray_of_ones_own_does_the_tasks_and_leaves_nothing(machines, tmp_path):
    before = set(Path("/tmp").glob("ray*"))
    tasks = [str(tmp_path / name) for name in "abc"]
    assert sorted(EXECUTORS["ray"](note, tasks)) == [(task, None) for task in tasks]
    assert set(Path("/tmp").glob("ray*")) <= before


@pytest.fixture
def handed_over(monkeypatch):
    """An executor that does nothing but fail the tasks of seed 1; the rounds of tasks that it was given."""
    rounds = []

    def note_order(function, tasks, workers, where):
        rounds.append(tasks)
        yield from ((task, "Traceback" if task[-1] == 1 else None) for task in tasks)

    monkeypatch.setitem(EXECUTORS, "serial", note_order)
    monkeypatch.setattr(utility, "rows", lambda run, keys: keys)
    monkeypatch.setattr(disk, "seen", lambda look, seconds=0: True)
    return rounds


def test_coalitions_are_handed_over_in_the_order_of_the_plan_and_those_that_failed_last(run, handed_over):
    seeds = np.array([0, 1, 0, 1])
    with pytest.warns(UserWarning, match="2 coalitions could not be measured"):
        utility.measure(run, Wanted("some coalitions", "sparse_finetune", MEMBERS, seeds))
    asked = [[(members, seed) for _, members, seed in tasks] for tasks in handed_over]
    assert asked == [[("1100", 0), ("0011", 1), ("1010", 0), ("0101", 1)]] + [[("0011", 1), ("0101", 1)]] * 2


def test_a_task_is_a_path_and_ids(run, handed_over):
    from ray import cloudpickle

    utility.measure(run, Wanted("some coalitions", "sparse_finetune", MEMBERS, np.zeros(4, int)))
    [tasks] = handed_over
    assert all(len(cloudpickle.dumps((utility.measure_one, task))) < 1000 for task in tasks)
    [path] = {task[0] for task in tasks}
    folder, asked = read_common(path)
    assert folder == run.folder and asked["params"] == run.params
    [spec, *_] = utility.specifications(run, WANTED)
    assert run.measured.key(asked["spec"] | {"members": "1100", "seed": 0}) == run.measured.key(spec)
