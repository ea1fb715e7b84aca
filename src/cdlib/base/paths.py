"""Where things live: the same from every working directory inside the repository.

papermill runs a notebook in its caller's folder, JupyterLab in the notebook's own; both must find the same run.
"""

import errno
import os
from pathlib import Path

from cdlib.base.errors import Refused

# What systems leave beside people's files; macOS ends the name of a folder's icon in a carriage return.
LITTER = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "picasa.ini", "lost+found", "__macosx", "@eadir", "#recycle")
LITTER += ("$recycle.bin", "system volume information")


def root() -> Path:
    """The repository: the nearest folder above the working directory, or above this file, that holds params/ and notebooks/.

    Raises FileNotFoundError when there is none; the environment variable CDLIB_ROOT names one outright.
    """
    if os.environ.get("CDLIB_ROOT"):
        return Path(os.environ["CDLIB_ROOT"]).resolve()
    for start in (Path.cwd().resolve(), Path(__file__).resolve()):
        for folder in (start, *start.parents):
            if (folder / "params" / "digits.yaml").is_file() and (folder / "notebooks").is_dir():
                return folder
    raise FileNotFoundError("no folder with params/ and notebooks/ above here: work inside the repository, or set CDLIB_ROOT")


def params(name: str = "digits") -> Path:
    """The parameter file of a run."""
    return root() / "params" / f"{name}.yaml"


def notebook(name: str) -> Path:
    """A notebook's source, such as `04_shapley`."""
    return root() / "notebooks" / f"{name}.ipynb"


def notebooks() -> list[Path]:
    """The numbered notebooks, in their order."""
    return sorted((root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def runs() -> Path:
    """The folder of all runs; CDLIB_RUNS moves it (a shared disk, a test's scratch folder)."""
    return Path(os.environ.get("CDLIB_RUNS", root() / "runs")).resolve()


def figures(name: str) -> Path:
    """Tables and figures of a run; CDLIB_FIGURES moves the folder of all of them."""
    return Path(os.environ.get("CDLIB_FIGURES", root() / "figures")).resolve() / name


def given(path: str) -> Path:
    """A path as a parameter gives it: absolute, from home (~), or from the repository's root."""
    return root() / os.path.expanduser(path)


def below(folder: Path) -> list[str]:
    """Files below a folder, relative to it, with slashes, sorted; hidden ones and LITTER are passed over.

    Folders that are links are followed. Raises Refused when a folder cannot be read, and for a loop of links.
    """
    found, folders = [], [(folder, set())]
    try:
        while folders:
            here, above = folders.pop()
            above = above | {os.path.realpath(here)}
            for entry in list(os.scandir(here)):
                if entry.name[0] == "." or entry.name.lower() in LITTER:
                    continue
                if not entry.is_dir():
                    found.append(Path(entry.path).relative_to(folder).as_posix())
                elif (target := os.path.realpath(entry)) in above:
                    raise OSError(errno.ELOOP, f"a loop of links, back to {target}", entry.path)
                else:
                    folders.append((entry.path, above))
    except OSError as error:
        why = "a loop of links" if error.errno == errno.ELOOP and "loop" not in error.strerror else error.strerror
        todo = "remove the link" if error.errno == errno.ELOOP else "allow it, or move it away"
        raise Refused(f"{error.filename}: cannot be read: {why}: {todo}") from None
    return sorted(found)


def stamp(path: Path) -> list:
    """Name, size in bytes and time of change in ns of a file, or of each file below a folder; nothing when there is none."""
    files = [path / name for name in below(path)] if path.is_dir() else [path]
    stats = {file: file.stat() for file in files if file.is_file()}
    return [[str(file), stat.st_size, stat.st_mtime_ns] for file, stat in stats.items()]
