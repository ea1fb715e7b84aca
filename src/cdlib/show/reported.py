"""The paper's own numbers: read, named as here, and put beside those of a run.

reported.csv    table, dataset, alpha, method, n_subsets, quantity, value, half_width: every number as it is printed

An interval of the paper is value -+ half_width: 95 %, over three seeds.
"""

from pathlib import Path

import numpy as np
import pandas as pd

FILE = Path(__file__).with_name("reported.csv")
SETTINGS = {"cifar20": "CIFAR-20", "celeba_hq": "CelebA-HQ", "artbench": "ArtBench (Post-Impressionism)"}
OURS = "Sparsified-FT Shapley (Ours)"

# The paper's spellings -> the one of this repository.
METHODS = {
    "L00": "Leave-one-out (LOO)",
    "LOO": "Leave-one-out (LOO)",
    "Grad similarity (average)": "Gradient similarity (average)",
    "Grad similarity (max)": "Gradient similarity (max)",
    "Sparsified-FT Shapley": OURS,
    "CLIP similarity": "CLIP similarity (max)",  # Figure 3 names no aggregation: taken as the better one of Table 1
    "Pixel similarity": "Pixel similarity (max)",
    "Retrain": "retrain",
    "Retraining": "retrain",
    "FT": "finetune",
    "FT (500 steps)": "finetune",
    "Sparsified FT": "sparse_finetune",
    "Sparsified-FT": "sparse_finetune",
    "Sparsified - FT": "sparse_finetune",
    "Fine-tuning (FT)": "sparse_finetune",  # Table 9, where all are sparsified
    "Gradient ascent (GA)": "gradient_ascent",
    "Influence unlearning (IU)": "influence_unlearning",
}
QUANTITIES = {
    "train_minutes": "Training (min)",
    "inference_minutes": "Inference (min)",
    "fid_vs_retrain": "FID to retraining",
    "percent_change_remove_top_40": "Change without the top 40 % (%)",
    "percent_change_keep_top_60": "Change with the top 60 % alone (%)",
    "mean_image_entropy": "Entropy of an image",
}
VALUES = ("lds_percent", "total_seconds", "percent", "fid")  # columns of a run's tables that the paper reports


def read():
    """All that the paper reports, as printed."""
    return pd.read_csv(FILE, dtype={"table": str})


def of(name, dataset):
    """What the paper reports in one table or figure for one of its datasets, as printed; no rows when nothing.

    name      such as "table_3" or "figure_12"
    dataset   of SETTINGS
    """
    number = name.removeprefix("table_").replace("figure_", "figure")
    found = read()
    return found[(found["table"] == number) & (found["dataset"] == dataset)].reset_index(drop=True)


def readable(rows):
    """The rows as a person reads them, "61.48 ± 2.27": one line a method, in the paper's order and spelling."""
    by_alpha = rows["alpha"].notna().any()
    if by_alpha and rows["n_subsets"].notna().any():
        head, across = ["alpha", "method"], rows["n_subsets"].map("S = {:.0f}".format)
    elif by_alpha:
        head, across = ["method"], rows["alpha"].map("α = {:g}".format)
    else:
        head, across = ["method"], rows["quantity"].map(QUANTITIES)
    if rows["dataset"].nunique() > 1:
        across = rows["dataset"].map(SETTINGS)
    both = zip(rows["value"], rows["half_width"].abs(), strict=True)  # Table 5 prints one half width below 0
    texts = [f"{value:.2f}" if np.isnan(half) else f"{value:.2f} ± {half:.2f}" for value, half in both]
    cells = rows.assign(across=across, cell=texts)
    columns = cells["across"].unique()
    table = cells.pivot_table(index=head, columns="across", values="cell", aggfunc="first", sort=False)[columns].fillna("-")
    return table.rename_axis(columns=None).reset_index().rename(columns={"alpha": "α", "method": "Method"}).astype(str)


def beside(frame, rows):
    """A run's table with what the paper reports for the same method or procedure, and the difference.

    frame   method or procedure; alpha, n_coalitions or change where it has them; one of VALUES, perhaps low and high
    rows    as from `of`

    Returns the frame with reported, reported_low, reported_high, difference (the run's less the paper's), difference_low,
    difference_high: the two half widths in quadrature, or the run's alone where the paper reports none. NaN where the paper
    reports nothing. All rows of sparsified-FT Shapley stand beside the paper's, whichever the estimator.
    """
    value = next(name for name in VALUES if name in frame)
    rows = _named(rows)
    keys = [name for name in ("name", "alpha", "n_coalitions", "change") if name in rows and (name == "name" or name in frame)]
    name = frame["method"] if "method" in frame else frame["procedure"]
    name = name.str.replace(" (paper's estimator)", " (Ours)")
    joined = frame.assign(name=name).merge(rows, "left", on=keys, validate="many_to_one").drop(columns="name")
    half = joined.pop("half_width")
    low, high = (joined[side] if side in joined else np.nan for side in ("low", "high"))
    difference, noise = joined[value] - joined["reported"], half.fillna(0)
    return joined.assign(
        reported_low=joined["reported"] - half,
        reported_high=joined["reported"] + half,
        difference=difference,
        difference_low=difference - np.hypot(joined[value] - low, noise),
        difference_high=difference + np.hypot(high - joined[value], noise),
    )


def _named(rows):
    """name, reported, half_width, and what tells them apart: of alpha, n_coalitions, change; seconds for minutes."""
    rows = rows.assign(name=rows["method"].replace(METHODS), half_width=rows["half_width"].abs())
    if rows["quantity"].str.endswith("_minutes").all():
        total = 60 * rows.groupby("name")["value"].sum()
        return total.rename("reported").reset_index().assign(half_width=np.nan)
    change = rows["quantity"].str.extract("percent_change_(.*)")[0]
    n_coalitions = rows["n_subsets"].where(rows["alpha"].notna())  # of Table 9 it is no key
    keys = rows[["name", "alpha"]].assign(n_coalitions=n_coalitions, change=change).dropna(axis=1, how="all")
    return keys.assign(reported=rows["value"], half_width=rows["half_width"])
