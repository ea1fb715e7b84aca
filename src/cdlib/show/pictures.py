"""Figures made of images: grids, contributors with their images, images of several models side by side.

k  images        H, W  pixels        an array of images is uint8 [k, H, W] or [k, H, W, 3], 0..255
"""

import numpy as np
import pandas as pd

from cdlib.base.errors import Missing
from cdlib.show.lettering import names, number, width_in
from cdlib.show.style import PROCEDURES, WIDTH_IN, Drawing, broken, spoken, styled, unit

COLUMN_IN = 2.55  # width of one of two columns


@styled
def images(array, columns=10, title=""):
    """A grid of images, row by row.

    array   uint8 [k, H, W] or [k, H, W, 3]
    """
    columns = min(columns, len(array))
    grid = mosaic(array, columns)
    width_in = min(WIDTH_IN, 0.55 * columns)
    frame = pd.DataFrame({"image": range(len(array))})
    figure = Drawing(frame, width_in * grid.shape[0] / grid.shape[1] + (0.25 if title else 0), width_in)
    _draw(figure, [(title, grid)], 1)
    return figure


@styled
def top_contributors(credits, examples, n=4):
    """The contributors with the most credit and those with the least, with some of their images. Source: Figure 4.

    credits    rows of attributions.csv of one method and one property
    examples   {contributor: uint8 [k, H, W] or [k, H, W, 3]}
    """
    frame, labels, strips = _contributors(credits, examples, n)
    figure = Drawing(frame, _height_in(strips, 2), labels=labels)
    _draw(figure, strips, 2, _heading(credits))
    return figure


@styled
def generated(samples, models, property_name="utility"):
    """Images from the same initial noise, one row a model, with the property in its title. Source: Figure 4.

    samples   {title: uint8 [k, H, W] or [k, H, W, 3]}
    models    rows of generated.csv, of the models to be shown
    """
    strips = _models(samples, models, property_name)
    figure = Drawing(models, _height_in(strips, 1))
    _draw(figure, strips, 1)
    return figure


@styled
def top_and_generated(credits, examples, samples, models, property_name="utility", n=4):
    """The contributors with the most credit and the least, above images that several models draw. Source: Figure 4.

    Parameters as of `top_contributors` and `generated`.
    """
    above, labels, contributors = _contributors(credits, examples, n)
    strips = _models(samples, models, property_name)
    heights_in = [_height_in(contributors, 2), _height_in(strips, 1) + 0.2]
    figure = Drawing(pd.concat([above, models], ignore_index=True), sum(heights_in), labels=labels)
    upper, lower = figure.subfigures(2, 1, height_ratios=heights_in)
    _draw(upper, contributors, 2, _heading(credits))
    _draw(lower, strips, 1, "Images generated from the same initial noise")
    return figure


@styled
def top_and_pairs(credits, examples, samples, pairs, headings, quantile=0.9, n=4):
    """The contributors with the most credit and the least, above images of several models by score. Source: Figure 4.

    Parameters as of `top_contributors` and `pairs_of`.
    """
    above, labels, contributors = _contributors(credits, examples, n)
    heights_in = [_height_in(contributors, 2), _height_of_pairs_in(pairs, samples, headings) + 0.2]
    figure = Drawing(pd.concat([above, pairs], ignore_index=True), sum(heights_in), labels=labels)
    upper, lower = figure.subfigures(2, 1, height_ratios=heights_in)
    _draw(upper, contributors, 2, _heading(credits))
    _draw_pairs(lower, samples, pairs, headings, quantile)
    lower.suptitle("Generated images and their scores", fontsize=8, fontweight="bold", x=0.008, horizontalalignment="left")
    return figure


@styled
def pairs_of(samples, pairs, headings, quantile=0.9, words=""):
    """Images above and below the quantile of each model, with their scores. Source: Figures 9 and 10.

    samples    {"above/<title>" or "below/<title>": uint8 [k, H, W] or [k, H, W, 3]}
    pairs      rows of pairs.csv, of the images to be shown; `place` tells which of the samples
    headings   {title: what stands above its images}, one column each
    words      what the models have in common, for the note
    """
    figure = Drawing(pairs, _height_of_pairs_in(pairs, samples, headings) + 0.2)
    _draw_pairs(figure, samples, pairs, headings, quantile)
    figure.note(f"{words}Under each image its score. The first such images of each model, by the index of their noise.")
    return figure


