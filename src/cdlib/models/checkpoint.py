"""Checkpoints of long trainings: a training that was stopped ends in the same weights as one that was not.

    models/unfinished/<name>.pt                  all that the remaining steps depend on (torch.save); removed with the end
    models/coalitions/<key>.safetensors, .json   the trained model of a coalition, where keep_models is `last` or `all`
    models/coalitions/<key>/<step>.safetensors   the model at each checkpoint, where it is `all`
    models/full/<step>.safetensors               the same of the full model; of the sparse one in models/sparse/

A checkpoint is renamed when it is whole, and holds the hash of the training's input. A checkpoint whose input hash differs, or
that is damaged, is ignored. So two workers at the same training do no harm: each writes a whole state of that training.
"""

import io
import pickle
import shutil
import time
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from cdlib.base import disk, hashing
from cdlib.base.errors import NotFinite, Unwritable
from cdlib.models import families
from cdlib.store import measured


@dataclass
class Training:
    """What changes while a model is trained.

    average     EMAModel, or None
    draw        generator of all random numbers
    order       int [n]: rows in the order of the pass that is under way; None when they are drawn with replacement
    losses      of the steps so far, scalars
    """

    model: object
    optimizer: object
    schedule: object
    average: object
    draw: object
    order: object = None
    losses: list = field(default_factory=list)

    @property
    def step(self) -> int:
        """How many steps are done."""
        return len(self.losses)

    def state(self) -> dict:
        """Tensors and plain values, nested."""
        import torch

        parts = {name: getattr(self, name).state_dict() for name in ("optimizer", "schedule")}
        parts |= {"average": self.average and self.average.state_dict(), "draw": self.draw.get_state()}
        return parts | {"model": self.model.state(), "order": self.order, "losses": torch.stack(self.losses)}

    def load(self, state: dict):
        """Take a state that an equal training was in."""
        device = self.model.device
        self.model.load_state(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.average:
            self.average.load_state_dict(state["average"])
            self.average.to(device)
        self.draw.set_state(state["draw"])
        self.order = None if state["order"] is None else state["order"].to(device)
        self.losses = list(state["losses"].to(device))


class Checkpoint:
    """Where a training is kept while it lasts, and how often.

    minutes    between two writings; 0: nothing is written, nor read
    models     folder of the models at each writing; None: they are not kept
    seconds    of the sittings before this one, up to the state that it goes on from

    As a context it is removed at the end, when that was reached or can never be (NotFinite: a second try would end alike).
    """

    def __init__(self, path: Path, minutes: float, models: Path | None = None):
        self.path, self.minutes, self.models, self.seconds = path, minutes, models, 0.0

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, kind, error, trace):
        if kind is None or issubclass(kind, NotFinite):
            self.path.unlink(missing_ok=True)

    def begin(self, training: Training, about: dict):
        """Bring a training that has not begun to where an equal one was stopped, if one was.

        about    tensors and plain values: all that the training comes from, beside its start weights and average
        """
        self.began = self.written = time.monotonic()
        if not self.minutes:
            return
        start = {"weights": training.model.state(), "average": training.average and training.average.state_dict()}
        same = {"model": training.model.config, "device": training.draw.device.type, "versions": measured.versions()}
        self.identity = hashing.digest(hashing.canonical(_plain(about | start | same)))
        found = self._read()
        if found:
            self.seconds, state = found
            training.load(state)
        elif self.models:
            shutil.rmtree(self.models, ignore_errors=True)  # of another training

    def due(self) -> bool:
        """Whether it is time to write."""
        return self.minutes > 0 and time.monotonic() - self.written >= 60 * self.minutes

    def write(self, training: Training):
        """Keep the state of a training that has begun. Where the disk refuses, it goes on with a warning."""
        import torch

        seconds, data = self.seconds + time.monotonic() - self.began, io.BytesIO()
        torch.save({"identity": self.identity, "seconds": seconds, "state": training.state()}, data)
        try:
            with data.getbuffer() as view:  # released before the buffer goes, also when the disk refuses
                disk.write_bytes(self.path, view)
            if self.models:
                self._keep(training)
        except (OSError, Unwritable) as error:
            warnings.warn(f"{self.path}: step {training.step} is not kept: {error}", stacklevel=2)
        self.written = time.monotonic()

    def _keep(self, training: Training):
        """Save the model of this step as it would be evaluated."""
        parameters, average = training.model.parameters(), training.average
        if average:
            average.store(parameters)
            average.copy_to(parameters)
        try:
            families.save(training.model, self.models / f"{training.step}.safetensors", {"step": training.step})
        finally:
            if average:
                average.restore(parameters)

    def _read(self) -> tuple[float, dict] | None:
        """The seconds and the state that were written, when the file is whole and of this very training."""
        import torch

        try:
            with zipfile.ZipFile(self.path) as file:
                whole = file.testzip() is None  # torch.load compares no checksums
            found = torch.load(self.path, map_location="cpu", weights_only=True) if whole else {}
        except (OSError, RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile):
            return None
        return (found["seconds"], found["state"]) if found.get("identity") == self.identity else None


def of(folder: Path, params: dict, name: str) -> Checkpoint:
    """The checkpoint of a model of a run: `full`, `sparse` or `coalitions/<key>`."""
    models = folder / "models" / name if params["keep_models"] == "all" else None
    return Checkpoint(_path(folder, Path(name).name), params["checkpoint_minutes"], models)


def _path(folder: Path, name: str) -> Path:
    return folder / "models" / "unfinished" / f"{name}.pt"


def forget(folder: Path, names):
    """Remove the checkpoints of what is made or measured by now: names of models, keys of coalitions."""
    for path in _path(folder, "any").parent.glob("*.pt"):
        if path.stem in names:
            path.unlink(missing_ok=True)


def _plain(value):
    """The JSON values of nested tensors and plain values: of a tensor its type, shape and digest."""
    import torch

    if isinstance(value, torch.Tensor):
        data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return [str(value.dtype), list(value.shape), hashing.digest(data)]
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value
