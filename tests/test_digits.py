"""The committed results of the digits: what is known beforehand, found again; and what the README says of them."""

import io
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from cdlib.base import params, paths
from cdlib.credit import methods

ROOT = Path(__file__).resolve().parents[1]
OURS = "Sparsified-FT Shapley (Ours)"


def git(*words):
    """What git says in the repository."""
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, check=True).stdout


def committed(name):
    """A table as it was committed: `make digits` draws a smaller run over the files."""
    return pd.read_csv(io.BytesIO(git("show", f"HEAD:figures/digits/{name}.csv")), dtype={"contributor": str})


def test_who_alone_supplies_a_digit_gets_clearly_more():
    credit = committed("credit")
    means = credit.groupby("group").value.mean()
    assert credit.group.value_counts().to_dict() == {"shares": 15, "alone": 5}
    assert means["alone"] >= 1.5 * means["shares"]


@pytest.mark.parametrize("rival", ["baselines", "control"])
def test_our_credit_predicts_better_than_every_baseline_and_than_counting_images(rival):
    scores = committed("table_1")
    scores = scores[scores.interval == "subsets"].set_index("method").lds_percent
    names = {
        "baselines": [name for name in scores.index if "Shapley" not in name and "(control)" not in name],
        "control": ["Number of images (control)"],
    }[rival]
    assert scores[OURS] > scores[names].max()


def test_every_method_that_applies_is_judged_at_every_alpha():
    scores = committed("table_3")
    shapley = ["Retraining Shapley", "FT Shapley", "Sparsified-FT Shapley (paper's estimator)", OURS]
    expected = {*methods.names(params.load(paths.params("digits_full"))), *shapley}
    for alpha in (0.25, 0.5, 0.75):
        rows = scores[(scores.alpha == alpha) & (scores.interval == "subsets")]
        assert set(rows.method) == expected and rows[["low", "high", "ceiling_percent"]].notna().all(axis=None)


def test_sparsified_fine_tuning_costs_at_most_a_third_of_retraining():
    runtime = committed("table_2").set_index("procedure")
    assert runtime.ratio_to_retrain["sparse_finetune"] <= 1 / 3


def test_the_committed_run_is_the_large_one():
    curves = committed("table_4")
    most = curves.groupby(["procedure", "estimator"]).n_coalitions.max()
    assert most["sparse_finetune", "ours"] >= 200 and most["sparse_finetune", "paper"] >= 200
    assert most["finetune", "ours"] >= 100 and most["retrain", "ours"] >= 100
    tests = committed("table_3").groupby("alpha").n_coalitions.min()
    assert tests.to_dict() == {a: n for a, n in tests.items() if n >= 60} and len(tests) == 3


def test_every_figure_was_committed_with_what_it_was_drawn_from():
    files = set(git("ls-tree", "--name-only", "HEAD", "figures/digits/").decode().split())
    names = ("credit", "fidelity", "lds", "lds_by_coalitions", *(f"figure_{k}" for k in (1, 2, 3, 4, 5, 6, 12)))
    assert {f"figures/digits/{name}.{kind}" for name in names for kind in ("pdf", "png", "csv")} <= files
