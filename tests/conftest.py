"""What several tests start from: a scratch folder for runs, tiny parameters, and models that are made once a session."""

import shutil
from multiprocessing import forkserver

import pytest

from cdlib import store
from cdlib.base import params
from cdlib.measure.executors import local

TINY = {
    "name": "tiny",
    "executor": "serial",
    "device": "cpu",
    "owners_per_class": [1, 1, 2],
    "images_per_contributor": 20,
    "train_steps": 3,
    "batch_size": 4,
    "prune_steps": 2,
    "finetune_steps": 2,
    "n_images": 16,
    "sampling_steps": 2,
    "n_full_seeds": 1,
    "n_empty_seeds": 1,
}


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """The folder that runs go to; nothing is there yet."""
    monkeypatch.setenv("CDLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("CDLIB_FIGURES", str(tmp_path / "figures"))
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def one_thread():
    """Torch on one thread, as in a measurement: sums in one order, and no waiting for a busy core."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def tiny():
    """All parameters, of a run that takes no time: 4 contributors, of whom the last two share the twos."""
    return params.check(TINY, "tiny")


@pytest.fixture(scope="session")
def made(tmp_path_factory, one_thread):
    """A run's folder with its three models: the classifier, the full model and the sparse one. Not to be changed."""
    from cdlib.measure.properties import classifier
    from cdlib.models import stages

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CDLIB_RUNS", str(tmp_path_factory.mktemp("made")))
        run = store.Run("03_prune", params.check(TINY, "tiny"))
        classifier.prepare(run.folder, run.params)
        stages.full(run)
        stages.sparse(run)
    return run.folder


@pytest.fixture
def run(made, scratch, tiny):
    """A run of one's own that has its models and has measured nothing."""
    shutil.copytree(made, scratch / "tiny")
    return store.Run("04_shapley", tiny)


@pytest.fixture(scope="session")
def server():
    """The process that workers fork from, with torch already loaded: it starts once, and then each worker at once."""
    local._context()
    forkserver.ensure_running()
