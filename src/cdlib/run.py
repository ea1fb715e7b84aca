"""Runs the notebooks of a parameter file, tells how far a run is, and says beforehand what it will take."""

import contextlib
import json
import sys
import threading
import time
from pathlib import Path

from cdlib import coalitions, datasets, params, paths, plan, progress, store
from cdlib.errors import Refused

POLL_SECONDS = 10.0


def say(text: str):
    """One plain line on standard output."""
    print(text, flush=True)


def load(file: Path, changes: dict | None = None) -> dict:
    """Parameters that can be run: checked one by one, and against each other and the data. Raises Refused."""
    from cdlib import families

    values = params.load(file, changes)
    try:
        datasets.check(values)
        families.preset(values["model"])
        n = plan.n_contributors(values)
        for alpha in values["alphas"]:
            coalitions.datamodel(n, 1, alpha, 0)
    except ValueError as error:
        raise Refused(f"{file}: {error}") from None
    for name, least, none in (("n_coalitions", 2 * n, False), ("n_paper_coalitions", 2 * n, True), ("n_finetune", 4, True)):
        if values[name] < least and not (none and values[name] == 0):
            raise Refused(f"{file}: {name}: {values[name]}: must be at least {least}{' or 0' * none} for {n} contributors")
    return values


def _which(only: str | None, start: str | None) -> list[Path]:
    """The notebooks asked for by their number. Raises Refused when there is none."""
    for number in (only, start):
        if number and not any(p.stem.startswith(number) for p in paths.notebooks()):
            raise Refused(f"{number}: no such notebook; there are {', '.join(p.stem for p in paths.notebooks())}")
    return [p for p in paths.notebooks() if (not only or p.stem.startswith(only)) and (not start or p.stem[:2] >= start[:2])]


def run(file: Path, only: str | None = None, start: str | None = None, changes: dict | None = None):
    """Run the notebooks that are not done with these parameters, in their order; `--only` and `--from` run anew.

    Raises Refused when a notebook refuses its input, and RuntimeError when one fails.
    """
    values = load(file, changes)
    began = time.monotonic()
    for path in _which(only, start):
        if not (only or start) and store.is_done(path.stem, values):
            say(f"{path.stem}: done")
            continue
        _execute(path, values)
    took = progress.duration(time.monotonic() - began)
    say(f"{file}: all done in {took}; tables and figures in {paths.figures(values['name'])}")


def _execute(path: Path, values: dict):
    """Run one notebook into runs/<name>/notebooks, telling its progress."""
    import papermill

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
                extra_arguments=["--IPKernelApp.log_level=40"],
            )
    except papermill.PapermillExecutionError as error:
        if error.ename == "Refused":
            raise Refused(error.evalue) from None
        raise RuntimeError(
            f"{path.stem}: {error.ename}: {error.evalue}\nthe notebook with the error: {output}\nopen it: jupyter lab {output}"
        ) from None
    if not store.is_done(path.stem, values):
        raise RuntimeError(f"{path.stem}: stopped before its last cell; open it: jupyter lab {output}")
    say(f"{path.stem}: finished in {progress.duration(time.monotonic() - began)}")


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
    from cdlib import utilities

    values = load(file, changes)
    for path in paths.notebooks():
        say(f"{path.stem:20s} {'done' if store.is_done(path.stem, values) else 'not done'}")
    seconds_left, here = 0.0, store.Run("08_figures", values)
    say(f"\n{'coalitions for':32s} {'procedure':16s} {'wanted':>7s} {'measured':>9s} {'failed':>7s} {'missing':>8s}")
    for wanted in _wanted(here):
        try:
            keys = {here.measured.key(s) for s in utilities.specifications(here, wanted)}
        except (Refused, FileNotFoundError):
            keys = set()
        records = [r for r in map(here.measured.read, keys) if r]
        done = [r for r in records if r["status"] == "measured"]
        missing = (len(keys) or len(wanted)) - len(done)
        seconds = sorted(r["train_seconds"] + r["sample_seconds"] for r in done)
        seconds_left += missing * seconds[len(seconds) // 2] if seconds else 0.0
        say(
            f"{wanted.purpose[:32]:32s} {wanted.procedure:16s} {len(wanted):7d} {len(done):9d} "
            f"{len(records) - len(done):7d} {missing:8d}"
        )
    say(f"\ntime left, by what was measured so far, for one worker: {progress.duration(seconds_left)}")
    with contextlib.suppress(OSError, ValueError):
        say(f"last seen at work on: {progress.line(**json.loads(here.path('progress.json').read_bytes()))}")


def _wanted(here: store.Run) -> list[plan.Wanted]:
    p = here.params
    several = plan.ends(p) + plan.shapley(p) + plan.leave_one_out(p) + plan.lds(p)
    with contextlib.suppress(Refused, KeyError, ValueError):
        several += plan.counterfactual(p, here.table("attributions")).values()
    return [w for w in several if len(w)]


def check(file: Path, changes: dict | None = None):
    """Check the parameters and print the plan: contributors, images, models, coalitions by procedure, estimated time."""
    from cdlib import bench, contributors

    values = load(file, changes)
    table = datasets.load(values).contributors
    full, sparse = bench.models(values)
    say(f"{file}: every parameter is allowed")
    say(f"contributors      {len(contributors.labels(table))}")
    say(f"images            {len(table)}, {contributors.counts(table).min()} to {contributors.counts(table).max()} from each")
    say(f"parameters        {full.n_parameters():,} full, {sparse.n_parameters():,} pruned")
    planned = plan.n_planned(values)
    say("models to make    " + ", ".join(f"{n} {p}" for p, n in planned.groupby("procedure", sort=False).n.sum().items()))
    each = bench.seconds(values, full, sparse)
    total = sum(n * each[p] for p, n in zip(planned.procedure, planned.n, strict=True))
    for procedure, seconds in each.items():
        say(f"  one {procedure:16s} {seconds:.1f} s (measured now on a few steps)")
    workers = bench.n_workers(values)
    say(f"estimated time    {progress.duration(total / workers)} with {workers} workers, beside about 10 s for each notebook")


def report(file: Path, changes: dict | None = None):
    """Write the report of a run: one page with all tables and figures, and the executed notebooks as html."""
    from cdlib import report as pages

    values = load(file, changes)
    folder = paths.runs() / values["name"]
    notebooks = sorted((folder / "notebooks").glob("*.ipynb"))
    if not notebooks:
        raise Refused(f"{folder / 'notebooks'}: nothing has run yet; first: cdlib run {file}")
    done = [json.loads(p.read_bytes()) for p in sorted((folder / "done").glob("*.json"))]
    about = {
        "parameters": str(file),
        **(done[-1]["versions"] | {k: done[-1][k] for k in ("revision", "machine")} if done else {}),
    }
    about["seconds"] = round(sum(d["seconds"] for d in done))
    say(f"report: {pages.report(folder, paths.figures(values['name']), notebooks, values['name'], about)}")


def fail(error: Exception, code: int) -> int:
    """Tell an error on standard error; returns the exit status."""
    sys.stderr.write(f"cdlib: {error}\n")
    return code
