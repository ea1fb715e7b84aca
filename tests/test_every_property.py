"""Every property there is, as a run's first and as a further one, through the code of all eight notebooks."""

import json

import numpy as np
import pytest
from PIL import Image

from cdlib import store
from cdlib.base import params, paths, registry
from cdlib.cli import new
from cdlib.show import paper
from cdlib.store import cells, completion

N, EACH = 6, 5
OWN = "mine_for_every_property:bright"
EVERY = [*registry.FEATURES, OWN]
SMALL = {
    "executor": "serial", "device": "cpu", "batch_size": 4, "train_steps": 2, "prune_steps": 2, "finetune_steps": 2,
    "sampling_steps": 2, "n_images": 8, "n_reference": 8, "n_clusters": 2, "n_empty_seeds": 1, "n_full_seeds": 1,
    "n_coalitions": 12, "n_retrain": 4, "n_subsets": 3, "gradient_timesteps": 1, "projection_dim": 64,
    "compared": ["Leave-one-out (LOO)"],
}  # fmt: skip


@pytest.fixture
def images(scratch, tmp_path, monkeypatch, one_thread):
    """A folder of six contributors, each with images in an own colour; and a function of the user's own."""
    draws = np.random.default_rng(0)
    for k in range(N):
        (tmp_path / f"images/giver {k}").mkdir(parents=True)
        for i in range(EACH):
            pixels = draws.integers(0, 60, (16, 16, 3)) + 150 * (k + 1 >> np.arange(3) & 1)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"images/giver {k}/{i}.png")
    (tmp_path / "mine_for_every_property.py").write_text("def bright(images):\n    return images.mean((1, 2, 3))\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "images"


def run_notebooks(values):
    """Run the code of all notebooks in this process, each in a namespace of its own, as papermill would."""
    for notebook in paths.notebooks():
        space = {"display": lambda *things: None, **{name: values[name] for name in cells.declared(notebook)}}
        for source in json.loads(cells.code(notebook)):
            exec(source, space)  # noqa: S102


@pytest.mark.parametrize(("first", "further"), [*zip(EVERY, [*EVERY[1:], EVERY[0]], strict=True)])
def test_every_property_runs_all_notebooks_as_the_first_and_as_a_further_one(images, monkeypatch, first, further):
    monkeypatch.setattr(paper, "save", lambda drawing, folder, name: None)  # drawn, and not written: that takes the time
    where = {"images": str(images), "contributors_csv": ""}
    chosen = new.choices("tiny", where, N, N * EACH, new._wished([first, further]), 16)
    values = params.check({key: value for key, (value, _) in chosen.items()} | SMALL, "tiny")
    run_notebooks(values)
    run = store.Run("08_figures", values)
    assert set(run.table("attributions").property) == {first, further}
    told = completion.state(run.folder, "06_lds")["left_out"]  # of so few images a property may be the same for all coalitions
    assert all(p in set(run.table("lds").property) or f"{run.about(p)}LDS, alpha 0.5" in told for p in (first, further))
    assert set(run.table("counterfactual").property) == {first}
    sees = {"inception_score": {"entropy"}, "cluster_entropy": {"cluster"}}.get(first, set())
    assert set(run.table("training_images")) == {"image", "contributor"} | sees
