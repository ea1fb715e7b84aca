"""Runs the notebooks of a parameter file, tells how far a run is, and says beforehand what it will take."""

import contextlib
import json
import statistics
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import papermill
from jupyter_client import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbclient.exceptions import DeadKernelError

from cdlib import contributors, datasets, done, executors, families, params, paths, plan, progress, stages, store, utilities
from cdlib import report as pages
from cdlib.errors import Refused

POLL_SECONDS = 10.0


def say(text: str):
    """One plain line on standard output."""
    print(text, flush=True)


def load(file: Path, changes: dict | None = None, without_data: bool = False) -> dict:
    """Parameters that can be run: checked by themselves, against each other, and against the data. Raises Refused."""
    values = params.load(file, changes)
    try:
        families.preset(values["model"])
        if not without_data:
            datasets.check(values)
    except ValueError as error:
        raise Refused(f"{file}: {error}") from None
    return values


def _which(only: str | None, start: str | None) -> list[Path]:
    """The notebooks asked for by their number. Raises Refused when there is none."""
    for number in (only, start):
        if number and not any(p.stem[:2] == number[:2] for p in paths.notebooks()):
            raise Refused(f"{number}: no such notebook; there are {', '.join(p.stem for p in paths.notebooks())}")
    return [p for p in paths.notebooks() if (not only or p.stem[:2] == only[:2]) and (not start or p.stem[:2] >= start[:2])]


def run(file: Path, only: str | None = None, start: str | None = None, changes: dict | None = None):
    """Run the notebooks that are not done with these parameters, in their order; `--only` and `--from` run anew.

    Raises Refused when a notebook refuses its input, and RuntimeError when one fails.
    """
    values = load(file, changes)
    began = time.monotonic()
    chosen = _which(only, start)
    for path in [p for p in paths.notebooks() if p.stem < chosen[0].stem]:
        if why := done.why_not(path.stem, values):
            raise Refused(f"{file}: {path.stem} {why}; run it first: cdlib run {file}")
    anew = [p for p in chosen if only or start or done.why_not(p.stem, values)]
    with _Kernels(anew, values) as kernels:
        for path in chosen:
            if path not in anew and not done.why_not(path.stem, values):
                say(f"{path.stem}: done")
                continue
            _execute(path, values, kernels.take(path))
    took = progress.duration(time.monotonic() - began)
    say(f"{file}: all done in {took}; tables and figures in {paths.figures(values['name'])}")


