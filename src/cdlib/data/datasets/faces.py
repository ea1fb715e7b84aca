"""Drawn faces of identities from five demographic groups of very unequal size: a dataset that needs no download.

A group decides the ranges of skin, hair and backdrop; an identity fixes its own within them; images of an identity differ in
pose, expression and light, less in the largest group (one studio) than in small ones (many places). All give about equally
many images, but members of small groups add more variety: they resemble nobody else, and their images differ more.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cdlib.base import seeds
from cdlib.base.errors import Refused

SIDE = 32
FEWEST, MOST = 5, 100  # contributors: one for each group; two digits in a label
IMAGES = (15, 20)  # of an identity, both ends included
Y, X = np.mgrid[0:SIDE, 0:SIDE] * (2 / SIDE) + (1 / SIDE - 1)  # the picture's plane: -1..1, y downwards


@dataclass(frozen=True)
class Group:
    """What the identities of a group have in common. A pair of colours is a range: an identity lies somewhere between."""

    skin: tuple
    hair: tuple
    backdrop: tuple
    cut: str


GROUPS = {
    "a": Group(((222, 176, 146), (246, 212, 190)), ((68, 44, 32), (132, 90, 54)), ((148, 170, 194), (174, 192, 208)), "short"),
    "b": Group(((84, 52, 38), (132, 86, 60)), ((18, 14, 16), (40, 28, 26)), ((226, 208, 160), (190, 164, 116)), "round"),
    "c": Group(((240, 200, 176), (250, 220, 200)), ((206, 96, 30), (150, 44, 30)), ((40, 92, 72), (96, 140, 90)), "long"),
    "d": Group(((206, 154, 112), (186, 130, 92)), ((236, 236, 232), (200, 204, 214)), ((84, 50, 92), (60, 40, 110)), "bob"),
    "e": Group(((166, 112, 76), (142, 92, 62)), ((30, 130, 140), (30, 90, 150)), ((236, 150, 130), (226, 120, 90)), "bun"),
}
SMALL = {"b": 0.2, "c": 0.1, "d": 0.05, "e": 0.05}  # shares of the identities; a has the others
VARIETY = {"a": 0.4, "b": 1, "c": 1.4, "d": 1.4, "e": 1.4}  # how much pose and light differ between images of an identity
EYES = ((40, 26, 20), (60, 80, 90))
SHAPE = {"width": (0.46, 0.56), "height": (0.58, 0.68), "spread": (0.36, 0.46), "mouth": (0.3, 0.42), "volume": (0.94, 1.06)}
HAIR = {  # discs of the hair around the head: (x, y, rx, ry) in units of the head
    "short": [(0, -0.35, 1.08, 0.82)],
    "round": [(0, -0.4, 1.36, 1.0)],
    "long": [(0, -0.2, 1.3, 1.05), (0, 0.8, 1.3, 1.1)],
    "bob": [(0, -0.1, 1.3, 1.1)],
    "bun": [(0, -0.3, 1.12, 0.9), (0, -1.25, 0.45, 0.4)],
}


def sizes(n_contributors: int) -> dict[str, int]:
    """How many identities each group has: its share, at least one; the largest group takes what is left."""
    small = {name: max(1, round(share * n_contributors)) for name, share in SMALL.items()}
    return {"a": n_contributors - sum(small.values())} | small


def labels(n_contributors: int) -> list[str]:
    """The identities, group by group: `a01` .. `e01`."""
    return [f"{name}{k + 1:02d}" for name, size in sizes(n_contributors).items() for k in range(size)]


def disc(x: float, y: float, rx: float, ry: float) -> np.ndarray:
    """How much of each pixel an ellipse covers: float [H, W], 0..1."""
    return np.clip(0.5 - (np.hypot((X - x) / rx, (Y - y) / ry) - 1) * min(rx, ry) * SIDE / 2, 0, 1)


def identity(seed: int, label: str) -> dict:
    """What stays the same in all images of an identity: its colours, the shape of its face, and how many images it gives."""
    rng, group = seeds.generator(seed, f"identity {label}"), GROUPS[label[0]]
    colours = {"skin": group.skin, "hair": group.hair, "backdrop": group.backdrop, "eyes": EYES}
    looks = {name: np.add(one, rng.uniform() * np.subtract(other, one)) for name, (one, other) in colours.items()}
    looks |= {name: rng.uniform(*ends) for name, ends in SHAPE.items()}
    return looks | {"cut": group.cut, "variety": VARIETY[label[0]], "n_images": int(rng.integers(IMAGES[0], IMAGES[1] + 1))}


def draw(seed: int, label: str, i: int) -> np.ndarray:
    """Image i of an identity, in its own pose, expression and light: uint8 [3, H, W]."""
    who, rng = identity(seed, label), seeds.generator(seed, f"face {label}", i)
    x, y, turn, light, slope = rng.normal((0, 0.08, 0, 1, 0), np.multiply((0.04, 0.03, 0.06, 0.06, 0.08), who["variety"]))
    smile, open_ = rng.uniform(-0.06, 0.12), rng.uniform(0.02, 0.07)
    w, h, skin = who["width"], who["height"], who["skin"]
    canvas = np.broadcast_to(who["backdrop"][:, None, None], (3, SIDE, SIDE)).astype(float)

    def paint(mask, colour):
        canvas[:] += mask * (np.asarray(colour)[:, None, None] - canvas)

    def at(dx, dy, rx, ry):
        return disc(x + w * dx, y + h * dy, w * rx, h * ry)

    for dx, dy, rx, ry in HAIR[who["cut"]]:
        paint(at(dx, dy, rx * who["volume"], ry * who["volume"]), who["hair"])
    paint(at(0, 1.75, 1.5, 0.65), 0.5 * who["backdrop"] + 20)  # shoulders
    paint(at(0, 1.0, 0.42, 0.4), 0.85 * skin)  # neck
    paint(at(0, 0, 1, 1) * np.clip((Y - y + 0.62 * h + 0.25 * (X - x - turn) ** 2) * SIDE / 2 + 0.5, 0, 1), skin)
    for side in (-1, 1):
        eye = turn + side * who["spread"] * w
        paint(disc(x + eye, y - 0.1 * h, 0.11, 0.07), (236, 236, 230))
        paint(disc(x + eye + 0.3 * turn, y - 0.1 * h, 0.065, 0.065), who["eyes"])
        paint(disc(x + eye, y - 0.32 * h, 0.13, 0.035), 0.6 * who["hair"] + 0.1 * skin)  # eyebrow
    paint(disc(x + 1.3 * turn, y + 0.18 * h, 0.06, 0.1), 0.82 * skin)  # nose
    across = (X - x - turn) / (who["mouth"] * w)  # of the mouth: -1..1
    lips = open_ - np.abs(Y - (y + 0.55 * h) + smile * (across**2 - 0.5))
    paint(np.clip(lips * SIDE / 2 + 0.5, 0, 1) * (np.abs(across) < 1), 0.6 * skin + (24, -8, -4))
    return np.clip(np.round(canvas * (light + slope * X)), 0, 255).astype(np.uint8)


def check(params: dict):
    """Refuse numbers of contributors that five groups cannot have. Raises Refused."""
    if not FEWEST <= params["n_contributors"] <= MOST:
        raise Refused(f"n_contributors: {params['n_contributors']}: from {FEWEST} (one for each group) to {MOST}")


def planned(params: dict) -> tuple[int, int]:
    """How many contributors and how many images there will be, without drawing."""
    given = [identity(params["assignment_seed"], label)["n_images"] for label in labels(params["n_contributors"])]
    return len(given), sum(given)


def load(params: dict) -> tuple[np.ndarray, pd.DataFrame]:
    """Images uint8 [T, 3, 32, 32], and who gave which: contributor `a03` is the third identity of group, and class, `a`."""
    check(params)
    seed, rows, images = params["assignment_seed"], [], []
    for label in labels(params["n_contributors"]):
        for i in range(identity(seed, label)["n_images"]):
            rows.append((len(rows), label, label[0], "large group" if label[0] == "a" else "small groups"))
            images.append(draw(seed, label, i))
    return np.stack(images), pd.DataFrame(rows, columns=["image", "contributor", "class", "group"])
