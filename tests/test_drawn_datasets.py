"""Drawn faces and painted canvases: what each shows by construction, before any model is trained on them."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, ward
from scipy.stats import entropy, spearmanr

from cdlib.base import seeds
from cdlib.base.errors import Refused
from cdlib.data import contributors
from cdlib.data.datasets import faces, painters

PARAMS = {faces: {"n_contributors": 20, "assignment_seed": 0}, painters: {"n_contributors": 24, "assignment_seed": 0}}
COUNTS = {faces: faces.IMAGES, painters: painters.CANVASES}
both = pytest.mark.parametrize("module", PARAMS, ids=["faces", "painters"])


def pooled(images):
    """8x8 mean-pooled pixels, float [T, 192]."""
    return images.reshape(-1, 3, 8, 4, 8, 4).mean((3, 5)).reshape(len(images), -1)


def colourfulness(images):
    """Colourfulness of each image, float [T]. Source: Hasler & Suesstrunk 2003, M3."""
    red, green, blue = images.astype(float).transpose(1, 0, 2, 3).reshape(3, len(images), -1)
    pair = np.stack([red - green, (red + green) / 2 - blue])
    return np.hypot(*pair.std(2)) + 0.3 * np.hypot(*pair.mean(2))


def vividness_of(seed):
    """The vividness of each of 24 painters, in the order of their labels."""
    return [by.vividness for by in painters.painters(24, seed).values()]


def nearest(points, means):
    """Index of the nearest mean of each point, int [T]."""
    return ((points[:, None] - means) ** 2).sum(2).argmin(1)


@both
def test_the_same_seed_draws_the_same_and_another_seed_others(module):
    (images, table), (again, same) = module.load(PARAMS[module]), module.load(dict(PARAMS[module]))
    np.testing.assert_array_equal(images, again)
    assert table.equals(same)
    other, _ = module.load(PARAMS[module] | {"assignment_seed": 1})
    assert not {image.tobytes() for image in images} & {image.tobytes() for image in other}


@both
def test_every_image_is_given_once_and_no_two_are_alike(module):
    images, table = module.load(PARAMS[module])
    assert (images.shape, images.dtype) == ((len(table), 3, 32, 32), np.uint8)
    assert table.image.tolist() == list(range(len(images)))
    assert len({image.tobytes() for image in images}) == len(images)


@both
def test_contributors_give_about_equally_many(module):
    counts = contributors.counts(module.load(PARAMS[module])[1])
    assert (counts.min(), counts.max()) == COUNTS[module]


@both
@pytest.mark.parametrize("n_contributors", [5, 11, 24])
def test_numbers_are_planned_without_drawing(module, n_contributors):
    params = {"n_contributors": n_contributors, "assignment_seed": 3}
    table = module.load(params)[1]
    assert table.contributor.nunique() == n_contributors
    assert module.planned(params) == (n_contributors, len(table))


@both
def test_too_few_or_too_many_contributors_are_refused(module):
    for n_contributors in (module.FEWEST - 1, module.MOST + 1):
        for function in (module.check, module.load):
            with pytest.raises(Refused, match=rf"n_contributors: {n_contributors}: from {module.FEWEST} .* to {module.MOST}"):
                function(PARAMS[module] | {"n_contributors": n_contributors})
    assert (faces.FEWEST, painters.FEWEST) == (5, 3)
    module.check(PARAMS[module] | {"n_contributors": module.FEWEST})


def test_groups_are_very_unequal_and_none_is_empty():
    assert faces.sizes(20) == {"a": 12, "b": 4, "c": 2, "d": 1, "e": 1}
    for n_contributors in range(faces.FEWEST, faces.MOST + 1):
        assert sum(faces.sizes(n_contributors).values()) == n_contributors
        assert min(faces.sizes(n_contributors).values()) == faces.sizes(n_contributors)["e"] >= 1
        assert max(faces.sizes(n_contributors).values()) == faces.sizes(n_contributors)["a"]


def test_a_face_depends_on_seed_identity_and_index_only():
    images, table = faces.load(PARAMS[faces])
    more, of_more = faces.load(PARAMS[faces] | {"n_contributors": 30})
    for label in ("a03", "b04", "e01"):
        given = images[table.image[table.contributor == label]]
        np.testing.assert_array_equal(given, more[of_more.image[of_more.contributor == label]])
        np.testing.assert_array_equal(given[7], faces.draw(0, label, 7))


@pytest.mark.parametrize("seed", range(3))
def test_held_out_faces_are_nearest_to_their_own_group(seed):
    images, table = faces.load(PARAMS[faces] | {"assignment_seed": seed})
    points, group = pooled(images), table["class"].map("abcde".index).to_numpy()
    held_out = table.groupby("contributor").cumcount().to_numpy() % 3 == 0
    means = np.stack([points[(group == k) & ~held_out].mean(0) for k in range(5)])
    assert (nearest(points[held_out], means) == group[held_out]).mean() > 0.9


def test_faces_are_nearer_to_their_own_identity_than_chance():
    images, table = faces.load(PARAMS[faces])
    points, who = pooled(images), contributors.owners(table).to_numpy()
    held_out = table.groupby("contributor").cumcount().to_numpy() % 3 == 0
    means = np.stack([points[(who == k) & ~held_out].mean(0) for k in range(20)])
    large = held_out & (table["class"] == "a").to_numpy()
    assert (nearest(points[large], means) == who[large]).mean() > 3 / 12


@pytest.mark.parametrize("seed", range(3))
def test_members_of_small_groups_add_more_variety(seed):
    images, table = faces.load(PARAMS[faces] | {"assignment_seed": seed})
    points, who = pooled(images), contributors.owners(table).to_numpy()
    cluster = fcluster(ward(points), 20, "maxclust") - 1
    cluster = nearest(points, np.stack([points[cluster == k].mean(0) for k in range(20)]))
    counts = np.stack([np.bincount(cluster[who == k], minlength=20) for k in range(20)])
    large = np.char.startswith(contributors.labels(table), "a")

    loss = entropy(counts.sum(0)) - entropy(counts.sum(0) - counts, axis=1)
    assert loss[~large].mean() > 0.04 > 0.01 > loss[large].mean()

    rng, shapley = np.random.default_rng(0), np.zeros(20)
    for order in [rng.permutation(20) for _ in range(200)]:
        shapley[order] += np.diff(entropy(counts[order].cumsum(0), axis=1), prepend=0) / 200
    assert shapley.sum() == pytest.approx(entropy(counts.sum(0)))
    assert shapley[~large].mean() > 2 * shapley[large].mean()


@pytest.mark.parametrize("seed", range(3))
def test_the_more_vivid_the_painter_the_more_colourful_the_canvases(seed):
    images, table = painters.load(PARAMS[painters] | {"assignment_seed": seed})
    mean = table.assign(value=colourfulness(images)).groupby("contributor").value.mean()
    assert spearmanr(vividness_of(seed), mean)[0] > 0.9
    assert mean.min() < 10 and mean.max() > 90


def test_labels_do_not_tell_vividness():
    assert abs(np.mean([spearmanr(range(24), vividness_of(seed))[0] for seed in range(50)])) < 0.1


def test_a_third_of_the_painters_is_vivid_and_a_third_muted():
    table = painters.load(PARAMS[painters])[1]
    by_group = table.groupby("group").contributor.unique().map(set)
    assert by_group.map(len).to_dict() == {"muted": 8, "middle": 8, "vivid": 8}
    vividness = dict(zip(contributors.labels(table), vividness_of(0), strict=True))
    low, mid, high = ([vividness[label] for label in by_group[name]] for name in ("muted", "middle", "vivid"))
    assert max(low) < min(mid) and max(mid) < min(high)


def test_a_canvas_depends_on_the_painter_seed_and_index_only():
    images, table = painters.load(PARAMS[painters])
    by = painters.painters(24, 0)["p07"]
    given = images[table.image[table.contributor == "p07"]]
    assert len(given) == by.n_canvases
    np.testing.assert_array_equal(given[5], painters.paint(by, seeds.generator(0, "canvas p07", 5)))


def test_canvases_of_others_are_by_no_contributor_and_moderately_vivid():
    images, _ = painters.load(PARAMS[painters])
    others = painters.others(160, 0)
    assert (others.shape, others.dtype) == ((160, 3, 32, 32), np.uint8)
    np.testing.assert_array_equal(painters.others(20, 0), others[:20])
    assert not {image.tobytes() for image in images} & {image.tobytes() for image in others}
    ours = np.stack([by.palette for by in painters.painters(24, 0).values()])
    theirs = np.stack([painters.painter(0, "other painter", k, 0.3).palette for k in range(10)])
    assert np.abs(ours[:, None] - theirs).max((2, 3)).min() > 20
    assert np.quantile(colourfulness(images), 0.9) > np.quantile(colourfulness(others), 0.9) + 20
