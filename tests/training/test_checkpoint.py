"""Checkpoints hold plain values; the exact resume they are for is tested in test_training.py."""

import os

import pytest
import torch

from s2s_helpers.training import checkpoint


def test_a_checkpoint_runs_no_code(tmp_path):
    class Runs:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "made"),))

    torch.save({"model": Runs()}, tmp_path / "last.pt")
    with pytest.raises(ValueError, match="broken or not a checkpoint"):
        checkpoint.read(tmp_path / "last.pt")
    assert not (tmp_path / "made").exists()
