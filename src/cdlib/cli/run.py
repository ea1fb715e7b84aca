"""Runs the notebooks of a parameter file, in their order: `cdlib run`."""

import contextlib
import json
import re
import shutil
import threading
import time
from pathlib import Path

import papermill
from nbclient.exceptions import DeadKernelError

from cdlib.base import disk, paths, progress
from cdlib.base.errors import Refused
from cdlib.cli.command import load, needed, say
from cdlib.store import cells, completion

POLL_SECONDS = 10.0


def _which(only: str | None, start: str | None) -> list[Path]:
    """The notebooks asked for by their number. Raises Refused when there is none."""
    for number in (only, start):
        if number and not any(p.stem[:2] == number[:2] for p in paths.notebooks()):
            raise Refused(f"{number}: no such notebook; there are {', '.join(p.stem for p in paths.notebooks())}")
    return [p for p in paths.notebooks() if (not only or p.stem[:2] == only[:2]) and (not start or p.stem[:2] >= start[:2])]


def run(file: Path, only: str | None = None, start: str | None = None, changes: dict | None = None):
    """Run the notebooks that are not done with these parameters, in their order; `--only` and `--from` run anew.

    With `so_far` those that estimate, judge and show, on what is measured by now, always anew, into runs/<name>/so_far.

    Raises Refused when a notebook refuses its input, and RuntimeError when one fails.
    """
    values = load(file, changes)
    began, so_far = time.monotonic(), values["so_far"]
    if so_far and (only or start):
        raise Refused("--so-far runs notebooks 04 to 08, and always anew: leave out --only and --from")
    chosen = [p for p in _which(only, start) if not (so_far and completion.own(p.stem))]
    folders = completion.place(values), paths.figures(values["name"])
    for path in [p for p in paths.notebooks() if p.stem < chosen[0].stem]:
        if why := completion.why_not(path.stem, values):
            raise Refused(f"{file}: {path.stem} {why}; run it first: cdlib run {file}")
    for folder in folders:
        disk.check(folder)
    if so_far:
        shutil.rmtree(folders[0], ignore_errors=True)
    if not so_far and any(p.stem < "08" and (only or start or completion.why_not(p.stem, values)) for p in chosen):
        needed(values)
    for path in chosen:
        why = "is run anew" if only or start else completion.why_not(path.stem, values)
        if not why:
            say(f"{path.stem}: done")
            continue
        if completion.path(folders[0], path.stem).is_file():
            say(f"{path.stem}: {why}")
        with disk.unwritable(folders[0]):
            _execute(path, values)
    if so_far:
        return _tell_missing(file, folders[0], chosen)
    took = progress.duration(time.monotonic() - began)
    say(f"{file}: all done in {took}; tables and figures in {paths.figures(values['name'])}")


def _tell_missing(file: Path, folder: Path, notebooks: list[Path]):
    """Say which coalitions are missing, what was left out, and where the results so far are."""
    states = [completion.state(folder, path.stem) for path in notebooks]
    rows = {(r["purpose"], r["procedure"]): r for s in states for r in s["missing"]}
    say(f"\n{sum(r['missing'] for r in rows.values())} coalitions are missing")
    for r in rows.values():
        say(f"{r['purpose'][:42]:42s} {r['procedure']:20s} {r['missing']:6d} of {r['wanted']}")
    for what, why in {what: why for s in states for what, why in s["left_out"].items()}.items():
        say(f"left out: {what}: {why}")
    say(f"\nso far: tables in {folder}, figures in {folder / 'figures'}; on one page: cdlib report {file} --so-far")


def _execute(path: Path, values: dict):
    """Run one notebook into runs/<name>/notebooks, telling its progress."""
    folder = completion.place(values)
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
                parameters={name: values[name] for name in cells.declared(path)},
                kernel_name="python3",
                cwd=paths.root(),
                progress_bar=False,
                coalesce_streams=True,
                extra_arguments=["--IPKernelApp.log_level=40"],
            )
    except papermill.PapermillExecutionError as error:
        if error.ename in ("Refused", "Unwritable", "Missing", "TooFewCoalitions"):
            raise Refused(error.evalue) from None
        number = re.match(r"\[Errno (\d+)\]", error.evalue)
        if number and int(number[1]) in disk.FULL + disk.FORBIDDEN:
            raise Refused(f"{path.stem}: {error.evalue}; {disk.remedy(int(number[1]))}") from None
        raise _failed(path, f"{error.ename}: {error.evalue}", output) from None
    except DeadKernelError:
        raise _failed(path, "its kernel died (out of memory, or killed)", output) from None
    say(f"{path.stem}: finished in {progress.duration(time.monotonic() - began)}")
    if values["so_far"]:
        return  # which tells all that is missing, once
    if why := completion.why_not(path.stem, values):
        say(f"{path.stem}: {why}; the notebook names them, and running again tries them again")
    for what, why in (completion.state(folder, path.stem) or {}).get("left_out", {}).items():
        say(f"{path.stem}: left out: {what}: {why}")


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
