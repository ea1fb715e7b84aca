"""Names that parameters may have: attribution methods, and what properties and embeddings are computed from."""

import re
from typing import Literal

Method = Literal[
    "Pixel similarity (average)",
    "Pixel similarity (max)",
    "Embedding dist. (average)",
    "Embedding dist. (max)",
    "CLIP similarity (average)",
    "CLIP similarity (max)",
    "CLIP ViT-L/14 similarity (average)",
    "CLIP ViT-L/14 similarity (max)",
    "BLIP similarity (average)",
    "BLIP similarity (max)",
    "Inception similarity (average)",
    "Inception similarity (max)",
    "Classifier similarity (average)",
    "Classifier similarity (max)",
    "Pooled-pixel similarity (average)",
    "Pooled-pixel similarity (max)",
    "Gradient similarity (average)",
    "Gradient similarity (max)",
    "Aesthetic score (average)",
    "Aesthetic score (max)",
    "Colourfulness (average)",
    "Colourfulness (max)",
    "Relative IF",
    "Renormalized IF",
    "TRAK",
    "Journey-TRAK",
    "D-TRAK",
    "Leave-one-out (LOO)",
    "Number of images (control)",
    "Ridge datamodel (control)",
    "Retraining Shapley",
    "FT Shapley",
    "Sparsified-FT Shapley (paper's estimator)",
    "Sparsified-FT Shapley (Ours)",
]

# What a property can be computed from.
FEATURES = {
    "inception_score": ("digits_classifier", "inception_v3", "contributor_classifier"),
    "cluster_entropy": ("pooled_pixels", "blip_vqa", "clip_b32", "clip_l14"),
    "aesthetic_score": ("colourfulness", "laion_aesthetic"),
    "fid": ("pooled_pixels", "inception_pool", "blip_vqa", "clip_b32", "clip_l14"),
    "kid": ("pooled_pixels", "inception_pool", "blip_vqa", "clip_b32", "clip_l14"),
}
Feature = tuple(dict.fromkeys(name for names in FEATURES.values() for name in names))
LOWER = ("fid", "kid")  # properties of which less is better
OWN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")  # a function of the user's own, package.module:function
AGGREGATES = ("mean", "percentile", "entropy")
DIRECTIONS = ("higher", "lower")

# What images can be compared by (parameter `embedding`), and how the rows of such methods call it.
EMBEDDINGS = {
    "clip_b32": "CLIP",
    "clip_l14": "CLIP ViT-L/14",
    "blip_vqa": "BLIP",
    "inception_pool": "Inception",
    "digits_embedding": "Classifier",
    "pooled_pixels": "Pooled-pixel",
}
SCORES = {"laion_aesthetic": "Aesthetic score", "colourfulness": "Colourfulness"}  # parameter `feature`
HOW = ("average", "max")  # over a contributor's images

# The parameters that a run must have for a method, of those that not all runs have.
ONLY = {
    **{f"Embedding dist. ({how})": {"property": "cluster_entropy"} for how in HOW},
    **{f"{name} similarity ({how})": {"embedding": embedding} for embedding, name in EMBEDDINGS.items() for how in HOW},
    **{f"{name} ({how})": {"feature": feature} for feature, name in SCORES.items() for how in HOW},
}

# The parameter that a method takes, and its least value: with less there are no credits by it. Of fewer than 8 paired coalitions
# the size controls leave nothing.
NEEDS = {
    "Leave-one-out (LOO)": ("n_loo_seeds", 1),
    "Retraining Shapley": ("n_retrain", 8),
    "FT Shapley": ("n_finetune", 8),
    "Sparsified-FT Shapley (paper's estimator)": ("n_paper_coalitions", 1),
    **{f"Gradient similarity ({how})": ("gradient_timesteps", 1) for how in HOW},
    **dict.fromkeys(("Relative IF", "Renormalized IF", "TRAK", "Journey-TRAK", "D-TRAK"), ("gradient_timesteps", 1)),
}


def lacking(method: str, values: dict) -> str:
    """What a method needs and these parameters switch off; empty when it lacks nothing."""
    name, least = NEEDS.get(method, ("", 0))
    return f"needs {name} of at least {least}" if name and values[name] < least else ""


def applies(method: str, values: dict) -> bool:
    """Whether a method can credit the contributors of a run with these parameters."""
    return all(values[name] == value for name, value in ONLY.get(method, {}).items())


def properties(values: dict) -> dict[str, dict]:
    """The properties of a run: name -> the parameters, with what is this property's own. The first is the run's property.

    Each of `also` is a property's name and, after a stroke, what it is computed from: cluster_entropy/pooled_pixels; or the
    user's function and, after strokes, how its numbers become one and which are better: mine:sharpness/percentile/lower.

    Raises ValueError, in words, for one that there is not, and for one that stands there twice.
    """
    found = {values["property"]: values}
    for entry in values["also"]:
        name, *words = entry.split("/")
        own = bool(OWN.fullmatch(name))
        kinds = {"aggregate": AGGREGATES, "direction": DIRECTIONS} if own else {"feature": FEATURES.get(name, ())}
        given = {kind: word for kind, allowed in kinds.items() for word in words if word in allowed}
        if name in found:
            raise ValueError(f"{name} must stand there once, and not be the run's property")
        if not own and name not in FEATURES:
            raise ValueError(f"{name} must be one of {', '.join(FEATURES)}, or package.module:function")
        if len(given) < len(words) or (not own and not given):
            raise ValueError(f"{entry}: after {name}/ must stand {' and '.join(' | '.join(a) for a in kinds.values())}")
        found[name] = values | given | {"property": name}
    return found


def sign(values: dict) -> int:
    """1 where more of the property is better, -1 where less is; values are those of `properties` for this one."""
    lower = values["property"] in LOWER or (":" in values["property"] and values["direction"] == "lower")
    return -1 if lower else 1


def starts_in_noise(steps: int) -> bool:
    """Whether so many DDIM steps, 1000 // steps apart, start in the last hundredth of the chain of 1,000 timesteps.

    Fewer than 100 never do: these must start one stride before it, at most.
    """
    stride = 1000 // steps
    return steps > 1 and (steps - 1) * stride >= 990 - (stride if steps < 100 else 0)


def starts_late(steps: int) -> str:
    """Why so many sampling steps are refused, with the nearest good numbers; empty when they are not."""
    if starts_in_noise(steps):
        return ""
    near = (next(filter(starts_in_noise, numbers), None) for numbers in (range(steps, 0, -1), range(steps, 1001)))
    first = f"the first step is at timestep {(steps - 1) * (1000 // steps)} of 1000, where images are no pure noise"
    return f"{first}: must be {' or '.join(str(good) for good in near if good)}"
