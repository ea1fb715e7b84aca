"""What is promised whatever fails: full disks, folders that cannot be written, two runs at once, dead writers, late files."""

import functools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

from cdlib import __main__, store
from cdlib.base import disk
from cdlib.base.errors import Unwritable
from cdlib.data.design import Wanted
from cdlib.measure import executors, utility, worker
from cdlib.models import stages
from cdlib.store import cache, completion
from cdlib.store.measured import Measured

ROOT = Path(__file__).resolve().parents[1]
SPEC = {"procedure": "retrain", "members": "01", "seed": 1}
KEY = Measured.key(SPEC)
MEMBERS = np.array([[k >> i & 1 for i in range(4)] for k in range(1, 9)], bool)
WANTED = Wanted("some coalitions", "retrain", MEMBERS, np.zeros(8, int))
LIMITED = 700  # bytes: a file of a measured coalition is larger, one of progress is not

# A run's folder on a disk that can be filled, or made read-only, and emptied or made writable again.
ON_A_DISK = """
import contextlib, json, os, resource, shutil, subprocess, sys, warnings
from pathlib import Path
import numpy as np
import cdlib.measure.worker
from cdlib import store
from cdlib.base import params
from cdlib.measure import utility
from cdlib.base.errors import Unwritable
from cdlib.data.design import Wanted

made, scratch, mounts, fault, executor = sys.argv[1:]
scratch, mounts = Path(scratch), mounts == "True"

def break_it():
    if fault == "full" and mounts:
        with contextlib.suppress(OSError), open(scratch / "ballast", "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        os.truncate(scratch / "ballast", (scratch / "ballast").stat().st_size - 3 * 8192)  # room for the first coalitions
    elif fault == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMITED, resource.RLIM_INFINITY))
    elif mounts:
        subprocess.run(["mount", "-o", "remount,ro", scratch], check=True)
    else:
        for folder, _, _ in os.walk(scratch):
            os.chmod(folder, 0o555)
        if os.getuid() == 0:
            os.seteuid(65534)

def mend_it():
    if fault == "full" and mounts:
        os.unlink(scratch / "ballast")
    elif fault == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    elif mounts:
        subprocess.run(["mount", "-o", "remount,rw", scratch], check=True)
    else:
        os.seteuid(os.getuid())
        for folder, _, _ in os.walk(scratch):
            os.chmod(folder, 0o755)

def measure():
    here = store.Run("04_shapley", params.check({**TINY, "executor": executor, "workers": 2}, "tiny"))
    members = np.array([[k >> i & 1 for i in range(4)] for k in range(1, 9)], bool)
    return utility.measure(here, Wanted("some coalitions", "retrain", members, np.zeros(8, int)))

def files():
    return {str(p.relative_to(scratch)): p.stat().st_mtime_ns for p in scratch.rglob("*") if p.is_file()}

if __name__ == "__main__":
    if mounts:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", scratch], check=True)
    os.environ["CDLIB_RUNS"] = str(scratch)
    shutil.copytree(made, scratch / "tiny")
    break_it()
    try:
        measure()
        told = None
    except Unwritable as error:
        told = str(error)
    left = files()
    mend_it()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = measure()
    after = files()
    print(json.dumps({
        "told": told,
        "kept": sum(p.endswith(".json") and "/measured/" in p for p in left),
        "again": [p for p in left if "/measured/" in p and p.endswith(".json") and after.get(p) != left[p]],
        "temporaries": [p for p in left if p.endswith(".tmp")],
        "measured": len(table),
    }))
"""

# One of two runs that ask for the same coalitions of the same folder at once.
AT_ONCE = """
import pathlib, sys, time
import cdlib.measure.worker
import numpy as np
from cdlib import store
from cdlib.base import params
from cdlib.measure import utility
from cdlib.data.design import Wanted

me, other = map(pathlib.Path, sys.argv[1:])
me.touch()
while not other.exists():
    time.sleep(0.01)
here = store.Run("04_shapley", params.check(TINY, "tiny"))
members = np.array([[k >> i & 1 for i in range(4)] for k in range(1, 9)], bool)
table = utility.measure(here, Wanted("some coalitions", "retrain", members, np.zeros(8, int)))
table[["key", "members", "inception_score"]].to_csv(me, index=False)
"""

# Writes the same large file again and again.
WRITER = """
import pathlib, sys
from cdlib.base import disk
while True:
    disk.write_bytes(pathlib.Path(sys.argv[1]), bytes(30_000_000))
"""


@functools.cache
def can_mount():
    """Whether this machine lets a process have mounts of its own."""
    try:
        return subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/tmp"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def alone(*words, **options):
    """Run Python in a process that has mounts of its own, where that is allowed."""
    command = [*(["unshare", "-rm"] if can_mount() else []), sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, **options)


