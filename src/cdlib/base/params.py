"""The parameters of a run: a flat YAML file, checked before any work starts. Names left out have the values of digits.yaml."""

import contextlib
import difflib
import math
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from cdlib.base import paths, registry
from cdlib.base.errors import Refused
from cdlib.base.registry import AGGREGATES, DIRECTIONS, EMBEDDINGS, FEATURES, ONLY, OWN, Feature, Method

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Schedule = Literal["constant", "cosine", "one_cycle"]

# Names that say where and how fast a run goes, not what it finds: changing one reruns nothing.
EXECUTION = ("name", "executor", "workers", "ray_address", "gpus_per_coalition", "device", "sample_batch")
EXECUTION += ("checkpoint_minutes", "keep_models", "so_far")
FEWEST = {"n_finetune": 4, "n_retrain": 4, "n_subsets": 3}  # that tell anything; 0 switches them off


class Params(BaseModel):
    """Every parameter there is: its type and what is allowed. What each is for stands in params/digits.yaml."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    executor: Literal["serial", "processes", "ray"]
    workers: Count
    ray_address: Annotated[str, Field(pattern=r"^(auto|[^\s/]+:\d+)?$")]
    gpus_per_coalition: Annotated[float, Field(ge=0.01)]
    checkpoint_minutes: Annotated[float, Field(ge=0)]
    keep_models: Literal["none", "last", "all"]
    so_far: bool
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]
    dataset: Literal["digits", "faces", "painters", "cifar20", "celeba_hq", "artbench", "image_folder"]
    data: str
    images: str
    contributors_csv: str
    file_column: Annotated[str, Field(min_length=1)]
    contributor_column: Annotated[str, Field(min_length=1)]
    classes: Literal["paper", "released"]
    side_px: Positive
    n_contributors: Count
    owners_per_class: Annotated[list[Positive], Field(min_length=1, max_length=10)]
    images_per_contributor: Positive
    assignment_seed: Count
    model: str
    train_steps: Positive
    train_lr: Rate
    train_schedule: Schedule
    train_warmup_steps: Count
    train_epochs: Count
    noise_schedule: Literal["linear", "scaled_linear"]
    batch_size: Positive
    optimizer: Literal["adam", "adamw", "adam_8bit"]
    weight_decay: Annotated[float, Field(ge=0)]
    grad_clip: Annotated[float, Field(ge=0)]
    timesteps: Literal["uniform", "antithetic"]
    ema: Literal["none", "fresh", "continued"]
    ema_decay: Fraction
    horizontal_flip: bool
    precision: Literal["fp32", "bf16"]
    compile: bool
    train_seed: Count
    property: str
    feature: Literal[Feature]
    aggregate: Literal[AGGREGATES]
    direction: Literal[DIRECTIONS]
    also: list[str]
    n_clusters: Annotated[int, Field(ge=2)]
    n_reference: Positive
    assignment: Literal["nearest_mean", "average_linkage"]
    quantile: Fraction
    n_images: Positive
    sampling_steps: Annotated[int, Field(ge=1, le=1000)]
    sample_batch: Positive
    n_full_seeds: Positive
    n_empty_seeds: Positive
    pruning_ratio: Annotated[float, Field(ge=0, lt=1)]
    prune_steps: Positive
    prune_lr: Rate
    prune_schedule: Schedule
    prune_warmup_steps: Count
    n_coalitions: Positive
    n_paper_coalitions: Count
    n_finetune: Count
    n_retrain: Count
    coalition_seed: Count
    finetune_steps: Positive
    finetune_lr: Rate
    finetune_schedule: Schedule
    finetune_warmup_steps: Count
    n_loo_seeds: Count
    embedding: Literal[tuple(EMBEDDINGS)]
    similarity_max: Literal["of_average", "per_query"]
    embedding_distance: Literal["clusters", "global_mean"]
    gradient_timesteps: Annotated[int, Field(ge=0, le=1000)]
    gradient_noise: Literal["own", "shared"]
    projection_dim: Positive
    damping: Annotated[float, Field(ge=0)]
    d_trak_damping: Annotated[float, Field(ge=0)]
    influence_sum: Literal["sum", "mean"]
    alphas: list[Fraction]
    n_subsets: Count
    n_lds_seeds: Positive
    remove_fraction: Fraction
    keep_fraction: Fraction
    shown_fractions: list[Fraction]
    compared: list[Method]
    n_counterfactual_seeds: Count
    n_unlearn: Count
    ga_lr: Rate
    ga_epochs: Positive
    iu_ratio: Rate
    iu_damping: Rate
    iu_batch: Positive
    iu_draws: Positive
    fid_embedding: Literal[tuple(EMBEDDINGS)]
    full_path: str
    vqvae_path: str
    minisd_path: str
    blip_path: str
    clip_b32_path: str
    clip_l14_path: str
    inception_path: str
    aesthetic_path: str

    @model_validator(mode="after")
    def _together(self, info: ValidationInfo):
        asked = set((info.context or {}).get("asked", Params.model_fields))
        n, kinds = n_contributors(self.model_dump()), {entry.split("/")[0] for entry in (self.property, *self.also)}
        wrong = {
            "device": self.executor == "ray" and ":" in self.device and "Ray chooses the GPUs: must be auto, cpu or cuda",
            "gpus_per_coalition": self.gpus_per_coalition > 1
            and (self.executor != "ray" or self.gpus_per_coalition % 1)
            and "must be at most 1, or, with executor: ray, a whole number",
            "contributor_column": self.contributor_column == self.file_column and "must be another column than file_column",
            "owners_per_class": n < 2 and "must make at least 2 contributors",
            "property": not (self.property in FEATURES or OWN.fullmatch(self.property))
            and f"must be one of {', '.join(FEATURES)}, or a function of your own, package.module:function",
            "feature": self.feature not in (allowed := FEATURES.get(self.property, Feature))
            and f"must be one of {', '.join(allowed)}",
            "also": self._also_wrong(),
            "ema": self.full_path and self.ema == "continued" and "full_path has no average to continue: must be none or fresh",
            "embedding": self._untrained(self.embedding),
            "fid_embedding": self._untrained(self.fid_embedding),
            "n_reference": "cluster_entropy" in kinds
            and self.n_reference < self.n_clusters
            and f"must be at least n_clusters ({self.n_clusters})",
            "sampling_steps": registry.starts_late(self.sampling_steps),
            "n_loo_seeds": self.n_loo_seeds > self.n_full_seeds and f"must be at most n_full_seeds ({self.n_full_seeds})",
            "n_coalitions": self.n_coalitions < 2 * n and f"must be at least {2 * n} for {n} contributors",
            "n_paper_coalitions": 0 < self.n_paper_coalitions < 2 * n and f"must be at least {2 * n} or 0 for {n} contributors",
            "n_images": self.n_images < 2 and (self.n_unlearn or {"fid", "kid"} & kinds) and "FID and KID take at least 2",
            **self._steps_wrong(),
            **{name: 0 < getattr(self, name) < least and f"must be at least {least} or 0" for name, least in FEWEST.items()},
            "remove_fraction": share(n, self.remove_fraction) < 1 and f"must remove at least 1 of {n} contributors",
            "keep_fraction": share(n, self.keep_fraction) < 1 and f"must keep at least 1 of {n} contributors",
            "alphas": self._alphas_wrong(n),
            "compared": self._not_computed(asked),
        }
        found = [f"{name}: {getattr(self, name)}: {why}" for name, why in wrong.items() if why and name in asked]
        if found:
            raise ValueError("; ".join(found))
        return self

    def _not_computed(self, asked: set) -> str:
        """Why a compared method is none that the run computes, going by the parameters that are known."""
        for method in self.compared:
            if asked >= {*ONLY.get(method, {})} and not registry.applies(method, self.model_dump()):
                return f"{method} needs {' and '.join(f'{k}: {v}' for k, v in ONLY[method].items())}"
            why = registry.lacking(method, self.model_dump())
            if why and "Shapley" in method and registry.NEEDS[method][0] in asked:  # others are left out: the default names them
                return f"{method} {why}"
        return ""

    def _steps_wrong(self) -> dict[str, str | bool]:
        """{parameter: why} of steps that do not reach the learning rate; warm-up of passes is judged with the images."""
        wrong = {}
        for stage in ("train", "prune", "finetune"):
            steps, warm_up, schedule = (getattr(self, f"{stage}_{what}") for what in ("steps", "warmup_steps", "schedule"))
            passes = self.train_epochs if stage == "train" else 0
            if schedule == "one_cycle":
                name = "train_epochs" if passes else f"{stage}_steps"
                wrong[name] = (passes or steps) < 2 and "one_cycle of a single step trains nothing: must be at least 2"
            elif not passes:
                wrong[f"{stage}_warmup_steps"] = warm_up >= steps and f"must be less than {stage}_steps ({steps})"
        return wrong

    def _also_wrong(self) -> str:
        try:
            registry.properties(self.model_dump())
        except ValueError as error:
            return str(error)
        return ""

    def _untrained(self, embedding: str) -> str:
        wrong = embedding == "digits_embedding" and self.feature != "digits_classifier"
        return f"needs feature: digits_classifier; one of the others: {', '.join(EMBEDDINGS)}" if wrong else ""

    def _alphas_wrong(self, n: int) -> str:
        if len(set(self.alphas)) < len(self.alphas):
            return "each must stand there once"
        if self.alphas and 0.5 not in self.alphas:
            return "0.5 must be one of them: Table 1 and Figure 2 are drawn there"
        small = [a for a in self.alphas if share(n, a) < 1]
        return f"{small[0]} of {n} contributors is nobody: must be at least {1 / n:.3g}" if small else ""


def share(n: int, fraction: float) -> int:
    """floor(n fraction), where 0.29 * 100 is 29."""
    return math.floor(n * fraction + 1e-9)


def n_contributors(values: dict) -> int:
    """N, known without reading any image."""
    return values["n_contributors"] or sum(values["owners_per_class"])


def check(values: dict, source: str, partly: bool = False, alone: bool = False) -> dict:
    """The values, with digits.yaml's for the names left out.

    partly    names that are left out are not judged beside the others: a notebook knows only its own and the earlier ones
    alone     no value is judged beside others: what they are is not known yet

    Raises Refused, one line for each offence: source, key, value, what is allowed.
    """
    for name in [name for name in values if name not in Params.model_fields]:
        raise Refused(f"{source}: {name}: {values[name]!r}: no notebook reads this name{_nearest(name)}")
    try:
        context = {"asked": set() if alone else set(values)} if partly or alone else None
        return Params.model_validate({**defaults(), **values}, context=context).model_dump()
    except ValidationError as error:
        raise Refused("\n".join(f"{source}: {_explain(e)}" for e in error.errors())) from None


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name, Params.model_fields, n=1)
    return f"; did you mean {near[0]}?" if near else f"; the names are listed in {paths.params().name}"


def _explain(error: dict) -> str:
    """One pydantic error in the user's terms."""
    message = error["msg"].replace("Input should be", "must be").replace("Value error, ", "")
    if not error["loc"]:
        return message
    key, value = ".".join(str(part) for part in error["loc"]), error["input"]
    text = f"{key}: {value!r}: {message}"
    if isinstance(value, str) and error["type"].startswith(("float", "int")):
        with contextlib.suppress(ValueError):
            text += f": YAML reads {value} as text; write {float(value):.1e}"
    return text


