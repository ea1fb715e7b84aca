"""Files that are written whole or not at all, on disks that fill up and folders that several machines share.

    .<name>.<place>-<pid>-<random>.tmp    a file that is being written, by that process; it then takes its name by a rename

`place` stands for the machine as it was started and its process ids, so a pid is only looked up where it means something.
"""

import contextlib
import errno
import os
import platform
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path

from cdlib.errors import Unwritable

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
ABANDONED_SECONDS = 3600.0  # no file takes that long to write
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
    return path.with_name(f".{path.name}.{_place()}-{os.getpid()}-{secrets.token_hex(4)}.tmp")


@cache
def _place() -> str:
    """This machine since it was started, and its process ids: in two places the same pid is two processes."""
    told = [platform.node()]
    with contextlib.suppress(OSError):
        told = [Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")]
    return sha256("".join(told).encode()).hexdigest()[:12]


def sweep(*folders: Path):
    """Remove what dead writers have left: of processes of this machine that have ended, and what is an hour old.

    Ages are by the folder's own clock (a file written there now), for the clocks of several machines differ.
    """
    for folder in folders:
        left = [p for p in folder.rglob(".*.tmp") if _writer(p)]
        now = _now(folder) if left else 0.0
        for path in left:
            place, pid = _writer(path)
            with contextlib.suppress(OSError):  # its writer has just finished, or another has removed it
                if (place == _place() and not _alive(pid)) or now - path.stat().st_mtime > ABANDONED_SECONDS:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _writer(path: Path) -> tuple[str, int] | None:
    """Place and pid of who writes a temporary file; None when it is none of ours."""
    found = re.fullmatch(r"\..+\.([0-9a-f]{12})-(\d+)-[0-9a-f]{8}\.tmp", path.name)
    return found and (found[1], int(found[2]))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True


def _now(folder: Path) -> float:
    """The time by the clock that stamps this folder's files; nothing is old where nothing can be written."""
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"now")
        file.flush()
        return os.fstat(file.fileno()).st_mtime
    return 0.0


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
