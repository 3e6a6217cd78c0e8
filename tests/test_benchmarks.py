"""The README's figures are those of the results files."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def quality():
    spec = importlib.util.spec_from_file_location("quality", ROOT / "benchmarks" / "quality.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["phrasebook", "multi30k"])
def test_the_readme_shows_the_results(quality, name):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert quality.table(name) in text
    assert quality.in_readme(text, name) == text


def test_every_figure_is_of_three_seeds(quality):
    for path in quality.RESULTS.glob("*.json"):
        results = json.loads(path.read_text())
        assert len(results["machine"]["seeds"]) == 3
        assert all(len(runs) == 3 for runs in results["runs"].values())


def test_attention_and_transformer_keep_their_promise(quality):
    runs = json.loads((quality.RESULTS / "phrasebook.json").read_text())["runs"]
    for kind in ("bahdanau", "luong", "transformer"):
        assert min(run["test_accuracy"] for run in runs[kind]) >= 95


def test_a_table_has_mean_and_spread(quality, monkeypatch, tmp_path):
    runs = [
        {"test_accuracy": value, "new_combinations_accuracy": 50, "seconds": 3, "parameters": 4e5}
        for value in (90, 92, 94)
    ]
    (tmp_path / "phrasebook.json").write_text(json.dumps({"runs": {"rnn": runs}}))
    monkeypatch.setattr(quality, "RESULTS", tmp_path)
    last = quality.table("phrasebook").splitlines()[-1]
    row = "| RNN encoder-decoder | 0.4 M | 92.0 ± 2.0 | 50.0 ± 0.0 | - | 3.0 ± 0.0 |"
    assert last == row
