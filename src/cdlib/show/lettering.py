"""How names and numbers are written: with letters that a font has, within the room there is, and with the digits that count."""

import warnings
from bisect import bisect_left
from collections import Counter
from functools import cache
from unicodedata import bidirectional

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties, get_font_names

# Asked in this order for letters that the first one lacks, where they are installed.
WIDE = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR"),
    *("Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "IPAexGothic", "NanumGothic"),
    *("Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Telugu", "Noto Sans Thai", "Noto Sans Ethiopic"),
    *("PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Devanagari MT", "Arial Unicode MS"),
    *("Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Nirmala UI", "Leelawadee UI", "Unifont"),
)
FONTS = {"font.family": ["DejaVu Sans", *(name for name in WIDE if name in get_font_names())], "text.parse_math": False}
RENDERER = RendererAgg(1, 1, 100)
LEFT_TO_RIGHT = "\u200e"  # an invisible mark


def number(value, low=np.nan, high=np.nan, least=2):
    """A number, with its interval if there is one: "0.00123 [0.00101, 0.00145]"; "-" for NaN.

    Two significant digits of the interval's half width, or of the number where there is no interval.

    least   decimals that it has in any case
    """
    if np.isnan(value):
        return "-"
    half, alone = (high - low) / 2, np.isnan(low)
    n = decimals(abs(value) if alone or not half else max(half, abs(value) / 1e4), least)
    text, *ends = (f"{x:z,.{n}f}" for x in (value, low, high))
    return text if alone else f"{text} [{', '.join(ends)}]"


def decimals(scale, least):
    """Decimals that two significant digits of a number above zero take, or `least`."""
    return int(np.clip(1 - np.floor(np.log10(scale)), least, 12)) if 0 < scale < np.inf else least


def names(contributors, room_in=1.8, size=7.5):
    """How figures write each contributor, {name: label}: one line of so many inches at a font size in points.

    A longer name lacks its middle. A name that no font here can draw is "contributor 7": its place among all in order, from 1.
    Names that would look the same have their place behind them.

    contributors   all of the run
    """
    order = {name: place for place, name in enumerate(sorted(set(contributors)), 1)}
    labels = {name: _fitted(name, room_in, size) if drawable(name) else f"contributor {i}" for name, i in order.items()}
    n_alike = Counter(labels.values())
    return {name: label if n_alike[label] == 1 else f"{label} ({order[name]})" for name, label in labels.items()}


def stand_ins(labels):
    """Those of `names` that no font here can draw, {label: name}."""
    return {label: name for name, label in labels.items() if not drawable(name)}


def drawable(text):
    """Whether the fonts here have all letters of a text."""
    return width_in(text, 10) < np.inf


@cache
@rc_context(FONTS)
def width_in(text, size):
    """Inches that a line of text takes at a font size in points; infinite where a letter cannot be drawn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return RENDERER.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)[0] / RENDERER.dpi
        except UserWarning:  # a letter is missing from all fonts
            return np.inf


def _fitted(name, room_in, size):
    """The name within so much room; one that is written from right to left keeps to itself in a line of others."""
    n_out = bisect_left(range(len(name) - 2), True, key=lambda n: width_in(_without(name, n), size) <= room_in)
    mark = LEFT_TO_RIGHT if any(bidirectional(letter) in ("R", "AL") for letter in name) else ""
    return f"{mark}{_without(name, n_out)}{mark}"


def _without(name, n):
    """The name without n letters of its middle."""
    kept = len(name) - n
    return f"{name[: (kept + 1) // 2].rstrip()}…{name[len(name) - kept // 2 :].lstrip()}" if n else name
