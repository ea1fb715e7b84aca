"""Measured coalitions as one file, and from such a file into another run: the same bytes under the same keys.

    <file>.parquet    one row a coalition: key, procedure, seed, members, the properties, train_seconds, sample_seconds,
                      record (its JSON as written, with its seal), arrays (its safetensors as written)
    <file>.zip        what lies in a run's models/: the models that coalitions start from, and what properties need

A key is the hash of everything that can change the value, so tables of one experiment can be put together, and no others.
Files are written and read a part at a time: they may be larger than the memory.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cdlib import __version__, contributors, stages, store, utilities
from cdlib.errors import Refused
from cdlib.measured import Measured, canonical, digest, write_bytes

PART_BYTES, PART_ROWS = 16_000_000, 256  # of a row group: what is in memory at once
OF_MODELS = ("start", "model.frozen_digest", "properties")
BOTH = "export with --with-models where they were measured, and import both files into a run without models"
PLAIN = {"key": pa.string(), "procedure": pa.string(), "seed": pa.int64(), "members": pa.string()}
SECONDS = {"train_seconds": pa.float64(), "sample_seconds": pa.float64()}
BYTES = {"record": pa.string(), "arrays": pa.large_binary()}


@dataclass(frozen=True)
class Entry:
    """One measured coalition as it lies on the disk: its record, opened, and the bytes of both its files."""

    record: dict
    data: bytes
    arrays: bytes

    @property
    def key(self) -> str:
        return self.record["key"]

    def row(self) -> dict:
        """Its row in a file."""
        spec, seconds = self.record["spec"], {name: self.record[name] for name in SECONDS}
        named = {"key": self.key} | {name: spec[name] for name in ("procedure", "seed", "members")}
        return named | self.record["properties"] | seconds | {"record": self.data.decode(), "arrays": self.arrays}

    def __str__(self) -> str:
        spec = self.record["spec"]
        return f"{spec['procedure']} {spec['members']} seed {spec['seed']} ({self.key})"


@dataclass
class Merged:
    """What became of a file's coalitions: how many were imported or already there; what had another value here, in words."""

    imported: int = 0
    there: int = 0
    others: list[str] = field(default_factory=list)


def experiment(spec: dict) -> dict:
    """A specification without what tells one coalition of an experiment from another."""
    return {name: value for name, value in spec.items() if name not in ("members", "seed")}


def expected(run: store.Run, procedure: str, also: store.Run | None = None) -> dict:
    """What a run measures coalitions of a procedure as (utilities.context), in plain JSON.

    also    a stand-in whose models are taken, where it has them

    Raises Refused when the procedure is none of ours, or starts from a model that neither has.
    """
    if procedure not in utilities.START:
        raise Refused(f"procedure {procedure!r}: must be one of {', '.join(utilities.START)}")
    if also:
        with contextlib.suppress(Refused):
            return json.loads(canonical(utilities.context(also, procedure)))
    return json.loads(canonical(utilities.context(run, procedure)))


