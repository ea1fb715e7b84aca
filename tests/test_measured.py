"""Measured coalitions: another value means another key, and a record exists whole or not at all."""

import json
import os
from copy import deepcopy

import numpy as np
import pytest

from cdlib.base.errors import Refused
from cdlib.cli.snapshot import Snapshot
from cdlib.store import measured
from cdlib.store.measured import Measured

SPEC = {
    "dataset": {"name": "digits", "contributors": "0a1b"},
    "procedure": "retrain",
    "recipe": {"steps": 10, "lr": 1e-3, "horizontal_flip": False},
    "sizes": [8, 16],
    "members": "0110",
    "seed": 1,
}
PROPERTIES = {"inception_score": 0.1 + 0.2}
ARRAYS = {"probabilities": np.random.default_rng(0).random((5, 3), np.float32), "images": np.arange(8, dtype=np.uint8)}
KEY = Measured.key(SPEC)
SPOILT = {
    "empty": lambda record: b"",
    "cut short": lambda record: record[:-20],
    "cut in the middle": lambda record: record[: len(record) // 2],
    "a list": lambda record: b"[1]",
    "not text": lambda record: b"\xff" + record,
    "without its checksum": lambda record: record[: record.rindex(b",")] + b"}",
    "in another layout": lambda record: json.dumps(json.loads(record)).encode(),
    "another value": lambda record: record.replace(b"0.30000000000000004", b"0.40000000000000004"),
    "another coalition": lambda record: record.replace(b'"0110"', b'"1110"'),
}


@pytest.fixture
def kept(tmp_path):
    """A folder with one measured coalition."""
    kept = Measured(tmp_path)
    kept.write(SPEC, PROPERTIES, ARRAYS, 1.5, 0.25)
    return kept


def leaves(value, path=()):
    """The way to each value inside nested dicts and lists."""
    if not isinstance(value, dict | list):
        yield path
        return
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield from leaves(inner, (*path, key))


def with_another(spec, path):
    """The specification with one value changed a little."""
    spec = deepcopy(spec)
    *way, last = path
    inside = spec
    for key in way:
        inside = inside[key]
    old = inside[last]
    inside[last] = not old if isinstance(old, bool) else old + ("0" if isinstance(old, str) else 1e-9)
    return spec


def crash_on(suffix, monkeypatch):
    """A machine that dies just before a file of this kind gets its name."""
    replace = os.replace

    def dying(source, target):
        if str(target).endswith(suffix):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", dying)


def test_a_change_of_any_value_changes_the_key():
    specs = [SPEC, *(with_another(SPEC, path) for path in leaves(SPEC))]
    assert len({Measured.key(spec) for spec in specs}) == len(specs) == 11


def test_the_order_of_names_does_not_change_the_key():
    backwards = {k: dict(reversed(v.items())) if isinstance(v, dict) else v for k, v in reversed(SPEC.items())}
    assert list(backwards) != list(SPEC)
    assert Measured.key(backwards) == KEY


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_no_number_has_no_key(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        Measured.key(SPEC | {"seed": value})


def test_what_was_written_is_read(kept):
    record = kept.read(KEY)
    assert {k: record[k] for k in ("key", "status", "spec", "properties")} == {
        "key": KEY,
        "status": "measured",
        "spec": SPEC,
        "properties": PROPERTIES,
    }
    assert record["versions"] == measured.versions()


def test_a_row_has_who_was_in_what_came_out_and_how_long_it_took(kept):
    assert kept.rows([KEY])[0] == {
        "key": KEY,
        "procedure": "retrain",
        "seed": 1,
        "members": "0110",
        "inception_score": 0.1 + 0.2,
        "train_seconds": 1.5,
        "sample_seconds": 0.25,
    }


def test_arrays_come_back_bit_for_bit(kept):
    arrays = kept.arrays(KEY)
    assert set(arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


def test_what_was_never_measured_has_no_record(tmp_path):
    assert Measured(tmp_path / "nowhere").read(KEY) is None


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_record_that_is_not_what_was_written_is_refused(kept, spoil):
    path = kept.path(KEY)
    whole = path.read_bytes()
    path.write_bytes(spoil(whole))
    assert path.read_bytes() != whole
    with pytest.raises(Refused, match=f"^{path}: .*; run the notebook that makes it again$"):
        kept.read(KEY)


def three(folder):
    """A folder with a measured and a failed coalition; the keys of these and of one that there is not."""
    kept = Measured(folder)
    kept.write(SPEC, PROPERTIES, ARRAYS, 1.5, 0.25)
    kept.fail(SPEC | {"seed": 2}, "Traceback")
    return kept, [Measured.key(SPEC | {"seed": seed}) for seed in (1, 2, 3)]


def test_many_are_read_as_each_is(tmp_path):
    kept, keys = three(tmp_path)
    assert kept.records([*keys, *keys]) == {key: kept.read(key) for key in keys[:2]}
    assert [r["status"] for r in kept.records(keys).values()] == ["measured", "failed"]
    assert kept.rows([keys[0]] * 2) == [kept.rows([keys[0]])[0]] * 2


def test_a_spoilt_record_among_many_is_refused_by_name(tmp_path):
    kept = Measured(tmp_path)
    keys = [Measured.key(SPEC | {"seed": seed}) for seed in range(40)]
    for seed in range(40):
        kept.fail(SPEC | {"seed": seed}, "Traceback")
    kept.path(keys[7]).write_bytes(kept.path(keys[7]).read_bytes()[:-1])
    with pytest.raises(Refused, match=f"^{kept.path(keys[7])}: changed since it was written"):
        kept.records(keys)
    for where in (kept, Snapshot(tmp_path)):
        assert list(where.records(keys, damaged := {})) == [*keys[:7], *keys[8:]]
        assert list(damaged) == [keys[7]] and "changed since it was written" in damaged[keys[7]]


@pytest.mark.parametrize("key", [1, 2])
def test_a_row_of_what_was_not_measured_is_refused(tmp_path, key):
    kept, keys = three(tmp_path)
    with pytest.raises(Refused, match=f"{keys[key]}.json: gone since it was measured"):
        kept.rows([keys[0], keys[key]])


def test_a_snapshot_reads_each_record_once(tmp_path):
    kept, keys = three(tmp_path)
    snapshot, before = Snapshot(tmp_path), kept.records(keys)
    assert snapshot.records(keys) == before
    kept.write(SPEC | {"seed": 3}, PROPERTIES, ARRAYS, 1.5, 0.25)
    kept.path(keys[0]).unlink()
    assert snapshot.records(keys) == before and kept.read(keys[0]) is None


def test_arrays_that_are_lacking_are_seen_in_the_head_of_the_file(kept):
    record = kept.read(KEY)
    blob = kept.blob(record)
    assert not kept.lacks(record, ["images"]) and kept.lacks(record, ["images", "embedding"])
    blob.write_bytes(blob.read_bytes()[:-1])
    assert kept.lacks(record, ["images"])
    blob.unlink()
    assert kept.lacks(record, ["images"])


def test_what_lies_among_the_records_and_is_none_is_foreign(kept):
    ours = [f"ab/ab{'0' * 30}.json", f"ab/ab{'0' * 30}.{'1' * 16}.safetensors", "ab/.x.tmp", ".x.tmp"]
    theirs = [".DS_Store", f"ab/{'0' * 32}.json", f"ab/ab{'0' * 30}.safetensors", "ab/deep/x", f"ab{'0' * 30}.json"]
    for name in ours + theirs:
        path = kept.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (kept.folder / "empty").mkdir()
    assert kept.foreign() == sorted(kept.folder / name for name in theirs)


def test_a_record_under_another_name_is_refused(kept):
    other = Measured.key(SPEC | {"seed": 2})
    kept.path(other).parent.mkdir(exist_ok=True)
    kept.path(KEY).rename(kept.path(other))
    with pytest.raises(Refused, match=f"^{kept.path(other)}: changed since it was written; run the notebook"):
        kept.read(other)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [(lambda path: path.unlink(), "missing"), (lambda path: path.write_bytes(path.read_bytes()[:-1]), "changed")],
)
def test_arrays_that_are_missing_or_cut_short_are_refused(kept, spoil, why):
    blob = kept.blob(kept.read(KEY))
    spoil(blob)
    with pytest.raises(Refused, match=f"^{blob}: {why}.*; run the notebook that makes it again$"):
        kept.arrays(KEY)


def test_arrays_of_another_coalition_are_refused(kept):
    other = SPEC | {"seed": 2}
    kept.write(other, PROPERTIES, {"probabilities": ARRAYS["probabilities"] + 1}, 1.5, 0.25)
    kept.blob(kept.read(Measured.key(other))).replace(kept.blob(kept.read(KEY)))
    with pytest.raises(Refused, match="changed since it was written"):
        kept.arrays(KEY)


def test_failures_are_counted_and_a_success_takes_their_place(tmp_path):
    kept = Measured(tmp_path)
    for k in range(3):
        kept.fail(SPEC, f"Traceback {k}")
    record = kept.read(KEY)
    assert (record["status"], record["attempts"], record["error"]) == ("failed", 3, "Traceback 2")
    kept.write(SPEC, PROPERTIES, ARRAYS, 1.5, 0.25)
    assert kept.read(KEY)["status"] == "measured"


def test_what_was_measured_stays_so_when_measuring_it_again_fails(kept):
    before = kept.read(KEY)
    kept.fail(SPEC, "out of memory")
    assert kept.read(KEY) == before


def test_a_coalition_is_had_with_the_arrays_that_were_kept_only(kept):
    assert kept.has(KEY) and kept.ready(KEY) and kept.ready(KEY, ["images", "probabilities"])
    assert not kept.ready(KEY, ["images", "embedding"]) and not kept.ready("0" * 32)
    blob = kept.blob(kept.read(KEY))
    blob.write_bytes(b"")
    with pytest.warns(UserWarning, match=f"^{blob}: .*; counts as not measured$"):
        assert kept.has(KEY) and not kept.ready(KEY)


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_a_crash_before_the_record_leaves_none_and_the_next_time_it_is_whole(tmp_path, monkeypatch, suffix):
    kept = Measured(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        crash_on(suffix, patch)
        kept.write(SPEC, PROPERTIES, ARRAYS, 1.5, 0.25)
    assert kept.read(KEY) is None
    kept.write(SPEC, PROPERTIES, ARRAYS, 1.5, 0.25)
    np.testing.assert_array_equal(kept.arrays(KEY)["images"], ARRAYS["images"])


def test_a_crash_while_a_record_is_replaced_leaves_the_old_one(tmp_path, monkeypatch):
    kept = Measured(tmp_path)
    kept.fail(SPEC, "out of memory")
    crash_on(".json", monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        kept.write(SPEC, PROPERTIES, ARRAYS, 1.5, 0.25)
    assert kept.read(KEY)["error"] == "out of memory"


def test_an_unfinished_file_is_never_taken_for_a_record(tmp_path, monkeypatch):
    kept = Measured(tmp_path)
    crash_on(".json", monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        kept.write(SPEC, PROPERTIES, ARRAYS, 1.5, 0.25)
    left = [path for path in kept.path(KEY).parent.iterdir() if path.suffix == ".tmp"]
    assert [json.loads(path.read_bytes())["key"] for path in left] == [KEY]
    assert not list(tmp_path.rglob("*.json"))
    assert kept.read(KEY) is None


def test_members_are_one_character_each():
    assert measured.bits(np.array([True, False, True])) == "101"
