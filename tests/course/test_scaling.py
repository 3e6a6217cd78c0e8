"""Runs on several processes from a script, and what they would cost."""

import os
import sys

import pytest
from torch.utils.flop_counter import FlopCounterMode

from s2s_helpers.course import scaling
from s2s_helpers.data import collate
from s2s_helpers.models import TransformerSeq2Seq
from s2s_helpers.vocabulary import Vocabulary


def test_a_failed_run_says_why(tmp_path):
    script = tmp_path / "broken.py"
    script.write_text("raise ValueError('no such thing')\n")
    with pytest.raises(RuntimeError, match="the run failed: ValueError: no such thing"):
        list(scaling.torchrun(script, processes=1))


@pytest.mark.skipif(sys.platform == "win32", reason="there os.kill can't ask")
def test_a_caller_that_stops_reading_leaves_nothing_running(tmp_path):
    script = tmp_path / "sleeper.py"
    script.write_text("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(300)\n")
    lines = scaling.torchrun(script, processes=1)
    process = int(next(lines))
    lines.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_operations_are_those_that_torch_counts():
    words = Vocabulary.numbered(500)
    model = TransformerSeq2Seq(words, words, width=128, heads=4, layers=2, feedforward=512)
    batch = collate([([5] * 6, [6] * 4)] * 8)
    with FlopCounterMode(display=False) as counter:
        model(batch)[0].sum().backward()
    expected = scaling.training_flops(model, batch.source.numel(), batch.target_output.numel())
    assert expected == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_the_cost_of_a_ring():
    # A thousand numbers of 4 bytes, four ranks: 6 pieces of 1,000 bytes, at 3,000 bytes a second.
    assert scaling.all_reduce_seconds(1000, 4, 3000) == pytest.approx(2)
    assert scaling.all_reduce_seconds(1000, 1, 3000) == 0
