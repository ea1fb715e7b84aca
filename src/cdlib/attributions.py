"""Credits of contributors as rows of attributions.csv, and the two ways in which measured coalitions give them.

M  coalitions measured        N  contributors
"""

import numpy as np
import pandas as pd

from cdlib import coalitions, shapley
from cdlib.shapley import Credit

COLUMNS = ["method", "property", "contributor", "value", "stderr", "low", "high"]


def frame(credits: dict, contributors: list[str], property: str) -> pd.DataFrame:
    """Rows of attributions.csv.

    credits         {method: Credit, or float [N]}; an array alone has no standard error
    contributors    labels, in the order of the arrays
    """
    rows = []
    for method, credit in credits.items():
        if not isinstance(credit, Credit):
            unknown = np.full(len(contributors), np.nan)
            credit = Credit(np.asarray(credit, float), unknown, unknown, unknown)
        for i, label in enumerate(contributors):
            rows.append((method, property, label, credit.value[i], credit.stderr[i], credit.low[i], credit.high[i]))
    return pd.DataFrame(rows, columns=COLUMNS)


def of_pairs(members, utility, empty, full) -> Credit:
    """Our estimator, for rows of `coalitions.paired`: kernel-weighted, size controls, cross-validated ridge.

    empty, full    float [R]    v of nobody and of everybody, with several seeds
    """
    return shapley.intervals(members, utility, empty, full, weights=coalitions.kernel_weights(members))


def of_draws(members, utility, empty, full) -> Credit:
    """The paper's estimator (eq. 5), for coalitions drawn by `coalitions.kernel`, with intervals."""
    return shapley.intervals(members, utility, empty, full, ridge=0, controls=0)


# How measured coalitions become credits, with intervals (plan.Wanted.estimator).
ESTIMATORS = {"ours": of_pairs, "paper": of_draws}


def points(empty, full) -> dict:
    """The same estimators without intervals, {name: (members, utility) -> values [N]}, for `lds.curves`."""
    empty, full = np.mean(empty), np.mean(full)
    return {
        "ours": lambda m, v: shapley.shapley(m, v, empty, full, weights=coalitions.kernel_weights(m)),
        "paper": lambda m, v: shapley.paper(m, v, empty, full),
    }
