"""v(S): make a model for a coalition, draw its images, measure their property. Asks the store first.

M  coalitions        N  contributors

procedure               start weights    how            images
retrain                 random           train_*        the coalition's
finetune                full model       finetune_*     the coalition's
sparse_finetune         pruned model     finetune_*     the coalition's (section 3.2: the paper's method)
gradient_ascent         pruned model     ga_*           the others' (section D.4)
influence_unlearning    pruned model     iu_*           everybody's (section D.4)
"""

import contextlib
import warnings
from functools import partial
from operator import attrgetter

import numpy as np
import pandas as pd

from cdlib import store
from cdlib.base import disk, machine, registry
from cdlib.base.params import n_contributors
from cdlib.base.progress import Progress
from cdlib.data.design import Wanted
from cdlib.measure import executors, properties
from cdlib.measure.executors import tasks as tasks_of
from cdlib.models import checkpoint, procedures, stages
from cdlib.store import cache, measured
from cdlib.store.measured import bits

MAX_ATTEMPTS = 3
VERSION = 1  # to be raised when the code of training, sampling or a property changes what a coalition measures


def context(run: store.Run, procedure: str) -> dict:
    """What all coalitions of a procedure have in common: everything that can change v(S), but S and the seed.

    Raises Refused when the model to start from, or what the property needs, is missing or damaged.
    """
    p, start = run.params, procedures.START[procedure]
    about = cache.get(stages.path(run.folder, start)) if start else None
    for path in [*([stages.path(run.folder, start)] if start else []), *properties.files(run.folder)]:
        run.rests_on(path)
    return {
        "version": VERSION,
        "device": measured_on(run),
        "dataset": {"name": p["dataset"], "digest": stages.dataset(p).digest()},
        "model": stages.config(run.folder, p),
        "procedure": procedure,
        "recipe": procedures.of(p, procedure).as_dict(),
        "start": about["digest"] if about else "random",
        "sampler": {"n_images": p["n_images"], "steps": p["sampling_steps"]},
        "properties": properties.settings(run.folder, p),
    }


def measured_on(run: store.Run) -> str:
    """The kind of device that coalitions are measured on: this machine's; with `so_far` that of the run's full model."""
    if run.so_far:
        return cache.get(stages.path(run.folder, "full"))["device"].partition(" ")[0].partition(":")[0]
    return machine.device(run["device"]).split(":")[0]


def specifications(run: store.Run, wanted: Wanted) -> list[dict]:
    """What each wanted coalition is measured as; its hash is its key."""
    shared = context(run, wanted.procedure)
    return [shared | {"members": bits(m), "seed": int(s)} for m, s in zip(wanted.members, wanted.seeds, strict=True)]


def measure(run: store.Run, wanted: Wanted) -> pd.DataFrame:
    """The wanted coalitions, each measured once whoever asks for it: trained and sampled only where the store has none.

    Returns a frame in the order asked for: key, procedure, seed, members, size, one column for each property,
    train_seconds, sample_seconds. Coalitions that failed are named in a warning and left out. One that lacks what this
    asker keeps of its images (design.Wanted) is measured again, under the same key; so is one whose files are not what was
    written, which are named in a warning. With `so_far` nothing is measured: what there is, is taken.

    They are handed over in the order of the plan, which is that of their value (complete pairs of a design first), so that
    what is there early is useful early; those that failed come after all others, once more in that order.

    Raises Unwritable at once when a disk is full, or the run's folder cannot be written: what is measured by then is kept.
    """
    specs, arrays = specifications(run, wanted), []
    for name in wanted.keeps:  # refused before any work, not in each coalition
        arrays.append(properties.kept_as(name, properties.feature(run.folder, run.params, name).digest))
    keys = [run.measured.key(s) for s in specs]
    todo = {k: s for k, s in dict(zip(keys, specs, strict=True)).items() if not run.measured.ready(k, arrays)}
    if run.so_far:
        return _used(run, wanted, keys, set(todo))
    checkpoint.forget(run.folder, set(keys) - set(todo))
    progress, errors = Progress(f"{wanted.purpose}: {wanted.procedure}", len(todo), run.path("progress.json")), {}
    patience = disk.SEEN_SECONDS
    for _ in range(MAX_ATTEMPTS):
        tasks = _tasks(run, todo, wanted.keeps)
        with contextlib.closing(executors.run(run.params, measure_one, list(tasks))) as done:
            for task, error in done:
                key = tasks[task]
                if error:
                    disk.stop_if_unwritable(error)
                    run.measured.fail(todo[key], error)
                    errors[key] = error
                elif disk.seen(partial(run.measured.has, key), patience):
                    del todo[key]
                    progress.step()
                else:
                    patience = 0.0  # once in vain is enough
                    errors[key] = f"{run.measured.path(key)}: written by a worker, not seen here: do all share this folder?"
        if not todo:
            break
    first = errors[next(iter(todo))].strip().splitlines()[-1] if todo else ""
    if len(todo) == len(set(keys)) > 0:
        raise RuntimeError(f"{wanted.purpose}: none of {len(todo)} coalitions could be measured; the first: {first}")
    if todo:
        failed = ", ".join(f"{s['members']} seed {s['seed']} ({k})" for k, s in todo.items())
        tried = f"{len(todo)} coalitions could not be measured, each tried {MAX_ATTEMPTS} times: {failed}"
        warnings.warn(f"{tried}; the first: {first}", stacklevel=2)
    run.use([], failed=list(todo))
    return _used(run, wanted, keys, set(todo))


