"""Gradient features that are kept: by image id, computed once, continued after a kill, the same for any number of workers."""

import numpy as np
import pytest
from safetensors.numpy import load, save

from cdlib.measure import sketches

SETTINGS = {"model": "abc", "k": 3, "timesteps": [0, 5]}


class Computed:
    """Features that are made from ids; remembers what it was asked for, and is killed at the part of this number."""

    def __init__(self, folder, killed=None):
        self.folder, self.asked, self.killed = folder, [], killed

    def __call__(self, parts):
        for ids in parts:
            if len(self.asked) == self.killed:
                raise KeyboardInterrupt
            self.asked.append(ids.tolist())
            sketches.write(self.folder, SETTINGS, ids, np.random.default_rng(ids[0]).normal(size=(len(ids), 3)))


def kept(folder, ids, compute, settings=SETTINGS):
    """What is kept of some images, in parts of `AT_ONCE`."""
    return sketches.kept(folder, settings, ids, compute)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(sketches, "AT_ONCE", 6)


def test_features_continued_after_a_kill_are_those_of_one_go(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    expected = kept(one, range(20), Computed(one))
    with pytest.raises(KeyboardInterrupt):
        kept(two, range(20), Computed(two, killed=2))
    rest = Computed(two)
    again = kept(two, range(20), rest)
    assert again.dtype == np.float32 and again.tobytes() == expected.tobytes()
    assert rest.asked == [list(range(12, 18)), [18, 19]]
    files = {path.name: path.read_bytes() for path in one.iterdir()}
    assert files == {path.name: path.read_bytes() for path in two.iterdir()}


def test_kept_features_are_joined_by_id_and_computed_once(tmp_path):
    expected = kept(tmp_path, range(10), Computed(tmp_path))
    order, nothing = np.random.default_rng(0).permutation(10), Computed(tmp_path, killed=0)
    np.testing.assert_array_equal(kept(tmp_path, order, nothing), expected[order])
    more = Computed(tmp_path)
    assert kept(tmp_path, [12, 3, 11], more).shape == (3, 3) and more.asked == [[11, 12]]


@pytest.mark.parametrize(("name", "value"), [("k", 4), ("timesteps", [0, 6]), ("model", "abd"), ("seed", 1)])
def test_features_of_other_settings_are_not_taken(tmp_path, name, value):
    kept(tmp_path, [1], Computed(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        kept(tmp_path, [1], Computed(tmp_path, killed=0), SETTINGS | {name: value})


SPOILT = {
    "cut short": lambda part: part[:-5],
    "empty": lambda part: b"",
    "another value": lambda part: part[:-40] + bytes([part[-40] ^ 1]) + part[-39:],
    "of another kind": lambda part: save({"ids": np.arange(6)}),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_part_that_is_not_what_was_written_is_named_and_computed_again(tmp_path, spoil):
    expected = kept(tmp_path, range(20), Computed(tmp_path))
    path = next(path for path in tmp_path.glob("*.safetensors") if 7 in load(path.read_bytes())["ids"])
    path.write_bytes(spoil(path.read_bytes()))
    again = Computed(tmp_path)
    with pytest.warns(UserWarning, match=f"^{path}: changed since it was written; made again"):
        np.testing.assert_array_equal(kept(tmp_path, range(20), again), expected)
    assert again.asked == [list(range(6, 12))]


def test_copies_have_the_smallest_of_their_ids():
    image = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    copies = np.stack([image[0], image[1], image[0], image[2], image[0], image[1]])
    assert sketches.first_of_equal(copies, [9, 4, 7, 5, 8, 6]).tolist() == [7, 4, 7, 5, 7, 4]
    assert sketches.first_of_equal(copies[:, ::2], [9, 4, 7, 5, 8, 6]).tolist() == [7, 4, 7, 5, 7, 4]
    assert sketches.first_of_equal(copies[[0, 1, 3]], [9, 4, 5]).tolist() == [9, 4, 5]
