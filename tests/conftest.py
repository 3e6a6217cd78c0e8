"""What every test file shares."""

import os
import random
import zlib

os.environ.setdefault("MPLBACKEND", "Agg")

import s2s_helpers  # noqa: F401, I001 (before torch: it keeps torch's import quiet)
import matplotlib.pyplot as plt
import numpy
import pytest
import torch
from hypothesis import settings

# The workers of pytest-xdist share the cores.
torch.set_num_threads(1)
# The same examples on every run, and no verdict that depends on how busy the machine is.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


def seed_all(name):
    """Every generator gets a seed that is a function of the name alone."""
    seed = zlib.crc32(name.encode())
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


# So a test draws the same numbers alone, in any order, and on any worker; and so does a fixture
# that several tests share, whichever of them comes first.
@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef, request):
    seed_all(f"{fixturedef.baseid} {fixturedef.argname} {getattr(request, 'param_index', 0)}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    seed_all(item.nodeid)


@pytest.fixture(autouse=True)
def close_figures():
    """Let no test leave a figure to the next."""
    yield
    plt.close("all")


@pytest.fixture
def links(tmp_path):
    """Skip the test where this user may make no symbolic links, as most on Windows."""
    try:
        (tmp_path / "tried").symlink_to("anything")
    except OSError:
        pytest.skip("no symbolic links to be had here")
    (tmp_path / "tried").unlink()
