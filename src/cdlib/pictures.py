"""Figures made of images: grids, contributors with their images, images of several models side by side.

k  images        H, W  pixels        an array of images is uint8 [k, H, W] or [k, H, W, 3], 0..255
"""

import numpy as np
import pandas as pd

from .style import WIDTH_IN, Drawing, spoken, styled, unit


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
    frame, strips = _contributors(credits, examples, n)
    figure = Drawing(frame, _height_in(strips, 2))
    _draw(figure, strips, 2, _heading(credits))
    return figure


@styled
def generated(samples, values, property_name="utility"):
    """Images from the same initial noise, one row a model, with the property in its title. Source: Figure 4.

    samples   {title: uint8 [k, H, W] or [k, H, W, 3]}
    values    {title: float}, in the property's own unit
    """
    frame, strips = _models(samples, values, property_name)
    figure = Drawing(frame, _height_in(strips, 1))
    _draw(figure, strips, 1)
    return figure


@styled
def top_and_generated(credits, examples, samples, values, property_name="utility", n=4):
    """The contributors with the most credit and the least, above images that several models draw. Source: Figure 4.

    Parameters as of `top_contributors` and `generated`.
    """
    above, contributors = _contributors(credits, examples, n)
    below, models = _models(samples, values, property_name)
    heights_in = [_height_in(contributors, 2), _height_in(models, 1) + 0.2]
    figure = Drawing(pd.concat([above, below], ignore_index=True), sum(heights_in))
    upper, lower = figure.subfigures(2, 1, height_ratios=heights_in)
    _draw(upper, contributors, 2, _heading(credits))
    _draw(lower, models, 1, "Images generated from the same initial noise")
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
    """The rows of the n contributors with the most and the n with the least credit; their titles and strips."""
    n = min(n, len(credits) // 2)
    frame = credits.sort_values("value", ascending=False, kind="stable")
    frame = pd.concat([frame.head(n), frame.tail(n)])
    interval = np.where(frame["low"].isna(), "", " [" + frame["low"].map(_number) + ", " + frame["high"].map(_number) + "]")
    titles = frame["contributor"] + ":  " + frame["value"].map(_number) + interval
    return frame, [(title, mosaic(examples[one])) for title, one in zip(titles, frame["contributor"], strict=True)]


def _models(samples, values, property_name):
    frame = pd.DataFrame({"model": list(samples), "property": property_name, "value": [values[title] for title in samples]})
    titles = [f"{title}:  {spoken(property_name)} {_number(values[title])}" for title in samples]
    return frame, list(zip(titles, map(mosaic, samples.values()), strict=True))


def _heading(credits):
    first = credits.iloc[0]
    return f"Contributors with the most credit (left) and the least (right), {unit(first['method'], first['property'])}"


def _number(value):
    return f"{value:z.2f}"


def _height_in(strips, columns):
    """Inches that the titled strips take in so many columns."""
    tallest = max(strip.shape[0] / strip.shape[1] for _, strip in strips)
    return 0.2 * (columns > 1) + len(strips) / columns * (0.28 + tallest * WIDTH_IN / columns)


def _draw(figure, strips, columns, heading=""):
    """The titled strips, down the first column and then down the next."""
    panels = figure.subplots(len(strips) // columns, columns, squeeze=False, gridspec_kw={"wspace": 0.06})
    for axes, (title, strip) in zip(panels.T.flat, strips, strict=True):
        axes.imshow(strip, vmin=0, vmax=255)
        axes.set_title(title)
        axes.set_axis_off()
    if heading:
        figure.suptitle(heading, fontsize=8, fontweight="bold", x=0.008, horizontalalignment="left")
