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

# What images can be compared by.
EMBEDDINGS = ("digits_embedding", "pooled_pixels", "clip_b32", "clip_l14", "blip_vqa", "inception_pool")
