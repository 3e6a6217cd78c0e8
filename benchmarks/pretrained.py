"""What pre-training buys: every figure of 13_pretrained.

python benchmarks/pretrained.py             three seeds (10 minutes on one core)
python benchmarks/pretrained.py --quick     a small form of one seed, which saves nothing
python benchmarks/pretrained.py --hub       the published checkpoints, which needs the hub once

A small BART is pre-trained by text infilling on captions in both languages that are no pairs, then
fine-tuned on some pairs, beside the same model and this package's transformer from random weights.
With --hub, T5, BART and Marian are scored as they are, and after some 20 steps.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measuring import RESULTS, keep, machine, markdown, spread

from s2s_helpers.corpora import multi30k
from s2s_helpers.course.recipes import pairs_trainer
from s2s_helpers.course.tiny_checkpoints import tiny_checkpoint
from s2s_helpers.decoding import translate
from s2s_helpers.metrics import bleu, chrf
from s2s_helpers.models import TransformerSeq2Seq
from s2s_helpers.models.pretrained import CHECKPOINTS, load_pretrained
from s2s_helpers.training.denoising import infill

SEEDS, SIZES, PLAIN = (0, 1, 2), (250, 1000, 3000), 4000
STARTS = ("ours, random", "BART, random", "BART, pre-trained")
HUB_PAIRS = 260  # some 20 steps


def score(model, test) -> dict:
    """BLEU and chrF of greedy translations."""
    sources, references = [pair.source for pair in test], [pair.target for pair in test]
    texts = [t.text for t in translate(model.eval(), sources, max_length=60, attention=False)]
    return {"bleu": bleu(texts, references), "chrf": chrf(texts, references)}


def fitted(model, pairs, seed: int, **settings) -> dict:
    """Train the model; what that took, and the mean loss of the last 20 steps."""
    trainer = pairs_trainer(model, pairs, seed=seed, progress=False, **settings)
    started, busy = time.perf_counter(), time.process_time()
    steps = trainer.fit().steps
    spent = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - busy}
    loss = statistics.mean(step["loss"] for step in steps[-20:])
    return {**spent, "steps": len(steps), "loss": loss}


def one_run(seed: int, sizes=SIZES, plain: int = PLAIN, test=None, texts: int = 8000) -> dict:
    """One seed: the pre-training, and each start's scores for each number of pairs."""
    captions = multi30k.load()
    train, test = captions.train, captions.test if test is None else test
    english, french = train[3000 : 3000 + plain], train[3000 + plain : 3000 + 2 * plain]
    rng = np.random.default_rng(seed)
    unpaired = [pair.source for pair in english] + [pair.target for pair in french]
    spoiled = [(infill(text, rng), text) for text in unpaired]
    learned = [text for pair in train[: texts // 2] for text in (pair.source, pair.target)]
    with tempfile.TemporaryDirectory() as home:
        small = tiny_checkpoint(
            "bart", learned, Path(home, "small"), width=128, layers=1, seed=seed
        )
        model = load_pretrained(small)
        run = {"pretraining": {"texts": len(spoiled), **fitted(model, spoiled, seed, epochs=1)}}
        base, words = model.save(Path(home, "base")), model.source_vocabulary
        for name in STARTS:
            run[name] = {}
            for size in sizes:
                if name == "ours, random":
                    torch.manual_seed(seed)
                    model = TransformerSeq2Seq(words, words, layers=1, dropout=0.0)
                else:
                    model = load_pretrained(small if name == "BART, random" else base)
                run[name][str(size)] = fitted(model, train[:size], seed) | score(model, test)
                print(f"seed {seed}, {name}, {size} pairs: {run[name][str(size)]}", flush=True)
    return run


def hub_run(kind: str, count: int = 1000) -> dict | None:
    """A published checkpoint's scores, as it is and after some steps; None where there is none."""
    try:
        model = load_pretrained(**CHECKPOINTS[kind])
    except FileNotFoundError as error:
        print(f"{kind} is left out: {error}")
        return None
    captions = multi30k.load()
    test, train = captions.test[:count], captions.train
    run = {"captions": count, "parameters": sum(p.numel() for p in model.parameters())}
    run |= {"as it is": score(model, test)}
    run |= {"fine-tuning": fitted(model, train[:HUB_PAIRS], 0, epochs=1, lr=2e-5)}
    return run | {"fine-tuned": score(model, test)}


def table(results: dict) -> str:
    """The README's table: BLEU by start and number of pairs; published checkpoints, if measured."""
    runs = list(results["runs"].values())
    sizes = list(runs[0][STARTS[0]])
    head = ["start", "pre-training, steps", *(f"BLEU, {int(n):,} pairs" for n in sizes)]
    rows = []
    for name in STARTS:
        cells = [spread([run[name][n]["bleu"] for run in runs]) for n in sizes]
        steps = statistics.mean(run["pretraining"]["steps"] for run in runs)
        rows.append([name, f"{steps:.0f}" if name == STARTS[-1] else "-", *cells])
    shown = markdown(head, rows)
    if hub := results.get("hub"):
        head = ["checkpoint", "parameters", "BLEU as it is", "steps", "BLEU after them"]
        rows = [
            [
                f"{CHECKPOINTS[kind]['name']}", f"{run['parameters'] / 1e6:.0f} M",
                f"{run['as it is']['bleu']:.1f}", str(run["fine-tuning"]["steps"]),
                f"{run['fine-tuned']['bleu']:.1f}",
            ]
            for kind, run in hub.items()
        ]  # fmt: skip
        shown += f"\n\n{markdown(head, rows)}"
    return shown


def main(quick: bool, hub: bool, seeds) -> None:
    if quick:
        runs = {"0": one_run(0, (50,), 100, multi30k.load().test[:20], 600)}
        print(table({"runs": runs}))
        return
    path = RESULTS / "pretrained.json"
    results = json.loads(path.read_text("utf-8")) if path.exists() else {"runs": {}, "hub": {}}
    results["machine"] = machine("transformers", "tokenizers") | {
        "threads": torch.get_num_threads()
    }
    if hub:
        found = {kind: hub_run(kind) for kind in CHECKPOINTS}
        results["hub"] |= {kind: run for kind, run in found.items() if run is not None}
    for seed in () if hub else seeds:
        results["runs"][str(seed)] = one_run(seed)
        keep(results, path)  # a long run that is stopped has not been for nothing
    keep(results, path)
    print(table(results))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small form of one seed, not saved")
    parser.add_argument("--hub", action="store_true", help="the published checkpoints")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    options = parser.parse_args()
    main(options.quick, options.hub, options.seeds)
