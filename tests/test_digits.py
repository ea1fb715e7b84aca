"""The committed results of the digits: what is known beforehand, found again; and what the README says of them."""

from pathlib import Path

import pandas as pd
import pytest

FIGURES = Path(__file__).resolve().parents[1] / "figures" / "digits"
OURS = "Sparsified-FT Shapley (Ours)"


def test_who_alone_supplies_a_digit_gets_clearly_more():
    credit = pd.read_csv(FIGURES / "credit.csv", dtype={"contributor": str})
    means = credit.groupby("group").value.mean()
    assert credit.group.value_counts().to_dict() == {"shares": 15, "alone": 5}
    assert means["alone"] >= 1.5 * means["shares"]


@pytest.mark.parametrize("rival", ["baselines", "control"])
def test_our_credit_predicts_better_than_every_baseline_and_than_counting_images(rival):
    scores = pd.read_csv(FIGURES / "table_1.csv")
    scores = scores[scores.interval == "subsets"].set_index("method").lds_percent
    names = {
        "baselines": ["Pixel similarity (average)", "Pixel similarity (max)", "Leave-one-out (LOO)"],
        "control": ["Number of images (control)"],
    }[rival]
    assert scores[OURS] > scores[names].max()


def test_sparsified_fine_tuning_costs_at_most_a_third_of_retraining():
    runtime = pd.read_csv(FIGURES / "table_2.csv").set_index("procedure")
    assert runtime.ratio_to_retrain["sparse_finetune"] <= 1 / 3


def test_the_committed_run_is_the_large_one():
    curves = pd.read_csv(FIGURES / "table_4.csv")
    most = curves.groupby(["procedure", "estimator"]).n_coalitions.max()
    assert most["sparse_finetune", "ours"] >= 200 and most["sparse_finetune", "paper"] >= 200
    assert most["finetune", "ours"] >= 100 and most["retrain", "ours"] >= 100
    tests = pd.read_csv(FIGURES / "table_3.csv").groupby("alpha").n_coalitions.min()
    assert tests.to_dict() == {a: n for a, n in tests.items() if n >= 60} and len(tests) == 3


def test_every_figure_lies_beside_what_it_was_drawn_from():
    for name in ("figure_2", "figure_3", "figure_4", "credit", "fidelity", "lds", "lds_by_coalitions"):
        assert all((FIGURES / f"{name}.{kind}").stat().st_size > 0 for kind in ("pdf", "png", "csv"))
