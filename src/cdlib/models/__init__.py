"""Diffusion models: made, trained, pruned, unlearned, kept."""
