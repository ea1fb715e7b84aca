"""How many coalitions are measured at once, and where: one contract for all.

    run(function, tasks, workers, where)    yields (task, error or None) as each is done, in any order

`function` is importable and keeps its own results in files; tasks are small plain values: what all of them have in common
is a file (`common`), and a task names it. They start in their order. An exception comes back as its traceback's text; the
other tasks go on. Results never depend on the executor.
"""

import contextlib
import json
import multiprocessing
import os
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

from joblib import cpu_count

from cdlib import machine, measured, writing

MAX_BROKEN = 3

# What measuring takes and does not initialise CUDA when imported: a process that has is never forked. diffusers, peft and
# bitsandbytes do; what they import themselves does not, and takes most of their time.
PRELOADED = ["torch", "torchvision.transforms.v2", "torch._inductor.compile_fx", "transformers.generation.utils"]
PRELOADED += ["accelerate", "open_clip", "pandas", "pydantic.json_schema", "scipy.stats", "sklearn.cluster"]
WAITING: dict[int, ProcessPoolExecutor] = {}  # pools of so many workers that have done their tasks and wait for others


@dataclass(frozen=True)
class Where:
    """What a task is done on.

    device     cpu: a core for each; cuda: a share of a GPU
    gpus       of a task: 0.5 when two share a GPU; above 1 whole, and with Ray only
    address    of the Ray cluster: host:port, auto, or empty for a Ray of this machine's own
    """

    device: str = "cpu"
    gpus: float = 1.0
    address: str = ""

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def per_gpu(self) -> int:
        """How many tasks share a GPU."""
        return int(1 / self.gpus + 1e-9)


def where(params: dict) -> Where:
    """What the tasks of a run are done on."""
    return Where(machine.device(params["device"]), params["gpus_per_coalition"], params["ray_address"])


def n_places(where: Where = Where()) -> int:
    """How many tasks this machine can do at once: on each GPU as many as share it, or one on each core that it may use."""
    if where.on_gpu:
        import torch

        return where.per_gpu * (torch.cuda.device_count() if where.device == "cuda" else 1)
    return cpu_count()  # affinity and a container's quota count


def n_workers(params: dict) -> int:
    """How many coalitions of a run this machine measures at once; of a Ray cluster nothing is known beforehand."""
    return 1 if params["executor"] == "serial" else params["workers"] or n_places(where(params))


def run(params: dict, function: Callable, tasks: list) -> Iterator:
    """Do tasks as a run's parameters say: yields (task, error or None)."""
    return EXECUTORS[params["executor"]](function, tasks, params["workers"], where(params))


def common(folder: Path, values: dict) -> str:
    """Write what tasks have in common (plain JSON values) as a small file of a run's folder, named by its own hash.

    Returns its path, which goes to the workers in its place. Writes runs/<name>/asked/<hash>.json.
    """
    data = measured.canonical(values)
    path = Path(folder) / "asked" / f"{measured.digest(data)[:32]}.json"
    if not path.is_file() or path.read_bytes() != data:  # never without need: a worker may be reading it
        measured.write_bytes(path, data)
    return str(path)


def read_common(path: str) -> tuple[Path, dict]:
    """The run's folder, and what `common` has written there, which a shared folder may show late."""
    writing.seen(Path(path).is_file)
    return Path(path).parents[1], json.loads(Path(path).read_bytes())


def attempt(function: Callable, task) -> str | None:
    """Do one task; the text of its traceback when it fails."""
    try:
        function(task)
    except Exception:
        return traceback.format_exc()
    return None


def serial(function: Callable, tasks: list, workers: int = 1, where: Where = Where()) -> Iterator:
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

    _end_with_parent()
    if torch.cuda.is_available():
        with turn.get_lock():
            k, turn.value = turn.value, turn.value + 1
        torch.cuda.set_device(k % torch.cuda.device_count())


def _end_with_parent():
    """End this worker when its parent is gone, however that died: nothing is left running."""
    sentinel = multiprocessing.parent_process().sentinel
    threading.Thread(target=lambda: (wait([sentinel]), os._exit(1)), daemon=True).start()


def processes(function: Callable, tasks: list, workers: int = 0, where: Where = Where()) -> Iterator:
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


def ray(function: Callable, tasks: list, workers: int = 0, where: Where = Where()) -> Iterator:
    """On a Ray cluster of several machines, or on a Ray of this one's own."""
    from cdlib import cluster

    yield from cluster.run(function, tasks, workers, where)


EXECUTORS = {"serial": serial, "processes": processes, "ray": ray}
