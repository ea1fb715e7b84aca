"""Kept files: whole or not there, and whatever is changed in one of them is noticed, named and made again."""

import os

import pytest

from cdlib.base import hashing
from cdlib.base.errors import Refused
from cdlib.store import cache

DATA, ORIGIN = bytes(range(256)) * 8, {"dataset": "ab", "sizes": (1, 2)}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "folder" / "x.safetensors"
    cache.put(path, DATA, {"origin": ORIGIN, "losses": [0.1, 1e-9], "said": "é\n}"})
    return path


def test_what_was_kept_is_found_with_the_digest_of_its_data(path):
    expected = {"origin": {"dataset": "ab", "sizes": [1, 2]}, "losses": [0.1, 1e-9], "said": "é\n}"}
    assert cache.get(path) == cache.find(path, ORIGIN) == expected | {"digest": hashing.digest(DATA)}
    assert path.read_bytes() == DATA


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_every_single_byte_that_is_changed_or_cut_off_is_noticed_and_the_file_is_named(path, suffix):
    file = path.with_suffix(suffix)
    whole = file.read_bytes()
    for i in range(0, len(whole), 7):
        for spoilt in (whole[:i], whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :]):
            file.write_bytes(spoilt)
            with pytest.raises(cache.Torn, match=f"^{file}: changed since it was written; run the notebook that makes it again$"):
                cache.get(path)
    with pytest.warns(UserWarning, match=f"^{file}: changed since it was written; made again$"):
        assert cache.find(path) is None


def test_a_record_beside_the_data_of_another_is_noticed(path, tmp_path):
    other = tmp_path / "folder" / "y.safetensors"
    cache.put(other, DATA[::-1], {"origin": ORIGIN})
    path.write_bytes(other.read_bytes())
    with pytest.raises(cache.Torn, match=f"^{path}: "):
        cache.get(path)


@pytest.mark.parametrize("origin", [{"dataset": "ac", "sizes": (1, 2)}, {"dataset": "ab", "sizes": (2, 1)}, {}])
def test_data_of_another_origin_are_not_found(path, origin):
    assert cache.find(path, origin) is None
    with pytest.raises(Refused, match=f"^{path}: made from something else; "):
        cache.get(path, origin)


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_missing_file_is_refused_and_not_found_without_a_warning(path, suffix):
    path.with_suffix(suffix).unlink()
    assert cache.find(path) is None
    with pytest.raises(Refused, match=f"^{path}: missing; run the notebook that makes it$"):
        cache.get(path)


@pytest.mark.parametrize("before", [True, False])
def test_a_kill_between_data_and_record_leaves_nothing_that_is_taken_for_whole(path, monkeypatch, before):
    def dying(source, target, replace=os.replace):
        if str(target).endswith(".json"):
            raise KeyboardInterrupt
        replace(source, target)

    place = path if before else path.with_name("new.safetensors")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", dying)
        cache.put(place, DATA[1:], {"origin": ORIGIN})
    with pytest.raises(Refused, match=f"^{place}: {'changed' if before else 'missing'}"):
        cache.get(place)
    assert cache.put(place, DATA[1:], {"origin": ORIGIN}) and cache.find(place, ORIGIN)


def test_a_value_that_is_no_number_is_not_kept(path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        cache.put(path, DATA, {"loss": float("nan")})
