"""Whether methods agree: top contributors side by side, and the rank correlation between each two."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cdlib.show import agreement, style

CREDITS = {
    "TRAK": [3.0, 1.0, 2.0, 0.0, 5.0, 4.0],
    "Pixel similarity (max)": [0.1, 0.3, 0.2, 0.4, -0.1, 0.1],
    "Number of images (control)": [7.0] * 6,
    "Sparsified-FT Shapley (Ours)": [3.0, 1.0, 2.5, 0.0, 50.0, 4.0],
}


@pytest.fixture
def attributions():
    """Rows of attributions.csv, the contributors in no order."""
    rows = [(m, "p", c, v) for m, credit in CREDITS.items() for c, v in zip("abcdef", credit, strict=True)]
    return pd.DataFrame(rows, columns=["method", "property", "contributor", "value"]).sample(frac=1, random_state=0)


def test_the_top_contributors_stand_side_by_side_and_equal_ones_by_label(attributions):
    found = agreement.top(attributions, 3)
    assert found.loc["TRAK"].tolist() == ["e", "f", "a"]
    assert found.loc["Pixel similarity (max)"].tolist() == ["d", "b", "c"]
    assert agreement.top(attributions, 6).loc["Pixel similarity (max)"].tolist()[3:] == ["a", "f", "e"]
    assert found.loc["Number of images (control)"].tolist() == ["-"] * 3


def test_methods_stand_in_the_order_of_the_papers_table(attributions):
    order = ["Pixel similarity (max)", "TRAK", "Number of images (control)", "Sparsified-FT Shapley (Ours)"]
    assert list(agreement.top(attributions).index) == order
    assert list(agreement.correlations(attributions)["first"].unique()) == order


def test_rank_correlations_are_scipys_joined_by_contributor(attributions):
    found = agreement.correlations(attributions).set_index(["first", "second"]).spearman
    assert len(found) == 16
    expected = stats.spearmanr(CREDITS["TRAK"], CREDITS["Pixel similarity (max)"]).statistic
    assert found["TRAK", "Pixel similarity (max)"] == pytest.approx(expected) == found["Pixel similarity (max)", "TRAK"]
    assert found["TRAK", "Sparsified-FT Shapley (Ours)"] == pytest.approx(1)


def test_who_ranks_nobody_correlates_with_nothing(attributions):
    found = agreement.correlations(attributions).set_index(["first", "second"]).spearman
    assert np.isnan(found["Number of images (control)"]).all() and np.isnan(found["TRAK", "Number of images (control)"])


def test_the_heat_map_says_each_correlation_and_is_the_same_twice(attributions, tmp_path):
    figure = agreement.rank_correlation(attributions)
    axes = figure.axes[0]
    shown = {text.get_position(): text.get_text() for text in axes.texts}
    assert len(shown) == 16 and shown[1, 1] == "100" and shown[2, 0] == "-" and shown[3, 1] == "100"
    assert [label.get_text() for label in axes.get_yticklabels()][1] == "TRAK  2"
    files = [style.save(agreement.rank_correlation(attributions), tmp_path / str(k), "agreement") for k in range(2)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_who_has_no_known_credit_stands_nowhere_and_two_in_common_are_no_correlation(attributions):
    of_trak = attributions.method == "TRAK"
    few = attributions.assign(value=attributions.value.mask(of_trak & ~attributions.contributor.isin(["e", "f"])))
    assert agreement.top(few, 4).loc["TRAK"].tolist() == ["e", "f", "-", "-"]
    found = agreement.correlations(few).set_index(["first", "second"]).spearman
    assert np.isnan(found["TRAK", "Pixel similarity (max)"])
    assert np.isfinite(found["Sparsified-FT Shapley (Ours)", "Pixel similarity (max)"])
    assert agreement.top(attributions.head(0)).empty
