"""What can change a number and is no parameter: Python and the packages."""

import contextlib
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("cdlib", "torch", "diffusers", "peft", "bitsandbytes", "torch-pruning", "numpy", "scipy", "scikit-learn", "pandas")


@cache
def versions() -> dict:
    """Versions of Python and of the packages that can change a number, of those that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
