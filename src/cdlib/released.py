"""Records of model behaviour that the authors' released code has written, as measured coalitions of another origin.

Read are lines of JSON of suinleelab/Group-Attribution-for-Diffusion-Models, and lines of JSON or csv of suinleelab/SurrogateSHAP.
A record holds the arguments of the script that wrote it, what it measured, and mostly who remained. Here it becomes a coalition
whose specification names its origin and the arguments that decide the value, so it can never have the key of one of ours.

    N  contributors, in the order of the run's labels        T  images that were given, in the order of their ids
"""

import csv
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cdlib import coalitions, contributors, stages, store
from cdlib.errors import Refused
from cdlib.measured import Measured, bits, canonical, digest

CREDIT, SURROGATE = "suinleelab/Group-Attribution-for-Diffusion-Models", "suinleelab/SurrogateSHAP"
PROCEDURES = {
    "gd": "sparse_finetune",
    "sparse_gd": "sparse_finetune",
    "gd_u": "finetune",
    "ga": "gradient_ascent",
    "iu": "influence_unlearning",
    "cfg": "conditional",  # no training: the full model, conditioned on what the coalition gave
}
OF_LORA = PROCEDURES | {"gd": "finetune", "pretrained": "retrain"}  # where text-to-image names them otherwise

# The arguments that decide the value, where a record has them.
SETTINGS = ("method", "gd_steps", "ga_ratio", "iu_ratio", "lora_rank", "lora_dropout", "lora_steps", "trained_steps", "steps")
SETTINGS += ("pruned", "pruning_ratio", "pruner", "thr", "use_ema", "ema_max_decay", "mixed_precision", "use_8bit_optimizer")
SETTINGS += ("gradient_accumulation_steps", "num_train_steps", "lr", "weight_decay", "T")
SETTINGS += ("n_samples", "num_images", "num_inference_steps", "num_steps", "batch_size", "resolution", "cls", "ddim", "seed")
SETTINGS += ("guidance_scale", "guidance_w", "sampling_mode", "discrete_label", "pretrained_model_name_or_path")
KEYS = {"inception_score": ("is", "inception_score"), "cluster_entropy": ("entropy",), "fid": ("fid_value", "fid")}
SECONDS = ("total_sampling_time", "aesthetic_score_time", "time")


@dataclass(frozen=True)
class Line:
    """A record and where it stands."""

    file: Path
    number: int
    values: dict

    def refused(self, why: str) -> Refused:
        return Refused(f"{self.file}: line {self.number}: {why}; nothing was imported")


def lines(file: Path, where: dict) -> Iterator[Line]:
    """The records of a file that say what `where` says. Raises Refused for a line that is no record."""
    try:
        with file.open(newline="") as text:
            rows = csv.DictReader(text) if file.suffix == ".csv" else text
            for number, row in enumerate(rows, 2 if file.suffix == ".csv" else 1):
                if row.strip() if isinstance(row, str) else row:
                    line = Line(file, number, _values(row))
                    if not line.values:
                        raise line.refused("no whole JSON record")
                    if all(line.values.get(name) == value for name, value in where.items()):
                        yield line
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{file}: cannot be read: {getattr(error, 'strerror', None) or 'no text'}") from None


def _values(row: str | dict) -> dict:
    """A record's values; none when it is not whole. A csv has text only, and an empty field is None."""
    if isinstance(row, str):
        try:
            found = json.loads(row, parse_constant=lambda _: None)  # NaN and Infinity, which are no JSON, are no numbers
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}
    if None in row or None in row.values():
        return {}
    return {name: _value(text) for name, text in row.items()}


def _value(text: str):
    try:
        return json.loads(text)
    except ValueError:
        return {"True": True, "False": False, "": None}.get(text, text)


