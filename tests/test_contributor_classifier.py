"""The classifier of contributors: any images get an Inception-style score; the distances see how unlike a model's images are."""

import numpy as np
import pandas as pd
import pytest
import torch

from cdlib.base import params, registry
from cdlib.base.errors import Refused
from cdlib.data import datasets
from cdlib.measure import properties
from cdlib.measure.properties import contributor_classifier, inception_score
from cdlib.models import stages


def dataset(alike=False, side_px=16, n_each=30):
    """Three contributors with plain images of a colour of their own, or of colours that tell nobody."""
    rng, n = np.random.default_rng(0), 3 * n_each
    who = np.repeat([0, 1, 2], n_each)
    images = rng.integers(0, 60, (n, 3, side_px, side_px))
    images[np.arange(n), rng.integers(0, 3, n) if alike else who] += 150
    table = pd.DataFrame({"image": np.arange(n), "contributor": np.array(["a", "b", "c"])[who], "class": ""})
    return datasets.Dataset(images.astype(np.uint8), table)


def changed(data):
    """The same dataset with one other image."""
    images = data.images.copy()
    images[0] = 255 - images[0]
    return datasets.Dataset(images, data.contributors)


@pytest.fixture
def given(monkeypatch, tiny):
    """Puts a dataset in place of the run's; gives the parameters."""

    def give(data):
        monkeypatch.setattr(stages, "dataset", lambda params: data)
        monkeypatch.setattr("cdlib.measure.properties.classifier.STEPS", 60)
        changes = {"feature": "contributor_classifier", "embedding": "pooled_pixels", "fid_embedding": "pooled_pixels"}
        return params.check(tiny | changes | {"compared": ["D-TRAK"]}, "given")

    return give


@pytest.mark.parametrize("side_px", [8, 16, 40])
def test_contributors_that_differ_are_told_apart_and_scored(given, tmp_path, side_px):
    data = dataset(side_px=side_px)
    values = given(data)
    about = inception_score.prepare(tmp_path, values)
    assert about["accuracy"] > 0.9 and about["n_held_out"] == 18
    arrays = inception_score.per_image(tmp_path, values, data.images)
    assert arrays["probabilities"].shape == (90, 3)
    everybody = inception_score.value(values, arrays)
    one = inception_score.value(values, inception_score.per_image(tmp_path, values, data.images[:30]))
    assert everybody > 2 * one and 1 <= one < 1.3


def test_contributors_that_are_alike_are_refused_in_one_line(given, tmp_path):
    with pytest.raises(Refused, match="no better than chance.*choose another property"):
        inception_score.prepare(tmp_path, given(dataset(alike=True)))


def test_the_classifier_is_trained_once_and_anew_for_other_images(given, tmp_path):
    data = dataset()
    values, state = given(data), torch.get_rng_state()
    first = inception_score.prepare(tmp_path, values)
    assert torch.equal(torch.get_rng_state(), state)
    before = inception_score.settings(tmp_path, values)
    assert inception_score.prepare(tmp_path, values) == first
    given(changed(data))
    inception_score.prepare(tmp_path, values)
    assert inception_score.settings(tmp_path, values) != before


def test_a_fifth_of_each_contributors_images_is_held_out_and_none_of_few():
    held = contributor_classifier._held_out(np.repeat([0, 1, 2], [10, 4, 25]))
    assert [int(part.sum()) for part in np.split(held, [10, 14])] == [2, 0, 5]


@pytest.mark.parametrize("name", ["fid", "kid"])
def test_a_distance_to_the_training_images_is_smaller_for_images_that_are_like_them(given, tmp_path, name):
    data = dataset()
    own = registry.properties(given(data) | {"also": [f"{name}/pooled_pixels"]})[name]
    module = properties.named(name)
    module.prepare(tmp_path, own)
    like = module.value(own, module.per_image(tmp_path, own, data.images[::2]))
    unlike = module.value(own, module.per_image(tmp_path, own, 255 - data.images))
    assert like < 0.3 * unlike
    assert registry.sign(own) == -1


def test_fid_and_kid_share_the_training_images_and_notice_others(given, tmp_path):
    data = dataset()
    found = registry.properties(given(data) | {"also": ["fid/pooled_pixels", "kid/pooled_pixels"]})
    made = {name: properties.named(name).prepare(tmp_path, found[name]) for name in ("fid", "kid")}
    assert made["fid"] == made["kid"]
    before = properties.named("kid").settings(tmp_path, found["kid"])
    given(changed(data))
    properties.named("fid").prepare(tmp_path, found["fid"])
    assert properties.named("kid").settings(tmp_path, found["kid"]) != before