def script(folder, source):
    """A script in a file, as worker processes need it, with the tests' tiny parameters."""
    from conftest import TINY

    path = folder / "script.py"
    path.write_text(f"TINY, LIMITED = {TINY!r}, {LIMITED}\n{textwrap.dedent(source)}")
    return path


@pytest.mark.parametrize(("fault", "executor"), [("full", "serial"), ("full", "processes"), ("read-only", "serial")])
def test_a_disk_that_cannot_be_written_stops_at_once_in_one_line_and_nothing_is_lost(made, tmp_path, fault, executor):
    scratch = tmp_path / "disk"
    scratch.mkdir(mode=0o777)
    ran = alone(script(tmp_path, ON_A_DISK), made, scratch, can_mount(), fault, executor)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    what = {"full": "No space left|File too large|quota", "read-only": "Read-only|Permission denied"}[fault]
    assert len(found["told"].splitlines()) == 1 and str(scratch) in found["told"]
    assert any(words in found["told"] for words in what.split("|"))
    assert "run again: nothing that was measured is lost" in found["told"]
    assert ("MB free" in found["told"]) == (fault == "full")
    assert found["kept"] < 8 and found["temporaries"] == [] and found["again"] == [] and found["measured"] == 8


def test_an_error_of_the_disk_is_not_tried_again(run, monkeypatch):
    tried = []

    def full(model, images, recipe, seed, average=None, checkpoint=None):
        tried.append(seed)
        raise OSError(28, "No space left on device", "/somewhere")

    monkeypatch.setattr(worker, "train", full)
    with pytest.raises(Unwritable, match=r"^/somewhere: No space left on device \(.* MB free\); make space and run again"):
        utility.measure(run, WANTED)
    assert tried == [0] and not list(run.measured.folder.rglob("*.json"))


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_folder_that_cannot_be_written_is_refused_before_any_work(scratch, monkeypatch, capsys, command):
    monkeypatch.setenv("CDLIB_RUNS", "/sys/runs")
    assert __main__.main([command, str(ROOT / "params" / "smoke.yaml")]) == 2
    told = capsys.readouterr()
    assert not told.out
    [line] = told.err.splitlines()
    assert line.startswith("cdlib: /sys") and line.endswith("make it writable and run again: nothing that was measured is lost")


def test_a_disk_that_fills_up_under_the_command_line_is_told_in_one_line(tmp_path):
    disk, env = tmp_path / "disk", os.environ | {"CDLIB_ROOT": str(ROOT)}
    disk.mkdir()
    env |= {"CDLIB_RUNS": str(disk / "runs"), "CDLIB_FIGURES": str(disk / "figures")}
    words = [sys.executable, "-m", "cdlib", "run", str(ROOT / "params" / "smoke.yaml")]
    if can_mount():
        words = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=64k tmpfs "$0" && exec "$@"', str(disk), *words]
        limit = None
    else:
        limit = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (40_000, 40_000))
    full = subprocess.run(words, env=env, capture_output=True, text=True, preexec_fn=limit)
    assert full.returncode == 2, full.stderr
    assert len(full.stderr.splitlines()) == 1 and "make space and run again: nothing that was measured is lost" in full.stderr


def test_a_killed_writer_leaves_the_whole_file_that_was_there(tmp_path):
    target = tmp_path / "large.bin"
    disk.write_bytes(target, b"whole")
    with subprocess.Popen([sys.executable, "-c", WRITER, target]) as writer:
        while not list(tmp_path.glob(".large.bin.*.tmp")):
            pass
        os.kill(writer.pid, signal.SIGKILL)
    assert target.read_bytes() in (b"whole", bytes(30_000_000))
    disk.write_bytes(target, b"again")
    assert target.read_bytes() == b"again"


def test_two_runs_at_once_end_in_the_same_table_and_whole_pairs(run, tmp_path):
    source = script(tmp_path, AT_ONCE)
    a, b = tmp_path / "a", tmp_path / "b"
    both = [subprocess.Popen([sys.executable, source, *pair]) for pair in ((a, b), (b, a))]
    assert [process.wait() for process in both] == [0, 0]
    assert a.read_bytes() == b.read_bytes() and len(a.read_text().splitlines()) == 9
    keys = [line.split(",")[0] for line in a.read_text().splitlines()[1:]]
    assert all(run.measured.complete(key) for key in keys)
    files = [p for p in run.measured.folder.rglob("*") if p.is_file()]
    assert len(files) == 16 and not run.measured.foreign()


def one_by_one(run, wanted=WANTED):
    """{key: task} of coalitions, as workers get them."""
    specs = {run.measured.key(spec): spec for spec in utility.specifications(run, wanted)}
    return {key: task for task, key in utility._tasks(run, specs, ()).items()}


