"""Credit the data contributors of diffusion models."""

import logging
import warnings

__version__ = "0.1.0"

# Progress is cdlib.base.progress; without ipywidgets, tqdm complains in every notebook that it cannot show its own.
warnings.filterwarnings("ignore", message="IProgress not found")
# bitsandbytes, where it is installed, warns on some CPUs of a faster 4-bit product that it lacks: none is used here.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