@styled
def by_fraction(samples, models, property_name="utility", k=18):
    """Images without a few and many of the top contributors, one column a method, from the same initial noise. Source: Figure 6.

    samples   {title: uint8 [k, H, W] or [k, H, W, 3]}
    models    rows of generated.csv: the full model, and those without the top contributors
    """
    full, without = models[models["change"] == "none"].iloc[0], models[models["change"].str.startswith("remove_top")]
    if without.empty:
        raise Missing("no model without the top contributors is measured")
    methods = list(dict.fromkeys(without["method"]))
    changes = sorted(without["change"].unique(), key=_percent)
    strip, block = (mosaic(samples[full["title"]][:k], columns) for columns in (k, 6))
    width_in = (WIDTH_IN - 0.4) / len(methods)
    heights_in = [_ratio(strip) * WIDTH_IN] + [_ratio(block) * width_in] * len(changes)
    figure = Drawing(models, 0.75 + sum(heights_in) + (0.25 if len(methods) < 4 else 0.4) * len(changes))
    grid = figure.add_gridspec(len(heights_in), len(methods), height_ratios=heights_in, wspace=0.06)
    axes = bare(figure.add_subplot(grid[0, :]), strip)
    axes.set_title(f"{full['title']}:  {spoken(property_name)} {number(full['value'])}")
    for i, change in enumerate(changes):
        for j, method in enumerate(methods):
            model = without[(without["change"] == change) & (without["method"] == method)]
            there = [mosaic(samples[title][:k], 6) for title in model["title"]] or [np.full_like(block, 255)]
            axes = bare(figure.add_subplot(grid[1 + i, j]), there[0])
            titles = [] if i else [broken(method, width_in, 7.5)]
            words = [f"{spoken(property_name)} {number(value)}" for value in model["value"]] or ["not measured"]
            score = broken(words[0], width_in, 7.5)
            axes.set_title("\n".join([*titles, score]), fontsize=7.5)
            if j == 0:
                axes.set_ylabel(f"without the\ntop {_percent(change)} %", fontsize=7.5)
    seeds = ", ".join(str(n) for n in sorted(models["n_seeds"].unique()))
    figure.note(f"Images of one retrained model each, from the same initial noises; scores: means over its seeds (n = {seeds}).")
    return figure


@styled
def unlearned(samples):
    """Images of models that were to forget the same contributors, one column a procedure. Source: Figure 11.

    samples   {procedure: uint8 [k, H, W] or [k, H, W, 3]}
    """
    strips = [(PROCEDURES.get(name, spoken(name)), mosaic(array, 4)) for name, array in samples.items()]
    figure = Drawing(pd.DataFrame({"procedure": list(samples)}), 0.37 + _ratio(strips[0][1]) * WIDTH_IN / len(strips))
    for axes, (title, strip) in zip(figure.subplots(1, len(strips), squeeze=False)[0], strips, strict=True):
        bare(axes, strip).set_title(title)
    figure.note("From the same initial noises, after the same contributors were removed.")
    return figure


def channels_last(array):
    """uint8 [k, C, H, W], as models draw them, to [k, H, W] (grey) or [k, H, W, 3] (colour)."""
    return array[:, 0] if array.shape[1] == 1 else np.moveaxis(array, 1, -1)


