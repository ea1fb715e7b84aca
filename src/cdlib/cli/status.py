"""How far a run is: as lines (`cdlib status`), and as a page (`cdlib report`)."""

import contextlib
import json
import math
import time
from collections import Counter
from functools import cache, partial
from pathlib import Path

from threadpoolctl import threadpool_limits

from cdlib import store
from cdlib.base import paths, progress
from cdlib.base.errors import Refused
from cdlib.cli import outlook, pace
from cdlib.cli.command import load, say
from cdlib.cli.snapshot import Snapshot
from cdlib.data import datasets, design
from cdlib.measure import properties, utility
from cdlib.measure.executors import tasks
from cdlib.show import provenance
from cdlib.store import completion

SHOWN_FAILURES = 5
LOCAL = ("serial", "processes")  # executors whose workers are all counted by executors.n_workers


def status(file: Path, changes: dict | None = None, se: float | None = None, top: int | None = None):
    """What is done, measured, missing and failed, how fast it goes, and how long the rest and a wished precision will take.

    se     a standard error to be reached, in the property's unit; None: half of the present one
    top    how many contributors of highest credit are to be told from the others; None: 5, or fewer than half
    """
    values = load(file, changes)
    outlook.check(values, se, top)
    here = store.Run("08_figures", values)
    here.measured = Snapshot(here.folder / "measured")
    asked = _asked(here, damaged := {})
    for path in paths.notebooks():
        say(f"{path.stem:20s} {completion.why_not(path.stem, values, here.measured) or 'done'}")
    missing = _counts(asked)
    speed = _speed(here, asked, missing)
    _failures(asked)
    for why in damaged.values():
        say(f"damaged: {why}")
    if foreign := here.measured.foreign():
        say(f"not ours, and never read: {len(foreign)} files in {here.measured.folder}, the first: {foreign[0].name}")
    with contextlib.suppress(OSError, ValueError):
        state = here.path("progress.json")
        ago = progress.duration(max(time.time() - state.stat().st_mtime, 0))
        say(f"\nlast seen at work {ago} ago, on: {progress.line(**json.loads(state.read_bytes()))}")
    with threadpool_limits(1):  # the workers have the cores, and threads would wait for each other
        outlook.tell(here, asked, speed, se, top)


def _counts(asked: list) -> Counter:
    """Say what is measured of each purpose; returns how many coalitions are missing, by what they cost (plan.Wanted.cost)."""
    missing, rows = Counter(), [provenance.count(*one) for one in asked]
    wide = max(len(row["purpose"]) for row in rows)
    heads = f"{'wanted':>7} {'measured':>9} {'failed':>7} {'missing':>8} {'share':>6}"
    say(f"\n{'coalitions for':{wide}s} {'procedure':20s} {heads}")
    for (wanted, _), row in zip(asked, rows, strict=True):
        missing[wanted.cost] += row["missing"]
        numbers = f"{row['wanted']:7d} {row['measured']:9d} {row['failed']:7d} {row['missing']:8d}"
        say(f"{row['purpose']:{wide}s} {row['procedure']:20s} {numbers} {_share(row['measured'], row['wanted'])}")
    n, found = sum(row["wanted"] for row in rows), sum(row["measured"] for row in rows)
    say(f"\nmeasured: {found:,} of {n:,} coalitions, {_share(found, n).strip()}")
    return missing


def _share(part: int, whole: int) -> str:
    """A share in per cent, rounded down: 100 only when nothing is missing."""
    return f"{math.floor(100 * part / whole) if whole else 100:4d} %"


