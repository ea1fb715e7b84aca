"""How far long work is, and how long it will still take.

In a notebook: one line, updated in place, whose last state stays in the saved file. In a log: one plain line at most
every ten seconds. Either way the state also goes to a small file, from which `cdlib run` and `cdlib status` tell it.
"""

import json
import sys
import time
from pathlib import Path

from cdlib.base import disk

LOG_EVERY_SECONDS = 10.0
SHOW_EVERY_SECONDS = 0.5


def duration(seconds: float) -> str:
    """Seconds as a person says them: `42 s`, `3 min 20 s`, `2 h 05 min`, and from a hundred hours on `5 d 03 h`."""
    seconds = int(round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    if seconds < 360_000:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 86400:,} d {seconds % 86400 // 3600:02d} h"


def line(label: str, done: int, total: int, seconds: float) -> str:
    """One line of progress; the time left is told once a part of the work is done."""
    left = ""
    if done >= total:
        left = f", took {duration(seconds)}"
    elif done:
        left = f", {duration(seconds * (total - done) / done)} left"
    return f"{label}: {done} of {total}{left}"


def _kernel_display():
    """A display handle that updates in place, when there is a notebook to show it in."""
    shell = sys.modules.get("IPython") and sys.modules["IPython"].get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    from IPython.display import display

    return display({"text/plain": ""}, raw=True, display_id=True)


class Progress:
    """Progress of `total` equal steps; call `step()` after each.

    file    where the state is kept for other processes, or None
    """

    def __init__(self, label: str, total: int, file: Path | None = None):
        self.label, self.total, self.file = label, total, file
        self.done, self.started, self.shown = 0, time.monotonic(), -1e9
        self.display = _kernel_display() if total else None
        if total:
            self._show()

    def step(self, n: int = 1, earlier_seconds: float = 0.0):
        """One more step is done; or `n`, in so many seconds before this began."""
        self.done += n
        self.started -= earlier_seconds
        every = SHOW_EVERY_SECONDS if self.display else LOG_EVERY_SECONDS
        if self.done >= self.total or time.monotonic() - self.shown >= every:
            self._show()

    def _show(self):
        self.shown = time.monotonic()
        text = line(self.label, self.done, self.total, self.shown - self.started)
        if self.display:
            self.display.update({"text/plain": text}, raw=True)
        else:
            sys.stderr.write(text + "\n")
        if self.file:
            state = {"label": self.label, "done": self.done, "total": self.total, "seconds": self.shown - self.started}
            disk.write_bytes(self.file, json.dumps(state).encode(), durable=False)
