"""A folder of images to try `cdlib new` on: pieces of three photographs that come with installed packages.

Eight contributors give 30 pieces each: five of them of the same photograph of a temple, a strip of it each; two of a
photograph of a flower, a half each; one of a portrait. Who gives what few others give adds more to the variety.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from cdlib.base import seeds
from cdlib.base.errors import Refused
from cdlib.cli.command import say

N_PIECES, SIDES_PX = 30, (72, 112)  # of a contributor; of a piece, least and most
STRIPS = {"temple": 5, "flower": 2, "portrait": 1}  # contributors of each photograph


def _photographs() -> dict[str, np.ndarray]:
    """uint8 [H, W, 3] each."""
    from matplotlib import cbook
    from sklearn.datasets import load_sample_image

    with cbook.get_sample_data("grace_hopper.jpg") as file, Image.open(file) as portrait:
        return {
            "temple": load_sample_image("china.jpg"),
            "flower": load_sample_image("flower.jpg"),
            "portrait": np.asarray(portrait.convert("RGB")),
        }


def photographs(folder: Path):
    """Write them into a folder that is not there yet, one folder for each contributor. Raises Refused when it is."""
    if folder.exists():
        raise Refused(f"{folder}: is there already; name another folder")
    for name, photograph in _photographs().items():
        for k, strip in enumerate(np.array_split(photograph, STRIPS[name], axis=1)):
            giver = folder / (f"{name}_{k + 1}" if STRIPS[name] > 1 else name)
            giver.mkdir(parents=True)
            for i in range(N_PIECES):
                draw = seeds.generator(0, f"piece {giver.name}", i)
                side = int(draw.integers(*SIDES_PX))
                y, x = (int(draw.integers(size - side + 1)) for size in strip.shape[:2])
                Image.fromarray(strip[y : y + side, x : x + side]).save(giver / f"{i:02d}.png")
    n = sum(STRIPS.values())
    say(f"{folder}: {n * N_PIECES} images of {n} contributors; next: cdlib new photographs --images {folder}")