def differences(theirs, ours, path: str = "") -> Iterator[tuple[str, object, object]]:
    """Where two specifications differ: (path such as `sampler.n_images`, value there, value here); None where there is none."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for name in [*theirs, *(n for n in ours if n not in theirs)]:
            yield from differences(theirs.get(name), ours.get(name), f"{path}.{name}" if path else name)
    elif theirs != ours:
        yield path, theirs, ours


def kept(run: store.Run, every: bool = False) -> list[str]:
    """Keys of a run's measured coalitions that are of its parameters' experiment, sorted; or of `every` one in its folder.

    Raises Refused when a record is not whole.
    """
    asked = set()
    for procedure in utilities.START:
        with contextlib.suppress(Refused):  # its model is not made yet, so nothing was measured from it
            asked.add(canonical(expected(run, procedure)))
    keys = sorted(path.stem for path in run.measured.folder.glob("??/*.json"))
    records = ((key, run.measured.read(key)) for key in keys)
    return [k for k, r in records if r["status"] == "measured" and (every or canonical(experiment(r["spec"])) in asked)]


def entry(measured: Measured, key: str) -> Entry:
    """A measured coalition with its files. Raises Refused when they are not those that were written."""
    measured.arrays(key)
    path = measured.path(key)
    return Entry(measured.read(key), path.read_bytes(), path.with_suffix(".safetensors").read_bytes())


def write(run: store.Run, keys: list[str], file: Path, step=lambda: None):
    """Write measured coalitions as one file, whole or not at all; `step` is called after each.

    Raises Refused when a record or its arrays are not those that were written; then no file is left.
    """
    shared, names = {}, set()
    for record in map(run.measured.read, keys):
        shared.setdefault(record["spec"]["procedure"], experiment(record["spec"]))
        names |= record["properties"].keys()
    about = {"cdlib": __version__, "experiment": json.dumps(shared)}
    about |= {"contributors": json.dumps(contributors.labels(stages.dataset(run.params).contributors))}
    schema = pa.schema(PLAIN | {name: pa.float64() for name in sorted(names)} | SECONDS | BYTES, metadata=about)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    options = {"compression": "zstd", "write_page_checksum": True, "use_dictionary": ["procedure"]}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(temporary, schema, write_statistics=["key", "procedure", "seed"], **options) as writer:
            for part in _parts(entry(run.measured, key) for key in keys):
                writer.write_batch(pa.RecordBatch.from_pylist([e.row() for e in part], schema))
                for _ in part:
                    step()
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def _parts(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    part, size = [], 0
    for one in entries:
        part.append(one)
        size += len(one.data) + len(one.arrays)
        if len(part) == PART_ROWS or size >= PART_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def read(file: Path) -> Iterator[Entry]:
    """The measured coalitions of a file, each checked: its seal, its key, its arrays, and its columns against its record.

    Raises Refused, which names the coalition, when one is not what was exported.
    """
    with _opened(file) as parquet:
        for part in range(parquet.num_row_groups):
            for row in parquet.read_row_group(part).to_pylist():
                data, where = (row["record"] or "").encode(), f"{file}: {row['members']} seed {row['seed']} ({row['key']})"
                try:
                    one = Entry(Measured.opened(data, row["key"]), data, row["arrays"] or b"")
                    if one.record["status"] != "measured" or digest(one.arrays) != one.record["arrays"]:
                        raise ValueError("its arrays are not those that were measured")
                    if {k: v for k, v in row.items() if v is not None} != {k: v for k, v in one.row().items() if v is not None}:
                        raise ValueError("a column says other than its record")
                except (ValueError, KeyError) as error:
                    raise Refused(f"{where}: {error}; export it again") from None
                yield one


def count(file: Path) -> int:
    """How many coalitions a file holds. Raises Refused when it is no export."""
    with _opened(file) as parquet:
        return parquet.metadata.num_rows


@contextlib.contextmanager
def _opened(file: Path):
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
            if b"cdlib" not in (parquet.schema_arrow.metadata or {}):
                raise Refused(f"{file}: no export of measured coalitions; `cdlib export` writes them")
            yield parquet
    except FileNotFoundError:
        raise Refused(f"{file}: no such file") from None
    except (pa.ArrowException, OSError) as error:
        raise Refused(f"{file}: damaged, or no Parquet file: {str(error).splitlines()[0]}; export it again") from None


def check(run: store.Run, files: list[Path], every: bool = False, models: store.Run | None = None, step=lambda: None):
    """Read files through, so that a later import is refused by nothing: all rows whole, and of this run's experiment.

    every     let those of other experiments pass: they lie beside the run's own under other keys, and it does not use them
    models    a stand-in for the run that has the models to come (module cargo)

    Returns the device that all of them were measured on, where it alone is another than this run's; else None.
    Raises Refused before anything is written.
    """
    ours, seen, devices = {}, set(), set()
    for file in files:
        for one in read(file):
            theirs, procedure = experiment(one.record["spec"]), one.record["spec"]["procedure"]
            run.measured.read(one.key)  # what is at hand must be whole too
            step()
            if every or canonical(theirs) in seen:
                continue
            try:
                if procedure not in ours:
                    ours[procedure] = expected(run, procedure, models)
            except Refused as error:
                raise Refused(f"{file}: {one}: cannot tell whether this run measures the same: {error}; or {BOTH}") from None
            found = list(differences(theirs, ours[procedure]))
            if found and not ([path for path, *_ in found] == ["device"] and _measured_nothing(run)):
                raise Refused(_another(file, one, found))
            devices.add(theirs["device"])
            seen.add(canonical(theirs))
    if len(devices) > 1:
        raise Refused(f"{', '.join(map(str, files))}: measured on several devices, {', '.join(sorted(devices))}: import one's")
    return next(iter(devices - {utilities.measured_on(run)}), None)


def _measured_nothing(run: store.Run) -> bool:
    records = (run.measured.read(path.stem) for path in run.measured.folder.glob("??/*.json"))
    return not any(r["status"] == "measured" and "device" in r["spec"] for r in records)  # those of other origins have none


def _another(file: Path, one: Entry, found: list) -> str:
    """Why a file is refused: the first parts that differ, and what to do about it."""
    told = [f"  {path}: {json.dumps(there)} there, {json.dumps(here)} here" for path, there, here in found[:5]]
    more = [f"  and {len(found) - 5} more"] if len(found) > 5 else []
    hints = []
    if any(path.startswith(OF_MODELS) for path, *_ in found):
        hints.append(f"{', '.join(OF_MODELS)} tell of a run's own models, and models trained elsewhere are others: {BOTH}")
    if [path for path, *_ in found] == ["device"]:
        hints.append("a run that has measured nothing itself takes over another device: import into one with another name")
    return "\n".join([f"{file}: another experiment than this run's, by {one}; nothing was imported:", *told, *more, *hints])


def merge(run: store.Run, file: Path, replace: bool = False, device: str | None = None, step=lambda: None) -> Merged:
    """Add a checked file's coalitions to a run's, byte for byte. What is at hand is kept.

    replace    where the value at hand is another, take the file's
    device     the run has measured nothing itself: from now on its coalitions are those measured on this device
    """
    merged = Merged()
    if device:
        write_bytes(run.path("measured/device.txt"), device.encode())
    for one in read(file):
        at_hand = run.measured.read(one.key)
        if at_hand is None or at_hand["status"] != "measured":
            new = True
        elif new := at_hand["properties"] != one.record["properties"]:
            theirs, ours = one.record["properties"], at_hand["properties"]
            merged.others.append(f"{one}: {theirs} in {file.name}, {ours} here, {'replaced' if replace else 'kept'}")
            new = replace
        else:
            new = not _has_arrays(run.measured, one.key)
        if new:
            put(run.measured, one)
        merged.imported += new
        merged.there += not new
        step()
    return merged


def _has_arrays(measured: Measured, key: str) -> bool:
    with contextlib.suppress(Refused):
        return measured.arrays(key) is not None
    return False


def put(measured: Measured, one: Entry):
    """Write a coalition's files as they were, the record last."""
    path = measured.path(one.key)
    write_bytes(path.with_suffix(".safetensors"), one.arrays)
    write_bytes(path, one.data)
