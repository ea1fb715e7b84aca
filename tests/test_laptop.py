"""The committed results of the faces and the painters: their known answer in kind, and an LDS with its interval."""

import io
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cdlib.base import params, paths
from cdlib.credit import methods

ROOT = Path(__file__).resolve().parents[1]
OURS = "Sparsified-FT Shapley (Ours)"


def committed(run, name):
    """A table as it was committed."""
    data = subprocess.run(["git", "-C", str(ROOT), "show", f"HEAD:figures/{run}/{name}.csv"], capture_output=True, check=True)
    return pd.read_csv(io.BytesIO(data.stdout), dtype={"contributor": str})


def test_members_of_small_groups_get_more_credit():
    credit = committed("faces", "credit")
    assert credit.group.value_counts().to_dict() == {"large group": 12, "small groups": 8}
    means = credit.groupby("group").value.mean()
    assert means["small groups"] > means["large group"]


def test_vivid_painters_get_more_credit_than_muted_ones():
    credit = committed("painters", "credit")
    assert credit.group.value_counts().to_dict() == {"vivid": 8, "middle": 8, "muted": 8}
    means = credit.groupby("group").value.mean()
    assert means["vivid"] > means["middle"] > means["muted"]


@pytest.mark.parametrize(("run", "by_alpha"), [("faces", "table_5"), ("painters", "table_7")])
def test_our_lds_stands_in_its_interval_beside_a_ceiling(run, by_alpha):
    scores = committed(run, by_alpha)
    ours = scores[(scores.method == OURS) & (scores.interval == "subsets")]
    assert ours.alpha.tolist() == [0.25, 0.5, 0.75]
    assert ((ours.low <= ours.lds_percent) & (ours.lds_percent <= ours.high)).all()
    assert np.isfinite(scores.ceiling_percent).all()


@pytest.mark.parametrize(("run", "by_alpha"), [("faces", "table_5"), ("painters", "table_7")])
def test_every_method_that_applies_is_judged_on_thirty_test_coalitions(run, by_alpha):
    scores = committed(run, by_alpha)
    shapley = {"Retraining Shapley", "FT Shapley", "Sparsified-FT Shapley (paper's estimator)", OURS}
    expected = {*methods.names(params.load(paths.params(f"{run}_full"))), *shapley}
    for alpha in (0.25, 0.5, 0.75):
        rows = scores[(scores.alpha == alpha) & (scores.interval == "subsets")]
        assert set(rows.method) == expected and set(rows.n_coalitions) == {30}
        assert rows[["low", "high", "ceiling_percent"]].notna().all(axis=None)


@pytest.mark.parametrize(("run", "numbers"), [("faces", (1, 2, 3, 4, 7, 12)), ("painters", (1, 2, 3, 4, 8, 9, 10))])
def test_every_figure_was_committed(run, numbers):
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-tree", "--name-only", "HEAD", f"figures/{run}/"], capture_output=True)
    files = set(listed.stdout.decode().split())
    names = ("credit", "fidelity", "lds", "lds_by_coalitions", *(f"figure_{k}" for k in numbers))
    assert {f"figures/{run}/{name}.{kind}" for name in names for kind in ("pdf", "png", "csv")} <= files
