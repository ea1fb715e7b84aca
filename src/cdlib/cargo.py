"""A run's models as one zip file, and from it into a run that has none, or the same.

models/...    weights (safetensors), what stands beside them (json); not the inputs, which are made again
"""

import contextlib
import filecmp
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from cdlib import paths, store
from cdlib.errors import Refused

KINDS = (".json", ".safetensors")  # nothing that could run code
DERIVED = "inputs.safetensors"  # stages.inputs


def pack(run: store.Run, file: Path) -> int:
    """Write a run's models as one file, whole or not at all; returns their number of files.

    Raises Refused when the run has none.
    """
    found = [p for p in sorted(run.path("models").rglob("*")) if p.suffix in KINDS and p.name != DERIVED]
    if not found:
        raise Refused(f"{run.path('models')}: holds no models yet; `cdlib run` makes them")
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for path in found:
                archive.write(path, f"models/{path.relative_to(run.path('models')).as_posix()}")
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
    return len(found)


@contextlib.contextmanager
def unpacked(run: store.Run, file: Path) -> Iterator[store.Run]:
    """A stand-in for the run, which has the file's models and is gone afterwards.

    Raises Refused when the file is damaged or holds anything but models, and when the run has others.
    """
    paths.runs().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=paths.runs(), prefix=".import-") as folder:
        try:
            with zipfile.ZipFile(file) as archive:
                for name in archive.namelist():
                    place = PurePosixPath(name)
                    if place.parts[0] != "models" or ".." in place.parts or place.suffix not in KINDS:
                        raise Refused(f"{file}: {name}: is no model; `cdlib export --with-models` writes such files")
                archive.extractall(folder)
        except FileNotFoundError:
            raise Refused(f"{file}: no such file") from None
        except (zipfile.BadZipFile, OSError, IndexError) as error:
            raise Refused(f"{file}: damaged, or no zip file: {error}; export it again") from None
        for path in _files(Path(folder)):
            here = run.folder / path.relative_to(folder)
            if here.is_file() and not filecmp.cmp(here, path, shallow=False):
                raise Refused(
                    f"{here}: this run has another one than {file}; nothing was imported: "
                    "import into a run without models (another name in the parameter file)"
                )
        shadow = store.Run(run.notebook, run.params)
        shadow.folder = Path(folder)
        yield shadow


def install(shadow: store.Run, run: store.Run) -> int:
    """Move a stand-in's models into the run, those that it lacks; returns their number of files."""
    new = [p for p in _files(shadow.folder) if not (run.folder / p.relative_to(shadow.folder)).is_file()]
    for path in sorted(new, key=lambda p: p.suffix == ".json"):  # what tells that weights are whole comes last
        place = run.folder / path.relative_to(shadow.folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, place)
    return len(new)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
