"""How many coalitions are measured at once, and where: one contract for all.

    run(function, tasks, workers)    yields (task, error or None) as each is done, in any order

`function` is importable and keeps its own results in files; tasks are small plain values. An exception comes back as its
traceback's text; the other tasks go on. Results never depend on the executor.
"""

import multiprocessing
import os
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait

MAX_BROKEN = 3


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


def _end_with_parent():
    """End this worker when its parent is gone, however that died: nothing is left running."""
    sentinel = multiprocessing.parent_process().sentinel
    threading.Thread(target=lambda: (wait([sentinel]), os._exit(1)), daemon=True).start()


def processes(function: Callable, tasks: list, workers: int = 0) -> Iterator:
    """In worker processes, as many as there are cores unless told otherwise.

    A worker that is killed takes the pool with it: a new pool does what is left, and only after three such losses do the
    tasks that are left come back as failed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([function.__module__])
    left = {i: task for i, task in enumerate(tasks)}
    for _ in range(MAX_BROKEN):
        n = min(workers or os.cpu_count(), len(left)) or 1
        try:
            with ProcessPoolExecutor(n, context, initializer=_end_with_parent) as pool:
                futures = {pool.submit(_attempt, function, task): i for i, task in left.items()}
                try:
                    for future in as_completed(futures):
                        error = future.result()
                        yield left.pop(futures[future]), error
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
            return
        except BrokenProcessPool:
            continue
    for task in left.values():
        yield task, f"a worker process died {MAX_BROKEN} times (out of memory, or killed) while this was to be done"


EXECUTORS = {"serial": serial, "processes": processes}
