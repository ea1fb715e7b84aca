"""Linear datamodeling score: how well credits, added up, rank coalitions that were really retrained.

B  test coalitions        S  seeds that each was retrained with        N  contributors        R  resamples
"""

from itertools import product

import numpy as np
import pandas as pd
from scipy import stats

from cdlib.base.errors import Missing
from cdlib.credit.shapley import TooFewCoalitions

FEWEST, FEWEST_OF_INTERVAL = 3, 5  # test coalitions: 2 are always in order or reversed; 4 are, by chance, once in 12
COLUMNS = "method property alpha lds_percent low high interval ceiling_percent n_coalitions".split()
CURVE = "n_coalitions lds_percent low high interval ceiling_percent".split()


def predict(members, values):
    """Property that the credits predict for each coalition: the sum of its members' (eq. 9).

    members  bool  [B, N]
    values   float [N]

    Returns float [B], rounded to 12 digits, so that equal sums tie in whatever order they were added.
    """
    values = np.asarray(values, float)
    unit = np.abs(values).sum() or 1.0
    return np.round(np.asarray(members, float) @ (values / unit), 12) * unit


def spearman(a, b):
    """Rank correlation along the last axis, float [...], of arrays that broadcast; ties share their mean rank.

    A constant ranks nothing: 0, where scipy says NaN.
    """
    a, b = (ranks - ranks.mean(-1, keepdims=True) for ranks in (stats.rankdata(a, axis=-1), stats.rankdata(b, axis=-1)))
    spread = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    return np.where(spread > 0, (a * b).sum(-1) / np.where(spread > 0, spread, 1), 0.0)


def enough(members, targets):
    """The test coalitions and targets, as they are given. Raises Missing when they are too few to be ranked, or all alike."""
    if len(members) < FEWEST:
        raise Missing(f"{len(members)} test coalitions are measured, and at least {FEWEST} can be ranked")
    if (np.ptp(targets, axis=0) == 0).all():
        raise Missing(f"all {len(members)} test coalitions have the same property: a rank correlation is not defined")
    return members, targets


def lds(members, targets, values):
    """Linear datamodeling score in percent, mean over seeds (eq. 10).

    members  bool  [B, N]
    targets  float [B, S]  property of the model retrained on each coalition, with each seed
    values   float [N]     credit of each contributor

    Returns float, -100..100.
    """
    return float(_by_seed(members, targets, values).mean())


def interval_subsets(members, targets, values, *, resamples=1000, seed=0, level=0.95):
    """Interval of the LDS for other test coalitions: percentiles of a bootstrap over these, all seeds of one together.

    Returns (low, high), percent; NaN with fewer than 5 coalitions, and when all that are there are in perfect order: then
    resamples say nothing of others.
    """
    if len(targets) < FEWEST_OF_INTERVAL:
        return np.nan, np.nan
    targets, prediction = np.asarray(targets, float), predict(members, values)
    drawn = np.random.default_rng(seed).integers(len(targets), size=(resamples, len(targets)))
    scores = 100 * spearman(prediction[drawn][:, None], targets[drawn].swapaxes(1, 2)).mean(1)
    low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2])
    return (float(low), float(high)) if low < high or low == 0 else (np.nan, np.nan)


def interval_seeds(members, targets, values, *, level=0.95):
    """Interval of the LDS for other training seeds on the same coalitions: t over seeds.

    Returns (low, high), percent; NaN with one seed.
    """
    scores = _by_seed(members, targets, values)
    if len(scores) < 2:
        return np.nan, np.nan
    reach = stats.t.ppf((1 + level) / 2, len(scores) - 1) * stats.sem(scores)
    return float(scores.mean() - reach), float(scores.mean() + reach)


def interval_paper(members, targets, values):
    """The paper's interval: mean -+ 1.96 sd / sqrt(S), with sd over all S seeds (ddof 0).

    With three seeds `interval_seeds` is 2.7 times wider, and right. Neither knows which test coalitions were drawn.

    Returns (low, high), percent.
    """
    scores = _by_seed(members, targets, values)
    reach = 1.96 * scores.std() / np.sqrt(len(scores))
    return float(scores.mean() - reach), float(scores.mean() + reach)


def ceiling(targets):
    """How well one retraining ranks another of the same coalitions, percent: mean over pairs of seeds.

    targets  float [B, S]  as in `lds`

    Returns float; NaN with one seed.
    """
    by_seed = np.asarray(targets, float).T
    first, second = np.triu_indices(len(by_seed), 1)
    return float(100 * spearman(by_seed[first], by_seed[second]).mean()) if len(first) else np.nan


