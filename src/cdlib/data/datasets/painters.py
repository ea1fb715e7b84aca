"""Landscapes by painters whose palettes differ in vividness: a dataset that needs no download.

A painter has a palette, from nearly grey to very vivid, and a brush; each canvas shows another landscape. All give about
equally many, and vividness is dealt out in an order that labels do not tell: only the canvases show whose are vivid.
`others` are canvases of other painters, none of them very vivid, for a base model to learn painting from.
"""

from colorsys import hsv_to_rgb
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from cdlib.base import seeds
from cdlib.base.errors import Refused

SIDE, FINER = 32, 4  # strokes are drawn this much finer and averaged
FEWEST, MOST = 3, 99  # contributors: one for each class; two digits in a label
CANVASES = (12, 16)  # of a painter, both ends included
VIVIDNESS = (0.03, 0.7)  # of the least and the most vivid painter
MODERATE = (0.2, 0.4)  # range of the vividness of others
EACH_OTHER = 16  # canvases of each of the others
HUES = (0, 0.04, 0.1, 0.45, 0.5, 0.55)  # in turns from the painter's own hue: half of them near it, half opposite
BRIGHT = (0.95, 0.85, 0.5, 0.75, 0.45, 1)  # sky, haze, hills, field, foreground, sun
LUMA = (0.299, 0.587, 0.114)
Y, X = np.mgrid[0:SIDE, 0:SIDE] / SIDE


@dataclass(frozen=True)
class Painter:
    """A palette and a brush."""

    palette: np.ndarray  # float [6, 3], 0..255: of sky, haze, hills, field, foreground, sun
    vividness: float  # 0..1: how far the palette is from grey
    n_strokes: int  # of a canvas
    length: float  # of a stroke, pixels, and so is its width
    width: float
    angle: float  # radians
    spread: float  # of the angle on a canvas: its standard deviation, radians
    bend: float  # how far strokes turn across a canvas, radians
    n_canvases: int  # how many the painter gives


def painter(seed: int, purpose: str, k: int, vividness: float) -> Painter:
    """The k-th painter of this purpose: saturated colours, mixed with greys of the same lightness down to the vividness."""
    rng = seeds.generator(seed, purpose, k)
    hues = (rng.uniform() + rng.permutation(HUES) + rng.normal(0, 0.03, 6)) % 1
    saturated = 255 * np.array([hsv_to_rgb(hue, 1, v) for hue, v in zip(hues, rng.uniform(0.7, 1, 6) * BRIGHT, strict=True)])
    grey = (saturated @ LUMA)[:, None]
    return Painter(
        palette=grey + vividness * (saturated - grey),
        vividness=vividness,
        n_strokes=int(rng.integers(90, 220)),
        length=rng.uniform(3, 12),
        width=rng.uniform(1.5, 4),
        angle=rng.uniform(0, np.pi),
        spread=rng.uniform(0.05, 0.6),
        bend=rng.uniform(0, 1.2),
        n_canvases=int(rng.integers(CANVASES[0], CANVASES[1] + 1)),
    )


def painters(n_contributors: int, seed: int) -> dict[str, Painter]:
    """The contributors, `p01`, `p02`, ..: equally spaced vividness, in an order of the seed."""
    vividness = seeds.generator(seed, "vividness").permutation(np.linspace(*VIVIDNESS, n_contributors))
    return {f"p{k + 1:02d}": painter(seed, "painter", k, float(v)) for k, v in enumerate(vividness)}


def landscape(rng: np.random.Generator) -> np.ndarray:
    """Which of the palette's six colours is where: int [H, W]."""
    seen = np.zeros((SIDE, SIDE), int)
    heights = np.sort(rng.uniform(0.1, 1, 4)) + (0, 0, 0.05, 0.1)
    for k, (height, rough) in enumerate(zip(heights, (0.05, 0.15, 0.05, 0.05), strict=True), start=1):
        seen[Y > height + rng.normal(0, rough) * np.sin(rng.normal(0, 9) * X + rng.uniform(0, 7))] = k
    sun = np.hypot(X - rng.uniform(0.15, 0.85), Y - rng.uniform(0.1, 0.5)) < rng.uniform(0.09, 0.16)
    seen[sun & (seen < 2)] = 5
    return seen


def paint(by: Painter, rng: np.random.Generator) -> np.ndarray:
    """One canvas: a landscape in this painter's palette and brush, uint8 [3, H, W]."""
    seen, n = landscape(rng), by.n_strokes
    y, x = rng.integers(0, SIDE, (2, n))
    turned = by.bend * np.sin(rng.normal(0, 4) * X + rng.normal(0, 4) * Y + rng.uniform(0, 7))
    angle = by.angle + turned[y, x] + rng.normal(0, by.spread, n)
    half = np.stack([np.cos(angle), np.sin(angle)], 1) * (by.length / 2 * rng.uniform(0.6, 1.2, n))[:, None]
    middle = np.stack([x, y], 1) + 0.5
    ends = np.hstack([middle - half, middle + half]) * FINER
    colours = np.clip(by.palette[seen[y, x]] + rng.normal(0, 14, (n, 1)), 0, 255)
    image = Image.fromarray(by.palette[seen].astype(np.uint8)).resize((SIDE * FINER, SIDE * FINER))
    brush, ridges = ImageDraw.Draw(image), np.clip(colours + 22, 0, 255)
    for line, colour, ridge in zip(ends.tolist(), colours.astype(int).tolist(), ridges.astype(int).tolist(), strict=True):
        brush.line(line, tuple(colour), round(by.width * FINER))
        brush.line([end - FINER / 2 for end in line], tuple(ridge), FINER // 2)
    return np.asarray(image.reduce(FINER)).transpose(2, 0, 1)


def others(n: int, seed: int, vividness: tuple = MODERATE) -> np.ndarray:
    """Canvases by painters none of whom is a contributor, 16 by each: uint8 [n, 3, 32, 32].

    vividness    the least and the greatest of these painters
    """
    vividness = [seeds.generator(seed, "moderate", k).uniform(*vividness) for k in range(-(-n // EACH_OTHER))]
    by = [painter(seed, "other painter", k, v) for k, v in enumerate(vividness)]
    return np.stack([paint(by[i // EACH_OTHER], seeds.generator(seed, "other canvas", i)) for i in range(n)])


def check(params: dict):
    """Refuse numbers of contributors that three classes or the labels cannot hold. Raises Refused."""
    if not FEWEST <= params["n_contributors"] <= MOST:
        raise Refused(f"n_contributors: {params['n_contributors']}: from {FEWEST} (one for each class) to {MOST}")


def planned(params: dict) -> tuple[int, int]:
    """How many contributors and how many images there will be, without drawing."""
    given = [by.n_canvases for by in painters(params["n_contributors"], params["assignment_seed"]).values()]
    return len(given), sum(given)


def load(params: dict) -> tuple[np.ndarray, pd.DataFrame]:
    """Images, and who gave which; the third of the painters with the most vividness is group `vivid`, with the least `muted`."""
    check(params)
    seed, rows, images = params["assignment_seed"], [], []
    every = painters(params["n_contributors"], seed)
    rank = np.argsort(np.argsort([by.vividness for by in every.values()]))
    for (label, by), third in zip(every.items(), rank * 3 // len(every), strict=True):
        for i in range(by.n_canvases):
            rows.append((len(rows), label, label, ("muted", "middle", "vivid")[third]))
            images.append(paint(by, seeds.generator(seed, f"canvas {label}", i)))
    return np.stack(images), pd.DataFrame(rows, columns=["image", "contributor", "class", "group"])
