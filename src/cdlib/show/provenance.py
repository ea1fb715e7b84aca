"""What a run's numbers come from, as plain values for its report: notebooks, parameters, versions, coalitions.

Nothing is made up: what the run's files and this machine do not tell is left out, or said to be not known.
"""

import json
import re
from pathlib import Path

from cdlib import store
from cdlib.base import params, paths, sheets
from cdlib.base.progress import duration
from cdlib.store import cache, completion


def about(run: store.Run, asked: list | None) -> dict:
    """All that a report says of where its numbers come from; the keys are those of pages/report.html.

    asked    (design.Wanted, its records in the store) of all coalitions that the parameters ask for; None when that is not known
    """
    states, books = completion.states(run.results), notebooks(run)
    used = run.params | {name: value for s in states.values() for name, value in s["params"].items()}
    coalitions, wanted = measured(run), [count(w, records) for w, records in asked or []]
    failed = [failure(r) for _, records in asked or [] for r in records if r["status"] == "failed"]
    return {
        "name": run.title,
        "notebooks": books,
        "changed": {n: v for n, v in used.items() if v != run.params[n]},  # the file has other values than the run used
        "parameters": parameters(used),
        "versions": {p: _all(s["versions"].get(p) for s in states.values()) for p in _packages(states)},
        "revision": _all(s["revision"] for s in states.values()),
        "machine": _all(s["machine"] for s in states.values()),
        "device": _all(made["device"] for made in models(run.folder)),
        "coalitions": coalitions,
        "asked": wanted if asked is not None else None,
        "missing": sum(w["missing"] for w in wanted),
        "failed": list({f["key"]: f for f in failed}.values()),
        "left_out": {what: why for s in states.values() for what, why in s.get("left_out", {}).items()},
    }


def notebooks(run: store.Run) -> list[dict]:
    """Each notebook: name, state (`done`, or why it is not), seconds, machine and revision (empty when it has not finished)."""
    found = []
    for path in paths.notebooks():
        left = completion.state(run.results, path.stem) or {}
        state = completion.why_not(path.stem, run.params) or "done"
        if not left and (why := error(run.path(f"notebooks/{path.name}"))):
            state = f"failed: {why}"
        seconds = duration(left["seconds"]) if left else ""
        about = {"name": path.stem, "state": state, "seconds": seconds}
        found.append(about | {k: left.get(k, "") for k in ("machine", "revision")})
    return found


def error(executed: Path) -> str:
    """The error that an executed notebook ended in, in one line; empty when it has none, or cannot be read."""
    try:
        cells = json.loads(executed.read_bytes())["cells"]
    except (OSError, ValueError):  # never run, or just being written
        return ""
    errors = [o for cell in cells for o in cell.get("outputs", []) if o["output_type"] == "error"]
    return f"{errors[-1]['ename']}: {errors[-1]['evalue']}".splitlines()[0] if errors else ""


def parameters(values: dict) -> list[dict]:
    """Each parameter: name, value, the default, whether they differ, and what it is for (its comment in params/digits.yaml)."""
    comments = dict(re.findall(r"^(\w+):.*?\s#\s*(.+)$", paths.params().read_text(encoding="utf-8"), re.M))
    default = params.defaults()
    return [
        {"name": n, "value": v, "default": default[n], "differs": v != default[n], "meaning": comments.get(n, "")}
        for n, v in values.items()
    ]


def measured(run: store.Run) -> list[dict]:
    """What the finished notebooks rest on, by procedure: coalitions, median seconds of training and sampling, seconds in all."""
    if not run.path("measured.csv").is_file():
        return []
    frame = sheets.read(run.path("measured.csv"))
    frame["seconds"] = frame["train_seconds"] + frame["sample_seconds"]
    rows = frame.groupby("procedure", sort=False).agg(
        n=("key", "size"), train=("train_seconds", "median"), sample=("sample_seconds", "median"), seconds=("seconds", "sum")
    )
    return rows.reset_index().to_dict("records")


def models(folder: Path) -> list[dict]:
    """What stands beside the weights of the full and the sparse model, of those that are there."""
    found = (cache.find(folder / "models" / f"{name}.safetensors") for name in ("full", "sparse"))
    return [about for about in found if about]


def count(wanted, records: list[dict]) -> dict:
    """How many coalitions of a plan.Wanted there are, by its records: wanted, measured, failed, missing."""
    n = len(wanted)
    failed = sum(r["status"] == "failed" for r in records)
    found = len(records) - failed
    row = {"purpose": wanted.purpose, "procedure": wanted.procedure, "wanted": n, "measured": found}
    return row | {"failed": failed, "missing": n - found}


def failure(record: dict) -> dict:
    """A coalition that failed, with the last line of its traceback."""
    spec = {k: record["spec"][k] for k in ("procedure", "members", "seed")}
    lines = record["error"].strip().splitlines() or [""]
    return spec | {"key": record["key"], "attempts": record["attempts"], "error": lines[-1]}


def _packages(states: dict) -> list[str]:
    return list(dict.fromkeys(package for s in states.values() for package in s["versions"]))


def _all(values) -> str:
    """The different values, as one text."""
    return ", ".join(dict.fromkeys(v for v in values if v))
