"""Measured coalitions: one record each, whole or not at all.

    <folder>/<ab>/<key>.json                      the record, written last (module cache)
    <folder>/<ab>/<key>.<digest>.safetensors      its arrays, under a name that only these have

A key is the hash of everything that can change the value, so one folder never mixes two experiments. A changed or foreign file
is named and measured again. Writers of one key cannot mix: whichever record is the last, its own arrays are beside it.
"""

import contextlib
import os
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save

from cdlib.base.disk import write_bytes
from cdlib.base.errors import Refused
from cdlib.base.hashing import canonical, digest
from cdlib.base.versions import versions
from cdlib.store import cache
from cdlib.store.cache import Torn

READERS = 16  # records read at once: a folder on a network answers each slowly, and many together


def save_arrays(arrays: dict) -> bytes:
    """Arrays as safetensors, which writes their memory as it lies: in C order here, whatever their strides."""
    return save({name: np.asarray(array, order="C") for name, array in arrays.items()})


def bits(members) -> str:
    """A coalition as text: one character a contributor, `1` when it is in."""
    return "".join("1" if m else "0" for m in members)


def members(texts) -> np.ndarray:
    """Coalitions from their texts (`bits`): bool [M, N]."""
    return np.array([[c == "1" for c in text] for text in texts], bool)


class Measured:
    """Measured coalitions in a folder, each under the hash of everything that can change its value."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    @staticmethod
    def key(spec: dict) -> str:
        """The key of a specification (plain JSON values)."""
        return digest(canonical(spec))[:32]

    def path(self, key: str) -> Path:
        """Where the record of a key is."""
        return self.folder / key[:2] / f"{key}.json"

    def blob(self, record: dict) -> Path:
        """Where the arrays of a record are."""
        return self.folder / record["key"][:2] / f"{record['key']}.{record['arrays'][:16]}.safetensors"

    def read(self, key: str) -> dict | None:
        """The record of a key, or None when it was never measured. Raises Torn when it is not the one that was written."""
        try:
            record = cache.read(self.path(key))
        except FileNotFoundError:
            return None
        if record["key"] != key:
            raise Torn(self.path(key))
        return record

    def records(self, keys, damaged: dict | None = None) -> dict[str, dict]:
        """{key: record} of those there are, several files read at a time.

        damaged    {key: why} of records that are not what was written: those found are added, and left out; Torn without
        """

        def attempt(key: str):
            try:
                return self.read(key)
            except Torn as error:
                return error

        with ThreadPoolExecutor(READERS) as pool:
            keys = list(dict.fromkeys(keys))
            found = {key: record for key, record in zip(keys, pool.map(attempt, keys), strict=True) if record}
        torn = {key: found.pop(key) for key in keys if isinstance(found.get(key), Torn)}
        if torn and damaged is None:
            raise next(iter(torn.values()))
        (damaged if torn else {}).update({key: str(error) for key, error in torn.items()})
        return found

    def written(self, key: str) -> float:
        """When a record was written, by the clock of its disk: seconds since the epoch."""
        return os.stat(self.path(key)).st_mtime

    def has(self, key: str) -> bool:
        """Whether a coalition was measured and did not fail, by its record alone."""
        return self.records([key], damaged={}).get(key, {}).get("status") == "measured"

    def complete(self, key: str, arrays=()) -> bool:
        """Whether nothing of a coalition is to be measured: its record and all its arrays are whole, these among them.

        Raises Torn when what is kept is not what was written.
        """
        record = self.read(key)
        return record is not None and record["status"] == "measured" and set(arrays) <= self._arrays(record).keys()

    def ready(self, key: str, arrays=()) -> bool:
        """As `complete`; what is not what was written counts as not measured, and is named in a warning."""
        try:
            return self.complete(key, arrays)
        except Torn as error:
            warnings.warn(f"{error.what}; counts as not measured", stacklevel=2)
        return False

    def foreign(self) -> list[Path]:
        """What lies in the folder and is none of ours, by its name: it is never read."""
        ours, found = re.compile(r"([0-9a-f]{2})/\1[0-9a-f]{30}\.(json|[0-9a-f]{16}\.safetensors)|.*\.tmp"), []
        for folder, _, files in os.walk(self.folder):  # a path for each of many files would take longer than all else
            inside = Path(folder, "_").relative_to(self.folder).as_posix()[:-1]
            found += [Path(folder, name) for name in files if not ours.fullmatch(inside + name)]
        return sorted(found)

    def lacks(self, record: dict, arrays) -> bool:
        """Whether one of these arrays is not kept beside a record, by the head of its file alone."""
        try:
            with safe_open(self.blob(record), "np") as file:
                return not set(arrays) <= set(file.keys())
        except (FileNotFoundError, SafetensorError):
            return True

    def rows(self, keys) -> list[dict]:
        """Measured coalitions as rows of measured.csv, in this order. Raises Refused when one was not measured."""
        found = self.records(keys)
        return [self._row(key, found.get(key)) for key in keys]

    def _row(self, key: str, r: dict | None) -> dict:
        if r is None or r["status"] != "measured":
            raise Refused(f"{self.path(key)}: gone since it was measured; run the notebook that asks for it again")
        what = {"key": key} | {name: r["spec"][name] for name in ("procedure", "seed", "members")}
        return what | r["properties"] | {"train_seconds": r["train_seconds"], "sample_seconds": r["sample_seconds"]}

    def arrays(self, key: str) -> dict:
        """The arrays kept beside a record: per-image values, and a few images. Raises Torn when they are missing or changed."""
        return self._arrays(self.read(key))

    def _arrays(self, record: dict) -> dict:
        path, data = self.blob(record), b""
        with contextlib.suppress(FileNotFoundError):
            data = path.read_bytes()
        if digest(data) != record["arrays"]:
            raise Torn(path, *() if data else ("missing",))
        return load_arrays(data)

    def write(self, spec: dict, properties: dict, arrays: dict, train_seconds: float, sample_seconds: float):
        """Keep a measured coalition: arrays first, the record last."""
        data = save_arrays(arrays)
        record = {
            "key": self.key(spec),
            "status": "measured",
            "spec": spec,
            "properties": dict(sorted(properties.items())),
            "train_seconds": train_seconds,
            "sample_seconds": sample_seconds,
            "arrays": digest(data),
            "versions": versions(),
        }
        write_bytes(self.blob(record), data)
        cache.write(self.path(record["key"]), record)

    def fail(self, spec: dict, error: str):
        """Keep why a coalition could not be measured, and how often; one that only lacks an array stays measured."""
        key = self.key(spec)
        before = self.records([key], damaged={}).get(key, {})
        if before.get("status") != "measured":
            record = {"key": key, "status": "failed", "spec": spec, "attempts": before.get("attempts", 0) + 1, "error": error}
            cache.write(self.path(key), record)
