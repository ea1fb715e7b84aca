"""Coalitions on this machine: one after the other, or in worker processes."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait

from cdlib.measure.executors.tasks import HERE, Where, attempt, n_places

MAX_BROKEN = 3

# What measuring takes and does not initialise CUDA when imported: a process that has is never forked. diffusers, peft and
# bitsandbytes do; what they import themselves does not, and takes most of their time.
PRELOADED = ["torch", "torchvision.transforms.v2", "torch._inductor.compile_fx", "transformers.generation.utils"]
PRELOADED += ["accelerate", "open_clip", "pandas", "pydantic.json_schema", "scipy.stats", "sklearn.cluster"]
WAITING: dict[int, ProcessPoolExecutor] = {}  # pools of so many workers that have done their tasks and wait for others


def serial(function: Callable, tasks: list, workers: int = 1, where: Where = HERE) -> Iterator:
    """One after the other, in this process."""
    for task in tasks:
        yield task, attempt(function, task)


def _context():
    """Workers are forked from a small server that has imported most of what measuring takes, once; it starts with the first."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _begin(turn):
    """Begin a worker: it ends with its parent, and where there are several GPUs it takes the next one in turn."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a worker that is interrupted ends, and says nothing
    _end_with_parent()
    if torch.cuda.is_available():
        with turn.get_lock():
            k, turn.value = turn.value, turn.value + 1
        torch.cuda.set_device(k % torch.cuda.device_count())


def _end_with_parent():
    """End this worker when its parent is gone, however that died: nothing is left running."""
    sentinel = multiprocessing.parent_process().sentinel
    threading.Thread(target=lambda: (wait([sentinel]), os._exit(1)), daemon=True).start()


def processes(function: Callable, tasks: list, workers: int = 0, where: Where = HERE) -> Iterator:
    """In worker processes, as many as this machine has places for unless told otherwise. On CPUs they wait for the next tasks.

    A worker that is killed takes the pool with it: a new pool does what is left. After three such losses each task that is
    left has a worker to itself, so that only those whose own worker dies come back as failed.
    """
    left = dict(enumerate(tasks))
    for _ in range(MAX_BROKEN):
        with contextlib.suppress(BrokenProcessPool):
            yield from _pool(function, left, workers or n_places(where), where)
    for i, task in list(left.items()):
        try:
            yield from _pool(function, {i: task}, 1, where)
        except BrokenProcessPool:
            yield task, "its worker process died (out of memory, or killed) while it alone was being done"


def _pool(function: Callable, left: dict, workers: int, where: Where) -> Iterator:
    """Do the tasks that are left in one pool, taking out each that is done. Raises BrokenProcessPool when a worker dies."""
    if not left:
        return
    pool = WAITING.pop(workers, None) or _new(workers)
    try:
        futures = {pool.submit(attempt, function, task): i for i, task in left.items()}
        for future in as_completed(futures):
            error = future.result()
            yield left.pop(futures[future]), error
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    if where.on_gpu:
        pool.shutdown()  # which gives its memory back
    else:
        WAITING[workers] = pool


def _new(workers: int) -> ProcessPoolExecutor:
    """A pool whose workers start when there is a task for them."""
    context = _context()
    return ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(context.Value("i", 0),))
