"""Names that parameters may have: attribution methods, and what properties and embeddings are computed from."""

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
    "inception_score": ("digits_classifier", "inception_v3"),
    "cluster_entropy": ("pooled_pixels", "blip_vqa", "clip_b32", "clip_l14"),
    "aesthetic_score": ("colourfulness", "laion_aesthetic"),
}
Feature = tuple(name for names in FEATURES.values() for name in names)

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


def applies(method: str, values: dict) -> bool:
    """Whether a method can credit the contributors of a run with these parameters."""
    return all(values[name] == value for name, value in ONLY.get(method, {}).items())
