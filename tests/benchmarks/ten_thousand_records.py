"""How long `cdlib status` takes on a store of 10,000 measured coalitions, and loading them: a table in markdown.

    .venv/bin/python tests/benchmarks/ten_thousand_records.py
    .venv/bin/python tests/benchmarks/ten_thousand_records.py --folder FOLDER    makes the records there once, and keeps them

The coalitions are those that a parameter file asks for, their values invented. Each time is the best of --times; seconds
are of the clock, and of the processor (user and system). Run it by hand; the machine should have nothing else to do.
"""

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np

from cdlib import store
from cdlib.base import hashing, params
from cdlib.data import design
from cdlib.measure import properties, utility
from cdlib.store import measured


def invented(n: int) -> dict:
    """Parameters that ask for n coalitions: those of params/digits.yaml, with more for the credits."""
    values = params.load(params.paths.params()) | {"name": "ten_thousand", "n_finetune": n // 10, "n_retrain": n // 10}
    values["n_paper_coalitions"] = n // 10
    values["n_coalitions"] = n - int(design.n_planned(values).sum() - values["n_coalitions"])
    values["n_coalitions"] += len(values["compared"]) * 8  # the counterfactual ones are not known before there are credits
    return params.check(values, "benchmark")


def models(folder: Path):
    """Files that stand for the classifier, the full and the sparse model: only their hashes count here."""
    (folder / "models").mkdir(parents=True)
    for name in ("classifier", "full", "sparse"):
        data, file = os.urandom(300_000), folder / "models" / f"{name}.safetensors"
        file.write_bytes(data)
        file.with_suffix(".json").write_text(json.dumps({"digest": hashing.digest(data), "config": {}}))


def asked(run: store.Run) -> list[design.Wanted]:
    p = run.params
    return design.ends(p) + design.shapley(p) + [design.leave_one_out(p)] + design.lds(p) + [*design.unlearning(p).values()]


def _kept(run: store.Run, name: str) -> str:
    return properties.kept_as(name, properties.feature(run.folder, run.params, name).digest)


def fill(run: store.Run) -> int:
    """Invent every coalition that the run asks for: an additive game with noise. Returns how many there are."""
    rng, keys = np.random.default_rng(0), set()
    images = np.zeros((64, 1, 8, 8), np.uint8)
    worth = rng.random(100)
    with patch("os.fsync"):
        for wanted in asked(run):
            arrays = {"images": images} | {_kept(run, name): np.zeros((512, 64), np.float16) for name in wanted.keeps}
            for spec in utility.specifications(run, wanted):
                key = run.measured.key(spec)
                if key not in keys or wanted.keeps:
                    value = 1 + worth[: len(spec["members"])] @ measured.members([spec["members"]])[0] + 0.3 * rng.normal()
                    run.measured.write(spec, {run["property"]: float(value)}, arrays, 2.0, 0.7)
                keys.add(key)
    return len(keys)


def best(work, times: int, who=resource.RUSAGE_SELF) -> str:
    """The least seconds of the clock, and of the processor, that some work takes."""
    clock, processor = [], []
    for _ in range(times):
        before, started = resource.getrusage(who), time.perf_counter()
        work()
        clock.append(time.perf_counter() - started)
        after = resource.getrusage(who)
        processor.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return f"{min(clock):.2f} | {min(processor):.2f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=10_600, help="asked for; some are asked for twice")
    parser.add_argument("--folder", type=Path, help="where the records are made, and kept for the next time")
    parser.add_argument("--times", type=int, default=5)
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ["CDLIB_RUNS"] = str(folder)
        values = invented(given.records)
        run = store.Run("08_figures", values)
        if not run.folder.is_dir():
            models(run.folder)
            fill(run)
        file = folder / "ten_thousand.yaml"
        file.write_text(json.dumps(values))
        notebook = store.Run("04_shapley", values)  # one that is done, so that its records are looked for too
        keys = [run.measured.key(spec) for wanted in asked(run) for spec in utility.specifications(run, wanted)]
        notebook.use(keys)
        notebook.done()
        command = [sys.executable, "-m", "cdlib", "status", str(file)]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        print(f"{len(set(keys)):,} records, best of {given.times}\n\n| | seconds | of the processor |\n| --- | --- | --- |")
        quiet = {"check": True, "stdout": subprocess.PIPE}
        print(f"| cdlib status | {best(lambda: subprocess.run(command, **quiet), given.times, resource.RUSAGE_CHILDREN)} |")
        print(f"| load them as a frame | {best(lambda: utility.rows(run, keys), given.times)} |")
        print(f"| their keys | {best(lambda: [utility.specifications(run, w) for w in asked(run)], given.times)} |")
        print(f"\n{told}")


if __name__ == "__main__":
    main()
