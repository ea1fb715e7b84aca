"""The paper's figures, and those of the notebooks, from tidy frames of one property.

Each function returns a `style.Drawing`: it shows itself in a notebook, and `save` writes it as pdf, png and csv.

    M  coalitions        N  contributors
"""

from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator

from cdlib.base.errors import Missing
from cdlib.base.registry import LOWER
from cdlib.judge import fidelity as correlation
from cdlib.show.lettering import names
from cdlib.show.style import (
    CEILING,
    GREY,
    GROUPS,
    INTERVAL,
    PROCEDURES,
    WIDTH_IN,
    Drawing,
    broken,
    colour,
    hollow,
    in_order,
    spoken,
    styled,
    unit,
)
from cdlib.show.tables import table_1, table_2


@styled
def budget(lds_by_coalitions, runtime, alpha=None, n_tests=None):
    """LDS against what the coalitions cost, one line a procedure. Source: Figures 2, 5, 7 and 8.

    The budget of n coalitions is n times the procedure's seconds (training and inference) over those of a retraining.

    alpha     left out: one panel for each
    n_tests   test coalitions for each alpha, to be told
    Nothing is drawn when nothing was retrained.
    """
    ratio = table_2(runtime).set_index("procedure")["ratio_to_retrain"]
    frame = lds_by_coalitions.assign(budget=lds_by_coalitions["n_coalitions"] * lds_by_coalitions["procedure"].map(ratio))
    frame = frame if alpha is None else frame[np.isclose(frame["alpha"], alpha)]
    return _by_alpha(frame, "budget", "Budget (retrainings)", n_tests, "Budget: 1 = one retraining with its inference. ")


@styled
def by_coalitions(lds_by_coalitions, n_tests=None):
    """LDS against the number of coalitions used, one panel an alpha. Source: Tables 4, 6 and 8."""
    return _by_alpha(lds_by_coalitions, "n_coalitions", "Coalitions measured", n_tests)


def _by_alpha(frame, x, label, n_tests, note=""):
    if frame.empty:
        raise Missing("too few coalitions, or test coalitions, are measured")
    alphas = sorted(frame["alpha"].unique())
    figure = Drawing(frame, 3.0)
    panels = figure.subplots(1, len(alphas), sharey=True, squeeze=False)[0]
    for axes, alpha in zip(panels, alphas, strict=True):
        _lines(axes, frame[frame["alpha"] == alpha], x)
        axes.set(title=f"α = {alpha:g}", xlabel=label, xlim=(0, None))
    panels[0].set_ylabel("LDS (%)")
    _legend(figure, panels[0])
    n = f"{n_tests} " if n_tests else "the "
    figure.note(f"{note}Bands and bars: {INTERVAL.replace('the ', n)}.\n{CEILING}")
    return figure


def _lines(axes, frame, x):
    """One line with its band for each procedure and estimator, the paper's estimator after ours, and the ceiling."""
    frame = frame[frame["interval"] == "subsets"].sort_values(x).sort_values("estimator", key=_is_paper, kind="stable")
    for (procedure, estimator), line in in_order(frame, "procedure").groupby(["procedure", "estimator"], sort=False):
        paper, shade = _is_paper(estimator), colour(procedure)
        label = PROCEDURES.get(procedure, procedure) + (" (paper's estimator)" if paper else "")
        face, dashes, strength = ("w", "--", 0.07) if paper else (shade, "-", 0.18)
        axes.plot(line[x], line["lds_percent"], dashes, marker="o", color=shade, markerfacecolor=face, label=label)
        axes.fill_between(line[x], line["low"], line["high"], color=shade, alpha=strength, linewidth=0)
        if len(line) == 1:  # a band has no width there
            axes.vlines(line[x], line["low"], line["high"], color=shade, alpha=0.5, linewidth=0.8)
    axes.axhline(frame["ceiling_percent"].max(), color=GREY, linestyle=":", label="Ceiling")


def _is_paper(estimator):
    return estimator == "paper"


def _legend(figure, axes):
    lines, labels = axes.get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside upper left", ncols=3 if len(labels) < 6 else 2)


