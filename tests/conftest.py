"""What every test file shares."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")

import s2s_helpers  # noqa: F401, I001 (before torch: it keeps torch's import quiet)
import matplotlib.pyplot as plt
import pytest
import torch
from hypothesis import settings

# The workers of pytest-xdist share the cores.
torch.set_num_threads(1)
# The same examples on every run, and no verdict that depends on how busy the machine is.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


@pytest.fixture(autouse=True)
def close_figures():
    """Let no test leave a figure to the next."""
    yield
    plt.close("all")
