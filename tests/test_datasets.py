"""Images and who gave them: every image once, five digits from one contributor each, joined by image id."""

from dataclasses import replace

import numpy as np
import pytest

from cdlib.base.errors import Refused
from cdlib.base.params import defaults
from cdlib.data import contributors, datasets, design
from cdlib.data.datasets import digits

DEFAULTS = defaults()


def table(**changes):
    """Who gave which image, with the default parameters but for the changes."""
    return datasets.load(DEFAULTS | changes).contributors


def test_twenty_contributors_give_56_images_each():
    given = table()
    assert contributors.counts(given).tolist() == [56] * 20
    assert design.n_contributors(DEFAULTS) == len(contributors.labels(given)) == 20


def test_no_image_is_given_twice():
    assert table().image.is_unique


def test_every_image_shows_the_digit_it_is_given_for():
    given, classes = table(), digits.images_and_classes()[1]
    assert classes[given.image].astype(str).tolist() == given["class"].tolist()


def test_digits_0_to_4_come_from_one_contributor_and_5_to_9_from_three():
    givers = table().groupby("class").contributor.unique().map(sorted).to_dict()
    assert givers == {str(d): [str(d)] if d < 5 else [f"{d}a", f"{d}b", f"{d}c"] for d in range(10)}
    group = contributors.group(table())
    assert group[group == "alone"].index.tolist() == list("01234")
    assert set(group[list(contributors.labels(table())[5:])]) == {"shares"}


def test_images_fill_the_range_of_a_byte():
    images = datasets.load(DEFAULTS).images
    assert (images.shape, images.dtype, images.min(), images.max()) == ((1797, 1, 8, 8), np.uint8, 0, 255)


def test_the_assignment_is_that_of_its_seed():
    assert datasets.load(DEFAULTS).digest() == datasets.load(dict(DEFAULTS)).digest()
    assert datasets.load(DEFAULTS | {"assignment_seed": 1}).digest() != datasets.load(DEFAULTS).digest()


def test_who_gave_what_is_known_whatever_the_order_of_the_rows():
    data = datasets.load(DEFAULTS)
    shuffled = data.contributors.sample(frac=1, random_state=0)
    assert replace(data, contributors=shuffled).digest() == data.digest()
    members = np.random.default_rng(0).random(20) < 0.5
    np.testing.assert_array_equal(contributors.images_of(shuffled, members), contributors.images_of(table(), members))


def test_a_coalition_has_the_images_of_its_members_and_no_others():
    given, labels = table(), contributors.labels(table())
    members = np.isin(labels, ["3", "7b"])
    assert contributors.images_of(given, members).tolist() == sorted(given[given.contributor.isin(["3", "7b"])].image)
    assert contributors.images_of(given, np.zeros(20, bool)).tolist() == []


def test_another_owner_of_an_image_or_another_pixel_changes_the_digest():
    data = datasets.load(DEFAULTS)
    moved, repainted = data.contributors.copy(), data.images.copy()
    moved.loc[0, "contributor"] = "1"
    repainted[moved.image[0], 0, 0, 0] += 1
    others = [replace(data, contributors=moved), replace(data, images=repainted)]
    assert len({data.digest(), *(other.digest() for other in others)}) == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"owners_per_class": [4]}, r"owners_per_class: 4 for digit 0 with images_per_contributor 56: .* at most 44 images"),
        ({"images_per_contributor": 59}, r"owners_per_class: 3 for digit 8 .* needs 177 images, there are 174: at most 58"),
        ({"owners_per_class": [1]}, r"owners_per_class: \[1\]: must make at least 2 contributors"),
    ],
)
def test_owners_who_cannot_be_served_are_refused(changes, said):
    for function in (datasets.check, datasets.load):
        with pytest.raises(Refused, match=said):
            function(DEFAULTS | changes)
