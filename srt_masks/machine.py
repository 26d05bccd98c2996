"""How much memory there is, so that what cannot fit is refused in words, before the system ends the process without any."""

from __future__ import annotations

import os


def card_memory(device: str) -> int | None:
    """Bytes of the card that `device` stands for, which may be "auto"; None: it stands for none."""
    import torch  # here: the command line asks a recipe for its defaults, and has more to say than of training

    if not torch.cuda.is_available() or not str(device).startswith(("auto", "cuda")):
        return None
    return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory


def memory_here() -> int:
    """Bytes of this machine's memory; where it does not say, 8 GiB."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**33
