"""What is kept beside the tables, so that every figure can be drawn again without data, models or torch.

generated.csv          title, method, change, value, n_seeds, key: models that images are shown of, the full one first
pairs.csv              title, side, place, image, score, threshold: images above and below the quantile of an aesthetic score
training_images.csv    image, contributor, and what the property sees in it: entropy (nats) or cluster
framework.csv          stage, members, parameters, value, key: the models of Figure 1
examples.safetensors   uint8 [k, C, H, W]: contributor/<label>, generated/<title>, coalition/<members>;
                       above/<title> and below/<title>, as in pairs.csv
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from cdlib import store
from cdlib.base import machine
from cdlib.base.params import n_contributors
from cdlib.data import design
from cdlib.measure import properties, utility
from cdlib.models import stages
from cdlib.store import cache

N_OF_CONTRIBUTOR, N_OF_MODEL, N_OF_COALITION, N_OF_SIDE = 8, 20, 6, 4
FULL = "Full model"
SIZES = (0.25, 0.5, 0.75)  # of the coalitions in Figure 1, as fractions of the contributors
WORDS = {"remove": "Without the top {} % by {}", "keep": "With the top {} % by {} alone"}


def title(method: str, change: str) -> str:
    """A changed model in words: "Without the top 40 % by Leave-one-out (LOO)"."""
    verb, _, percent = change.split("_")
    return WORDS[verb].format(percent, method)


def models(run: store.Run, full: pd.DataFrame, changed: dict[tuple[str, str], pd.DataFrame]) -> pd.DataFrame:
    """Rows of generated.csv: the property is the mean over seeds, the images (`key`) are the first seed's.

    full, changed    measured coalitions: of everybody, and by method and change
    """
    tables = {(FULL, "none"): full} | {which: table for which, table in changed.items() if len(table)}
    rows = []
    for (method, change), table in tables.items():
        name = FULL if change == "none" else title(method, change)
        rows.append((name, method, change, utility.values(run, table).mean(), len(table), table.key[0]))
    return pd.DataFrame(rows, columns=["title", "method", "change", "value", "n_seeds", "key"])


def beside_quantile(score: np.ndarray, quantile: float, n_kept: int, n: int = N_OF_SIDE) -> tuple[float, np.ndarray, np.ndarray]:
    """The quantile of a score of each image, and the first n images above it and not above it, of those that are kept.

    By index, so they are neither the best nor the worst, and share their initial noise with the same image of another model.
    """
    threshold = float(np.quantile(score.astype(np.float64), quantile))
    above = score[:n_kept] > threshold
    return threshold, np.flatnonzero(above)[:n], np.flatnonzero(~above)[:n]


def pairs(run: store.Run, drawn: pd.DataFrame) -> pd.DataFrame:
    """Rows of pairs.csv, of the models in generated.csv; none when the property is not an aesthetic score."""
    rows = []
    for model in drawn.itertuples() if run["property"] == "aesthetic_score" else ():
        kept = run.measured.arrays(model.key)
        score = kept["aesthetic_score/score"]
        threshold, *sides = beside_quantile(score, run["quantile"], len(kept["images"]))
        for side, found in zip(("above", "below"), sides, strict=True):
            rows += [(model.title, side, place, i, score[i], threshold) for place, i in enumerate(found)]
    return pd.DataFrame(rows, columns=["title", "side", "place", "image", "score", "threshold"])


def training_images(run: store.Run) -> pd.DataFrame:
    """Rows of training_images.csv. Source: appendix D.5.

    The entropy of an image's class probabilities, in nats, or the reference cluster that it falls into. Of other properties none.
    """
    given, name = run.table("contributors")[["image", "contributor"]], run["property"]
    if name not in ("inception_score", "cluster_entropy"):
        return given.head(0)
    with machine.one_thread():
        found = properties.named(name).per_image(run.folder, run.params, stages.dataset(run.params).images[given.image])
    if name == "cluster_entropy":
        return given.assign(cluster=found["cluster"])
    p = found["probabilities"].astype(np.float64)
    return given.assign(entropy=0.0 - (p * np.log(np.where(p > 0, p, 1))).sum(1))


def framework(run: store.Run, full: pd.DataFrame) -> pd.DataFrame:
    """Rows of framework.csv: the full model, the sparse one, and that one fine-tuned on three coalitions, small to large.

    full    measured coalitions of everybody
    """
    table = utility.measure(run, replace(design.shapley(run.params)[0], counted=False))
    parts = [(table["size"] - part * n_contributors(run.params)).abs().to_numpy() for part in SIZES if len(table)]
    table = table.iloc[list(dict.fromkeys(int(part.argmin()) for part in parts))]
    n_full, n_sparse = (cache.get(stages.path(run.folder, name))["parameters"] for name in ("full", "sparse"))
    at_full = utility.values(run, full).mean()
    rows = [("full", full.members[0], n_full, at_full, full.key[0]), ("sparse", "", n_sparse, np.nan, "")]
    rows += [("coalition", r["members"], n_sparse, r[run["property"]], r["key"]) for r in table.to_dict("records")]
    return pd.DataFrame(rows, columns=["stage", "members", "parameters", "value", "key"])


def images(run: store.Run, drawn: pd.DataFrame) -> dict[str, np.ndarray]:
    """Images of the models in generated.csv, from the same initial noises, equally many: {title: uint8 [k, C, H, W]}."""
    found = {model.title: run.measured.arrays(model.key)["images"][:N_OF_MODEL] for model in drawn.itertuples()}
    few = min(map(len, found.values()), default=0)  # of large images, more are kept of the full model than of others
    return {name: array[:few] for name, array in found.items()}


def arrays(run: store.Run, drawn: pd.DataFrame, sides: pd.DataFrame, made: pd.DataFrame) -> dict[str, np.ndarray]:
    """The arrays of examples.safetensors, of generated.csv, pairs.csv and framework.csv."""
    data, given = stages.dataset(run.params), run.table("contributors").groupby("contributor").image
    found = {f"contributor/{label}": data.images[ids[:N_OF_CONTRIBUTOR]] for label, ids in given}
    found |= {f"generated/{name}": array for name, array in images(run, drawn).items()}
    for (name, side), rows in sides.groupby(["title", "side"]):
        kept = run.measured.arrays(drawn.set_index("title").key[name])["images"]
        found[f"{side}/{name}"] = kept[rows.image.to_numpy()]
    for row in made[made.stage == "coalition"].itertuples():
        found[f"coalition/{row.members}"] = run.measured.arrays(row.key)["images"][:N_OF_COALITION]
    return found