class Told:
    """What a record tells, under our names.

    origin, procedure      who wrote it, and how the model was made
    drawn, draw, alpha     the distribution that the coalition was drawn from (None: everybody), its seed or index, its alpha
    seed                   of the training; 0 where the record does not tell it
    remaining, removed     indices, of images or of contributors; None where it does not tell them
    nobody                 whether the model is one of nobody: untrained, or without any LoRA
    """

    def __init__(self, line: Line, procedure: str | None, nobody: bool):
        v, name = line.values, str(line.values.get("exp_name") or "")
        self.origin = SURROGATE if v.keys() & {"guidance_scale", "guidance_w"} else CREDIT
        lora, parts = "lora_dir" in v, name.split("/")
        drawn = re.fullmatch(r"(\w+?)(?:_alpha=([\d.]+))?_(?:seed|idx)_(\d+)", parts[-1]) if lora else None
        method = v.get("method") or (parts[1] if lora and self.origin == CREDIT and len(parts) > 1 else procedure)
        if not method:
            raise line.refused("does not tell how its model was made: say --procedure retrain, or what it was")
        self.procedure = (OF_LORA if lora else PROCEDURES).get(method, method)
        self.drawn, self.alpha = v.get("removal_dist"), v.get("datamodel_alpha")
        self.draw = v.get("removal_seed", v.get("removal_idx"))
        if drawn and self.drawn is None:
            self.drawn, self.draw, self.alpha = drawn[1], int(drawn[3]), drawn[2] and float(drawn[2])
        if not isinstance(self.draw, int):
            self.draw = int(self.draw) if str(self.draw).isdigit() else None
        seed, given = re.search(r"(?:^|/)seed(\d+)", name), v.get("opt_seed")
        self.seed = given if isinstance(given, int) else int(seed[1]) if seed else 0
        self.removed = v.get("removed_idx", v.get("removal_idx") if lora else None)
        self.remaining = v.get("remaining_idx")
        self.excluded = v.get("excluded_class")
        self.nobody = nobody or v.get("trained_steps") == 0 or (lora and not v["lora_dir"])
        if self.nobody or self.drawn == "all" or (self.drawn is None and self.excluded is None):
            self.drawn = self.draw = None
        if self.drawn != "datamodel":
            self.alpha = None


