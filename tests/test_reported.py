"""The paper's own numbers: all are read, named as here, and set beside a run's like for like."""

import numpy as np
import pandas as pd
import pytest

from cdlib.base.registry import Method
from cdlib.show import reported, tables

PROCEDURES = {"retrain", "finetune", "sparse_finetune", "gradient_ascent", "influence_unlearning"}
ROWS = {("1", "cifar20"): 13, ("2", "artbench"): 6, ("3", "cifar20"): 39, ("6", "celeba_hq"): 45, ("8", "artbench"): 9}


@pytest.mark.parametrize(("number", "dataset"), ROWS)
def test_a_table_has_as_many_numbers_as_the_paper(number, dataset):
    assert len(reported.of(f"table_{number}", dataset)) == ROWS[number, dataset]


def test_what_the_paper_does_not_report_has_no_rows():
    assert reported.of("table_3", "celeba_hq").empty
    assert reported.of("figure_2", "cifar20").empty


def test_every_method_of_a_table_or_figure_has_its_name_here():
    rows = reported.read()
    compared = rows[~rows["table"].isin(["figure12", "text"])]
    names = set(compared["method"].replace(reported.METHODS))
    assert names <= set(Method.__args__) | PROCEDURES


def test_readable_keeps_the_papers_order_and_spelling():
    cells = reported.readable(reported.of("table_3", "cifar20"))
    assert cells.columns.to_list() == ["Method", "α = 0.25", "α = 0.5", "α = 0.75"]
    assert cells.iloc[-2].to_list() == ["L00", "17.01 ± 5.29", "30.66 ± 6.11", "13.64 ± 4.99"]
    assert cells["Method"].iloc[-1] == "Sparsified-FT Shapley (Ours)"


@pytest.mark.parametrize(
    ("name", "dataset", "first"),
    [
        ("table_2", "cifar20", ["Retrain", "77.40", "20.80"]),
        ("table_4", "cifar20", ["0.25", "Retraining", "43.88 ± 3.97", "49.95 ± 3.20"]),
        ("table_5", "celeba_hq", ["Pixel similarity (average)", "-1.52 ± 3.14", "-8.91 ± 0.93", "-4.19 ± 2.25"]),
        ("table_8", "artbench", ["0.25", "Retrain", "53.25 ± 6.75"]),
        ("table_9", "cifar20", ["Fine-tuning (FT)", "25.50 ± 10.50"]),
        ("figure_3", "cifar20", ["Sparsified-FT Shapley", "-23.23", "16.98"]),
    ],
)
def test_each_kind_of_table_is_laid_out_as_in_the_paper(name, dataset, first):
    assert reported.readable(reported.of(name, dataset)).iloc[0, : len(first)].to_list() == first


def lds(**percents):
    """A table 1 with one alpha: value, low and high by method."""
    rows = [(method, 0.5, *cells, "subsets", 90.0, 60) for method, cells in percents.items()]
    return pd.DataFrame(rows, columns="method alpha lds_percent low high interval ceiling_percent n_coalitions".split())


def test_the_difference_joins_both_intervals_in_quadrature():
    ours = lds(**{"Leave-one-out (LOO)": (40.66, 32.66, 43.66)})
    row = reported.beside(ours, reported.of("table_1", "cifar20")).iloc[0]  # the paper: 30.66 ± 6.11
    assert row["reported"] == 30.66 and row["reported_low"] == pytest.approx(24.55)
    assert row["difference"] == pytest.approx(10)
    assert row["difference_low"] == pytest.approx(10 - np.hypot(8, 6.11))
    assert row["difference_high"] == pytest.approx(10 + np.hypot(3, 6.11))


def test_both_estimators_stand_beside_the_papers_method_and_a_control_beside_nothing():
    names = ["Number of images (control)", "Sparsified-FT Shapley (paper's estimator)", "Sparsified-FT Shapley (Ours)"]
    joined = reported.beside(lds(**dict.fromkeys(names, (50.0, 40.0, 60.0))), reported.of("table_1", "artbench"))
    assert joined["reported"].to_list()[1:] == [61.44, 61.44]
    assert joined.iloc[0][["reported", "difference", "difference_low"]].isna().all()


def test_nothing_of_the_run_is_lost_or_changed():
    ours = lds(**{"TRAK": (1.0, 0.0, 2.0), "D-TRAK": (3.0, 2.0, 4.0)})
    joined = reported.beside(ours, reported.of("table_1", "celeba_hq"))
    pd.testing.assert_frame_equal(joined[ours.columns], ours)


def test_only_equally_many_coalitions_are_compared():
    columns = "procedure estimator alpha n_coalitions lds_percent low high interval ceiling_percent".split()
    curves = pd.DataFrame([("retrain", "ours", 0.5, n, 50.0, 40.0, 60.0, "subsets", 90.0) for n in (80, 100)], columns=columns)
    joined = reported.beside(curves, reported.of("table_4", "cifar20")).set_index("n_coalitions")
    assert np.isnan(joined.loc[80, "reported"]) and joined.loc[100, "reported"] == 48.84


def test_minutes_become_seconds():
    runtime = pd.DataFrame({"procedure": ["retrain"], "train_seconds": [4000.0], "sample_seconds": [1000.0], "n": [9]})
    joined = reported.beside(tables.table_2(runtime), reported.of("table_2", "cifar20"))
    assert joined["reported"].to_list() == pytest.approx([60 * (77.4 + 20.8)])
    assert joined["difference"].to_list() == pytest.approx([5000 - 60 * (77.4 + 20.8)])


def test_where_the_paper_has_no_interval_the_difference_has_the_runs():
    rows = [("Leave-one-out (LOO)", "remove_top_40", -15.0, -20.0, -10.0)]
    changes = pd.DataFrame(rows, columns=["method", "change", "percent", "low", "high"])
    row = reported.beside(changes, reported.of("figure_3", "cifar20")).iloc[0]  # the paper: -17.30
    assert row[["difference", "difference_low", "difference_high"]].to_list() == pytest.approx([2.3, -2.7, 7.3])
    assert np.isnan(row["reported_low"])


def test_a_table_beside_the_papers_numbers_shows_them_after_each_column():
    ours = lds(**{"Leave-one-out (LOO)": (40.66, 32.66, 43.66), "A new method": (1.0, 0.0, 2.0)}).assign(
        property="inception_score"
    )
    cells = tables.readable(reported.beside(ours, reported.of("table_1", "cifar20"))).set_index("Method")
    heading = "LDS (%), α = 0.5"
    assert cells.columns.to_list() == [heading, f"{heading}, reported", f"{heading}, difference"]
    assert cells.loc["Leave-one-out (LOO)", f"{heading}, reported"] == "30.7 [24.6, 36.8]"
    assert cells.loc["A new method", f"{heading}, difference"] == "-"
