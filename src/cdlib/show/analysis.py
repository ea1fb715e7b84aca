"""Figure 12: what the property sees in the images of the contributors with the most credit. Source: appendix D.5.

N  contributors        k  images        H, W  pixels
"""

import numpy as np
import pandas as pd

from cdlib.base.params import share
from cdlib.data.contributors import span
from cdlib.show.lettering import names, width_in
from cdlib.show.pictures import bare, mosaic
from cdlib.show.style import Drawing, colour, styled

TOP = 0.2  # of the contributors
N_BOOTSTRAP = 1000
FRAME = "#CC0000"  # the paper's red line


def top(credits, fraction=TOP):
    """The contributors in the order of their credit, and how many are that fraction, at least 1.

    credits   rows of attributions.csv of one method and one property
    """
    order = credits.sort_values("value", ascending=False, kind="stable")["contributor"].to_list()
    return order, max(1, share(len(order), fraction))


def entropies(credits, training):
    """Mean entropy of each contributor's training images, in the order of their credit: the rows that `image_entropy` draws.

    training   rows of training_images.csv: contributor, entropy
    Returns contributor, entropy, low, high (95 %, bootstrap over their images), n_images, top (bool).
    """
    order, n_top = top(credits)
    given, rng = training.groupby("contributor")["entropy"], np.random.default_rng(0)
    rows = []
    for place, name in enumerate(order):
        of = given.get_group(name).to_numpy()
        means = of[rng.integers(0, len(of), (N_BOOTSTRAP, len(of)))].mean(1)
        rows.append((name, of.mean(), *np.quantile(means, [0.025, 0.975]), len(of), place < n_top))
    return pd.DataFrame(rows, columns=["contributor", "entropy", "low", "high", "n_images", "top"])


@styled
def image_entropy(credits, training, reported=None):
    """Entropy of the class probabilities of each contributor's training images, most credit first. Source: Figure 12, left.

    reported   what the paper reports for this run (reported.of): method, value; said under the figure
    """
    frame = entropies(credits, training)
    size = 7.5 if len(frame) < 30 else 6
    labels = names(frame["contributor"], 1.2, size) if len(frame) <= 60 else {}
    longest_in = max((width_in(label, size) for label in labels.values()), default=0)
    figure = Drawing(frame, 2.6 + max(0, longest_in - 0.2), labels=labels)
    axes, n_top = figure.subplots(), int(frame["top"].sum())
    ours = colour(credits["method"].iloc[0])
    axes.bar(frame.index, frame["entropy"], 0.75, color=np.where(frame["top"], ours, "#BBBBBB"))
    axes.vlines(frame.index, frame["low"], frame["high"], color="k", linewidth=0.8)
    for rows, words, dashes in ((frame["top"], "top 20 %", "--"), (~frame["top"], "others", ":")):
        mean, ends = frame.loc[rows, "entropy"].mean(), frame.index[rows][[0, -1]]
        label = f"mean of the {words} (n = {rows.sum()}): {mean:.2g} nats"
        axes.hlines(mean, ends[0] - 0.5, ends[1] + 0.5, color="k", linestyle=dashes, linewidth=1, label=label)
    axes.axvline(n_top - 0.5, color=FRAME, linewidth=1.2)
    axes.grid(False, axis="x")
    axes.set_xticks(
        frame.index if labels else [],
        [labels[name] for name in frame["contributor"] if labels],
        rotation=90 if any(len(label) > 3 for label in labels.values()) else 0,
        fontsize=size,
    )
    axes.set(xlabel=f"Contributors, most credit first (n = {len(frame)})", ylabel="Entropy of an image (nats)")
    axes.set(xlim=(-0.7, len(frame) - 0.3), ylim=(0, None))
    figure.legend(loc="outside upper left", ncols=2)
    figure.note(
        f"Bars: mean over the contributor's {span(frame['n_images'])} images; lines: 95 % intervals, bootstrap over images. "
        f"Left of the red line: the top 20 % by {credits['method'].iloc[0]}.{_as_reported(reported)}"
    )
    return figure


@styled
def clusters(credits, training, examples, n_shown=4, k=5):
    """Training images in each reference cluster, those of the top contributors marked, beside the images of the first few.

    credits    rows of attributions.csv of one method and one property
    training   rows of training_images.csv: contributor, cluster
    examples   {contributor: uint8 [k, H, W] or [k, H, W, 3]}
    Source: Figure 12, middle and right.
    """
    order, n_top = top(credits)
    marked = training.assign(top=training["contributor"].isin(order[:n_top]))
    counts = marked.groupby(["cluster", "top"]).size().unstack(fill_value=0)
    counts = counts.reindex(columns=[False, True], fill_value=0).set_axis(["n_others", "n_top"], axis=1)
    frame = counts.assign(n_images=counts.sum(axis=1)).sort_values("n_images", ascending=False, kind="stable").reset_index()
    labels = names(order, 1.4)
    figure = Drawing(frame, 2.9, labels={name: labels[name] for name in order[:n_shown]})
    grid = figure.add_gridspec(n_shown, 2, width_ratios=[3, 2])
    axes, ours = figure.add_subplot(grid[:, 0]), colour(credits["method"].iloc[0])
    axes.bar(frame.index, frame["n_top"], 0.75, color=ours, label=f"top 20 % of contributors (n = {n_top})")
    axes.bar(frame.index, frame["n_others"], 0.75, frame["n_top"], color="#BBBBBB", label=f"others (n = {len(order) - n_top})")
    axes.set_xticks(frame.index, frame["cluster"], fontsize=6.5)
    for place in frame.index[frame["n_top"] > 0]:
        axes.get_xticklabels()[place].set(color=FRAME, fontweight="bold")
    axes.grid(False, axis="x")
    axes.set(xlabel="Reference cluster, largest first", ylabel=f"Training images (of {frame['n_images'].sum()})")
    figure.legend(loc="outside upper left", ncols=2)
    for place, name in enumerate(order[:n_shown]):
        panel = bare(figure.add_subplot(grid[place, 1]), mosaic(examples[name][:k]))
        panel.set_title(f"{place + 1}. {labels[name]}", fontsize=7.5)
    figure.note(
        f"Red: clusters with images of the top 20 % by {credits['method'].iloc[0]}. Right: the top {n_shown} contributors. "
        "Clusters: those of the full model's images."
    )
    return figure


def _as_reported(rows):
    if rows is None or rows.empty:
        return ""
    return " The paper reports " + ", ".join(f"{row.value:g} ({row.method})" for row in rows.itertuples()) + "."
