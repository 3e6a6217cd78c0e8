"""How good the notebooks' models are, and all tables of benchmarks/README.md.

python benchmarks/quality.py phrasebook   four models, three seeds
python benchmarks/quality.py multi30k     the model of 08_real_translation, three seeds
python benchmarks/quality.py readme       writes all tables from benchmarks/results into this
                                     folder's README and speedrun.md, and headlines into the
                                     project's README

With --quick only the first seed, of the phrasebook one model, and nothing is saved.

Times are of this machine; a quiet one with two cores is what the README means.
"""

import argparse
import importlib
import json
import os
import platform
import statistics
import time
from pathlib import Path

import decoding
import multi30k as captions
import scale
import speedrun
import torch
import training_speed
from measuring import RESULTS, keep, markdown, spread

from s2s_helpers import metrics
from s2s_helpers.corpora import multi30k, phrasebook
from s2s_helpers.course.recipes import KINDS, multi30k_trainer, phrasebook_trainer
from s2s_helpers.decoding import translate

ROOT = Path(__file__).parent.parent
SEEDS = (0, 1, 2)
# Each of these is a script beside this one, whose `table` makes its rows.
BEYOND = (
    *("summarization", "pronunciation", "forecasting", "pretrained", "production", "scaling"),
    *("endurance", "optimizers"),
)
RACE = ("speedrun", "ladder", "trials")
TABLES = ("phrasebook", "multi30k", "captions", "training_speed", "decoding", "scale", *BEYOND)
READMES = {
    ROOT / "README.md": ("headlines",),
    ROOT / "benchmarks" / "README.md": TABLES,
    ROOT / "benchmarks" / "speedrun.md": RACE,
}
NAMES = {
    "rnn": "RNN encoder-decoder",
    "bahdanau": "RNN with Bahdanau's attention",
    "luong": "RNN with Luong's attention",
    "transformer": "Transformer",
}


def trained(trainer) -> tuple:
    """The trained model, and what its training took."""
    started, busy = time.perf_counter(), time.process_time()
    trainer.fit()
    parameters = sum(p.numel() for p in trainer.model.parameters())
    return trainer.model, {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - busy,
        "parameters": parameters,
    }


def phrasebook_run(kind: str, seed: int) -> dict:
    """Train one model; sequence accuracy and alignment error rate (%) on both test splits."""
    model, result = trained(phrasebook_trainer(kind, seed))
    for split in ("test", "new_combinations"):
        pairs = getattr(phrasebook.load(), split)
        found = translate(model, [pair.source for pair in pairs])
        texts = [pair.target for pair in pairs]
        accuracy = metrics.sequence_accuracy([t.text for t in found], texts)
        result[f"{split}_accuracy"] = 100 * accuracy
        if found[0].attention is not None:
            # The end of the sentence has no gold links.
            links = [metrics.attention_links(t.attention_matrix()[:-1]) for t in found]
            gold = [set(pair.alignment) for pair in pairs]
            result[f"{split}_aer"] = 100 * metrics.alignment_error_rate(links, gold)
    return result


def multi30k_run(seed: int) -> dict:
    """Train the model of 08; BLEU and chrF on the 1,000 captions of test_2016_flickr."""
    model, result = trained(multi30k_trainer(seed))
    pairs = multi30k.load().test
    references = [pair.target.strip() for pair in pairs]
    for name, beam_size in ("greedy", 1), ("beam", 5):
        started = time.perf_counter()
        texts = [t.text for t in translate(model, [p.source for p in pairs], beam_size=beam_size)]
        result[f"{name}_seconds"] = time.perf_counter() - started
        result[f"{name}_bleu"] = metrics.bleu(texts, references)
        result[f"{name}_bleu_lower"] = metrics.bleu(texts, references, lowercase=True)
        result[f"{name}_chrf"] = metrics.chrf(texts, references)
    result["signature"] = metrics.bleu_signature()
    return result


def save(name: str, runs: dict) -> None:
    """Write the runs with what they ran on."""
    machine = {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "seeds": list(SEEDS),
    }
    keep({"machine": machine, "runs": runs}, RESULTS / f"{name}.json")


