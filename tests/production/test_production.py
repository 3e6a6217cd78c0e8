"""The benchmark of the notebook on production measures what it says, on a model of a few words."""

import importlib.util
import sys
from pathlib import Path

import torch

from s2s_helpers.corpora import Pair
from s2s_helpers.decoding import translate
from s2s_helpers.models import TransformerSeq2Seq
from s2s_helpers.vocabulary import Vocabulary

PAIRS = [("one dog", "un chien"), ("two dogs run", "deux chiens courent"), ("a cat", "un chat")]


def test_the_benchmark_measures_what_it_says(tmp_path, monkeypatch):
    benchmarks = Path(__file__).parents[2] / "benchmarks"
    monkeypatch.syspath_prepend(str(benchmarks))
    spec = importlib.util.spec_from_file_location("production", benchmarks / "production.py")
    production = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "production", production)
    spec.loader.exec_module(production)
    words = [Vocabulary.build(side) for side in zip(*PAIRS, strict=True)]
    torch.manual_seed(5)  # with which the untrained model says something to each
    shape = dict(width=8, heads=2, layers=1, feedforward=8, dropout=0.0)
    teacher = TransformerSeq2Seq(*words, **shape).eval()
    pairs = [Pair(*pair) for pair in PAIRS]
    taught = [found.text for found in translate(teacher, [pair.source for pair in pairs])]
    test = [Pair(*pair) for pair in zip((s for s, _ in PAIRS), taught, strict=True)]
    corpus = production.Corpus(teacher, pairs[:2], pairs, test, 8, {"batch_size": 2}, steps=2)
    found = production.students(corpus, (0, 1), tmp_path)
    assert found["teacher"][0]["right"] == 100  # as its own words are the references
    assert len(found) == 6 and all(len(runs) == 2 for name, runs in found.items() if name[0] != "t")
    speeds = production.caching(corpus)
    assert len(speeds) == 3 and all(speed > 0 for speed in speeds.values())
    version = {"bleu": 1.0, "same": 99.96, "megabytes": 2.5, "per_second": 1234.5, "alone_ms": 5.0}
    results = {"students": found, "versions": {"ONNX": version}, "caching": {"nothing": 99.6}}
    text = production.table({"machine": {}, "captions": results})
    assert "| ONNX | 1.0 | 100.0 | 2.50 | 1,234 | 5.0 |" in text and "| nothing | 100 |" in text
    assert "| teacher |" in text and "phrasebook" not in text
