"""Writes the parameter file of a run on one's own images: `cdlib new`.

What it chooses is for a laptop: every notebook runs, and what the credits do not need is kept small. Each value stands in the
file with a word of why, to be changed by hand.

N  contributors        T  images
"""

import os
import re
from pathlib import Path

import yaml

from cdlib.base import params, paths, registry
from cdlib.base.errors import Refused
from cdlib.cli import check
from cdlib.cli.command import needed, say
from cdlib.data import datasets, design
from cdlib.data.datasets import image_folder
from cdlib.measure.features import GRID

MODELS = {16: "unet_16x16", 32: "unet_32x32"}  # by the side of the images
COLUMNS = ("file_column", "contributor_column")
WIDTH = 40  # of a line before its comment
FEATURE = {  # that need no download
    "cluster_entropy": "pooled_pixels",
    "aesthetic_score": "colourfulness",
    "inception_score": "contributor_classifier",
    "fid": "pooled_pixels",
    "kid": "pooled_pixels",
}
SEES = {
    "cluster_entropy": "how evenly the model's images fall into clusters: variety",
    "aesthetic_score": "how high its best tenth scores; by colourfulness, how colourful that is",
    "inception_score": "how surely an image is one contributor's kind, and how many kinds there are",
    "fid": "distance of the model's images to the given ones; less is better",
    "kid": "distance of the model's images to the given ones; less is better",
}
OTHER_BYTES = 20e6  # of a run: its two models, notebooks, tables, figures


def new(
    name: str,
    images: str,
    contributors: str = "",
    property: list[str] = (),  # noqa: A002
    side: int = 0,
    file_column: str = "file",
    contributor_column: str = "contributor",
):
    """Look at the images, write params/NAME.yaml and print the plan. Writes nothing when anything is refused.

    property    each as in the parameter `also`; what it is computed from may be left out. The first is the run's property,
                the others are measured from the same images. A function of the user's own is tried on a few images

    Raises Refused when the file or a run of that name is there, the images cannot be used (image_folder), or a choice is none.
    """
    file, wished = _free(name), _wished(property or ["cluster_entropy"])
    if side and side not in MODELS:
        raise Refused(f"--side {side}: must be one of {', '.join(map(str, MODELS))}")
    where = {"images": _written(images), "contributors_csv": _written(contributors) if contributors else ""}
    where |= {"file_column": file_column, "contributor_column": contributor_column}
    root, owner = image_folder.given(where)
    side = side or _side()
    chosen = choices(name, where, len(set(owner.values())), len(owner), wished, side)
    values = params.check({key: value for key, (value, _) in chosen.items()}, str(file))
    say(f"reading {len(owner):,} images")
    datasets.check(values)
    if any(one["feature"] == "colourfulness" for one in wished.values()) and _all_grey(values):
        raise Refused(f"--property aesthetic_score: all images in {root} are grey, so they have no colourfulness")
    needed(values)
    given = datasets.load(values).contributors
    disk = f"estimated disk    {_disk_bytes(values, len(given)) / 1e6:,.0f} MB in runs/{name}"
    told = [*check.lines(values, given), disk]
    with file.open("x") as opened:
        opened.write(text(chosen, told))
    for line in [*told, *(f"note              {note}" for note in datasets.notes(values))]:
        say(line)
    say(f"{file}: written; read it, and then: cdlib run {os.path.relpath(file)}")


def _wished(entries: list[str]) -> dict[str, dict]:
    """{property: its parameters and, as `entry`, how `also` names it}. Raises Refused."""
    full = [entry if "/" in entry or entry not in FEATURE else f"{entry}/{FEATURE[entry]}" for entry in entries]
    try:
        found = registry.properties({"property": "", "feature": "", "aggregate": "mean", "direction": "higher", "also": full})
    except ValueError as error:
        raise Refused(f"--property {' '.join(entries)}: {error}") from None
    return {name: own | {"entry": entry} for (name, own), entry in zip([*found.items()][1:], full, strict=True)}


def _free(name: str) -> Path:
    """Where the file is to be. Raises Refused when the name is none, or taken."""
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise Refused(f"{name}: small letters, digits and _ make a name")
    file, run = paths.params(name), paths.runs() / name
    if file.exists():
        raise Refused(f"{file}: is there already: choose another name, or edit that file")
    for folder in (run, paths.figures(name)):
        if folder.exists():
            raise Refused(f"{folder}: is there already, of another run: choose another name")
    return file


def _written(given: str) -> str:
    """A path as the file is to name it: from the repository's root when it is inside, else as it was given, but whole."""
    path = Path(os.path.abspath(os.path.expanduser(given)))
    return path.relative_to(paths.root()).as_posix() if path.is_relative_to(paths.root()) else str(path)


def _side() -> int:
    """32 with a GPU, else 16."""
    from cdlib.base import machine

    return 16 if machine.device("auto") == "cpu" else 32


def _all_grey(values: dict) -> bool:
    found = datasets.load(values).images
    return bool((found == found[:, :1]).all())