@styled
def methods_by_lds(lds, alpha=0.5):
    """LDS of each method, with its interval and the ceiling. Source: Table 1."""
    frame = table_1(lds, alpha)
    frame = frame[frame["interval"] == "subsets"]
    if frame.empty:
        raise Missing(f"too few test coalitions are measured at alpha {alpha:g}")
    figure = Drawing(frame, 1.0 + (0.26 if len(frame) < 12 else 0.22) * len(frame))
    axes = figure.subplots()
    rows = frame.assign(label=_two_lines(frame["method"]), value=frame["lds_percent"], colour=frame["method"].map(colour))
    _dots(axes, rows)
    ceiling = frame["ceiling_percent"].max()
    axes.axvline(ceiling, color=GREY, linestyle=":")
    axes.annotate("ceiling", (ceiling, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom", color=GREY)
    axes.axvline(0, color=GREY, linewidth=0.6)
    axes.set_xlabel(f"LDS (%), α = {alpha:g}, {frame['n_coalitions'].max()} test coalitions")
    bars = f"Bars: {INTERVAL}." if frame["low"].notna().any() else "No intervals: too few test coalitions."
    figure.note(f"{bars}\n{CEILING}")
    return figure


@styled
def credit(attributions, method):
    """Credit of each contributor by one method, greatest on top, with its interval.

    attributions   columns of attributions.csv; a further column `group`, if there is one, colours the contributors
    """
    frame = attributions[attributions["method"] == method].sort_values("value", ascending=False, kind="stable")
    if frame.empty:
        raise Missing(f"{method} has no credits")
    n, labels = len(frame), _labels(frame["contributor"])
    groups = frame["group"] if "group" in frame else pd.Series("", frame.index)
    colours = dict(zip(sorted(groups.unique()), cycle(GROUPS), strict=False))
    figure = Drawing(frame, 0.9 + (0.155 * n if labels else 5), labels=labels)
    axes = figure.subplots()
    _dots(axes, frame.assign(label=frame["contributor"].map(labels), colour=groups.map(colours)), thickness=1 if labels else 0.3)
    if len(colours) > 1:
        for group in colours:
            axes.plot([], [], "o", color=colours[group], label=f"{group} (n = {(groups == group).sum()})")
        axes.legend(loc="lower right", frameon=True, framealpha=1, edgecolor="none")
    axes.axvline(0, color=GREY, linewidth=0.6)
    axes.set(title=method, ylabel=f"Contributor (n = {n})")
    axes.set_xlabel(f"Credit ({unit(method, frame['property'].iloc[0])})")
    figure.note("Bars: 95 % intervals of the credit." if frame["low"].notna().any() else "")
    return figure


@styled
def credit_by_property(attributions, properties):
    """Credit of each contributor for each property, side by side: one panel a property, rows by the first one's credit.

    attributions   columns of attributions.csv, of one method
    properties     those to show, in their order
    """
    tables = {name: rows.set_index("contributor") for name, rows in attributions.groupby("property")}
    if lacking := [name for name in properties if name not in tables]:
        raise Missing(f"no credits for {', '.join(lacking)}")
    first = tables[properties[0]]["value"].sort_values(ascending=False, kind="stable")
    n, labels = len(first), _labels(first.index)
    figure = Drawing(attributions, 1.1 + (0.155 * n if labels else 5), labels=labels)
    panels = figure.subplots(1, len(properties), sharey=True, squeeze=False)[0]
    room_in = (WIDTH_IN - 2.2) / len(properties)
    for axes, name, shade in zip(panels, properties, cycle(GROUPS), strict=False):
        rows = tables[name].loc[first.index].reset_index()
        _dots(axes, rows.assign(label=rows["contributor"].map(labels), colour=shade), thickness=1 if labels else 0.3)
        axes.axvline(0, color=GREY, linewidth=0.6)
        axes.set(title=broken(spoken(name).replace(":", ": "), room_in), xlabel="Credit")
        axes.locator_params(axis="x", nbins=3)
        axes.ticklabel_format(axis="x", scilimits=(-2, 4))
        if name != properties[0]:
            alike = correlation.said("{:z.2f}", correlation.spearman(first.to_numpy(), rows["value"].to_numpy())[0])
            axes.set_xlabel(f"Credit\n{broken(f'Spearman to the first: {alike}', room_in)}")
    panels[0].set_ylabel(f"Contributor (n = {n})")
    bars = "Bars: 95 % intervals. " if attributions["low"].notna().any() else ""
    figure.note(f"{bars}Each panel in units of its property; where less is better, of its negative.")
    return figure


def _labels(contributors):
    """How their names are written beside rows; of more than 60 none is."""
    return names(contributors) if len(contributors) <= 60 else {}


def _dots(axes, rows, thickness=1.0):
    """One dot and its interval a row, the first on top. rows: label, value, low, high, colour."""
    look = {"linewidth": 1.4 * thickness, "markersize": 4 * thickness**0.5}
    for place, row in enumerate(rows.itertuples()):
        axes.plot([row.low, row.high], [place, place], color=row.colour, **look)
        face = "w" if hollow(str(row.label)) else row.colour
        axes.plot(row.value, place, "o", color=row.colour, markerfacecolor=face, **look)
        if np.isnan(row.value):
            axes.annotate("not defined", (0, place), (3, 0), textcoords="offset points", va="center", color=GREY)
    _rows(axes, rows["label"].dropna(), len(rows))


def _two_lines(methods):
    return [broken(name, 1.66, 7.5) for name in methods]


def _rows(axes, labels, n):
    """Labels n rows, the first on top."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(n - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


@styled
def counterfactual(frame):
    """Relative change of the property without the top contributors, and with them alone. Source: Figure 3.

    frame   columns of counterfactual.csv; perhaps `reported`, percent in the paper
    """
    if frame.empty:
        raise Missing("no change without, or with only, the top contributors is measured, or defined")
    frame = in_order(frame)
    changes = [change for change in ("remove_top", "keep_top") if frame["change"].str.startswith(change).any()]
    rows = [frame[frame["change"].str.startswith(change)] for change in changes]
    figure = Drawing(frame, 0.8 + sum(0.35 + 0.27 * len(bars) for bars in rows))
    heights = [len(bars) for bars in rows]
    panels = figure.subplots(len(rows), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, bars in zip(panels, rows, strict=True):
        verb, _, percent = bars["change"].iloc[0].split("_")
        words = {"remove": "Without the top {} % of contributors", "keep": "With the top {} % of contributors alone"}
        for row, bar in enumerate(bars.itertuples()):
            fill = "w" if hollow(bar.method) else colour(bar.method)
            axes.barh(row, bar.percent, 0.68, color=fill, edgecolor=colour(bar.method))
            axes.plot([bar.low, bar.high], [row, row], color="k", linewidth=1, marker="|")
            if "reported" in bars:
                axes.plot(bar.reported, row, "D", color="k", markerfacecolor="w", zorder=3)
        _rows(axes, _two_lines(bars["method"]), len(bars))
        axes.set_title(words[verb].format(percent))
        axes.axvline(0, color=GREY, linewidth=0.6)
    panels[-1].set_xlabel(f"Change of {spoken(frame['property'].iloc[0])} against the full model (%)")
    diamonds = " Diamonds: as the paper reports." if "reported" in frame else ""
    n_seeds = " or ".join(str(n) for n in sorted(frame["n_seeds"].unique()))
    worse = " Below 0 is worse." if ":" in (name := frame["property"].iloc[0]) or name in LOWER else ""
    figure.note(f"Bars: mean of {n_seeds} seeds; lines: 95 % intervals over seeds.{worse}{diamonds}")
    return figure


@styled
def fidelity(frame, property_name="utility"):
    """v(S) of the sparsely fine-tuned model against that of the retrained model, on the same coalitions. Source: eq. 6.

    frame   retrain, sparse_finetune (property's unit), size (contributors in S); one row a coalition
    """
    if frame.empty:
        raise Missing("no coalition is measured both ways")
    figure = Drawing(frame, 3.3, 4.0)
    axes = figure.subplots()
    points = axes.scatter(frame["retrain"], frame["sparse_finetune"], 14, frame["size"], cmap="cividis", zorder=2)
    both = frame[["retrain", "sparse_finetune"]]
    span = [both.min().min(), both.max().max()]
    axes.plot(span, span, color=GREY, linestyle=":", zorder=1)
    axes.annotate("equal", span[1:] * 2, xytext=(2, 2), textcoords="offset points", color=GREY, annotation_clip=False)
    each = {} if len(frame) < 3 else {"Pearson": correlation.pearson, "Spearman": correlation.spearman}  # of 2 it is 1 or -1
    words = [f"{name} {correlation.said('r = {:.2f}', of(*both.to_numpy().T)[0])}" for name, of in each.items()]
    text = "\n".join([*words, f"n = {len(frame)} coalitions"])
    axes.text(0.04, 0.96, text, transform=axes.transAxes, va="top")
    name = spoken(property_name)
    axes.set(xlabel=f"{name}, retrained", ylabel=f"{name}, sparsely fine-tuned", aspect="equal")
    figure.colorbar(points, label="Contributors in the coalition", shrink=0.9)
    return figure


@styled
def sizes(members):
    """How many coalitions there are of each size.

    members   bool [M, N]  who was in each coalition
    """
    n_coalitions, n_contributors = members.shape
    frame = pd.Series(members.sum(1)).value_counts().sort_index().rename_axis("size").reset_index(name="n_coalitions")
    figure = Drawing(frame, 1.8)
    axes = figure.subplots()
    axes.bar(frame["size"], frame["n_coalitions"], color=GREY)
    axes.set(xlabel=f"Size of the coalition (of {n_contributors} contributors)", xlim=(-0.6, n_contributors + 0.6))
    axes.set_ylabel(f"Coalitions (of {n_coalitions})")
    axes.locator_params(integer=True)
    return figure


@styled
def curve(losses):
    """Training loss against step: each, and the running mean over a twentieth of them; of a given model there are none.

    losses   float [steps]  mean squared error of the predicted noise
    """
    width = max(1, len(losses) // 20)
    frame = pd.DataFrame({"step": np.arange(1, len(losses) + 1), "loss": losses})
    frame["smoothed"] = frame["loss"].rolling(width, center=True, min_periods=1).mean()
    figure = Drawing(frame, 1.8)
    axes = figure.subplots()
    axes.plot(frame["step"], frame["loss"], color="#BBBBBB", linewidth=0.5)
    axes.plot(frame["step"], frame["smoothed"], color="k", label=f"mean of {width} steps")
    axes.set(xlabel="Step", ylabel="Loss (MSE)")
    if len(frame):
        axes.set_yscale("log")
        axes.yaxis.set(major_formatter="{x:g}", minor_locator=LogLocator(subs=(2, 5)), minor_formatter="{x:g}")
    axes.legend(title="" if len(frame) else "trained before, not here")
    return figure