class _Kernels:
    """Kernels that import what their notebook will while the one before it still runs: half the time of a small run."""

    def __init__(self, notebooks: list[Path], values: dict):
        self.notebooks, self.values, self.ready = notebooks, values, {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for kernel in self.ready.values():
            run_sync(kernel.shutdown_kernel)(now=True)

    def take(self, path: Path) -> AsyncKernelManager:
        """The kernel of a notebook; that of the next one is started."""
        kernel = self.ready.pop(path, None) or self._start(path)
        later = next((p for p in self.notebooks if p.stem > path.stem), None)
        if later:
            self.ready[later] = self._start(later)
        return kernel

    def _start(self, path: Path) -> AsyncKernelManager:
        lines = params.imports(path)
        if "executor" in params.declared(path) and self.values["executor"] == "processes":
            lines.append("__import__('cdlib.executors').executors.warm()")
        kernel = AsyncKernelManager(kernel_name="python3")
        options = ["--IPKernelApp.log_level=40", f"--IPKernelApp.exec_lines={lines}"]
        run_sync(kernel.start_kernel)(extra_arguments=options, cwd=str(paths.root()))
        return kernel


def _execute(path: Path, values: dict, kernel: AsyncKernelManager):
    """Run one notebook in a kernel that has started, and end it; into runs/<name>/notebooks, telling its progress."""
    folder = paths.runs() / values["name"]
    output = folder / "notebooks" / path.name
    output.parent.mkdir(parents=True, exist_ok=True)
    (folder / "progress.json").unlink(missing_ok=True)
    say(f"{path.stem}: started")
    began = time.monotonic()
    try:
        with _telling(path.stem, folder / "progress.json"):
            papermill.execute_notebook(
                path,
                output,
                parameters={name: values[name] for name in params.declared(path)},
                kernel_name="python3",
                cwd=paths.root(),
                progress_bar=False,
                coalesce_streams=True,
                km=kernel,
            )
    except papermill.PapermillExecutionError as error:
        if error.ename in ("Refused", "TooFewCoalitions"):
            raise Refused(error.evalue) from None
        raise _failed(path, f"{error.ename}: {error.evalue}", output) from None
    except DeadKernelError:
        raise _failed(path, "its kernel died (out of memory, or killed)", output) from None
    finally:
        run_sync(kernel.shutdown_kernel)(now=True)
    say(f"{path.stem}: finished in {progress.duration(time.monotonic() - began)}")
    if why := done.why_not(path.stem, values):
        say(f"{path.stem}: {why}; the notebook names them, and running again tries them again")


def _failed(path: Path, why: str, output: Path) -> RuntimeError:
    return RuntimeError(f"{path.stem}: {why}\nthe notebook with the error: {output}\nopen it: jupyter lab {output}")


@contextlib.contextmanager
def _telling(notebook: str, file: Path):
    """Tell what a running notebook writes into its progress file, a line at most every ten seconds."""
    stop = threading.Event()

    def tell():
        last = None
        while not stop.wait(POLL_SECONDS):
            with contextlib.suppress(OSError, ValueError):
                state = json.loads(file.read_bytes())
                if state != last:
                    say(f"{notebook}: {progress.line(**state)}")
                last = state

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def status(file: Path, changes: dict | None = None):
    """What is done, measured, missing and failed, and about how long the rest will take."""
    values = load(file, changes)
    for path in paths.notebooks():
        say(f"{path.stem:20s} {done.why_not(path.stem, values) or 'done'}")
    here = store.Run("08_figures", values)
    say(f"\n{'coalitions for':42s} {'procedure':20s} {'wanted':>7s} {'measured':>9s} {'failed':>7s} {'missing':>8s}")
    missing, seconds = Counter(), {}
    for wanted in _wanted(here):
        records = _records(here, wanted)
        found = [r for r in records if r["status"] == "measured"]
        seconds.setdefault(wanted.procedure, []).extend(r["train_seconds"] + r["sample_seconds"] for r in found)
        missing[wanted.procedure] += len(wanted) - len(found)
        numbers = f"{len(wanted):7d} {len(found):9d} {len(records) - len(found):7d} {len(wanted) - len(found):8d}"
        say(f"{wanted.purpose[:42]:42s} {wanted.procedure:20s} {numbers}")
    left = sum(n * statistics.median(seconds[p]) for p, n in missing.items() if seconds[p])
    untried = [p for p, n in missing.items() if n and not seconds[p]]
    say(f"\ntime left: {progress.duration(left / executors.n_workers(values))}, by the coalitions measured so far")
    if untried:
        say(f"without {', '.join(untried)}, of which none is measured yet: `cdlib check` estimates them")
    with contextlib.suppress(OSError, ValueError):
        say(f"last seen at work on: {progress.line(**json.loads(here.path('progress.json').read_bytes()))}")


def _wanted(here: store.Run) -> list[plan.Wanted]:
    """All coalitions of a run that are known by now: the counterfactual ones once there are credits."""
    p = here.params
    several = plan.ends(p) + plan.shapley(p) + [plan.leave_one_out(p)] + plan.lds(p) + [*plan.unlearning(p).values()]
    with contextlib.suppress(Refused):
        credits = here.table("attributions")
        several += [*plan.counterfactual(p, credits).values(), *plan.shown(p, credits).values()]
    return several


def _records(here: store.Run, wanted: plan.Wanted) -> list[dict]:
    """The records there are of the wanted coalitions; none while the models they start from are not there."""
    try:
        specs = utilities.specifications(here, wanted)
    except Refused:
        return []
    return [r for r in (here.measured.read(here.measured.key(s)) for s in specs) if r]


def check(file: Path, changes: dict | None = None, without_data: bool = False):
    """Check the parameters and print the plan: contributors, images, models, coalitions by procedure, estimated time.

    Without data, neither images nor pretrained parts are looked for: contributors and images are those that the paper names.
    """
    from cdlib import bench  # here, for it brings torch

    values = load(file, changes, without_data)
    if not without_data:
        stages.needed(paths.runs() / values["name"], values)
    found = None if without_data else datasets.load(values).contributors
    n, images = datasets.planned(values) if without_data else (found.contributor.nunique(), len(found))
    full, sparse = bench.models(values)
    say(f"{file}: every parameter is allowed")
    say(f"contributors      {n}")
    each = "" if without_data else f", {contributors.counts(found).min()} to {contributors.counts(found).max()} from each"
    say(f"images            {images:,}{each}")
    say(f"parameters        {full.n_parameters():,} -> {sparse.n_parameters():,} pruned")
    planned = plan.n_planned(values)
    say("models to make    " + ", ".join(f"{k:,} {p}" for p, k in planned.items()))
    minutes = families.PRESETS[values["model"]].get("minutes")
    if minutes:
        for procedure, (train, sample) in minutes.items():
            say(f"  one {procedure:16s} {train:g} + {sample:g} min, training + sampling")
        # other unlearning is not timed in the paper; it takes fewer steps than fine-tuning
        hours = sum(k * sum(minutes.get(p, minutes["sparse_finetune"])) for p, k in planned.items()) / 60
        say(f"estimated work    {hours:,.0f} GPU hours by the paper's Table 2 (RTX 6000, A40, A100)")
        say(f"this machine      cdlib bench {file}")
        return
    each = bench.by_procedure(values, bench.seconds(values, full, sparse), images)
    for procedure, seconds in each.items():
        say(f"  one {procedure:20s} {seconds:.1f} s (measured now on a few steps)")
    total, workers = sum(k * each[p] for p, k in planned.items()), executors.n_workers(values)
    say(f"estimated time    {progress.duration(total / workers)} with {workers} workers, and about 5 s for each notebook")


def bench(file: Path, changes: dict | None = None, steps: int = 5):
    """Time training and sampling steps of the full and the sparse model on the device at hand, with random weights."""
    from cdlib import bench, machine

    values = load(file, changes, without_data=True)
    full, sparse = bench.models(values)
    each = bench.seconds(values, full, sparse, steps)
    say(f"{file}: {values['model']} on {machine.device_name(full.device)}, {values['precision']}")
    say(f"{'':8s}{'parameters':>14s}{'train steps/s':>16s}{'images/s':>12s}")
    for name, model in (("full", full), ("sparse", sparse)):
        images = 1 / (each["sample"][name] * values["sampling_steps"])
        say(f"{name:8s}{model.n_parameters():14,}{1 / each.train[name]:16.3g}{images:12.3g}")
    seconds = bench.by_procedure(values, each, datasets.planned(values)[1])
    say("one coalition of everybody: " + ", ".join(f"{p} {progress.duration(s)}" for p, s in seconds.items()))
    say(f"retrain / sparse_finetune = {seconds['retrain'] / seconds['sparse_finetune']:.1f}")
    at_once = f"steps of {values['batch_size']} images, sampling {min(values['n_images'], values['sample_batch'])} at once"
    say("decoding latents is not counted" if full.encodes else "nothing has to be decoded")
    say(f"{at_once}; peak memory {bench.peak_gb(full.device):.1f} GB")


def report(file: Path, changes: dict | None = None):
    """Write the report of a run, as far as it is: one page with all tables and figures; and the page of all runs."""
    values = load(file, changes, without_data=True)
    here = store.Run("08_figures", values)
    if not any(here.path(p).is_dir() for p in ("done", "notebooks")):
        raise Refused(f"{here.folder}: nothing has run yet; first: cdlib run {file}")
    say(f"report: {_with_size(pages.report(here, file, _asked(here), executors.n_workers(values)))}")
    say(f"all runs: {_with_size(pages.index(paths.runs()))}")


def _asked(here: store.Run) -> list | None:
    """Each `_wanted` with its `_records`; None where the data is not there, without which nobody knows which they are."""
    try:
        datasets.check(here.params)
        return [(wanted, _records(here, wanted)) for wanted in _wanted(here)]
    except ValueError:
        return None


def _with_size(page: Path) -> str:
    return f"{page} ({page.stat().st_size / 1000:,.0f} kB)"


def fail(error: Exception, code: int) -> int:
    """Tell an error on standard error; returns the exit status."""
    sys.stderr.write(f"cdlib: {error}\n")
    return code