def judge(attributions, contributors, members, targets, *, property, alpha):
    """LDS of each method, beside its ceiling: the rows of lds.csv.

    attributions  DataFrame      method, property, contributor, value
    contributors  list [N]       labels, in the order of the columns of members
    members       bool  [B, N]   test coalitions, of size alpha N
    targets       float [B, S]   as in `lds`

    Returns DataFrame: method, property, alpha, lds_percent, low, high, interval, ceiling_percent, n_coalitions; a row
    for each interval ("subsets"; with more than one seed also "seeds" and "paper"). The LDS is NaN of a method whose credit
    for a contributor is not known (NaN): it predicts no coalition with them, and others than all methods would be judged by.
    Raises ValueError when a method has no row for a contributor.
    """
    rows = attributions[attributions["property"] == property]
    table = rows.pivot(index="contributor", columns="method", values="value").reindex(contributors)
    lacking = [m for m, given in rows.groupby("method")["contributor"] if not set(contributors) <= set(given)]
    if lacking:
        raise ValueError(f"{', '.join(lacking)}: no value of {property} for some contributors")
    head = {"property": property, "alpha": alpha}
    found = [
        {"method": method, **head, **row, "n_coalitions": len(members)}
        for method in rows["method"].unique()
        for row in _rows(members, targets, table[method].to_numpy())
    ]
    return pd.DataFrame(found, columns=COLUMNS)


def judge_all(attributions, contributors, tests):
    """`judge` of every property at every alpha: the rows of lds.csv, none without tests.

    tests    {property: {alpha: (members, targets)}}
    """
    each = [(property, alpha, test) for property, at in tests.items() for alpha, test in at.items()]
    judged = [judge(attributions, contributors, *test, property=property, alpha=alpha) for property, alpha, test in each]
    return pd.concat(judged, ignore_index=True) if judged else pd.DataFrame(columns=COLUMNS)


def curve(estimate, members, utility, sizes, test_members, targets):
    """LDS of an estimator against the number of coalitions that it was given: rows of lds_by_coalitions.csv.

    estimate               (members, utility) -> values, such as `shapley.paper` with its empty and full filled in
    members, utility       all coalitions measured, bool [M, N] and float [M], in the order they were drawn
    sizes                  how many of them, from the first, to estimate from
    test_members, targets  as in `lds`

    Returns DataFrame: n_coalitions, lds_percent, low, high, interval, ceiling_percent; no rows for a size with which
    `estimate` raises TooFewCoalitions.
    """
    rows = []
    for size in sizes:
        try:
            values = estimate(members[:size], utility[:size])
        except TooFewCoalitions:
            continue
        rows += [{"n_coalitions": size, **row} for row in _rows(test_members, targets, values)]
    return pd.DataFrame(rows, columns=CURVE)


def curves(measured, estimators, tests, *, property, step=20):
    """`curve` for each procedure and test set, at every `step` coalitions and at all: the rows of lds_by_coalitions.csv.

    measured    [(estimator's name, procedure, (members, utility)), ...]
    estimators  {name: estimate}, as in `curve`
    tests       {alpha: (test_members, targets)}

    Returns DataFrame: procedure, estimator, property, alpha, then the columns of `curve`.
    """
    frames = []
    for (name, procedure, (members, utility)), (alpha, test) in product(measured, tests.items()):
        sizes = sorted({*range(step, len(members), step), len(members)})
        frame = curve(estimators[name], members, utility, sizes, *test)
        head = {"procedure": procedure, "estimator": name, "property": property, "alpha": alpha}
        frames += [frame.assign(**head)[[*head, *CURVE]]] if len(frame) else []
    head = ["procedure", "estimator", "property", "alpha"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=[*head, *CURVE])


def _by_seed(members, targets, values):
    return 100 * spearman(predict(members, values), np.asarray(targets, float).T)


def _rows(members, targets, values):
    kinds = {"subsets": interval_subsets, "seeds": interval_seeds, "paper": interval_paper}
    known, top = np.isfinite(values).all(), ceiling(targets)
    score = lds(members, targets, values) if known else np.nan
    for kind in kinds if np.shape(targets)[1] > 1 else ["subsets"]:
        low, high = kinds[kind](members, targets, values) if known else (np.nan, np.nan)
        yield {"lds_percent": score, "low": low, "high": high, "interval": kind, "ceiling_percent": top}