def test_a_coalition_that_another_run_has_measured_meanwhile_is_not_measured_again(run, monkeypatch):
    first, second, *_ = one_by_one(run).values()
    utility.measure_one(first)
    monkeypatch.setattr(worker, "train", lambda *_, **__: pytest.fail("measured again"))
    utility.measure_one(first)
    with pytest.raises(pytest.fail.Exception):
        utility.measure_one(second)


def test_writers_of_other_values_under_one_key_leave_one_whole_pair(tmp_path):
    """As two GPUs, whose values differ in the last bits."""
    kept, values = Measured(tmp_path), range(4)
    for _ in range(25):
        start = threading.Barrier(len(values))

        def write(value, start=start):
            start.wait()
            kept.write(SPEC, {"inception_score": float(value)}, {"images": np.full(3, value)}, 1.0, 1.0)

        writers = [threading.Thread(target=write, args=[value]) for value in values]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert kept.arrays(KEY)["images"].tolist() == [kept.read(KEY)["properties"]["inception_score"]] * 3


def test_a_crash_between_arrays_and_record_leaves_nothing_after_the_next_time(tmp_path, monkeypatch):
    kept, write = Measured(tmp_path), cache.write
    monkeypatch.setattr(cache, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        kept.write(SPEC, {"p": 1.0}, {"images": np.zeros(3)}, 1.0, 1.0)
    assert [p.suffix for p in tmp_path.rglob("*.*")] == [".safetensors"] and not kept.ready(KEY)
    monkeypatch.setattr(cache, "write", write)
    kept.write(SPEC, {"p": 1.0}, {"images": np.zeros(3)}, 1.0, 1.0)
    assert sorted(p.suffix for p in tmp_path.rglob("*.*")) == [".json", ".safetensors"] and kept.ready(KEY)


def later(seconds, function, *args):
    """Call a function after some time."""
    threading.Timer(seconds, function, args).start()


def elsewhere(run, seconds):
    """An executor whose results are seen here only after some time; never when `seconds` is None."""

    seen = set()

    def execute(function, tasks, workers, where):
        for task in tasks:
            function(task)
            [path] = set(run.measured.folder.glob("??/*.json")) - seen
            hidden = path.rename(path.with_suffix(".hidden"))
            if seconds is not None:
                later(seconds, hidden.rename, path)
                seen.add(path)
            yield task, None

    return execute


def test_a_record_that_a_shared_folder_shows_late_is_waited_for(run, monkeypatch):
    monkeypatch.setitem(executors.EXECUTORS, "serial", elsewhere(run, 0.3))
    assert len(utility.measure(run, WANTED)) == 8


def test_a_record_that_is_never_seen_is_a_failure_with_its_reason_and_no_record(run, monkeypatch):
    monkeypatch.setitem(executors.EXECUTORS, "serial", elsewhere(run, None))
    monkeypatch.setattr(disk, "SEEN_SECONDS", 0.1)
    with pytest.raises(RuntimeError, match="none of 8 .*: written by a worker, not seen here: do all share this folder"):
        utility.measure(run, WANTED)
    assert not list(run.measured.folder.rglob("*.json"))


@pytest.mark.parametrize("file", ["sparse.safetensors", "sparse.json", "classifier.safetensors", "asked"])
def test_a_worker_waits_for_a_file_that_a_shared_folder_shows_late(run, file):
    [(key, task)] = one_by_one(run, Wanted("one", "sparse_finetune", MEMBERS[:1], [0])).items()
    path = run.folder / ("asked" if file == "asked" else f"models/{file}")
    hidden = path.rename(path.with_suffix(".hidden"))
    later(0.3, hidden.rename, path)
    worker._look.cache_clear()
    utility.measure_one(task)
    assert run.measured.complete(key)


def test_a_torn_model_is_named_and_trained_again_by_its_notebook(made, scratch, tiny):
    shutil.copytree(made, scratch / "tiny")
    given = {n: v for n, v in tiny.items() if n in completion.names("02_train")} | {"name": "tiny", "device": "cpu"}
    store.open(
        "01_contributors", {n: v for n, v in given.items() if n in completion.names("01_contributors")} | {"name": "tiny"}
    ).done()
    run = store.open("02_train", given)
    stages.full(run), run.done()
    path = stages.path(run.folder, "full")
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert completion.why_not("02_train", run.params) == "full.safetensors was changed"
    with pytest.warns(UserWarning, match=f"^{path}: full.safetensors was changed; made again"):
        again = store.open("02_train", given)
    stages.full(again), again.done()
    assert cache.get(path) and path.read_bytes() == whole
    assert completion.why_not("02_train", run.params) is None
