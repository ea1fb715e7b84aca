"""A hundred SIGKILLs at random moments: `pytest -m slow tests/test_kills.py`; CDLIB_KILLS changes how many.

Killed are the driver, the notebook's kernel, the server that workers fork from, and workers, as drawn, at moments drawn
evenly; a run that has been stopped is started again, until it ends; then another starts in a new folder, until there are enough.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from test_run import ROOT, results, smoke  # noqa: F401

KILLS = int(os.environ.get("CDLIB_KILLS", "100"))
LEAST_SECONDS, MOST_SECONDS = 1.0, 20.0  # between two kills: a notebook's start takes several
END_SECONDS = 60.0  # in which a process whose parent was killed must be gone


def processes(scratch):
    """{kind: pids} of a run's processes: those that were started with its folder in their environment."""
    parents, kinds = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"CDLIB_RUNS={scratch}/".encode() in (folder / "environ").read_bytes():
                kinds[int(folder.name)] = _kind((folder / "cmdline").read_bytes())
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # gone meanwhile
            continue
    found = {}
    for pid, kind in kinds.items():
        kind = "worker" if kind == kinds.get(parents[pid]) == "forkserver" else kind
        found.setdefault(kind, []).append(pid)
    return found


def _kind(command):
    for words, kind in ((b"ipykernel", "kernel"), (b"forkserver", "forkserver"), (b"resource_tracker", "tracker")):
        if words in command:
            return kind
    return "driver" if b"\0cdlib\0run\0" in command else "other"


def files(scratch):
    """The names of all files of a run and its figures, but what writers that were killed have left."""
    found = (p for p in scratch.rglob("*") if p.is_file() and "report" not in p.parts)
    return {str(p.relative_to(scratch)) for p in found if p.suffix != ".tmp"}


def records(scratch):
    """{key: members, seed and procedure} of the whole records of measured coalitions."""
    found = {}
    for path in (scratch / "runs" / "smoke" / "measured").glob("??/*.json"):
        record = json.loads(path.read_bytes())
        if record["status"] == "measured":
            found[path.stem] = tuple(record["spec"][k] for k in ("procedure", "members", "seed"))
    return found


def start(scratch):
    """Start, or go on with, a smoke run in a process of its own."""
    env = os.environ | {"CDLIB_RUNS": f"{scratch}/runs", "CDLIB_FIGURES": f"{scratch}/figures", "CDLIB_ROOT": str(ROOT)}
    command = [sys.executable, "-m", "cdlib", "run", str(ROOT / "params" / "smoke.yaml")]
    with (scratch.parent / f"{scratch.name}.log").open("a") as log:
        return subprocess.Popen(command, env=env, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)


def kill_one(scratch, rng):
    """Kill a process of a run: first a kind is drawn, then one of it. Returns the kind; None when there is none."""
    alive = {kind: pids for kind, pids in processes(scratch).items() if kind in ("driver", "kernel", "forkserver", "worker")}
    if not alive:
        return None
    kind = rng.choice(sorted(alive))
    try:
        os.kill(rng.choice(sorted(alive[kind])), signal.SIGKILL)
    except ProcessLookupError:
        return None
    return kind


def run_to_its_end(scratch, rng, n_left):
    """A run that is killed up to so many times, and started again until it ends; returns how often each kind was killed."""
    killed, known, going = Counter(), {}, start(scratch)
    while True:
        wait = rng.uniform(LEAST_SECONDS, MOST_SECONDS) if killed.total() < n_left else None
        try:
            if going.wait(wait) == 0:
                return killed
        except subprocess.TimeoutExpired:
            kind = kill_one(scratch, rng)
            killed.update([kind] if kind else [])
            now = records(scratch)
            assert known.items() <= now.items(), "a record is lost"
            known = now
            try:
                going.wait(1.0)  # a driver may go on without a worker, and must not without its kernel
            except subprocess.TimeoutExpired:
                continue
        assert going.poll() == 0 or killed, f"ended without a kill: {scratch}.log"
        going = start(scratch)


def gone(scratch):
    """Wait until no process of a run is left; returns those that are."""
    end = time.monotonic() + END_SECONDS
    while (left := processes(scratch)) and time.monotonic() < end:
        time.sleep(0.5)
    return left


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing_and_leave_nothing(smoke, tmp_path, capsys):  # noqa: F811
    killed, ended, before, expected = Counter(), 0, time.monotonic(), results(smoke)
    complete, measured = files(smoke), records(smoke)
    while killed.total() < KILLS:
        scratch = tmp_path / f"run{ended}"
        scratch.mkdir()
        killed += run_to_its_end(scratch, random.Random(ended), KILLS - killed.total())
        ended += 1
        assert gone(scratch) == {}, "processes are left"
        assert results(scratch) == expected
        assert records(scratch) == measured and len(set(measured.values())) == len(measured)
        assert files(scratch) == complete
        with capsys.disabled():
            by_kind = ", ".join(f"{kind} {n}" for kind, n in sorted(killed.items()))
            seconds = time.monotonic() - before
            sys.stdout.write(f"\n{killed.total()} kills ({by_kind}), {ended} runs ended, {seconds:.0f} s\n")
