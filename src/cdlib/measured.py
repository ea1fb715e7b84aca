"""Measured coalitions: one record each, whole or not at all.

    <folder>/<ab>/<key>.json            the record, written last, beside its <key>.safetensors

A key is the hash of everything that can change the value, so one folder never mixes two experiments. A file is written
under another name, flushed to disk, and renamed (module writing); a seal in each record tells a changed one, and the record's
digest of the arrays a changed or foreign blob. Who measures sets these aside, in <folder>/aside/, and measures again.
"""

import contextlib
import hashlib
import json
import os
import random
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save

from cdlib import writing
from cdlib.errors import Refused
from cdlib.versions import versions
from cdlib.writing import write_bytes

MAX_WRITES = 10
MOMENT_SECONDS = 0.2
READERS = 16  # records read at once: a folder on a network answers each slowly, and many together


def save_arrays(arrays: dict) -> bytes:
    """Arrays as safetensors, which writes their memory as it lies: in C order here, whatever their strides."""
    return save({name: np.asarray(array, order="C") for name, array in arrays.items()})


def canonical(value) -> bytes:
    """JSON bytes that are equal exactly when the values are."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest(data: bytes) -> str:
    """sha256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


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
        return self.folder / key[:2] / f"{key}.json"

    def read(self, key: str) -> dict | None:
        """The record of a key, or None when it was never measured.

        Raises Refused when the file is not the whole record that was written.
        """
        return self._whole(key, self._bytes(key))

    def records(self, keys, damaged: dict | None = None) -> dict[str, dict]:
        """{key: record} of those there are, several files read at a time.

        damaged    {key: why} of records that are not what was written: those found are added, and left out; Refused without
        """
        keys, found = list(dict.fromkeys(keys)), {}
        n = min(READERS, len(keys) // READERS + 1)
        with ThreadPoolExecutor(n) as pool:
            shares = pool.map(lambda i: [(key, self._bytes(key)) for key in keys[i::n]], range(n))
            data = {key: read for share in shares for key, read in share}
        for key in keys:
            try:
                found[key] = self._whole(key, data[key])
            except Refused as error:
                if damaged is None:
                    raise
                damaged[key] = str(error)
        return {key: record for key, record in found.items() if record}

    def written(self, key: str) -> float:
        """When a record was written, by the clock of its disk: seconds since the epoch."""
        return os.stat(self._file(key)).st_mtime

    def _file(self, key: str) -> str:
        """`path` as text, which is made ten times sooner."""
        return f"{self.folder}/{key[:2]}/{key}.json"

    def _bytes(self, key: str) -> bytes | None:
        try:
            with open(self._file(key), "rb", buffering=0) as file:
                return file.readall()
        except FileNotFoundError:
            return None

    def _whole(self, key: str, data: bytes | None) -> dict | None:
        """The record that these bytes are; None of None. Raises Refused."""
        try:
            return data if data is None else self.opened(data, key)
        except ValueError as error:
            raise Refused(f"{self.path(key)}: {error}; run again: only this coalition is measured anew") from None

    @classmethod
    def opened(cls, data: bytes, key: str) -> dict:
        """The record of a key from its bytes. Raises ValueError when they are not the whole record that was written."""
        try:
            record = json.loads(data)
            seal = record.pop("seal")
            as_sealed = _as_sealed(data, seal, key) or (digest(canonical(record)) == seal and key == cls.key(record["spec"]))
            intact = as_sealed and record["key"] == key
        except (ValueError, KeyError, AttributeError, TypeError):
            raise ValueError("not a whole record") from None
        if not intact:
            raise ValueError("changed since it was written")
        return record

    def whole(self, key: str) -> dict | None:
        """As `read`; None for a record that is not the one that was written, too."""
        with contextlib.suppress(Refused):
            return self.read(key)
        return None

    def has(self, key: str, arrays=()) -> bool:
        """Whether a coalition was measured and did not fail, and these arrays were kept."""
        record = self.whole(key)
        if record is None or record["status"] != "measured":
            return False
        if arrays:
            with contextlib.suppress(Refused):
                return set(arrays) <= self.arrays(key).keys()
        return not arrays

    def complete(self, key: str, arrays=()) -> bool:
        """Whether nothing of a coalition is to be measured: its record and all its arrays are whole, these among them.

        Raises Refused when what is kept is not what was written.
        """
        record = self.read(key)
        return record is not None and record["status"] == "measured" and set(arrays) <= self.arrays(key).keys()

    def intact(self, key: str, arrays=()) -> bool:
        """As `complete`; False where what is kept is not what was written, and it stays where it is."""
        with contextlib.suppress(Refused):
            return self.complete(key, arrays)
        return False

    def ready(self, key: str, arrays=()) -> bool:
        """As `complete`; what is not what was written is set aside instead, with a warning that names it.

        Arrays that are missing or changed leave their record, whose value still holds.
        """

        def look() -> bool:
            try:
                found.append(self.complete(key, arrays))
            except Refused as error:
                damage.append(str(error))
            return bool(found)

        found, damage = [], []
        if writing.seen(look, MOMENT_SECONDS):  # another may just be writing it
            return found[0]
        path, _, why = damage[-1].partition(": ")
        blob = self.path(key).with_suffix(".safetensors")
        writing.set_aside(self.folder / "aside", why.partition(";")[0], *dict.fromkeys([Path(path), blob]))
        return False

    def appears(self, key: str, seconds: float) -> bool:
        """Whether a coalition that a worker has measured can be seen here, looking again for so many seconds."""
        return writing.seen(lambda: self.has(key), seconds)

    def foreign(self) -> list[Path]:
        """What lies in the folder and is none of ours, by its name: it is never read."""
        ours, found = re.compile(r"([0-9a-f]{2})/\1[0-9a-f]{30}\.(json|safetensors)|.*\.tmp|aside/.*"), []
        for folder, _, files in os.walk(self.folder):  # a path for each of many files would take longer than all else
            inside = Path(folder, "_").relative_to(self.folder).as_posix()[:-1]
            found += [Path(folder, name) for name in files if not ours.fullmatch(inside + name)]
        return sorted(found)

    def lacks(self, key: str, arrays) -> bool:
        """Whether one of these arrays is not kept beside a record, by the head of its file alone.

        `has` reads all of the file, and so finds a changed one as well; of many coalitions that takes long.
        """
        try:
            with safe_open(self.path(key).with_suffix(".safetensors"), "np") as file:
                return not set(arrays) <= set(file.keys())
        except (FileNotFoundError, SafetensorError):
            return True

    def row(self, key: str) -> dict:
        """A measured coalition as a row of measured.csv. Raises Refused when it was not measured."""
        return self.rows([key])[0]

    def rows(self, keys) -> list[dict]:
        """Measured coalitions as rows of measured.csv, in this order. Raises Refused when one was not measured."""
        found = self.records(keys)
        return [self._row(key, found.get(key)) for key in keys]

    def _row(self, key: str, r: dict | None) -> dict:
        if r is None or r["status"] != "measured":
            raise Refused(f"{self.path(key)}: gone since it was measured; run the notebook that asks for it again")
        what = {
            "key": key,
            "procedure": r["spec"]["procedure"],
            "seed": r["spec"]["seed"],
            "members": r["spec"]["members"],
        }
        return what | r["properties"] | {"train_seconds": r["train_seconds"], "sample_seconds": r["sample_seconds"]}

    def arrays(self, key: str) -> dict:
        """The arrays kept beside a record: per-image values, and a few images.

        Raises Refused when they are missing or not those that were written.
        """
        path, expected = self.path(key).with_suffix(".safetensors"), self.read(key)["arrays"]
        try:
            data = path.read_bytes()
            if digest(data) != expected:
                raise SafetensorError("other bytes")
            return load_arrays(data)
        except (FileNotFoundError, SafetensorError) as error:
            why = "missing or changed; run again: only this coalition is measured anew"
            raise Refused(f"{path}: {why}") from error

    def write(self, spec: dict, properties: dict, arrays: dict, train_seconds: float, sample_seconds: float):
        """Keep a measured coalition: arrays first, the record last.

        Two writers may have come in between each other, and left the arrays of one beside the record of the other. The last of
        them to write sees it, and writes both again: what is left is one whole pair.
        """
        key, data = self.key(spec), save_arrays(arrays)
        record = {
            "key": key,
            "status": "measured",
            "spec": spec,
            "properties": properties,
            "train_seconds": train_seconds,
            "sample_seconds": sample_seconds,
            "arrays": digest(data),
            "versions": versions(),
        }
        for attempt in range(MAX_WRITES):
            write_bytes(self.path(key).with_suffix(".safetensors"), data)
            self._seal(record)
            for pause in (0.0, random.uniform(0, MOMENT_SECONDS) * attempt):  # whoever pauses lets another finish
                time.sleep(pause)
                with contextlib.suppress(Refused):
                    if self.complete(key):
                        return
        raise RuntimeError(f"{self.path(key)}: written {MAX_WRITES} times, and not read back")

    def fail(self, spec: dict, error: str) -> int:
        """Keep why a coalition could not be measured; returns how often it has failed.

        One that was measured before, and now only lacks an array, stays measured.
        """
        key = self.key(spec)
        attempts = (self.whole(key) or {}).get("attempts", 0) + 1
        if self.has(key):
            return attempts
        self._seal({"key": key, "status": "failed", "spec": spec, "attempts": attempts, "error": error})
        return attempts

    def _seal(self, record: dict):
        write_bytes(self.path(record["key"]), canonical({**record, "seal": digest(canonical(record))}))


def _as_sealed(data: bytes, seal: str, key: str) -> bool:
    """Whether these are, byte for byte, what `_seal` writes: what is left without the seal has that hash, its spec this key.

    This writes nothing anew, which is most of the time that reading takes. Other bytes may still hold the same record.
    """
    before, _, after = data.partition(f',"seal":"{seal}"'.encode())
    spec = after.removeprefix(b',"spec":').rpartition(b',"status":"')[0]
    return digest(before + after) == seal and digest(spec)[:32] == key
