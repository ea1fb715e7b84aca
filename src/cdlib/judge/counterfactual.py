"""Counterfactuals: what becomes of the property when those with the most credit go, or only they stay.

S, S'  seeds
"""

from functools import partial

import numpy as np
import pandas as pd
from scipy import stats

from cdlib.base.errors import Missing
from cdlib.data import design

NEAR_0 = 1e-12
COLUMNS = ["method", "property", "change", "percent", "low", "high", "n_seeds"]


def relative_change(property_after, property_full):
    """Change of the property in percent of the full model's, means over seeds (section 4.4); below 0 is a fall.

    property_after  float [S]   models retrained on the changed coalition
    property_full   float [S']  full models

    Raises Missing when the full model's property is near 0: its mean is less than 1e-12, or than its standard error.
    """
    full = np.mean(property_full)
    noise = stats.sem(property_full) if len(property_full) > 1 else 0.0
    if abs(full) < max(NEAR_0, noise):
        raise Missing(f"the full model's property is {full:.3g}, within its noise of 0: a relative change is not defined")
    return float(100 * (np.mean(property_after) - full) / abs(full))


def interval(property_after, property_full, *, level=0.95):
    """Interval of `relative_change` over seeds, with the noise of both: Welch's t.

    The full model's noise is left out when it has one seed.

    Returns (low, high), percent; NaN when the changed coalition has one seed. Raises Missing as `relative_change`.
    """
    change = relative_change(property_after, property_full)
    after, full = np.asarray(property_after, float), np.asarray(property_full, float)
    if after.size < 2:
        return np.nan, np.nan
    variance, curvature = 0.0, 0.0
    # to first order, d(after / full) = d after / full - (after / full^2) d full
    for seeds, slope in ((after, 1 / full.mean()), (full, after.mean() / full.mean() ** 2)):
        if seeds.size > 1:
            part = slope**2 * seeds.var(ddof=1) / seeds.size
            variance, curvature = variance + part, curvature + part**2 / (seeds.size - 1)
    if variance == 0:
        return change, change
    reach = 100 * stats.t.ppf((1 + level) / 2, variance**2 / curvature) * np.sqrt(variance)
    return float(change - reach), float(change + reach)


def wanted(run, attributions):
    """The coalitions of `design.counterfactual` and `design.shown`; compared methods that have none are named (Run.missing)."""
    found = design.counterfactual(run.params, attributions) | design.shown(run.params, attributions)
    for method in run["compared"]:
        if method not in {method for method, _ in found}:
            run.leave_out(f"counterfactuals of {method}", "it has no credits, or not of all contributors")
    return found


def frame(run, after, full):
    """Rows of counterfactual.csv; a change that is not defined is left out and named.

    after  {(method, change): float [S]}  property of the models retrained without, or with only, the method's top
    full   float [S']                     property of the full models

    Returns DataFrame: COLUMNS; no row for a change without a model.
    """

    def row(method, change, measured):
        return method, run["property"], change, relative_change(measured, full), *interval(measured, full), len(measured)

    rows = {f"{change}, {method}": partial(row, method, change, v) for (method, change), v in after.items() if len(v)}
    return pd.DataFrame(run.possible(rows).values(), columns=COLUMNS)
