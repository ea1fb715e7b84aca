"""What a measured coalition takes besides training and sampling, and what a second worker brings: tables in markdown.

    .venv/bin/python tests/benchmarks/overhead.py
    .venv/bin/python tests/benchmarks/overhead.py --n 60 --workers 1 2

Takes the models of a run that is done up to 03_prune, and measures coalitions in a folder of its own. A part's seconds are
without those of the parts inside it. Efficiency is what each worker brings of what the first brings alone; the ceiling is the
same of processes that only train, and have nothing in common: what the machine's cores allow. Run it by hand; the machine
should have nothing else to do.
"""

import argparse
import contextlib
import cProfile
import multiprocessing
import os
import pstats
import shutil
import sys
import tempfile
import time
from functools import wraps
from pathlib import Path
from unittest.mock import patch

import numpy as np

from cdlib import store
from cdlib.base import params, paths, registry
from cdlib.data import coalitions, design
from cdlib.measure import utility
from cdlib.models import procedures

CEILING_STEPS = 200
CEILING_TIMES = 3


class Clock:
    """Seconds by part; a part that another calls is taken out of that one."""

    def __init__(self):
        self.seconds, self.inside = {}, [0.0]

    def timed(self, part: str, function):
        @wraps(function)
        def run(*args, **kwargs):
            self.inside.append(0.0)
            before = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                taken = time.perf_counter() - before
                self.seconds[part] = self.seconds.get(part, 0.0) + taken - self.inside.pop()
                self.inside[-1] += taken

        return run


def parts(values: dict):
    """(module, name of a function in it, the part of the work that it is)."""
    from cdlib.data import contributors
    from cdlib.measure import properties, worker
    from cdlib.models import families, sample, stages
    from cdlib.store import measured

    yield from ((worker, "train", "training"), (sample, "draw", "sampling"))
    for module in map(properties.named, registry.properties(values)):
        yield from ((module, name, "property") for name in ("per_image", "value"))
    yield from ((properties, name, "property") for name in ("feature", "settings"))
    yield from ((stages, name, "loading the model") for name in ("load", "started"))
    yield families, "whole", "is the model whole"
    yield from ((stages, name, "dataset and inputs") for name in ("dataset", "inputs"))
    yield contributors, "images_of", "dataset and inputs"
    yield from ((measured, name, "writing") for name in ("write_bytes", "save_arrays", "versions"))
    yield from ((measured.Measured, name, "reading records") for name in ("read", "records"))


def asked(run: store.Run, procedure: str, n: int) -> design.Wanted:
    """The first coalitions of the paired design."""
    members = coalitions.paired(design.n_contributors(run.params), n, 0)
    return design.Wanted("benchmark", procedure, members, np.zeros(n, int))


@contextlib.contextmanager
def own(values: dict):
    """The run in a folder of its own: the same models, nothing measured."""
    models = paths.runs() / values["name"] / "models"
    if not models.is_dir():
        sys.exit(f"{models}: not there; first: cdlib run, at least up to 03_prune")
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, CDLIB_RUNS=folder):
        shutil.copytree(models, Path(folder) / values["name"] / "models")
        yield store.Run("04_shapley", values)


def measured_in(run: store.Run, procedure: str, n: int) -> tuple[float, float]:
    """Seconds of the clock that measuring takes, and the records' own seconds."""
    before = time.perf_counter()
    table = utility.measure(run, asked(run, procedure, n))
    return time.perf_counter() - before, (table.train_seconds + table.sample_seconds).sum()


def serial(values: dict, procedure: str, n: int, profile: bool):
    """One coalition after the other in this process: the time by its parts."""
    clock, profiler = Clock(), cProfile.Profile()
    before = time.perf_counter()
    patches = [patch.object(module, name, clock.timed(part, getattr(module, name))) for module, name, part in parts(values)]
    imports = time.perf_counter() - before
    with own(values | {"executor": "serial"}) as run, contextlib.ExitStack() as stack:
        for one in patches:
            stack.enter_context(one)
        if profile:
            profiler.enable()
        wall, recorded = measured_in(run, procedure, n)
        profiler.disable()
    work = clock.seconds["training"] + clock.seconds["sampling"]
    print(f"{procedure}, {n} coalitions, serial: {wall:.2f} s; imports before them, once a worker: {imports:.2f} s\n")
    print("| | ms a coalition | share |\n| --- | --- | --- |")
    rows = clock.seconds | {"the rest": wall - sum(clock.seconds.values())}
    rows |= {"all but training and sampling": wall - work, "all but the records' own seconds": wall - recorded}
    for part, seconds in rows.items():
        print(f"| {part} | {1000 * seconds / n:.2f} | {100 * seconds / wall:.2f} % |")
    if profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(40)


def trains(start, taken):
    """Training steps of the U-Net for 8x8 digits on one thread, begun when the other processes begin; tells their seconds."""
    import torch

    from cdlib.models import families

    torch.set_num_threads(1)
    model = families.new(families.preset("unet_8x8") | {"noise_schedule": "linear"}, 0, "cpu")
    images, t, noise = torch.zeros(64, 1, 8, 8), torch.arange(64), torch.ones(64, 1, 8, 8)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4, fused=True)
    for i in range(CEILING_STEPS + 10):
        if i == 10:  # the first steps are slower
            start.wait()
            before = time.perf_counter()
        optimizer.zero_grad()
        model.loss(images, t, noise).backward()
        optimizer.step()
    taken.put(time.perf_counter() - before)


def at_once(k: int) -> float:
    """Mean seconds of `trains` in each of k processes at once."""
    context = multiprocessing.get_context("spawn")
    start, taken = context.Barrier(k), context.Queue()
    processes = [context.Process(target=trains, args=(start, taken)) for _ in range(k)]
    for process in processes:
        process.start()
    seconds = [taken.get(timeout=600) for _ in processes]
    for process in processes:
        process.join()
    return sum(seconds) / k


def parallel(values: dict, procedure: str, n: int, workers: list[int]):
    """The same coalitions by several numbers of workers: seconds, and how much of the first's work each brings."""
    taken = [{k: at_once(k) for k in workers} for _ in range(CEILING_TIMES)]  # in turn: a machine's speed may drift
    alone = {k: min(one[k] for one in taken) for k in workers}
    heads = "workers | seconds | records' own seconds of each coalition | efficiency | ceiling | efficiency of the ceiling"
    print(f"\n| {heads} |\n|{' --- |' * 6}")
    first = None
    for k in workers:
        with own(values | {"executor": "processes", "workers": k}) as run:
            measured_in(run, procedure, k)  # the server that workers fork from has started then
        with own(values | {"executor": "processes", "workers": k}) as run:
            wall, recorded = measured_in(run, procedure, n)
        first = first or wall * k
        efficiency, ceiling = first / (wall * k), alone[workers[0]] / alone[k]
        shares = f"{100 * efficiency:.1f} % | {100 * ceiling:.1f} % | {100 * efficiency / ceiling:.1f} %"
        print(f"| {k} | {wall:.2f} | {recorded / n:.3f} | {shares} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=paths.params(), help="parameter file of a run that has its models")
    parser.add_argument("--procedure", default="sparse_finetune", choices=procedures.START)
    parser.add_argument("--n", type=int, default=20, help="coalitions")
    parser.add_argument("--workers", type=int, nargs="+", default=[], help="numbers of worker processes to compare")
    parser.add_argument("--profile", action="store_true", help="and the functions that take most of the time")
    given = parser.parse_args()
    found = params.load(given.params)
    serial(found, given.procedure, given.n, given.profile)
    if given.workers:
        parallel(found, given.procedure, given.n, given.workers)
