"""Files that are written whole or not at all, on disks that fill up and folders that several machines share.

    .<name>.<random>.tmp    a file that is being written; it then takes its name by a rename

A killed writer leaves such a file, which nothing reads.
"""

import contextlib
import errno
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cdlib.base.errors import Unwritable

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
SEEN_SECONDS = 60.0  # a shared folder shows what another machine has written by then


def write_bytes(path: Path, data: bytes, durable: bool = True):
    """Write a file whole or not at all; `durable` waits until it is on the disk. Raises Unwritable when it cannot be written."""
    with unwritable(path.parent, len(data)):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = beside(path)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def beside(path: Path) -> Path:
    """A temporary name for a file or a folder that will take this name: nobody else has it."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


@contextlib.contextmanager
def unwritable(folder: Path, n_bytes: int = 0) -> Iterator[None]:
    """Tells a disk that is full, or a folder that cannot be written, in one line. Raises Unwritable in their place."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL + FORBIDDEN:
            raise
        needed = f"{n_bytes / 1e6:,.1f} MB to be written, " if n_bytes else ""
        space = f" ({needed}{_free(folder)})" if error.errno in FULL else ""
        raise Unwritable(f"{error.filename or folder}: {error.strerror}{space}; {remedy(error.errno)}") from error


def _free(folder: Path) -> str:
    with contextlib.suppress(OSError):
        return f"{shutil.disk_usage(_nearest(folder)).free / 1e6:,.1f} MB free"
    return "free space not known"


def remedy(number: int) -> str:
    """What to do about an error of these (errno)."""
    what = "make space" if number in FULL else "make it writable"
    return f"{what} and run again: nothing that was measured is lost"


def check(folder: Path):
    """Write a little into a folder, or the nearest one above it that is there. Raises Unwritable; leaves nothing."""
    with unwritable(folder, 4096), tempfile.TemporaryFile(dir=_nearest(folder)) as file:
        file.write(bytes(4096))
        file.flush()
        os.fsync(file.fileno())


def _nearest(folder: Path) -> Path:
    return next(f for f in (folder, *folder.parents) if f.is_dir())


def stop_if_unwritable(error: str):
    """Raise Unwritable when a worker's error (a traceback's text) ends in one: trying again would not help."""
    last = error.strip().splitlines()[-1]
    name = f"{Unwritable.__module__}.{Unwritable.__name__}: "
    if last.startswith(name):
        raise Unwritable(last.removeprefix(name))


def seen(look: Callable[[], bool], seconds: float = SEEN_SECONDS) -> bool:
    """Whether something can be seen, looking again and again for so long: a shared folder may show it late."""
    end, pause = time.monotonic() + seconds, 0.05
    while not look():
        if time.monotonic() + pause > end:
            return False
        time.sleep(pause)
        pause = min(2 * pause, 5.0)
    return True
