"""Credits of contributors as rows of attributions.csv, and the two ways in which measured coalitions give them.

M  coalitions measured        N  contributors
"""

from functools import partial

import numpy as np
import pandas as pd

from cdlib.base import registry
from cdlib.base.errors import Refused
from cdlib.credit import shapley
from cdlib.credit.shapley import Credit
from cdlib.data import coalitions, design
from cdlib.measure import utility
from cdlib.store.measured import bits

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


def frames(credits: dict, contributors: list[str]) -> pd.DataFrame:
    """Rows of attributions.csv for several properties: credits is {property: {method: Credit, or float [N]}}."""
    each = [frame(by_method, contributors, property) for property, by_method in credits.items()]
    return pd.concat(each, ignore_index=True)


def of_pairs(members, utility, empty, full, resamples=500) -> Credit:
    """Our estimator, for rows of `coalitions.paired`: kernel-weighted, size controls, cross-validated ridge.

    empty, full    float [R]    v of nobody and of everybody, with several seeds
    """
    return shapley.intervals(members, utility, empty, full, weights=coalitions.kernel_weights(members), resamples=resamples)


def of_draws(members, utility, empty, full, resamples=500) -> Credit:
    """The paper's estimator (eq. 5), for coalitions drawn by `coalitions.kernel`, with intervals."""
    return shapley.intervals(members, utility, empty, full, ridge=0, controls=0, resamples=resamples)


# How measured coalitions become credits, with intervals (plan.Wanted.estimator).
ESTIMATORS = {"ours": of_pairs, "paper": of_draws}


def estimate(run, wanted: list[design.Wanted], tables: dict, ends: list[pd.DataFrame]) -> dict[str, dict]:
    """{property: {method: Credit}} for each property of a run; what too little is measured for is left out, and named.

    wanted    the coalitions of each method, whose name is their purpose
    tables    {method: frame of those measured}
    ends      frames of everybody and of nobody, as plan.ends
    """
    for w in wanted:
        if not len(w):
            run.leave_out(w.purpose, "none of its coalitions is asked for")
    found, wanted = {}, [w for w in wanted if w.estimator]
    for property in run.properties:
        full, empty = (utility.values(run, end, property) for end in ends)
        games = {w.purpose: (ESTIMATORS[w.estimator], utility.game(run, tables[w.purpose], property)) for w in wanted}
        estimates = {method: partial(estimator, *game) for method, (estimator, game) in games.items()}
        found[property] = run.possible(estimates, empty, full, of=run.about(property))
    return found


def points(empty, full) -> dict:
    """The same estimators without intervals, {name: (members, utility) -> values [N]}, for `lds.curves`."""
    empty, full = np.mean(empty), np.mean(full)
    return {
        "ours": lambda m, v: shapley.shapley(m, v, empty, full, weights=coalitions.kernel_weights(m)),
        "paper": lambda m, v: shapley.paper(m, v, empty, full),
    }


def again(params: dict, measured: pd.DataFrame, attributions: pd.DataFrame, method: str, property: str) -> Credit | None:
    """The credit of a Shapley method computed once more, for what attributions.csv does not hold: covariance and freedom.

    params                    those that the run was made with
    measured, attributions    measured.csv and attributions.csv

    Returns None for a method that is not estimated from coalitions.
    Raises Refused when the coalitions give another credit than the one on file.
    """
    wanted = {w.purpose: w for w in design.shapley(params)}.get(method)
    if wanted is None:
        return None
    (_, full), (_, empty) = (game(params, w, measured, property) for w in design.ends(params))
    found = ESTIMATORS[wanted.estimator](*game(params, wanted, measured, property), empty, full)
    of = attributions[(attributions["method"] == method) & (attributions["property"] == property)]
    filed = of.sort_values("contributor")["value"].to_numpy()
    if filed.shape != found.value.shape or not np.allclose(filed, found.value, rtol=0, atol=1e-6 * np.abs(filed).max()):
        raise Refused(f"{method}: measured.csv and attributions.csv do not agree; run 04_shapley of this run again")
    return found


def game(params: dict, wanted: design.Wanted, measured: pd.DataFrame, property: str) -> tuple[np.ndarray, np.ndarray]:
    """Who was in, bool [M, N], and v(S), float [M], of those wanted coalitions that measured.csv has, in the order wanted.

    More is better, as in utilities.values. Raises Refused for what is no property of the run.
    """
    of = registry.properties(params)
    if property not in of:
        raise Refused(f"{property}: this run's properties are {', '.join(of)}")
    columns = ["procedure", "members", "seed"]
    values = measured.drop_duplicates(columns).set_index(columns)[property]  # the first: later notebooks' rows come after
    rows = [(wanted.procedure, bits(m), int(s)) for m, s in zip(wanted.members, wanted.seeds, strict=True)]
    utility = registry.sign(of[property]) * values.reindex(rows).to_numpy()
    kept = ~np.isnan(utility)
    return wanted.members[kept], utility[kept]
