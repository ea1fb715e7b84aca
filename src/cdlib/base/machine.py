"""The machine that models are made on: its device, and torch's threads."""

import contextlib
import sys
from pathlib import Path

# What a GPU's driver leaves on Linux: NVIDIA's, AMD's, and that of Windows under it. Where none is, torch sees no GPU either.
DRIVERS = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia-uvm", "/proc/driver/nvidia", "/dev/nvhost-ctrl", "/dev/kfd", "/dev/dxg")


def device(name: str) -> str:
    """`auto` is the first GPU where there is one, and the CPU elsewhere."""
    if name != "auto":
        return name
    if sys.platform == "linux" and not any(Path(driver).exists() for driver in DRIVERS):
        return "cpu"  # without torch, whose import takes longer than all else that `cdlib status` does
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name(device: str) -> str:
    """The device and, of a GPU, its model."""
    import torch

    return device if device == "cpu" else f"{device} {torch.cuda.get_device_name(device)}"


def empty_cache():
    """Give GPU memory that is no longer used back, for the workers that come next."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextlib.contextmanager
def one_thread():
    """Torch on one thread, so that sums are added in one order and a result depends on no machine's number of cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
