"""How far a run is: as lines (`cdlib status`), and as a page (`cdlib report`)."""

import contextlib
import json
import statistics
from collections import Counter
from pathlib import Path

from cdlib import datasets, done, executors, paths, plan, progress, store, utilities
from cdlib import report as pages
from cdlib.command import load, say
from cdlib.errors import Refused


def status(file: Path, changes: dict | None = None):
    """What is done, measured, missing and failed, and about how long the rest will take."""
    values = load(file, changes)
    for path in paths.notebooks():
        say(f"{path.stem:20s} {done.why_not(path.stem, values) or 'done'}")
    here = store.Run("08_figures", values)
    say(f"\n{'coalitions for':42s} {'procedure':20s} {'wanted':>7s} {'measured':>9s} {'failed':>7s} {'missing':>8s}")
    missing, seconds, damaged = Counter(), {}, {}
    for wanted in _wanted(here):
        records = _records(here, wanted, damaged)
        found = [r for r in records if r["status"] == "measured"]
        seconds.setdefault(wanted.procedure, []).extend(r["train_seconds"] + r["sample_seconds"] for r in found)
        missing[wanted.procedure] += len(wanted) - len(found)
        numbers = f"{len(wanted):7d} {len(found):9d} {len(records) - len(found):7d} {len(wanted) - len(found):8d}"
        say(f"{wanted.purpose[:42]:42s} {wanted.procedure:20s} {numbers}")
    for why in damaged.values():
        say(f"damaged: {why}")
    if foreign := here.measured.foreign():
        say(f"not ours, and never read: {len(foreign)} files in {here.measured.folder}, the first: {foreign[0].name}")
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


def _records(here: store.Run, wanted: plan.Wanted, damaged: dict | None = None) -> list[dict]:
    """The records there are of the wanted coalitions; none while the models they start from are not there.

    damaged    {key: why} of records that are not what was written: those found are added
    """
    try:
        keys = [here.measured.key(s) for s in utilities.specifications(here, wanted)]
    except Refused:
        return []
    found = []
    for key in keys:
        try:
            found.append(here.measured.read(key))
        except Refused as error:
            (damaged if damaged is not None else {})[key] = str(error)
    return [r for r in found if r]


def report(file: Path, changes: dict | None = None, so_far: bool = False):
    """Write the report of a run, as far as it is: one page with all tables and figures; and the page of all runs.

    so_far    that of the results that `cdlib run --so-far` has left
    """
    values = load(file, {**(changes or {}), **({"so_far": True} if so_far else {})}, without_data=True)
    here = store.Run("08_figures", values)
    if not any(here.path(p).is_dir() for p in ("done", "notebooks")):
        raise Refused(f"{here.results}: nothing has run yet; first: cdlib run {file}{' --so-far' if here.so_far else ''}")
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
