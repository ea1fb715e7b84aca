"""Measured coalitions: one record each, whole or not at all.

    <folder>/<ab>/<key>.json            the record, written last, beside its <key>.safetensors

A key is the hash of everything that can change the value, so one folder never mixes two experiments. A file is written
under another name, flushed to disk, and renamed; a seal in each record tells a changed one.
"""

import contextlib
import hashlib
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save

from cdlib.errors import Refused

PACKAGES = ("cdlib", "torch", "diffusers", "peft", "bitsandbytes", "torch-pruning", "numpy", "scipy", "scikit-learn", "pandas")


def write_bytes(path: Path, data: bytes, durable: bool = True):
    """Write a file whole or not at all; `durable` waits until it is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(temporary, path)


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
        path = self.path(key)
        try:
            record = json.loads(path.read_bytes())
            seal = record.pop("seal")
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, AttributeError, TypeError):
            raise Refused(
                f"{path}: not a whole record; delete this file and run again: only this coalition is measured anew"
            ) from None
        if digest(canonical(record)) != seal or record["key"] != key or self.key(record["spec"]) != key:
            raise Refused(
                f"{path}: changed since it was written; delete this file and run again: only this coalition is measured anew"
            )
        return record

    def has(self, key: str, arrays=()) -> bool:
        """Whether a coalition was measured and did not fail, and these arrays were kept."""
        record = self.read(key)
        if record is None or record["status"] != "measured":
            return False
        if arrays:
            with contextlib.suppress(Refused):
                return set(arrays) <= self.arrays(key).keys()
        return not arrays

    def row(self, key: str) -> dict:
        """A measured coalition as a row of measured.csv. Raises Refused when it was not measured."""
        r = self.read(key)
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
            raise Refused(f"{path}: missing or changed; delete {self.path(key).name} beside it and run again") from error

    def write(self, spec: dict, properties: dict, arrays: dict, train_seconds: float, sample_seconds: float):
        """Keep a measured coalition: arrays first, the record last."""
        key, data = self.key(spec), save_arrays(arrays)
        write_bytes(self.path(key).with_suffix(".safetensors"), data)
        self._seal(
            {
                "key": key,
                "status": "measured",
                "spec": spec,
                "properties": properties,
                "train_seconds": train_seconds,
                "sample_seconds": sample_seconds,
                "arrays": digest(data),
                "versions": versions(),
            }
        )

    def fail(self, spec: dict, error: str) -> int:
        """Keep why a coalition could not be measured; returns how often it has failed.

        One that was measured before, and now only lacks an array, stays measured.
        """
        key = self.key(spec)
        attempts = (self.read(key) or {}).get("attempts", 0) + 1
        if self.has(key):
            return attempts
        self._seal({"key": key, "status": "failed", "spec": spec, "attempts": attempts, "error": error})
        return attempts

    def _seal(self, record: dict):
        write_bytes(self.path(record["key"]), canonical({**record, "seal": digest(canonical(record))}))


def versions() -> dict:
    """Versions of Python and of the packages that can change a number, of those that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
