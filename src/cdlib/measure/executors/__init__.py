"""How many coalitions are measured at once, and where: one contract for all.

    run(params, function, tasks)    yields (task, error or None) as each is done, in any order

`function` is importable and keeps its own results in files. Tasks start in their order. Results never depend on the executor.
"""

from collections.abc import Callable, Iterator

from cdlib.measure.executors import local, ray
from cdlib.measure.executors.tasks import where

EXECUTORS = {"serial": local.serial, "processes": local.processes, "ray": ray.run}


def run(params: dict, function: Callable, tasks: list) -> Iterator:
    """Do tasks as a run's parameters say: yields (task, error or None)."""
    return EXECUTORS[params["executor"]](function, tasks, params["workers"], where(params))
