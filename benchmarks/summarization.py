"""How good notebook 10's summaries of docstrings are: ROUGE, unknown words, repeats.

python benchmarks/summarization.py            three seeds, about 10 minutes on one core
python benchmarks/summarization.py --quick    one seed, a few hundred pairs; saves nothing

Lead-1 and the bare name of the function; attention; the pointer-generator; and this one after some
more steps with the coverage loss, or as many without. Greedy search. The pairs are those of the
docstrings on this machine, so other machines have somewhat other figures.
"""

import argparse
import statistics
import time

import torch
from measuring import RESULTS, keep, machine, markdown, spread

from s2s_helpers.corpora import docstrings
from s2s_helpers.course.recipes import summarizer_trainer
from s2s_helpers.decoding import translate
from s2s_helpers.vocabulary import word_tokenize

SEEDS = (0, 1, 2)
ROUGE = ("rouge1", "rouge2", "rougeL")
NAMES = {
    "lead": "lead-1: the first sentence",
    "name": "the function's name",
    "attention": "attention",
    "pointer": "pointer-generator",
    "longer": "pointer-generator, trained on",
    "coverage": "pointer-generator, trained on with coverage",
}


def scores(summaries: list[str], pairs: list) -> dict:
    """Mean F1 of every ROUGE; how many summaries have an <unk>, and n-grams are repeats, in %."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(ROUGE, use_stemmer=True)
    found = [scorer.score(p.target, text) for text, p in zip(summaries, pairs, strict=True)]
    result = {name: 100 * statistics.mean(f[name].fmeasure for f in found) for name in ROUGE}
    result["unknown"] = 100 * statistics.mean("<unk>" in text for text in summaries)
    for n in (1, 3):
        result[f"repeats{n}"] = repeats(summaries, n)
    return result


def repeats(texts: list[str], n: int) -> float:
    """The share of n-grams that their text has had before, in percent."""
    lists = [word_tokenize(text.lower()) for text in texts]
    grams = [[tuple(w[i : i + n]) for i in range(len(w) - n + 1)] for w in lists]
    total = sum(map(len, grams))
    return 100 * (1 - sum(len(set(g)) for g in grams) / total) if total else 0.0


def run(trainer, pairs: list, before: float = 0.0) -> dict:
    """Train, summarize, score; `before` are the CPU seconds of an earlier training."""
    started = time.process_time()
    trainer.fit()
    seconds, model = time.process_time() - started, trainer.model
    texts = [pair.source for pair in pairs]
    found = translate(model, texts)
    parameters = sum(p.numel() for p in model.parameters())
    result = scores([each.text for each in found], pairs)
    return result | {"parameters": parameters, "cpu_seconds": before + seconds}


def measure(seeds, train: list, test: list, keep=lambda runs: None) -> dict:
    """A list of runs, one a seed, for every name; `keep` gets them after every seed."""
    runs = {name: [] for name in NAMES}
    runs["lead"] = [scores([docstrings.lead(pair) for pair in test], test)]
    runs["name"] = [scores([pair.source.partition(":")[0] for pair in test], test)]
    runs["reference"] = [scores([pair.target for pair in test], test)]
    for seed in seeds:
        for kind in "attention", "pointer":
            trainer = summarizer_trainer(kind, seed, False, train)
            runs[kind].append(run(trainer, test))
        before = runs["pointer"][-1]["cpu_seconds"]
        more = dict(pairs=train[::2], start=trainer.model, epochs=1, lr=4e-3, muon_lr=5e-3)
        for name, weight in ("longer", 0.0), ("coverage", 1.0):
            again = summarizer_trainer("pointer", seed, False, coverage=weight, **more)
            runs[name].append(run(again, test, before))
        keep(runs)
    return runs


def table(results: dict) -> str:
    """The README's table."""
    keys = [*ROUGE, "unknown", "repeats1", "repeats3"]
    rows = []
    for name, label in NAMES.items():
        runs = results["runs"][name]
        size = f"{runs[0]['parameters'] / 1e6:.2f} M" if "parameters" in runs[0] else "-"
        cells = [spread([run[key] for run in runs if key in run]) for key in keys]
        rows.append([label, size, *cells])
    head = ["summary", "parameters", "ROUGE-1", "ROUGE-2", "ROUGE-L", "with <unk>, %"]
    head += ["repeated words, %", "repeated trigrams, %"]
    return markdown([*(name.replace("<", "\\<") for name in head)], rows)


def main(quick: bool) -> None:
    data = docstrings.load()
    torch.set_num_threads(1)
    if quick:
        print(table({"runs": measure(SEEDS[:1], data.train[:300], data.test[:50])}))
        return
    pairs = {split: len(getattr(data, split)) for split in ("train", "validation", "test")}
    about = {"machine": machine("rouge_score"), "pairs": pairs}

    def keep_done(runs: dict) -> None:
        seeds = list(SEEDS[: len(runs["coverage"])])
        keep(about | {"seeds": seeds, "runs": runs}, RESULTS / "summarization.json")

    print(table({"runs": measure(SEEDS, data.train, data.test, keep=keep_done)}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, few pairs, not saved")
    main(parser.parse_args().quick)
