"""Several machines: each coalition is a task of a Ray cluster, over a folder that all machines share.

Ray only says who does what, and where. A task is a path and a few ids, and its result is in files: nothing large goes
through Ray, and nothing is lost with it.
"""

import contextlib
import logging
import os
import socket
import tempfile
from collections import deque
from collections.abc import Callable, Iterator

from cdlib.base import paths
from cdlib.base.errors import Refused
from cdlib.measure.executors.tasks import HERE, Where, n_places
from cdlib.measure.executors.tasks import attempt as run_here

MAX_RETRIES = 3  # of a task whose worker or machine is lost
CONNECT_SECONDS = 5
LOOK_SECONDS = 60  # how often the cluster is looked at while no task ends
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_task_oom_retries": str(MAX_RETRIES)}  # out of memory: for ever, unless told


def run(function: Callable, tasks: list, workers: int = 0, where: Where = HERE) -> Iterator:
    """Do tasks on a Ray cluster: yields (task, error or None), as all executors do.

    workers    at most this many at once; 0: as many as the cluster has places for
    where      what a task takes (a share of a GPU, or a core), and the cluster's address

    Tasks start in their order; twice as many as there are places have been handed over at a time. A task whose worker or
    machine is lost runs again elsewhere, MAX_RETRIES times, and then comes back as failed. When this ends before its tasks,
    they end too.

    Raises Refused when Ray is not installed, when nothing answers at the address, and when no machine has what a task takes.
    """
    if not tasks:
        return
    ray = _ray()
    with _connected(ray, where.address):
        if not _places(ray, where):
            raise Refused(_lacking(ray, where))
        attempt = ray.remote(max_retries=MAX_RETRIES, **_takes(where))(run_here)
        queue, running = deque(tasks), {}
        while queue or running:
            places = _places(ray, where)
            if not places:
                yield from ((task, _lacking(ray, where)) for task in (*running.values(), *queue))
                return
            while queue and len(running) < (workers or 2 * places):
                task = queue.popleft()
                running[attempt.remote(function, task)] = task
            for done in ray.wait(list(running), timeout=LOOK_SECONDS)[0]:
                yield running.pop(done), _error(ray, done)


def _ray():
    """Ray, imported here because it is an extra."""
    os.environ.update(QUIET)
    try:
        import ray
    except ModuleNotFoundError:
        raise Refused('executor: ray: Ray is not installed; install it: uv pip install -e ".[ray]"') from None
    return ray


@contextlib.contextmanager
def _connected(ray, address: str):
    """A connection to the cluster at an address, or to a Ray of this machine's own that ends with it."""
    names = {"CDLIB_ROOT": str(paths.root()), "CDLIB_RUNS": str(paths.runs())}
    names |= {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    how = {"runtime_env": {"env_vars": names}, "log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        _answers(address)
    else:
        how |= {"num_cpus": n_places(), "include_dashboard": False}
    # right under /tmp: the path of a socket may have 107 characters
    with contextlib.nullcontext() if address else tempfile.TemporaryDirectory("", "ray", "/tmp", True) as folder:
        try:
            _connect(ray, address, _temp_dir=folder, **how)
            yield
        finally:
            ray.shutdown()


def _connect(ray, address: str, **how):
    """Raises Refused when there is no connection, such as to a cluster of another version of Ray or Python."""
    try:
        ray.init(address or "local", **how)
    except Exception as error:
        raise Refused(f"ray_address: {address!r}: {' '.join(str(error).split())}") from None


def _answers(address: str):
    """Raises Refused when nothing answers at an address: Ray itself would try for minutes."""
    from ray._private.services import canonicalize_bootstrap_address_or_die

    try:
        host, _, port = canonicalize_bootstrap_address_or_die(address).rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        why = f"no Ray cluster answers there ({' '.join(str(error).split())}); start one (docs/clusters.md)"
        raise Refused(f"ray_address: {address}: {why}") from None


def _takes(where: Where) -> dict:
    """What Ray sets aside for a task. A worker sees only the GPUs that are its own, and ends with its task to free them."""
    return {"num_cpus": 0, "num_gpus": where.gpus} if where.on_gpu else {"num_cpus": 1}


def _nodes(ray) -> list[dict]:
    """The resources of each machine that is up."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _places(ray, where: Where) -> int:
    """How many tasks the cluster can do at once: a task's GPUs are on one machine, and its share of a GPU on one GPU."""
    if not where.on_gpu:
        return sum(int(node.get("CPU", 0)) for node in _nodes(ray))
    gpus = [int(node.get("GPU", 0)) for node in _nodes(ray)]
    return sum(n * where.per_gpu if where.gpus <= 1 else n // int(where.gpus) for n in gpus)


def _lacking(ray, where: Where) -> str:
    """That no machine has what a task takes, and what there is."""
    asked = f"gpus_per_coalition: {where.gpus:g}" if where.on_gpu else f"device: {where.device}"
    there = "; ".join(f"{node.get('CPU', 0):g} cores, {node.get('GPU', 0):g} GPUs" for node in _nodes(ray))
    return f"{asked}: no machine of the Ray cluster has that; there are: {there or 'none'}"


def _error(ray, done) -> str | None:
    """Why a task failed, as text: its traceback, or how its worker was lost."""
    try:
        return ray.get(done)
    except ray.exceptions.RayError as error:
        return f"{error}\n{type(error).__name__}: its worker or its machine was lost, and so in {MAX_RETRIES} retries"