def defaults() -> dict:
    """The values of params/digits.yaml, unchecked."""
    return _read(paths.params())


def _read(file: Path) -> dict:
    try:
        values = yaml.safe_load(file.read_text())
    except FileNotFoundError:
        raise Refused(f"{file}: no such parameter file; there are {', '.join(known_files())}") from None
    except OSError as error:
        raise Refused(f"{file}: cannot be read: {error.strerror}; name one of {', '.join(known_files())}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Refused(f"{file}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or not all(isinstance(k, str) for k in values):
        raise Refused(f"{file}: must hold lines `name: value`")
    return values


def known_files() -> list[str]:
    """The parameter files that come with the repository."""
    return [f"params/{p.name}" for p in sorted((paths.root() / "params").glob("*.yaml"))]


def load(file: Path, changes: dict | None = None) -> dict:
    """Checked parameters of a file, with `changes` (from `--set`) on top."""
    return check({**_read(Path(file)), **(changes or {})}, str(file))


def change(text: str, option: str = "--set") -> dict:
    """`key=value` of the command line, the value read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise Refused(f"{option} {text}: must be key=value")
    try:
        return {key: yaml.safe_load(value)}
    except yaml.YAMLError as error:
        raise Refused(f"{option} {text}: not readable as YAML: {' '.join(str(error).split())}") from None
