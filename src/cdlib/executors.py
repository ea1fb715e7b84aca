"""How many coalitions are measured at once, and where: one contract for all.

    run(function, tasks, workers)    yields (task, error or None) as each is done, in any order

`function` is importable and keeps its own results in files; tasks are small plain values. An exception comes back as its
traceback's text; the other tasks go on. Results never depend on the executor.
"""

import contextlib
import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from multiprocessing.connection import wait

from cdlib import machine

MAX_BROKEN = 3


def n_places(device: str = "cpu") -> int:
    """How many coalitions this machine can measure at once: one on each GPU, or one on each core that may be used."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.device_count() if device == "cuda" else 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def n_workers(params: dict) -> int:
    """How many coalitions of a run are measured at once."""
    return 1 if params["executor"] == "serial" else params["workers"] or n_places(machine.device(params["device"]))


def _attempt(function: Callable, task) -> str | None:
    """Do one task; the text of its traceback when it fails."""
    try:
        function(task)
    except Exception:
        return traceback.format_exc()
    return None


def serial(function: Callable, tasks: list, workers: int = 1) -> Iterator:
    """One after the other, in this process."""
    for task in tasks:
        yield task, _attempt(function, task)


def _context():
    """Workers are forked from a small server that has imported what measuring takes, once; it starts with the first."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cdlib.coalition"])
    return context


def warm():
    """Start that server now, so that its imports are over when the first coalitions are asked for."""
    _context()
    forkserver.ensure_running()


def _begin(turn):
    """Begin a worker: it ends with its parent, and where there are several GPUs it takes the next one in turn."""
    _end_with_parent()
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available():
        with turn.get_lock():
            k, turn.value = turn.value, turn.value + 1
        torch.cuda.set_device(k % torch.cuda.device_count())


def _end_with_parent():
    """End this worker when its parent is gone, however that died: nothing is left running."""
    sentinel = multiprocessing.parent_process().sentinel
    threading.Thread(target=lambda: (wait([sentinel]), os._exit(1)), daemon=True).start()


def processes(function: Callable, tasks: list, workers: int = 0) -> Iterator:
    """In worker processes, as many as there are cores unless told otherwise.

    A worker that is killed takes the pool with it: a new pool does what is left. After three such losses each task that is
    left has a worker to itself, so that only those whose own worker dies come back as failed.
    """
    context = _context()
    left = dict(enumerate(tasks))
    for _ in range(MAX_BROKEN):
        with contextlib.suppress(BrokenProcessPool):
            yield from _pool(function, left, min(workers or n_places(), len(left)), context)
    for i, task in list(left.items()):
        try:
            yield from _pool(function, {i: task}, 1, context)
        except BrokenProcessPool:
            yield task, "its worker process died (out of memory, or killed) while it alone was being done"


def _pool(function: Callable, left: dict, workers: int, context) -> Iterator:
    """Do the tasks that are left in one pool, taking out each that is done. Raises BrokenProcessPool when a worker dies."""
    if not left:
        return
    turn = context.Value("i", 0)
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(turn,)) as pool:
        futures = {pool.submit(_attempt, function, task): i for i, task in left.items()}
        try:
            for future in as_completed(futures):
                error = future.result()
                yield left.pop(futures[future]), error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


EXECUTORS = {"serial": serial, "processes": processes}