def _speed(here: store.Run, asked: list, missing: Counter):
    """Say how fast it goes and how long the rest will take; returns n, procedure -> seconds, None when not known."""
    kept = {r["key"]: (wanted.cost, r) for wanted, records in asked for r in records if r["status"] == "measured"}
    took = {key: r["train_seconds"] + r["sample_seconds"] for key, (_, r) in kept.items()}
    seconds = {cost: [] for cost in missing}
    for key, (cost, _) in kept.items():
        seconds[cost].append(took[key])
    each, workers = pace.each(seconds), tasks.n_workers(here.params)
    times = ((here.measured.written(key), s) for key, s in took.items())
    now = pace.present(times, time.time(), workers if here["executor"] in LOCAL else math.inf)
    at_once = now.at_once if now and now.at_once > 0 else workers
    if now:
        busy = f"{now.n:,} in the last hour, in {progress.duration(now.seconds)} of work"
        say(f"rate: {busy}: {now.per_hour:,.0f} an hour, {at_once:.1f} at once")
    else:
        say(f"rate: none measured here in the last hour; with {workers} at once, by the seconds that those before took:")
    known = [f"{procedure} {3600 / s * at_once:,.0f} an hour" for procedure, s in each.items() if s > 0]
    say(f"by procedure: {', '.join(known) or 'not known yet'}")
    left = pace.left(missing, each, at_once)
    if untried := [cost for cost, n in missing.items() if n and cost not in each]:
        known = f"more than {progress.duration(left)}" if each.keys() - {design.UNTRAINED} else "not known yet"
        say(f"time left: {known}: none of {', '.join(untried)} is measured yet; `cdlib check` estimates them")
    else:
        say(f"time left: {progress.duration(left)}, by the coalitions measured so far")
    return lambda n, procedure: pace.left({procedure: n}, each, at_once) if procedure in each else None


def _failures(asked: list):
    """Name the coalitions that failed, with the last lines of their tracebacks: the first few, by key."""
    failed = {r["key"]: provenance.failure(r) for _, records in asked for r in records if r["status"] == "failed"}
    if failed:
        say(f"\nfailed: {len(failed)}; the next `cdlib run` tries them again")
    for _, f in sorted(failed.items())[:SHOWN_FAILURES]:
        say(f"  {f['key']}  {f['procedure']} of {f['members']}, seed {f['seed']}, tried {f['attempts']} times: {f['error']}")
    if len(failed) > SHOWN_FAILURES:
        say(f"  and {len(failed) - SHOWN_FAILURES} more")


def _wanted(here: store.Run) -> list[design.Wanted]:
    """All coalitions of a run that are known by now: the counterfactual ones once there are credits."""
    p = here.params
    several = design.ends(p) + design.shapley(p) + [design.leave_one_out(p)] + design.lds(p) + [*design.unlearning(p).values()]
    with contextlib.suppress(Refused):
        credits = here.table("attributions")
        several += [*design.counterfactual(p, credits).values(), *design.shown(p, credits).values()]
    return [wanted for wanted in several if len(wanted)]


def _asked(here: store.Run, damaged: dict | None = None) -> list[tuple[design.Wanted, list[dict]]]:
    """Each `_wanted` with the records there are of its coalitions; none while the models they start from are not there.

    One that lacks what this asker keeps of its images is not there: it will be measured again.

    damaged    {key: why} of records that are not what was written: those found are added
    """
    several = [(wanted, _keys(here, wanted)) for wanted in _wanted(here)]
    records = here.measured.records((key for _, keys in several for key in keys), {} if damaged is None else damaged)
    kept = cache(partial(_kept_as, here))
    return [
        (wanted, [r for r in map(records.get, keys) if r and not _lacks(here, r, map(kept, wanted.keeps))])
        for wanted, keys in several
    ]


def _keys(here: store.Run, wanted: design.Wanted) -> list[str]:
    try:
        return [here.measured.key(spec) for spec in utility.specifications(here, wanted)]
    except Refused:
        return []


def _kept_as(here: store.Run, feature: str) -> str:
    """Under which name a feature is kept; one that there is not, where it cannot be computed here."""
    try:
        return properties.kept_as(feature, properties.feature(here.folder, here.params, feature).digest)
    except Refused:
        return ""


def _lacks(here: store.Run, record: dict, arrays) -> bool:
    arrays = list(arrays)
    return bool(arrays) and record["status"] == "measured" and here.measured.lacks(record, arrays)


def report(file: Path, changes: dict | None = None):
    """Write the report of a run, as far as it is: one page with all tables and figures; and the page of all runs."""
    from cdlib.show import report as pages  # which takes as long to import as all of `status`

    values = load(file, changes, without_data=True)
    here = store.Run("08_figures", values)
    if not any(here.path(p).is_dir() for p in ("done", "notebooks")):
        raise Refused(f"{here.results}: nothing has run yet; first: cdlib run {file}{' --so-far' if here.so_far else ''}")
    asked = None  # where the data is not there, nobody knows which coalitions they are
    with contextlib.suppress(ValueError):
        datasets.check(values)
        asked = _asked(here)
    say(f"report: {_with_size(pages.report(here, file, asked))}")
    say(f"all runs: {_with_size(pages.index(paths.runs()))}")


def _with_size(page: Path) -> str:
    return f"{page} ({page.stat().st_size / 1000:,.0f} kB)"
