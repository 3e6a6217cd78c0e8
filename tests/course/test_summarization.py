"""The recipe of notebook 10 and its benchmark, on a few made-up pairs."""

import importlib.util
import sys
from pathlib import Path

import pytest

from s2s_helpers.corpora import Pair
from s2s_helpers.course import recipes
from s2s_helpers.models import CopyVocabulary, PointerGenerator

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PAIRS = [Pair(f"get item {n}: The item x{n} is given.", f"Get the item x{n}.") for n in range(24)]


@pytest.fixture
def summarization(monkeypatch):
    pytest.importorskip("rouge_score")
    texts = [text for pair in PAIRS for text in (pair.source, pair.target)]
    words = CopyVocabulary.build(texts, min_count=5)
    monkeypatch.setattr(recipes, "docstring_vocabulary", lambda size: words)
    monkeypatch.setattr(sys, "path", [*sys.path, str(BENCHMARKS)])
    spec = importlib.util.spec_from_file_location("summarization", BENCHMARKS / "summarization.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_benchmark_measures_every_row(summarization):
    runs = summarization.measure((0, 1), PAIRS[:16], PAIRS[16:])
    rows = summarization.table({"runs": runs}).splitlines()[2:]
    assert [row.split(" | ")[0][2:] for row in rows] == list(summarization.NAMES.values())
    assert len(runs["coverage"]) == 2 and runs["coverage"][0]["unknown"] >= 0
    assert runs["longer"][0]["parameters"] == runs["coverage"][0]["parameters"]
    # "get item 16" against "Get the item x16.": 2 of 3 words, and of 4.
    assert runs["name"][0]["rouge1"] == pytest.approx(100 * 4 / 7)
    assert runs["reference"][0]["rougeL"] == pytest.approx(100)
    assert runs["reference"][0]["unknown"] == 0


def test_repeats_are_counted_by_hand(summarization):
    texts = ["a b a b a", "c d"]
    assert summarization.repeats(texts, 1) == pytest.approx(100 * 3 / 7)
    assert summarization.repeats(texts, 2) == pytest.approx(100 * 2 / 5)
    assert summarization.repeats(["a b"], 3) == 0


def test_training_goes_on_from_a_model(summarization):
    first = recipes.summarizer_trainer("pointer", progress=False, pairs=PAIRS, epochs=1)
    again = recipes.summarizer_trainer(
        "pointer", progress=False, pairs=PAIRS, start=first.model, epochs=3, coverage=1.0
    )
    assert isinstance(again.model, PointerGenerator) and again.model.coverage
    assert not first.model.coverage
    before = first.model.state_dict()
    assert all((value == before[name]).all() for name, value in again.model.state_dict().items())
    again.fit()
    assert (again.model.cover.weight != before["cover.weight"]).any()
    with pytest.raises(ValueError, match=r"\['attention', 'pointer'\], got 'copy'"):
        recipes.summarizer_trainer("copy")
