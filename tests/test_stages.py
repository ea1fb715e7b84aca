"""The full model and the sparse one: made once, and again when what they come from has changed."""

import pytest

from cdlib import bases, cache, families, stages, store, train


def same(a, b):
    """Whether two states are equal bit for bit."""
    return a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a)


def test_the_models_of_a_run_are_trained_once(run, monkeypatch):
    full, sparse = (cache.get(stages.path(run.folder, name)) for name in ("full", "sparse"))
    monkeypatch.setattr(train, "train", lambda *a, **k: pytest.fail("trained again"))
    assert (stages.full(run), stages.sparse(run)) == (full, sparse)
    assert sparse["parameters"] < full["parameters"] == 118_289


def test_a_model_whose_weights_were_changed_is_made_again(run):
    path = stages.path(run.folder, "full")
    before, whole = cache.get(path), path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.warns(UserWarning, match=f"^{path}: changed since it was written; made again"):
        assert stages.full(run)["digest"] == before["digest"]
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "change",
    [{"train_lr": 0.5}, {"train_seed": 1}, {"assignment_seed": 1}, {"batch_size": 5}],
    ids=lambda change: next(iter(change)),
)
def test_another_origin_makes_another_full_model_and_then_another_sparse_one(run, change):
    before = [cache.get(stages.path(run.folder, name))["digest"] for name in ("full", "sparse")]
    changed = store.Run("03_prune", run.params | change)
    after = [stages.full(changed)["digest"], stages.sparse(changed)["digest"]]
    assert not set(before) & set(after)


def test_what_is_evaluated_is_the_average_and_what_is_trained_on_the_raw_weights_where_it_is_continued(run):
    smooth = store.Run("03_prune", run.params | {"ema": "continued"})
    for make, name in ((stages.full, "full"), (stages.sparse, "sparse")):
        make(smooth)
        evaluated = stages.load(smooth.folder, smooth.params, name)
        raw, average = stages.started(smooth.folder, smooth.params, name)
        assert not same(raw.state(), evaluated.state())
        assert all((a == b).all() for a, b in zip(average.shadow_params, evaluated.parameters(), strict=True))
        once, none = stages.started(smooth.folder, smooth.params | {"ema": "fresh"}, name)
        assert none is None and same(once.state(), evaluated.state())


def test_a_continued_average_prunes_the_raw_weights(run):
    smooth = store.Run("03_prune", run.params | {"ema": "continued", "pruning_ratio": 0.0})
    stages.full(smooth)
    raw, _ = families.continuing(stages.path(run.folder, "full"))
    assert same(stages.pruned(smooth).state(), raw.state())
    assert not same(raw.state(), families.load(stages.path(run.folder, "full")).state())


def test_every_pretrained_part_that_a_run_takes_is_looked_for_before_it_starts(run, monkeypatch):
    asked = []
    monkeypatch.setattr(stages.pretrained, "find", lambda name, params: asked.append(name))
    for n_unlearn, expected in ((2, ["inception"]), (0, [])):
        asked.clear()
        stages.needed(run.folder, run.params | {"fid_embedding": "inception_pool", "n_unlearn": n_unlearn})
        assert asked == expected


@pytest.fixture
def faces(scratch, tiny, monkeypatch):
    """A run whose frozen part is made in no time: what it is made of is remembered."""
    made = []

    def make(name, folder, progress):
        made.append(name)
        (folder / "vqvae").mkdir(parents=True)
        (folder / "vqvae" / "weights.safetensors").write_bytes(b"weights")

    monkeypatch.setattr(bases, "make", make)
    monkeypatch.setattr(stages, "needed", lambda folder, params: folder / "models" / "faces_vqvae")
    return store.Run("02_train", tiny), made


def test_a_frozen_part_is_made_once(faces):
    run, made = faces
    assert stages.base(run) == stages.base(run)
    assert made == ["faces_vqvae"] and "models/faces_vqvae/vqvae/weights.safetensors" in run.files


@pytest.mark.parametrize("spoil", [lambda file: file.unlink(), lambda file: file.write_bytes(b"others'")])
def test_a_frozen_part_that_is_not_what_was_made_is_made_again(faces, spoil):
    run, made = faces
    before = stages.base(run)
    spoil(run.folder / "models" / "faces_vqvae" / "vqvae" / "weights.safetensors")
    assert stages.base(run) == before and len(made) == 2
