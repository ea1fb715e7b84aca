"""Credit the data contributors of diffusion models."""

import warnings

__version__ = "0.1.0"

# Progress is cdlib.progress; without ipywidgets, tqdm complains in every notebook that it cannot show its own.
warnings.filterwarnings("ignore", message="IProgress not found")