def table(name: str, results: dict | None = None) -> str:
    """The README's table, or tables with a line above each, of a results file or of `results`."""
    if name == "headlines":
        return headlines()
    results = results or json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    if name == "captions":
        return captions.table(results)
    if name == "decoding":
        return "\n\n".join(f"{on}:\n\n{decoding.table(run)}" for on, run in results.items())
    if name == "scale":
        return scale.table(results)
    if name == "trials":
        return speedrun.trials_table(results)
    if name in (*BEYOND, *RACE):
        return importlib.import_module(name).table(results)
    runs = results["runs"]
    if name == "training_speed":
        return "\n\n".join(f"{on}:\n\n{training_speed.table(run)}" for on, run in runs.items())
    if name == "phrasebook":
        head = ["model", "parameters", "test, %", "new combinations, %", "AER, %", "training, s"]
        keys = ["test_accuracy", "new_combinations_accuracy", "test_aer", "seconds"]
    else:
        head = ["search", "parameters", "BLEU", "BLEU, lower-cased", "chrF", "training, s"]
        keys = ["bleu", "bleu_lower", "chrf", "seconds"]
    rows = []

    def over_seeds(results: list[dict], key: str) -> str:
        return spread([run[key] for run in results if key in run])

    for kind, results in runs.items():
        size = f"{results[0]['parameters'] / 1e6:.1f} M"
        if name == "phrasebook":
            cells = [NAMES[kind], size, *(over_seeds(results, key) for key in keys)]
            rows.append(cells)
        else:
            for search in ("greedy", "beam"):
                values = [f"{search}_{key}" if key != "seconds" else key for key in keys]
                label = "greedy" if search == "greedy" else "beam of 5"
                rows.append([label, size, *(over_seeds(results, key) for key in values)])
    return markdown(head, rows)


def headlines() -> str:
    """Five lines for the project's README."""
    found = {
        name: json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
        for name in ("phrasebook", "captions", "training_speed", "decoding", "scaling")
    }
    luong = found["phrasebook"]["runs"]["luong"]
    right, seconds = (
        statistics.mean(run[key] for run in luong) for key in ("test_accuracy", "seconds")
    )
    on, run = max(
        ((on, seeds["0"]) for on, seeds in found["captions"]["runs"].items() if "2 cores" in on),
        key=lambda pair: pair[1]["beam 5"]["bleu_tokenised"],
    )
    trained, machine = next(iter(found["training_speed"]["runs"].items()))[::-1]
    peers = {(row["trainer"], row["batches"]): row for row in trained["rows"]}
    slower = peers["nn.Transformer", "random"]["ours_times_as_fast_cpu"]
    decoder, decoded = next(iter(found["decoding"].items()))
    times = {
        search: decoded[search]["batches"]["transformers"]["same_batch"]["ours_times_as_fast_cpu"]
        for search in ("greedy", "beam of 5")
    }
    two = statistics.mean(
        run["tokens_a_second"]["2"] / run["tokens_a_second"]["1"]
        for run in found["scaling"]["runs"]
    )
    lines = [
        f"The phrasebook's RNN with Luong's attention: {right:.1f} % of the test sentences without "
        f"a mistake, after {seconds:.0f} s of training on two cores.",
        f"Multi30k, English to French ({on}): {run['beam 5']['bleu_tokenised']:.1f} BLEU, "
        f"tokenised and lower-cased, {run['seconds'] / 60:.0f} minutes after the raw files.",
        f"Training: {slower:.1f} times the tokens a second of `nn.Transformer` in random batches "
        f"({machine}).",
        f"Decoding: {times['greedy']:.1f} times the sentences a second of Hugging Face's Marian, "
        f"and {times['beam of 5']:.1f} times with a beam of 5 ({decoder}).",
        f"Two processes train {two:.1f} times as fast as one, to the same weights.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def in_readme(text: str, name: str) -> str:
    """A README's text with what is between two marks made anew: the table, or nothing while there
    are no results. Raises ValueError where the marks are not there once each, in order."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    if [text.count(begin), text.count(end)] != [1, 1] or text.index(begin) > text.index(end):
        raise ValueError(f"the README needs {begin!r} and after it {end!r}, each once")
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    there = name == "headlines" or (RESULTS / f"{name}.json").exists()
    shown = f"{table(name)}\n\n" if there else ""
    return f"{before}{begin}\n\n{shown}{end}{after}"


def main(what: str, quick: bool) -> None:
    seeds = SEEDS[:1] if quick else SEEDS
    if what == "readme":
        for path, names in READMES.items():
            text = path.read_text(encoding="utf-8")
            for name in names:
                text = in_readme(text, name)
            path.write_text(text, encoding="utf-8")
        return
    if what == "phrasebook":
        kinds = ["luong"] if quick else KINDS
        runs = {kind: [phrasebook_run(kind, seed) for seed in seeds] for kind in kinds}
    else:
        runs = {"transformer": [multi30k_run(seed) for seed in seeds]}
    if not quick:
        save(what, runs)
    print(table(what, {"runs": runs}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["phrasebook", "multi30k", "readme"])
    parser.add_argument("--quick", action="store_true", help="one seed, one model, not saved")
    told = parser.parse_args()
    main(told.what, told.quick)
