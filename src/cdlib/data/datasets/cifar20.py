"""CIFAR-20: the training images of 20 classes of CIFAR-100, 32x32; each class was labelled by one contributor.

    classes: paper       the four superclasses of appendix A
    classes: released    fine labels 40-44, 55-59, 60-64 and 80-84, which the released code keeps

Differs: the paper's code takes the fine labels to be ordered by superclass, but they are ordered by name, so the 20 classes it
keeps are others than the paper says. Either can be asked for. "Randomly selected" are all 500 of each class: nothing is drawn.
Source: Krizhevsky 2009; appendix A.
"""

import numpy as np
import pandas as pd

from cdlib.base.errors import Refused
from cdlib.data.datasets import files

SUPERCLASSES = {
    "large carnivores": ["bear", "leopard", "lion", "tiger", "wolf"],
    "flowers": ["orchid", "poppy", "rose", "sunflower", "tulip"],
    "household electrical devices": ["clock", "keyboard", "lamp", "telephone", "television"],
    "vehicles 1": ["bicycle", "bus", "motorcycle", "pickup_truck", "train"],
}
RELEASED = [*range(40, 45), *range(55, 65), *range(80, 85)]
N_CLASSES, N_EACH = 20, 500
WANTED = "the folder that holds cifar-100-python"


def planned(params: dict) -> tuple[int, int]:
    """How many contributors and images the paper has; opens no file."""
    return N_CLASSES, N_CLASSES * N_EACH


def check(params: dict):
    """Refuse unknown classes, and an archive that lacks a file or has another than was published. Raises Refused."""
    from torchvision.datasets import CIFAR100  # here, as it takes seconds and only this dataset needs it
    from torchvision.datasets.utils import check_integrity

    if params["classes"] not in ("paper", "released"):
        raise Refused(f"classes: {params['classes']!r}: must be paper or released")
    if params["n_contributors"] != N_CLASSES:
        raise Refused(f"n_contributors: {params['n_contributors']}: must be {N_CLASSES}, one for each class")
    archive = files.folder(params, WANTED) / CIFAR100.base_folder
    for name, md5 in [*CIFAR100.train_list, *CIFAR100.test_list, (CIFAR100.meta["filename"], CIFAR100.meta["md5"])]:
        if not check_integrity(archive / name, md5):
            raise Refused(
                f"data: {archive / name}: {'is corrupt (wrong md5)' if (archive / name).exists() else 'is missing'}: extract "
                f"{CIFAR100.filename} (169 MB) so that {archive} is its folder, or let torchvision.datasets.CIFAR100 fetch it "
                f"(root={str(archive.parent)!r}, download=True)"
            )


def load(params: dict) -> tuple[np.ndarray, pd.DataFrame]:
    """Images of the 20 classes in the archive's order, and their class, who is also the contributor.

    The archive is a pickle, and unpickling can run any code: what makes it safe is that torchvision compares its md5 with the
    published one before it unpickles. Never open it another way.

    Returns uint8 [T, 3, 32, 32], 0..255, and a frame of image, contributor, class.
    Raises Refused as `check`, and when a class has not its 500 images.
    """
    from torchvision.datasets import CIFAR100

    check(params)
    data = CIFAR100(files.folder(params, WANTED), train=True, download=False)
    paper = [name for names in SUPERCLASSES.values() for name in names]
    kept = [data.class_to_idx[name] for name in paper] if params["classes"] == "paper" else RELEASED
    labels = np.asarray(data.targets)
    counts = np.bincount(labels, minlength=len(data.classes))
    if wrong := [f"{data.classes[k]} {counts[k]}" for k in kept if counts[k] != N_EACH]:
        raise Refused(f"data: {data.root}: images of a class must be {N_EACH}, wrong in {files.some(wrong)}")
    chosen = np.flatnonzero(np.isin(labels, kept))
    names = np.asarray(data.classes)[labels[chosen]]
    table = pd.DataFrame({"image": np.arange(len(chosen)), "contributor": names, "class": names})
    return np.ascontiguousarray(data.data[chosen].transpose(0, 3, 1, 2)), table