def _disk_bytes(values: dict, n_images: int) -> float:
    """What the run leaves: of each model images and what the property sees in them, gradients, models, notebooks and figures."""
    from cdlib.measure.worker import KEPT_IMAGES  # here, for it brings torch

    image = 3 * values["side_px"] ** 2
    wide = any(entry.startswith(("cluster_entropy", "fid", "kid")) for entry in (values["property"], *values["also"]))
    seen = 4 * 3 * GRID**2 + 8 if wide else 4
    model = KEPT_IMAGES * image + values["n_images"] * seen
    gradients = (2 * n_images + 3 * values["n_images"]) * values["projection_dim"] * 4
    return design.n_planned(values).sum() * model + gradients + n_images * image + OTHER_BYTES


def choices(name: str, where: dict, n: int, n_images: int, wished: dict, side: int) -> dict:
    """What the file says, and why: {parameter: (value, comment)}, for n contributors and so many images.

    wished    as `_wished`
    """
    found = f"{n} contributors, {n_images:,} images"
    (first, own), *others = wished.items()
    of_own = {
        "aggregate": (own["aggregate"], "of its numbers of the images: mean | percentile | entropy"),
        "direction": (own["direction"], "which are better: higher | lower"),
    }
    feature = {"feature": (own["feature"], "what it is computed from")}
    return {
        "name": (name, f"the run's folder: runs/{name}, figures/{name}"),
        "dataset": ("image_folder", found),
        "images": (where["images"], "from the repository's root, or absolute"),
        "contributors_csv": (where["contributors_csv"], "whose each file is; empty: the folder that it lies in"),
        **{column: (where[column], "of the csv") for column in COLUMNS if where["contributors_csv"]},
        "n_contributors": (n, "as in the folder now; another number there is refused"),
        "side_px": (side, "side of an image: its shorter side is resized, the centre cropped; 16 | 32, with the model"),
        "model": (MODELS[side], f"small enough for a laptop; {' | '.join(MODELS.values())}; ddpm_32x32 is for a GPU"),
        "device": ("auto", "a GPU where there is one: auto | cpu | cuda | cuda:1"),
        "batch_size": (32, "images in a step"),
        "train_steps": (700, "gradient steps, full model and retraining; fewer draw little but noise, more draw better images"),
        "train_lr": (2.0e-3, "peak learning rate; twice as much leaves some seeds with noise alone"),
        "grad_clip": (0.1, "largest gradient norm: few steps at a high rate stay stable"),
        "property": (first, SEES.get(first, "a function of your own: its source belongs to the run")),
        **(feature if own["feature"] else of_own),
        "also": ([entry["entry"] for _, entry in others], "other properties of the same images, each credited by itself"),
        "n_clusters": (max(2, min(20, n_images // 4)), "of cluster_entropy: clusters of the full model's images"),
        "n_reference": (512, "of cluster_entropy: images of the full model that are clustered"),
        "n_images": (256, "images drawn from each model; more make the property less noisy"),
        "n_empty_seeds": (8, "untrained models: v(nobody) is noisy, and cheap"),
        "prune_steps": (300, "fine-tuning of the pruned model on everybody's images"),
        "prune_lr": (2.0e-3, "its peak learning rate"),
        "n_coalitions": (max(48, 4 * n), f"by sparsified fine-tuning, in pairs; at least {2 * n}, more narrow the intervals"),
        "n_paper_coalitions": (0, "the paper's own draws and estimator need as many again"),
        "n_finetune": (0, "fine-tuning the full model: not needed"),
        "n_retrain": (8, "retrained too, to see whether fine-tuning is faithful (figure fidelity); 0: none"),
        "finetune_steps": (80, "gradient steps for each coalition"),
        "finetune_lr": (8.0e-3, "peak learning rate: above train_lr, so that who is left out is forgotten"),
        "embedding": ("pooled_pixels", "what images are compared by"),
        "gradient_timesteps": (10, "of the TRAK family's gradients; the paper takes 100"),
        "gradient_noise": ("shared", "less noise than each image's own, where timesteps are few"),
        "alphas": ([0.5], "sizes of the test coalitions, as fractions of the contributors"),
        "n_subsets": (8, "test coalitions, to judge the credit; 8 are a first look, 60 a result"),
        "n_lds_seeds": (1, "retrainings of each; 2 give a ceiling too"),
        "shown_fractions": ([0.4], "of the top contributors: images without them are shown"),
        "compared": (["Sparsified-FT Shapley (Ours)", "Leave-one-out (LOO)"], "what if their top contributors go"),
        "n_counterfactual_seeds": (1, "retrainings of each"),
        "n_unlearn": (0, "unlearning is not compared"),
        "fid_embedding": ("pooled_pixels", "of unlearning; named because the default needs digits"),
    }


def text(chosen: dict, told: list[str]) -> str:
    """The parameter file: the plan as a comment at its head, then a line for each parameter."""
    head = "Credit for the contributors of a folder of images, by `cdlib new`. What is left out is as in digits.yaml."
    lines = [f"{key}: {_yaml(value)}".ljust(WIDTH) + f" # {why}" for key, (value, why) in chosen.items()]
    return "\n".join([f"# {head}", "#", *(f"# {line}" for line in told), "", *lines, ""])


def _yaml(value) -> str:
    """A value as YAML reads it: text in quotes where it must."""
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6).removesuffix("...\n").strip()
