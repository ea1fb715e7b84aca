"""Credits from coalitions that other code has measured (module released): imported.csv, and its rows of attributions.csv.

imported.csv    key, origin, procedure, seed, members, drawn, <property>, train_seconds, sample_seconds, settings (json)
"""

import json

import numpy as np
import pandas as pd

from cdlib import attributions, contributors, measured, paths, stages, store, utilities
from cdlib.errors import Refused
from cdlib.names import IMPORTED
from cdlib.shapley import Credit, TooFewCoalitions

COLUMNS = ["key", "origin", "procedure", "seed", "members", "drawn"]


def row(record: dict) -> dict:
    """An imported record as a row of imported.csv."""
    spec = record["spec"]
    named = {"key": record["key"], "drawn": spec["drawn"]["from"] or "", "settings": json.dumps(spec["settings"])}
    named |= {name: spec[name] for name in ("origin", "procedure", "seed", "members")} | record["properties"]
    return named | {name: record[name] for name in ("train_seconds", "sample_seconds")}


def table(run: store.Run, more: list[dict] = ()) -> pd.DataFrame:
    """The rows of imported.csv: all records of another origin in the run's folder, of its property, and `more` rows.

    They stand in the order of origin, procedure and distribution, then of their draws.
    """
    records = [run.measured.read(path.stem) for path in sorted(run.measured.folder.glob("??/*.json"))]
    found = [r for r in records if "origin" in r["spec"] and run["property"] in r.get("properties", {})]
    found.sort(key=lambda r: (r["spec"]["drawn"]["seed"] is not None, r["spec"]["drawn"]["seed"] or 0, r["spec"]["seed"]))
    columns = [*COLUMNS, run["property"], "train_seconds", "sample_seconds", "settings"]
    frame = pd.DataFrame([*map(row, found), *more], columns=columns).drop_duplicates("key")
    return frame.sort_values(["origin", "procedure", "drawn"], kind="stable", ignore_index=True)


def require_one_experiment(frame: pd.DataFrame):
    """Refuse Shapley draws of a procedure that were measured in more than one way: no credit could be told from them."""
    for procedure, rows in frame[frame.drawn == "shapley"].groupby("procedure"):
        ways = [
            json.loads(text) | {"origin": origin} for origin, text in dict.fromkeys(zip(rows.origin, rows.settings, strict=True))
        ]
        if len(ways) > 1:
            name = next(n for n in [*ways[0], *ways[1]] if ways[0].get(n) != ways[1].get(n))
            values = " and ".join(json.dumps(way.get(name)) for way in ways[:2])
            raise Refused(
                f"{procedure}: records with {name} {values}: a run credits from one of them; choose with --where {name}=VALUE, "
                "and import the others into a run with another name"
            )


def credits(run: store.Run, frame: pd.DataFrame) -> tuple[dict[str, Credit], dict[str, str]]:
    """Shapley values of each procedure's draws, by the paper's estimator with intervals; and why others have none, by name.

    Everybody and nobody are those of the same procedure where it has them, else those that were retrained; of several
    seeds the mean, and their noise enters the intervals.

    Raises Refused, which names them, when v(everybody) or v(nobody) was not imported; and as `require_one_experiment`.
    """
    require_one_experiment(frame)
    found, why_not = {}, {}
    for procedure, rows in frame[frame.drawn == "shapley"].groupby("procedure", sort=False):
        empty, full = (_end(run, frame, procedure, who) for who in ("nobody", "everybody"))
        method = IMPORTED.get(procedure, f"{procedure} Shapley (imported)")
        try:
            who = measured.members(rows.members)
            found[method] = attributions.of_draws(who, utilities.values(run, rows), empty, full)
        except TooFewCoalitions as error:
            why_not[method] = str(error)
    return found, why_not


def _end(run: store.Run, frame: pd.DataFrame, procedure: str, who: str) -> np.ndarray:
    """v of nobody or of everybody, float [R]. Raises Refused when it was not imported."""
    n = len(frame.members.iloc[0])
    ends = frame[(frame.drawn == "") & (frame.members == {"nobody": "0", "everybody": "1"}[who] * n)]
    for one in (procedure, "retrain"):
        if (ends.procedure == one).any():
            return utilities.values(run, ends[ends.procedure == one])
    how = " (--nobody FILE, where the records do not tell)" if who == "nobody" else ""
    raise Refused(f"v({who}) of {procedure}, or of retrain, was not imported: import its records too{how}")


def write(run: store.Run, frame: pd.DataFrame) -> tuple[dict[str, Credit], dict[str, str]]:
    """Write imported.csv, and the credits there are as rows of attributions.csv; returns and raises as `credits`.

    The notebooks that judge and draw credits then count as not done.
    """
    run.write("imported", frame)
    found, why_not = credits(run, frame)
    if found:
        labels = contributors.labels(stages.dataset(run.params).contributors)
        run.write_part("attributions", attributions.frame(found, labels, run["property"]))
        for notebook in [p.stem for p in paths.notebooks() if p.stem >= "06"]:
            run.path(f"done/{notebook}.json").unlink(missing_ok=True)
    return found, why_not