def mosaic(array, columns=None):
    """The images side by side on white, in rows of `columns` (left out: one row).

    Returns uint8 [height, width] or [height, width, 3].
    """
    k, height, width = array.shape[:3]
    columns = columns or k
    gap = max(1, width // 10)
    down, across = height + gap, width + gap
    sheet = np.full((-(-k // columns) * down - gap, columns * across - gap, *array.shape[3:]), 255, np.uint8)
    for i, image in enumerate(array):
        top, left = i // columns * down, i % columns * across
        sheet[top : top + height, left : left + width] = image
    return sheet


def _contributors(credits, examples, n):
    """The rows of the n contributors with the most and the n with the least credit; their names' labels; titles and strips.

    A title takes two lines where the name and the credit do not fit on one.
    """
    n = min(n, len(credits) // 2)
    frame = credits.sort_values("value", ascending=False, kind="stable")
    frame = pd.concat([frame.head(n), frame.tail(n)])
    labels = names(credits["contributor"], COLUMN_IN, 8)
    labels = {name: labels[name] for name in frame["contributor"]}
    texts = [number(*row) for row in frame[["value", "low", "high"]].to_numpy(float)]
    both = list(zip(labels.items(), texts, strict=True))
    between = "\n" if any(width_in(f"{label}:  {text}", 8) > COLUMN_IN for (_, label), text in both) else ":  "
    return frame, labels, [(f"{label}{between}{text}", mosaic(examples[name])) for (name, label), text in both]


def _models(samples, models, property_name):
    titles = [f"{row.title}:  {spoken(property_name)} {number(row.value)}" for row in models.itertuples()]
    return [(title, mosaic(samples[name])) for title, name in zip(titles, models["title"], strict=True)]


def _height_of_pairs_in(pairs, samples, headings):
    """Inches that the images above and below take."""
    side, title = pairs[["side", "title"]].iloc[0]
    across = (WIDTH_IN - 0.5) / len(headings) / pairs["place"].nunique()
    return (0.3 if len(headings) < 4 else 0.55) + 2 * (0.2 + across * _ratio(samples[f"{side}/{title}"][0]))


def _draw_pairs(figure, samples, pairs, headings, quantile):
    places = sorted(pairs["place"].unique())
    panels = figure.subplots(2, len(headings), squeeze=False, gridspec_kw={"wspace": 0.08})
    for (title, heading), column in zip(headings.items(), panels.T, strict=True):
        model = pairs[pairs["title"] == title]
        for axes, side in zip(column, ("above", "below"), strict=True):
            rows, array = model[model["side"] == side], samples[f"{side}/{title}"]
            blank = np.full((len(places) - len(rows), *array.shape[1:]), 255, np.uint8)
            bare(axes, mosaic(np.concatenate([array[rows["place"].to_numpy()], blank])))
            for i, score in enumerate(rows["score"]):
                x = (i + 0.5) / len(places)
                axes.text(x, -0.03, number(score), transform=axes.transAxes, fontsize=7, ha="center", va="top")
        lines = heading, f"{100 * quantile:g}th percentile: {number(model['threshold'].iloc[0])}"
        column[0].set_title("\n".join(broken(line, WIDTH_IN / len(headings) - 0.15, 7.5) for line in lines), fontsize=7.5)
    for axes, label in zip(panels[:, 0], ("above", "below"), strict=True):
        axes.set_ylabel(label, fontsize=7.5)


def _heading(credits):
    first = credits.iloc[0]
    return f"Contributors with the most credit (left) and the least (right), {unit(first['method'], first['property'])}"


def _percent(change):
    """40 of "remove_top_40"."""
    return int(change.rsplit("_", 1)[1])


def _ratio(image):
    """Height over width."""
    return image.shape[0] / image.shape[1]


def bare(axes, image=None):
    """An image, or nothing, without a frame; its labels stay."""
    if image is not None:
        axes.imshow(image, vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return axes


def _height_in(strips, columns):
    """Inches that the titled strips take in so many columns."""
    tallest = max(_ratio(strip) for _, strip in strips)
    lines = max(title.count("\n") for title, _ in strips)
    return 0.2 * (columns > 1) + len(strips) / columns * (0.28 + 0.14 * lines + tallest * WIDTH_IN / columns)


def _draw(figure, strips, columns, heading=""):
    """The titled strips, down the first column and then down the next."""
    panels = figure.subplots(len(strips) // columns, columns, squeeze=False, gridspec_kw={"wspace": 0.06})
    for axes, (title, strip) in zip(panels.T.flat, strips, strict=True):
        axes.imshow(strip, vmin=0, vmax=255)
        axes.set_title(title)
        axes.set_axis_off()
    if heading:
        figure.suptitle(heading, fontsize=8, fontweight="bold", x=0.008, horizontalalignment="left")
