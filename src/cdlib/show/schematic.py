"""Figure 1: the framework, drawn with a run's own images and numbers. Source: Figure 1.

N  contributors        k  images        H, W  pixels        places are in inches from the lower left corner
"""

import numpy as np
from matplotlib import rc_context
from matplotlib.patches import FancyBboxPatch

from cdlib.base.errors import Missing
from cdlib.show.lettering import names, width_in
from cdlib.show.pictures import mosaic
from cdlib.show.style import GREY, WIDTH_IN, Drawing, colour, spoken, styled

HEIGHT_IN = 3.05
SHOWN = 4  # contributors: the three with the most credit, and the one with the least
FILL = "#F3F3F3"


@styled
@rc_context({"text.parse_math": True})
def framework(credits, frame, examples, samples):
    """Contributors, the full model, the pruned one, models fine-tuned on coalitions, their properties, and the Shapley values.

    credits    rows of attributions.csv of one method and one property
    frame      framework.csv
    examples   {contributor: uint8 [k, H, W] or [k, H, W, 3]}
    samples    {"full" or members as in framework.csv: the same}: generated images
    """
    if not (frame["stage"] == "coalition").any():
        raise Missing("no coalition is measured")
    property_name = credits["property"].iloc[0]
    labels = names(credits["contributor"], 0.64, 6)
    shown = labels if len(labels) <= 30 else {}
    figure = Drawing(frame, HEIGHT_IN, labels=shown)
    figure.set_layout_engine("none")  # everything has its place
    sheet = figure.add_axes(_place(figure, 0, 0, WIDTH_IN, HEIGHT_IN))
    sheet.set_axis_off()
    order = credits.sort_values("value", ascending=False, kind="stable")["contributor"].to_list()
    _contributors(sheet, order, examples, names(order, 1.15, 6.5))
    _models(sheet, frame.set_index("stage"), samples, property_name)
    _coalitions(sheet, frame[frame["stage"] == "coalition"], samples, order)
    _values(figure, credits, property_name, shown)
    for x, text in ((0.05, "Data contributors"), (1.42, "Models"), (2.78, "Fine-tuned on coalitions"), (4.45, "Shapley values")):
        sheet.text(x, HEIGHT_IN - 0.14, text, fontweight="bold", va="center")
    sheet.set(xlim=(0, WIDTH_IN), ylim=(0, HEIGHT_IN), aspect="auto")
    return figure


def _contributors(sheet, order, examples, labels):
    """Thumbnails of a few contributors, one row each, and how many there are."""
    chosen = [*order[: SHOWN - 1], order[-1]]
    tops = [2.66, 2.16, 1.66, 0.82]
    for name, top in zip(chosen, tops, strict=True):
        sheet.text(0.05, top + 0.005, labels[name], fontsize=6.5, va="bottom", parse_math=False)
        _image(sheet, examples[name][:3], 0.05, top, width=0.95)
    sheet.text(0.52, 1.1, "$\\vdots$", ha="center", va="center", fontsize=11)
    sheet.text(0.05, 0.16, f"$C_1, \\ldots, C_{{{len(order)}}}$", va="center")


def _models(sheet, stages, samples, property_name):
    """The full model with its images and its property, and the pruned one under it."""
    full, middle = stages.loc["full"], 1.945
    _box(sheet, 1.42, 1.36, 1.05, 1.44)
    sheet.text(middle, 2.67, "full model $\\theta^*$", ha="center", va="center")
    _small(sheet, middle, 2.51, _parameters(full["parameters"]))
    _image(sheet, samples["full"][:6], 1.5, 2.41, width=0.89, columns=3)
    sheet.text(middle, 1.64, f"$\\mathcal{{F}}(\\theta^*)$ = {_number(full['value'])}", ha="center", va="center")
    _small(sheet, middle, 1.47, spoken(property_name))
    _box(sheet, 1.42, 0.52, 1.05, 0.46)
    sheet.text(middle, 0.83, "pruned model $\\tilde{\\theta}^*$", ha="center", va="center")
    _small(sheet, middle, 0.65, _parameters(stages.loc["sparse", "parameters"]))
    _arrow(sheet, (1.08, 2.08), (1.4, 2.08), "train")
    _arrow(sheet, (middle, 1.34), (middle, 1.0), "prune", beside=True)


