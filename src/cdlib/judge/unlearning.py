"""How well unlearning stands in for retraining: FID between what both draw, coalition by coalition (section D.4, Table 9).

tables    {name: frame of measured coalitions}, of plan.unlearning; empty when none are asked for
"""

import numpy as np
import pandas as pd

from cdlib.data.design import AGAIN, UNCHANGED
from cdlib.measure import properties
from cdlib.measure.frechet import fid

COLUMNS = ["procedure", "members", "seed", "property", "value", "fid"]
MIDDLE = (0.3, 0.7)  # of the contributors: a coalition where much is there, and much is missing
SHOWN = 20  # images


def frame(run, tables: dict) -> pd.DataFrame:
    """Rows of unlearning.csv, one for each coalition and name.

    procedure    of plan.unlearning: those of Table 9, `retrain_again` and `unchanged`
    value        of the property
    fid          between the images of this model and of the one retrained on the coalition, by the feature `fid_embedding`;
                 lower is better. NaN of the retrained one itself, and where that failed
    """
    rows, models = [], _models(tables)
    for name, found in models.items():
        for coalition, one in found.items():
            retrained = models["retrain"].get(coalition) if name != "retrain" else None
            distance = fid(_features(run, one), _features(run, retrained)) if retrained else np.nan
            rows.append((name, coalition[0], one.seed, run["property"], getattr(one, run["property"]), distance))
    return pd.DataFrame(rows, columns=COLUMNS)


def examples(run, tables: dict) -> dict:
    """Images of one coalition by each procedure, from the same initial noise: {"unlearning/<procedure>": uint8 [20, C, H, W]}.

    It is the first coalition of middling size that all have, or the first that they have. Source: Figure 11.
    """
    models = {name: found for name, found in _models(tables).items() if name not in (AGAIN, UNCHANGED)}
    common = [c for c in models.get("retrain", ()) if all(c in found for found in models.values())]
    middling = [c for c in common if MIDDLE[0] <= c[0].count("1") / len(c[0]) <= MIDDLE[1]]
    return {
        f"unlearning/{name}": run.measured.arrays(found[c].key)["images"][:SHOWN]
        for c in (middling or common)[:1]
        for name, found in models.items()
    }


def _models(tables: dict) -> dict:
    """The row of each name's model by coalition: {name: {(members, seed of the retrained one): row}}."""
    rows = {name: list(table.itertuples()) for name, table in tables.items()}
    models = {name: {(one.members, one.seed - (name == AGAIN)): one for one in found} for name, found in rows.items()}
    if rows.get(UNCHANGED):  # one model for all
        models[UNCHANGED] = dict.fromkeys(models["retrain"], rows[UNCHANGED][0])
    return models


def _features(run, one) -> np.ndarray:
    found, wanted = run.measured.arrays(one.key), properties.kept_as(run["fid_embedding"], "")
    return next(array for name, array in found.items() if name.startswith(wanted))
