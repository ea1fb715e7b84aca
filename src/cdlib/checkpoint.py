"""Long trainings that go on where they were stopped, and end in the same weights as if they had not been.

    models/unfinished/<name>.safetensors         all that the steps which are left depend on; gone when the result is kept
    models/coalitions/<key>.safetensors, .json   the trained model of a coalition, where keep_models is `last` or `all`
    models/coalitions/<key>/<step>.safetensors   the model at each checkpoint, where it is `all`
    models/full/<step>.safetensors               the same of the full model; of the sparse one in models/sparse/

A checkpoint is one file, renamed when it is whole. It holds the hash of what the training comes from, and one of something
else is never gone on from. So two workers at the same training cannot harm each other: whichever wrote last, what stands
there is a whole state of that one training, and an earlier step costs time only.
"""

import hashlib
import json
import shutil
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from cdlib import families, measured
from cdlib.errors import NotFinite, Unwritable


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
        same = {
            "model": measured.canonical(training.model.config).decode(),
            "device": training.draw.device.type,
            "versions": measured.versions(),
        }
        self.identity = _hash(*_packed(about | start | same))
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
        from safetensors.torch import save

        plain, tensors = _packed(training.state())
        words = {
            "identity": self.identity,
            "seconds": str(self.seconds + time.monotonic() - self.began),
            "state": json.dumps(plain),
            "hash": _hash(plain, tensors),
        }
        try:
            measured.write_bytes(self.path, save(tensors, words))
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
        """The seconds and the state that were written, when they are whole and of this very training."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, "pt") as file:
                words = file.metadata()
                if words["identity"] != self.identity:
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            plain = json.loads(words["state"])
            if _hash(plain, tensors) == words["hash"]:
                return float(words["seconds"]), _unpacked(plain, tensors)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            pass
        return None


def of(folder: Path, params: dict, name: str) -> Checkpoint:
    """The checkpoint of a model of a run: `full`, `sparse` or `coalitions/<key>`."""
    models = folder / "models" / name if params["keep_models"] == "all" else None
    return Checkpoint(_path(folder, Path(name).name), params["checkpoint_minutes"], models)


def _path(folder: Path, name: str) -> Path:
    return folder / "models" / "unfinished" / f"{name}.safetensors"


def forget(folder: Path, names):
    """Remove the checkpoints of what is made or measured by now: names of models, keys of coalitions."""
    for path in _path(folder, "any").parent.glob("*.safetensors"):
        if path.stem in names:
            path.unlink(missing_ok=True)


def _packed(value) -> tuple:
    """Nested tensors and plain values as JSON values, and the tensors by name, on the CPU, none in the memory of another."""
    tensors, seen = {}, set()
    plain = _plain(value, "", tensors)
    for name, tensor in tensors.items():
        where = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if where in seen else tensor  # 8-bit Adam has its tables once for all weights
        seen.add(where)
    return plain, tensors


def _plain(value, name: str, tensors: dict):
    """The JSON values; a tensor goes to `tensors`, and its name and strides stay.

    The strides, since optimisers need the memory of their tensors in the order of the weights'.
    """
    import torch

    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().cpu().contiguous()
        return {"tensor": name, "stride": value.stride()}
    if isinstance(value, dict):  # whose keys may be numbers
        return {"dict": [[k, _plain(v, f"{name}.{k}".strip("."), tensors)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [_plain(v, f"{name}.{i}", tensors) for i, v in enumerate(value)]}
    return value


def _unpacked(value, tensors: dict):
    """What was packed, bit for bit."""
    import torch

    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        found = tensors[value["tensor"]]
        return torch.empty_strided(found.shape, value["stride"], dtype=found.dtype).copy_(found)
    [(kind, parts)] = value.items()
    if kind == "dict":
        return {k: _unpacked(v, tensors) for k, v in parts}
    return {"list": list, "tuple": tuple}[kind](_unpacked(v, tensors) for v in parts)


def _hash(plain, tensors: dict) -> str:
    """The hash of packed values."""
    import torch

    found = hashlib.sha256(measured.canonical(plain))
    for name in sorted(tensors):
        found.update(tensors[name].reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()
