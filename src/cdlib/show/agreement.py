"""Whether methods agree on who matters: their top contributors side by side, and the rank correlation between them."""

import numpy as np
import pandas as pd

from cdlib.show.style import GREY, WIDTH_IN, Drawing, in_order, styled


def top(attributions, n=5):
    """The n contributors with the most credit by each method, greatest first: one row a method, columns 1..n.

    Contributors with equal credit stand in the order of their labels, those whose credit is not known nowhere; a method that
    gives all the same ranks nobody.

    attributions   columns of attributions.csv, of one property
    """
    rows = {}
    for method, credit in in_order(attributions.dropna(subset="value")).groupby("method", sort=False):
        order = credit.sort_values(["value", "contributor"], ascending=[False, True]).contributor.head(n)
        rows[method] = list(order) if credit.value.nunique() > 1 else ["-"] * len(order)
    most = max(map(len, rows.values()), default=0)
    padded = {method: order + ["-"] * (most - len(order)) for method, order in rows.items()}
    return pd.DataFrame.from_dict(padded, orient="index", columns=range(1, 1 + most))


def correlations(attributions):
    """Spearman's rank correlation of the credits of each two methods: first, second, spearman; NaN for one that ranks nobody.

    Of contributors whose credit both know, if these are 3 or more.
    """
    ordered = in_order(attributions)
    table = ordered.pivot(index="contributor", columns="method", values="value")[ordered["method"].unique()]
    found = table.corr("spearman", min_periods=min(3, len(table))).rename_axis(index="first", columns="second")
    return found.stack(future_stack=True).rename("spearman").reset_index()


@styled
def rank_correlation(attributions):
    """Rank correlation between the credits of each two methods, in percent."""
    frame = correlations(attributions)
    names = list(frame["first"].unique())
    grid = frame.pivot(index="first", columns="second", values="spearman").loc[names, names].to_numpy()
    figure = Drawing(frame, 0.9 + 0.21 * len(names), WIDTH_IN)
    axes = figure.subplots()
    shown = axes.imshow(100 * grid, cmap="PuOr_r", vmin=-100, vmax=100, aspect="auto")
    for row, column in np.ndindex(grid.shape):
        value = grid[row, column]
        text, colour = ("-", GREY) if np.isnan(value) else (f"{100 * value:z.0f}", "w" if abs(value) > 0.7 else "k")
        axes.text(column, row, text, ha="center", va="center", fontsize=5.5, color=colour)
    labels = [name.replace(" Shapley (", " Shapley\n(") + f"  {i}" for i, name in enumerate(names, 1)]
    axes.set_yticks(range(len(names)), labels, fontsize=6.5)
    axes.set_xticks(range(len(names)), range(1, 1 + len(names)), fontsize=6.5)
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    n = attributions["contributor"].nunique()
    figure.colorbar(shown, label="Spearman (%)", shrink=0.6, aspect=25, pad=0.02).ax.tick_params(labelsize=6.5)
    figure.note(f"Rank correlation of the credits of n = {n} contributors by each two methods, in percent. A dash: ranks nobody.")
    return figure
