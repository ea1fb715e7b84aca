"""Counterfactuals: what becomes of the property when those with the most credit go, or only they stay.

S, S'  seeds
"""

import numpy as np
import pandas as pd
from scipy import stats

from cdlib import plan


def relative_change(property_after, property_full):
    """Change of the property in percent of the full model's, means over seeds (section 4.4).

    property_after  float [S]   models retrained on the changed coalition
    property_full   float [S']  full models

    Raises ValueError when the full model's property is 0.
    """
    full = np.mean(property_full)
    if full == 0:
        raise ValueError("the full model's property is 0: a change relative to it has no meaning")
    return float(100 * (np.mean(property_after) - full) / full)


def interval(property_after, property_full, *, level=0.95):
    """Interval of `relative_change` over seeds, with the noise of both: Welch's t.

    The full model's noise is left out when it has one seed.

    Returns (low, high), percent; NaN when the changed coalition has one seed.
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
    """The coalitions of `plan.counterfactual` and `plan.shown`; compared methods that have none are named (Run.missing)."""
    found = plan.counterfactual(run.params, attributions) | plan.shown(run.params, attributions)
    for method in run["compared"]:
        if method not in {method for method, _ in found}:
            run.leave_out(f"counterfactuals of {method}", "it has no credits, or not of all contributors")
    return found


def frame(after, full, *, property):
    """Rows of counterfactual.csv.

    after  {(method, change): float [S]}  property of the models retrained without, or with only, the method's top
    full   float [S']                     property of the full models

    Returns DataFrame: method, property, change, percent, low, high, n_seeds; no row for a change without a model.
    """
    rows = []
    for (method, change), measured in ((which, values) for which, values in after.items() if len(values)):
        low, high = interval(measured, full)
        percent = relative_change(measured, full)
        rows.append((method, property, change, percent, low, high, len(measured)))
    return pd.DataFrame(rows, columns=["method", "property", "change", "percent", "low", "high", "n_seeds"])
