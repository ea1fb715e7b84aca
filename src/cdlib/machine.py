"""The machine that models are made on: its device, and torch's threads."""

import contextlib


def device(name: str) -> str:
    """`auto` is the first GPU where there is one, and the CPU elsewhere."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


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