class Reader:
    """Makes specifications and values of a run's contributors from records."""

    def __init__(self, run: store.Run, procedure: str | None = None):
        table = stages.dataset(run.params).contributors
        self.params, self.procedure, self.labels = run.params, procedure, contributors.labels(table)
        self.owner = contributors.owners(table).sort_index().to_numpy()
        self.dataset = {"name": run["dataset"], "contributors": digest(canonical(self.labels))[:16]}
        named = KEYS | {"aesthetic_score": (f"aesthetic_score_{run['quantile']:g}",)}
        if run["property"] not in named:
            raise Refused(f"property: {run['property']}: no record of the released code has it; they have {', '.join(named)}")
        self.keys = named[run["property"]]

    def record(self, line: Line, nobody: bool = False) -> dict:
        """A record as ours: key, spec, properties, train_seconds and sample_seconds (None where not told).

        nobody    it is of v(nobody), whatever it says

        Raises Refused, which names the line.
        """
        told, v = Told(line, self.procedure, nobody), line.values
        key = next((k for k in self.keys if k in v), None)
        value = _number(v.get(key))
        if value is None:
            raise line.refused(f"has no number {' or '.join(self.keys)}, which is {self.params['property']}")
        if key == "entropy":
            value *= math.log(2)  # theirs is in bits
        spec = {
            "origin": told.origin,
            "dataset": self.dataset | {"named": v.get("dataset")},
            "procedure": told.procedure,
            "settings": {n: v[n] for n in SETTINGS if v.get(n) is not None},
            "drawn": {"from": told.drawn, "seed": told.draw, "alpha": told.alpha},
            "properties": {self.params["property"]: {"key": key}},
            "members": bits(self._members(line, told)),
            "seed": told.seed,
        }
        seconds = _number(v.get("total_steps_time")), next((_number(v[k]) for k in SECONDS if k in v), None)
        seconds = dict(zip(("train_seconds", "sample_seconds"), seconds, strict=True))
        return {"key": Measured.key(spec), "spec": spec, "properties": {self.params["property"]: value}} | seconds

    def _members(self, line: Line, told: Told) -> np.ndarray:
        """Who was in, bool [N]: by who remained, else drawn again; where both are told, they must agree."""
        n = len(self.labels)
        if told.nobody:
            return coalitions.nobody(n)
        indices = None not in (told.remaining, told.removed)
        remained = self._remained(line, told.remaining, told.removed) if indices else None
        drawn = self._drawn(line, told)
        if remained is None and drawn is None:
            raise line.refused("tells neither who remained and who did not, nor a draw that can be made again")
        if remained is not None and drawn is not None and (remained != drawn).any():
            raise line.refused(
                f"who remained ({bits(remained)}) are others than {told.drawn} drew with seed {told.draw} ({bits(drawn)}): "
                "are these the run's contributors, in this order?"
            )
        return drawn if remained is None else remained

    def _remained(self, line: Line, remaining, removed) -> np.ndarray:
        """By the indices of all contributors, or of all images: then each contributor's are all in, or all out."""
        n, n_images = len(self.labels), len(self.owner)
        try:
            order = np.array([*remaining, *removed])
            whole = order.dtype.kind == "i" and (np.sort(order) == np.arange(len(order))).all()
        except (TypeError, ValueError):
            whole = False
        if not whole or len(order) not in (n, n_images):
            raise line.refused(
                f"remaining_idx and removed_idx must be the indices of all {n} contributors or of all {n_images} images"
            )
        owner = np.arange(n) if len(order) == n else self.owner
        inside = np.bincount(owner[order[: len(remaining)]], minlength=n)
        split = (inside > 0) & (inside < np.bincount(owner, minlength=n))
        if split.any():
            raise line.refused(f"contributor {self.labels[split.argmax()]} has images in and images out")
        return inside > 0

    def _drawn(self, line: Line, told: Told) -> np.ndarray | None:
        """The coalition drawn again, with the released code's own random stream; None where that is not known."""
        n, whole = len(self.labels), isinstance(told.draw, int) and told.draw >= 0
        if told.drawn is None and told.excluded is None:
            return coalitions.everybody(n) if told.remaining is None else None
        if told.drawn == "shapley" and whole:
            return coalitions.kernel(n, 1, told.draw)[0]
        if told.drawn == "datamodel" and whole:
            try:
                return coalitions.datamodel(n, 1, float(told.alpha), told.draw)[0]
            except (TypeError, ValueError) as error:
                raise line.refused(f"datamodel_alpha {told.alpha!r}: {error}") from None
        one = {"loo": coalitions.leave_one_out, "aoi": coalitions.add_one_in, "add_one_in": coalitions.add_one_in}
        if told.drawn in one and whole and told.excluded is None and told.draw < n:
            return one[told.drawn](n)[told.draw]
        return None


def read(run: store.Run, files: list[Path], nobody: list[Path] = (), procedure: str | None = None, where: dict | None = None):
    """The records of several files as ours (Reader.record), and how many were left out: of equals the first counts.

    nobody       files whose records are all of v(nobody)
    procedure    how models were made, where the records do not tell
    where        argument -> value: only records that say so

    Raises Refused, which names the line, for one that is damaged or does not fit the run.
    """
    reader, found, n = Reader(run, procedure), {}, 0
    for file in dict.fromkeys([*files, *nobody]):
        for line in lines(file, where or {}):
            one = reader.record(line, file in nobody)
            found.setdefault(one["key"], one)
            n += 1
    return list(found.values()), n - len(found)


def _number(value) -> float | None:
    """A finite number, also one that was written as text (`fid_value` and `.8e` of theirs); None for anything else."""
    try:
        return float(value) if math.isfinite(float(value)) and not isinstance(value, bool) else None
    except (TypeError, ValueError):
        return None
