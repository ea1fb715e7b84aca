"""Where things live: the same from every working directory inside the repository.

papermill runs a notebook in its caller's folder, JupyterLab in the notebook's own; both must find the same run.
"""

import os
from pathlib import Path


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
