"""Tasks, and where they are done: what all executors share.

A task is small plain values: what all of them have in common is a file (`common`), and a task names it. An exception comes back
as its traceback's text; the other tasks go on.
"""

import json
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from joblib import cpu_count

from cdlib.base import disk, hashing, machine


@dataclass(frozen=True)
class Where:
    """What a task is done on.

    device     cpu: a core for each; cuda: a share of a GPU
    gpus       of a task: 0.5 when two share a GPU; above 1 whole, and with Ray only
    address    of the Ray cluster: host:port, auto, or empty for a Ray of this machine's own
    """

    device: str = "cpu"
    gpus: float = 1.0
    address: str = ""

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def per_gpu(self) -> int:
        """How many tasks share a GPU."""
        return int(1 / self.gpus + 1e-9)


HERE = Where()


def where(params: dict) -> Where:
    """What the tasks of a run are done on."""
    return Where(machine.device(params["device"]), params["gpus_per_coalition"], params["ray_address"])


def n_places(where: Where = HERE) -> int:
    """How many tasks this machine can do at once: on each GPU as many as share it, or one on each core that it may use."""
    if where.on_gpu:
        import torch

        return where.per_gpu * (torch.cuda.device_count() if where.device == "cuda" else 1)
    return cpu_count()  # affinity and a container's quota count


def n_workers(params: dict) -> int:
    """How many coalitions of a run this machine measures at once; of a Ray cluster nothing is known beforehand."""
    return 1 if params["executor"] == "serial" else params["workers"] or n_places(where(params))


def common(folder: Path, values: dict) -> str:
    """Write what tasks have in common (plain JSON values) as a small file of a run's folder, named by its own hash.

    Returns its path, which goes to the workers in its place. Writes runs/<name>/asked/<hash>.json.
    """
    data = hashing.canonical(values)
    path = Path(folder) / "asked" / f"{hashing.digest(data)[:32]}.json"
    if not path.is_file() or path.read_bytes() != data:  # never without need: a worker may be reading it
        disk.write_bytes(path, data)
    return str(path)


def read_common(path: str) -> tuple[Path, dict]:
    """The run's folder, and what `common` has written there, which a shared folder may show late."""
    disk.seen(Path(path).is_file)
    return Path(path).parents[1], json.loads(Path(path).read_bytes())


def attempt(function: Callable, task) -> str | None:
    """Do one task; the text of its traceback when it fails."""
    try:
        function(task)
    except Exception:
        return traceback.format_exc()
    return None
