"""The Inception Score: known answers, and a classifier of digits that can be trusted."""

import shutil

import numpy as np
import pytest
import safetensors.torch
import torch

from cdlib.base.errors import Refused
from cdlib.data.datasets.digits import images_and_classes
from cdlib.measure import properties
from cdlib.measure.properties import classifier
from cdlib.measure.properties.inception_score import inception_score
from cdlib.store import cache

DIGITS = {"feature": "digits_classifier"}


def random_rows(n, k, seed=0):
    """Class probabilities of n images."""
    return np.random.default_rng(seed).dirichlet(np.ones(k), n)


def noise(n, seed=0):
    """Images of nothing: each pixel on its own."""
    return np.random.default_rng(seed).integers(0, 256, (n, 1, 8, 8), np.uint8)


def scored(folder, images):
    """The Inception Score of images, as a measurement makes it."""
    score = properties.named("inception_score")
    return score.value(DIGITS, score.per_image(folder, DIGITS, images))


def test_images_that_are_all_alike_score_one():
    assert inception_score(np.repeat(random_rows(1, 7), 20, axis=0)) == pytest.approx(1)


@pytest.mark.parametrize("k", [2, 10])
def test_sure_images_of_k_classes_equally_often_score_k(k):
    assert inception_score(np.tile(np.eye(k), (6, 1))) == pytest.approx(k)


def test_a_class_that_is_never_drawn_does_not_count():
    assert inception_score(np.tile(np.eye(10)[:4], (6, 1))) == pytest.approx(4)


def test_the_score_is_equation_7_written_as_a_double_loop():
    p = random_rows(30, 5)
    marginal = [sum(row[k] for row in p) / 30 for k in range(5)]
    divergence = [sum(row[k] * np.log(row[k] / marginal[k]) for k in range(5)) for row in p]
    assert inception_score(p) == pytest.approx(np.exp(sum(divergence) / 30), rel=1e-12)


def test_the_score_knows_no_order_of_images_or_classes_and_lies_between_one_and_k():
    p, rng = random_rows(30, 5), np.random.default_rng(1)
    assert inception_score(p[rng.permutation(30)][:, rng.permutation(5)]) == pytest.approx(inception_score(p))
    assert 1 < inception_score(p) < 5


def test_single_precision_is_enough():
    p = random_rows(500, 10)
    assert inception_score(p.astype(np.float32)) == pytest.approx(inception_score(p), rel=1e-6)


def test_the_classifier_is_right_on_97_percent_of_digits_it_never_saw(made):
    about = classifier.about(made)
    assert about["accuracy"] >= 0.97
    assert about["n_held_out"] == 359


def test_digits_score_near_ten_and_noise_near_one(made):
    assert scored(made, images_and_classes()[0]) > 9
    assert scored(made, noise(500)) < 1.2


def test_more_kinds_of_digit_score_higher(made):
    images, classes = images_and_classes()
    scores = [scored(made, images[classes < k]) for k in (1, 3, 5, 10)]
    assert scores == sorted(scores)


def test_probabilities_are_of_each_image_alone(made):
    images = noise(300)
    probabilities = classifier.feature(made)
    together = probabilities(images)
    assert together.shape == (300, 10)
    np.testing.assert_allclose(together.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(probabilities(images[7:9]), together[7:9], atol=1e-6)


def test_the_embedding_of_digits_is_the_mean_of_the_features_that_the_head_reads(made):
    images, net = noise(5), classifier._load(made, classifier.about(made)["digest"])
    head = [module for module in net if not isinstance(module, torch.nn.Linear)]
    expected = torch.nn.Sequential(*head)(classifier.scaled(images)).detach().reshape(5, 64, 16).mean(2)
    found = properties.feature(made, DIGITS, "digits_embedding")
    assert found.kind == "embedding" and found.digest != properties.feature(made, DIGITS).digest
    np.testing.assert_allclose(found(images), expected, atol=1e-6)


def test_the_classifier_is_trained_once(made, monkeypatch):
    monkeypatch.setattr(classifier, "network", lambda: pytest.fail("a second classifier"))
    assert classifier.prepare(made, {}) == classifier.about(made)


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(path.read_bytes()[:-1]), lambda path: path.unlink()])
def test_a_classifier_that_is_not_the_one_that_was_kept_is_refused(made, tmp_path, spoil):
    shutil.copytree(made / "models", tmp_path / "models")
    path = tmp_path / "models" / "classifier.safetensors"
    spoil(path)
    with pytest.raises(Refused, match=f"^{path}: (missing|changed since it was written); run the notebook"):
        classifier.feature(tmp_path)


def test_another_classifier_is_another_setting(made, tmp_path):
    shutil.copytree(made / "models", tmp_path / "models")
    score = properties.named("inception_score")
    assert score.settings(tmp_path, DIGITS) == score.settings(made, DIGITS)
    weights = tmp_path / "models" / "classifier.safetensors"
    tensors = {name: tensor + 1 for name, tensor in safetensors.torch.load_file(weights).items()}
    cache.put(weights, safetensors.torch.save(tensors), classifier.about(made))
    assert score.settings(tmp_path, DIGITS) != score.settings(made, DIGITS)
