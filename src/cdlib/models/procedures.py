"""How models are made, by stage: full model and retraining, the pruned model, fine-tuning; and by unlearning.

No torch is needed to know a recipe.
"""

from dataclasses import asdict, dataclass, replace

# The model that each procedure starts from; None: random weights.
START = {"retrain": None, "given": "full", "finetune": "full", "sparse_finetune": "sparse"}
START |= {"gradient_ascent": "sparse", "influence_unlearning": "sparse"}


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    steps            gradient steps
    lr               peak learning rate
    schedule         constant | cosine | one_cycle: from lr / 25 up for 30 % of the steps, then down to zero, with Adam's
                     first moment cycled the other way (torch's OneCycleLR)
    batch_size       images in a step
    optimizer        adam | adamw | adam_8bit; weight_decay is decoupled in adamw, L2 in the others
    warmup_steps     linear warm-up of constant and cosine
    grad_clip        largest gradient norm; 0 does not clip
    timesteps        uniform, as in eq. 1 | antithetic: t and 999 - t in one batch, the same expectation with less noise
    ema              none | fresh: average from the start weights on | continued: go on with the start model's average
    ema_decay        cap of the average's decay (1 + k) / (10 + k)
    horizontal_flip  flip half of the images
    epochs           passes over the images, in a new order each, which decide the steps; 0: `steps`, drawn with replacement
    compile          let torch.compile the network
    precision        fp32 | bf16 (autocast)

    Differs: where `steps` are given, images are drawn with replacement; the paper does not say, the released code shuffles passes
    over the images, as `epochs` does here.

    Differs: the paper's text mentions neither antithetic timesteps nor an average of the weights; the released code always
    draws the former and always continues the latter. Both are options here.
    """

    steps: int
    lr: float
    schedule: str
    batch_size: int
    optimizer: str = "adam"
    weight_decay: float = 0.0
    warmup_steps: int = 0
    grad_clip: float = 1.0
    timesteps: str = "uniform"
    ema: str = "none"
    ema_decay: float = 0.9999
    horizontal_flip: bool = False
    precision: str = "fp32"
    epochs: int = 0
    compile: bool = False

    def n_steps(self, n_images: int) -> int:
        """Gradient steps on so many images."""
        return self.epochs * -(-n_images // self.batch_size) or self.steps

    def as_dict(self) -> dict:
        return asdict(self)


@dataclass(frozen=True)
class Influence:
    """How influence unlearning changes a model (unlearn.influence).

    ratio         fraction of the computed change of the weights that is made
    damping       added to the diagonal of the Fisher matrix
    batch_size    images whose mean gradient is one gradient of the Fisher matrix; 1: each image's own
    draws         draws of (timestep, noise) for each image that a gradient averages
    timesteps, horizontal_flip, precision    as in Recipe
    """

    ratio: float
    damping: float
    batch_size: int
    draws: int = 1
    timesteps: str = "uniform"
    horizontal_flip: bool = False
    precision: str = "fp32"

    def n_steps(self, n_images: int) -> int:
        """Gradients of so many images."""
        return -(-n_images // self.batch_size)

    def as_dict(self) -> dict:
        return asdict(self)


def of(params: dict, procedure: str) -> Recipe | Influence:
    """How the model of a coalition is made by a procedure (START)."""
    shared = {name: params[name] for name in ("timesteps", "horizontal_flip", "precision")}
    if procedure == "gradient_ascent":
        own = dict(steps=0, epochs=params["ga_epochs"], lr=params["ga_lr"], schedule="constant")
        return Recipe(**own, batch_size=params["batch_size"], grad_clip=params["grad_clip"], **shared)
    if procedure == "influence_unlearning":
        own = {name: params[f"iu_{name}"] for name in ("ratio", "damping", "draws")}
        return Influence(**own, batch_size=params["iu_batch"], **shared)
    if procedure == "given":  # as it is
        return replace(recipe(params, "finetune"), steps=0)
    return recipe(params, "train" if procedure == "retrain" else "finetune")


def recipe(params: dict, stage: str) -> Recipe:
    """How a model is trained at a stage: `train`, `prune` or `finetune`, the prefix of its own parameters."""
    shared = ("batch_size", "optimizer", "weight_decay", "grad_clip", "timesteps")
    shared += ("ema", "ema_decay", "horizontal_flip", "precision", "compile")
    own = {name: params[f"{stage}_{name}"] for name in ("steps", "lr", "schedule", "warmup_steps")}
    epochs = params["train_epochs"] if stage == "train" else 0
    return Recipe(**own, epochs=epochs, **{name: params[name] for name in shared})