def _used(run: store.Run, wanted: Wanted, keys: list[str], missing: set[str]) -> pd.DataFrame:
    """The rows of those coalitions that are measured; notes that the notebook rests on them, and how many are missing."""
    kept = [k for k in keys if k not in missing]
    run.use(kept)
    if wanted.counted:
        run.ask(wanted.purpose, wanted.procedure, len(set(keys)), len(set(kept)))
    return rows(run, kept)


def _tasks(run: store.Run, todo: dict, keeps) -> dict[tuple, str]:
    """The task of each coalition (`measure_one`) and its key, in the order of `todo` (key -> specification).

    Specifications of one ask differ in members and seed alone; the device is the one that they name, on every machine.
    """
    if not todo:
        return {}
    own, device = ("members", "seed"), machine.device(run["device"])
    shared = {name: value for name, value in next(iter(todo.values())).items() if name not in own}
    path = tasks_of.common(run.folder, {"params": run.params | {"device": device}, "spec": shared, "keeps": keeps})
    return {(path, s["members"], s["seed"]): key for key, s in todo.items()}


def rows(run: store.Run, keys: list[str]) -> pd.DataFrame:
    """Measured coalitions as a frame, in the order of the keys."""
    columns = ["key", "procedure", "seed", "members", *registry.properties(run.params), "train_seconds", "sample_seconds"]
    frame = pd.DataFrame(run.measured.rows(keys), columns=columns)
    frame.insert(4, "size", [text.count("1") for text in frame.members])
    kinds = dict.fromkeys(["key", "procedure", "members"], "str") | {"seed": int, "size": int} | dict.fromkeys(columns[4:], float)
    return frame.astype(kinds)  # of no rows too


def measure_one(task: tuple):
    """Measure one coalition and keep it: (file of what was asked, members, seed). Runs in a worker, and imports torch there."""
    from cdlib.measure import worker

    path, members, seed = task
    folder, asked = tasks_of.read_common(path)
    with disk.unwritable(folder):
        worker.measure(folder, asked["params"], asked["spec"] | {"members": members, "seed": seed}, asked["keeps"])


def game(run: store.Run, table: pd.DataFrame, property: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Who was in, bool [M, N], and v(S), float [M], of a frame of measured coalitions."""
    return measured.members(table.members).reshape(len(table), n_contributors(run.params)), values(run, table, property)


def by_seed(run: store.Run, table: pd.DataFrame, property: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Coalitions that were measured with every seed: who was in, bool [B, N], and v(S), float [B, S].

    A coalition that lacks one of the seeds is left out; one that was drawn twice counts once. A seed that so many lack that
    more would be lost with it than without it is left out itself: of the seeds, those of most coalitions first, so many are
    taken that most values are left.
    """
    grid = seed_grid(run, table, property)
    order = grid.columns[np.argsort(-grid.notna().sum().to_numpy(), kind="stable")]
    chosen = [[seed for seed in grid if seed in order[: n + 1]] for n in range(len(order))]
    grid = max((grid[seeds].dropna() for seeds in chosen), key=attrgetter("size"), default=grid)
    return measured.members(grid.index).reshape(len(grid), n_contributors(run.params)), grid.to_numpy()


def seed_grid(run: store.Run, table: pd.DataFrame, property: str | None = None) -> pd.DataFrame:
    """v(S) by coalition (`members`, in the order of the table) and seed; NaN where it was not measured."""
    once = table.assign(v=values(run, table, property)).drop_duplicates("key")
    return once.pivot(index="members", columns="seed", values="v").reindex(once.members.unique())


def runtime(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of runtime.csv: median seconds of a coalition's training and sampling, by procedure."""
    groups = table.groupby("procedure", sort=False)
    found = groups[["train_seconds", "sample_seconds"]].median()
    return found.assign(n=groups.size()).reset_index()


def values(run: store.Run, table: pd.DataFrame, property: str | None = None) -> np.ndarray:
    """v(S) of each row of a frame, in the unit of the run's property (or another of its properties): float [M].

    More is better: of a property of which less is better, such as a distance, v is its negative.
    """
    own = registry.properties(run.params)[property or run["property"]]
    return registry.sign(own) * table[own["property"]].to_numpy()
