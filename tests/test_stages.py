"""The full model and the sparse one: made once, and again when what they come from has changed."""

import pytest

from cdlib import store
from cdlib.base import params, paths
from cdlib.base.errors import Refused
from cdlib.models import bases, families, stages, train
from cdlib.store import cache


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


@pytest.mark.parametrize(
    ("make", "name", "stage", "lr"), [(stages.full, "full", "train", 1e-9), (stages.sparse, "sparse", "prune", 1.0)]
)
def test_a_model_that_learned_nothing_stops_the_run_in_one_line_and_is_not_kept(run, make, name, stage, lr):
    before = cache.get(stages.path(run.folder, name))
    idle = store.Run("02_train", run.params | {f"{stage}_steps": 40, f"{stage}_lr": lr, "checkpoint_minutes": 1e-9})
    told = rf"^{name} model: the loss ends at [\d.]+ \(mean of .*\), .* or take more steps \({stage}_lr, {stage}_steps\)$"
    with pytest.raises(Refused, match=told):
        make(idle)
    assert cache.get(stages.path(run.folder, name)) == before
    assert not list(run.folder.glob("models/unfinished/*"))


@pytest.mark.parametrize("name", [p.stem for p in (paths.root() / "params").glob("*.yaml")])
def test_the_models_of_all_parameter_files_draw_images_of_the_size_that_is_given(name):
    stages.fits(params.load(paths.params(name)))


WRONG = {
    "small": (
        {"dataset": "image_folder", "side_px": 64, "model": "unet_16x16"},
        "side_px: 64: images of image_folder are 3 x 64 x 64",
    ),
    "large": ({"dataset": "image_folder", "side_px": 64, "model": "unet_32x32"}, "and unet_32x32 draws 3 x 32 x 32"),
    "grey": ({"dataset": "image_folder", "side_px": 8, "model": "unet_8x8"}, "and unet_8x8 draws 1 x 8 x 8"),
    "coloured": ({"model": "unet_16x16"}, "model: unet_16x16: images of digits are 1 x 8 x 8"),
    "fixed": ({"dataset": "faces", "side_px": 16, "model": "unet_16x16"}, "model: unet_16x16: images of faces are 3 x 32 x 32"),
    "latent": ({"dataset": "celeba_hq", "side_px": 64, "model": "ldm_64x64"}, "and ldm_64x64 draws 3 x 256 x 256"),
    "text": ({"dataset": "artbench", "side_px": 32, "model": "minisd_lora"}, "and minisd_lora draws 3 x 256 x 256"),
}


@pytest.mark.parametrize(("changes", "told"), WRONG.values(), ids=WRONG)
def test_images_of_another_size_or_colour_than_the_model_draws_are_refused(tiny, changes, told):
    with pytest.raises(Refused) as error:
        stages.fits(tiny | changes)
    assert told in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["digits", "faces", "painters"])
def test_the_shape_of_a_dataset_is_that_of_its_images(tiny, name):
    values = tiny | {"dataset": name, "n_contributors": 0 if name == "digits" else 20}
    assert stages.dataset(values).images.shape[1:] == stages.datasets.shape(values)


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