def _coalitions(sheet, coalitions, samples, order):
    """For each coalition who is in it, images of the pruned model fine-tuned on it, and its property."""
    for i, (top, row) in enumerate(zip((2.8, 1.9, 1.0), coalitions.itertuples(), strict=False), 1):
        inside = np.array([c == "1" for c in row.members])
        _box(sheet, 2.78, top - 0.8, 1.31, 0.8)
        sheet.text(2.84, top - 0.14, f"$\\tilde{{\\theta}}^{{\\rm ft}}_{{S_{i}}}$", va="center")
        _small(sheet, 4.03, top - 0.12, f"{inside.sum()} of {len(order)}", "right")
        shade = np.where(inside[None], 0.25, 0.88)
        sheet.imshow(shade, extent=(3.08, 3.51, top - 0.165, top - 0.075), cmap="gray", vmin=0, vmax=1)
        _image(sheet, samples[row.members][:4], 2.84, top - 0.25, width=1.19)
        sheet.text(2.84, top - 0.69, f"$\\mathcal{{F}}(S_{i})$ = {_number(row.value)}", va="center", fontsize=7)
        _arrow(sheet, (2.49, 0.75), (2.76, top - 0.4))
        sheet.plot([4.11, 4.2], [top - 0.4] * 2, color=GREY, linewidth=0.8)
    sheet.plot([4.2, 4.2], [0.6, 2.4], color=GREY, linewidth=0.8)
    _arrow(sheet, (4.2, 1.5), (4.38, 1.5))


def _values(figure, credits, property_name, labels):
    """Credit of each contributor, greatest on top, with its interval."""
    rows = credits.sort_values("value", ascending=False, kind="stable").reset_index(drop=True)
    left = max(4.62, 4.42 + max((width_in(label, 6) for label in labels.values()), default=0))
    axes = figure.add_axes(_place(figure, left, 0.42, (5.45 if left < 4.7 else 5.36) - left, 2.4))
    shade = colour(rows["method"].iloc[0])
    axes.barh(rows.index, rows["value"], 0.75 if labels else 1, color=shade)
    axes.hlines(rows.index, rows["low"], rows["high"], color="k", linewidth=0.6, alpha=1 if labels else 0.25)
    axes.axvline(0, color=GREY, linewidth=0.6)
    axes.set_yticks(rows.index if labels else [], rows["contributor"].map(labels).dropna(), fontsize=6, parse_math=False)
    axes.tick_params(axis="y", length=0, pad=1)
    axes.tick_params(axis="x", labelsize=6.5)
    axes.grid(False, axis="y")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(f"$\\beta_i$, {spoken(property_name)}", fontsize=6.5, loc="center" if left < 4.7 else "right")
    axes.locator_params(axis="x", nbins=3 if left < 4.7 else 2)


def _place(figure, left, bottom, width, height):
    """Inches of the sheet, which ends where the figure does at the top, as fractions of the figure."""
    total = figure.get_figheight()
    return left / WIDTH_IN, (bottom + total - HEIGHT_IN) / total, width / WIDTH_IN, height / total


def _small(sheet, x, y, text, ha="center"):
    sheet.text(x, y, text, ha=ha, va="center", fontsize=6.5, color=GREY)


def _box(sheet, left, bottom, width, height):
    look = {"boxstyle": "round,pad=0,rounding_size=0.05", "facecolor": FILL, "edgecolor": "#AAAAAA", "linewidth": 0.6}
    sheet.add_patch(FancyBboxPatch((left, bottom), width, height, **look, zorder=0))


def _image(sheet, array, left, top, width, columns=None):
    """The images side by side, as wide as that, from a top down."""
    strip = mosaic(array, columns)
    height = width * strip.shape[0] / strip.shape[1]
    sheet.imshow(strip, extent=(left, left + width, top - height, top), vmin=0, vmax=255, zorder=2)


def _arrow(sheet, start, end, text="", beside=False):
    sheet.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": GREY, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0})
    if text:
        middle = np.mean([start, end], axis=0)
        place = (middle[0] + 0.05, middle[1]) if beside else (middle[0], middle[1] + 0.07)
        sheet.text(*place, text, fontsize=7, ha="left" if beside else "center", va="center")


def _parameters(n):
    return f"{n:,} parameters" if n < 1e6 else f"{n / 1e6:.1f} M parameters"


def _number(value):
    return f"{value:#.3g}"
