"""What makes a trained model fast and small, and what that costs: the figures of notebook 14.

python benchmarks/production.py            phrasebook (three seeds) and captions, about 15 minutes
python benchmarks/production.py --quick    the phrasebook, one seed, short trainings; not saved

Students by what they learned from, at the same number of steps; the teacher as it is, in bfloat16,
exported to ONNX, and in int8; and what decoding keeps from step to step. One core.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from measuring import RESULTS, alternate, keep, machine, markdown, pin, spread

from s2s_helpers import metrics
from s2s_helpers.corpora import multi30k, phrasebook
from s2s_helpers.course.recipes import multi30k_trainer, phrasebook_model
from s2s_helpers.data import Seq2SeqDataset, make_loader
from s2s_helpers.decoding import translate
from s2s_helpers.loss import Seq2SeqLoss
from s2s_helpers.models import State, TransformerSeq2Seq, save_model
from s2s_helpers.models.prepacked import prepacked
from s2s_helpers.models.transformer import causal_mask
from s2s_helpers.production.onnx import OnnxModel, export_onnx, quantize_int8
from s2s_helpers.training import Seq2SeqTrainer, linear_warmup, set_seed, training_config
from s2s_helpers.training.distillation import WordDistillation, teacher_pairs

TITLES = {"phrasebook": "The phrasebook", "captions": "Captions (test_2016_flickr)"}


@dataclass
class Corpus:
    """A teacher with what its students learn from: `few` gold pairs, and as `many` again whose
    gold targets only one of them may see."""

    teacher: TransformerSeq2Seq
    few: list
    many: list
    test: list
    width: int
    batches: dict  # batch_size or max_tokens
    steps: int

    def trainer(self, pairs, seed: int) -> Seq2SeqTrainer:
        """An untrained student and its trainer."""
        words = self.teacher.source_vocabulary, self.teacher.target_vocabulary
        loader = make_loader(Seq2SeqDataset(pairs, *words), shuffle=True, seed=seed, **self.batches)
        epochs = max(1, round(self.steps / len(loader)))
        steps = epochs * len(loader)
        set_seed(seed)
        shape = dict(width=self.width, heads=4, layers=1, feedforward=2 * self.width, dropout=0.0)
        return Seq2SeqTrainer(
            TransformerSeq2Seq(*words, **shape),
            training_config(epochs, lr=8e-3, progress=False, device="cpu"),
            loader,
            loss=Seq2SeqLoss(),
            schedule=linear_warmup(steps // 10, steps),
            seed=seed,
        )


def phrasebook_corpus(steps: int = 800) -> Corpus:
    """That of the notebook."""
    book = phrasebook.load()
    teacher = phrasebook_model("transformer")
    return Corpus(
        teacher, book.train[:2000], book.train[:4000], book.test, 32, {"batch_size": 40}, steps
    )


def captions_corpus(steps: int = 1200) -> Corpus:
    """One pass over all captions makes the teacher; students see a part."""
    trainer = multi30k_trainer(progress=False)
    trainer.fit()
    captions = multi30k.load()
    train, test = captions.train, captions.test
    batches = {"max_tokens": 640}
    return Corpus(trainer.model.eval(), train[:5000], train[:10000], test, 64, batches, steps)


def sources_of(pairs) -> list[str]:
    return [pair.source for pair in pairs]


def speeds(models: dict, texts: list[str], rounds: int = 5) -> dict:
    """For every model sentences a second in batches of 64, and milliseconds for one alone: the best
    of some rounds, in which all take turns."""
    jobs = {}
    for name, model in models.items():
        with torch.inference_mode(), dtype_of(name):
            ready = prepacked(model)
        jobs[name, "many"] = partial(decode, name, ready, texts, 64)
        jobs[name, "alone"] = partial(decode, name, ready, texts[:32], 1)
    times, _ = alternate(jobs, rounds)
    best = {job: min(wall for wall, _ in each) for job, each in times.items()}
    return {
        name: {
            "per_second": len(texts) / best[name, "many"],
            "alone_ms": 1000 * best[name, "alone"] / len(texts[:32]),
        }
        for name in models
    }


def dtype_of(name: str):
    """bfloat16 for a model that is named so."""
    return torch.autocast("cpu", torch.bfloat16, "bfloat16" in name)


def decode(name: str, model, texts: list[str], batch_size: int = 64) -> list[str]:
    """Greedy translations."""
    with dtype_of(name):
        found = translate(model, texts, batch_size=batch_size, attention=False)
    return [each.text for each in found]


def quality(texts: list[str], test) -> dict:
    """BLEU and the share of sentences that are right, %."""
    references = [pair.target.strip() for pair in test]
    right = 100 * metrics.sequence_accuracy(texts, references)
    return {"bleu": metrics.bleu(texts, references), "right": right}


def size_of(path: Path) -> float:
    """MB of a file, or of the graphs in a folder."""
    files = path.glob("*.onnx") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files) / 1e6


def measured(model, test, folder: Path) -> dict:
    """Quality and size of a model in PyTorch."""
    save_model(model, folder / "model.pt")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    size = {"megabytes": size_of(folder / "model.pt"), "parameters": parameters}
    return size | quality(decode("", model, sources_of(test)), test)


def students(corpus: Corpus, seeds, folder: Path) -> dict:
    """The teacher and every student by what it learned from, each a list over the seeds."""
    taught = teacher_pairs(corpus.teacher, sources_of(corpus.many), progress=False)
    few, many = f"{len(corpus.few):,}", f"{len(corpus.many):,}"
    jobs = {
        f"gold, {few} pairs": (corpus.few, False),
        f"word level, the same {few} pairs": (corpus.few, True),
        f"sequence level, their {few} sources": (taught[: len(corpus.few)], False),
        f"sequence level, {many} sources": (taught, False),
        f"gold, {many} pairs": (corpus.many, False),
    }
    results = {"teacher": [measured(corpus.teacher, corpus.test, folder)]}
    models = {"teacher": corpus.teacher}
    for name, (pairs, by_word) in jobs.items():
        results[name] = []
        for seed in seeds:
            trainer = corpus.trainer(pairs, seed)
            if by_word:
                trainer.loss_fn = WordDistillation(corpus.teacher)
            begin = time.perf_counter()
            trainer.fit()
            run = {"seed": seed, "seconds": time.perf_counter() - begin}
            models[name] = trainer.model.eval()
            results[name].append(run | measured(models[name], corpus.test, folder))
            print(f"{name}, seed {seed}: BLEU {results[name][-1]['bleu']:.1f}", flush=True)
    for name, speed in speeds(models, sources_of(corpus.test)[:500]).items():
        results[name][-1] |= speed
    return results


def versions(corpus: Corpus, folder: Path) -> dict:
    """The teacher's weights in four forms."""
    export_onnx(corpus.teacher, folder / "float32")
    quantize_int8(folder / "float32", folder / "int8")
    save_model(corpus.teacher, folder / "teacher.pt")
    models = {
        "PyTorch": corpus.teacher,
        "PyTorch, bfloat16": corpus.teacher,
        "ONNX Runtime": OnnxModel(folder / "float32"),
        "ONNX Runtime, int8": OnnxModel(folder / "int8"),
    }
    paths = dict(zip(models, ("teacher.pt", "teacher.pt", "float32", "int8"), strict=True))
    results = speeds(models, sources_of(corpus.test)[:500])
    expected = decode("", corpus.teacher, sources_of(corpus.test))
    for name, model in models.items():
        texts = decode(name, model, sources_of(corpus.test))
        same = 100 * metrics.sequence_accuracy(texts, expected)
        results[name] |= quality(texts, corpus.test) | {"same": same}
        results[name]["megabytes"] = size_of(folder / paths[name])
        print(f"{name}: BLEU {results[name]['bleu']:.1f}, {same:.1f} % as before", flush=True)
    return results


class Forgetful(TransformerSeq2Seq):
    """Reads the whole prefix at every step; with `encoder_too`, the source as well."""

    shares_memory, encoder_too = False, False

    def encode(self, source, source_mask):
        return replace(super().encode(source, source_mask), start=(source,))

    def start(self, memory):
        return State(hidden=(memory.start[0][:, :0],))

    def step(self, tokens, state, memory):
        prefix = torch.cat([state.hidden[0], tokens[:, None]], dim=1)
        if self.encoder_too:
            memory = self.encode(memory.start[0], memory.mask)
        x = self.embed(self.target_embedding, prefix)
        features, _ = self._decode(x, causal_mask(prefix.shape[1]), memory)
        return self.output(features[:, -1]), State(hidden=(prefix,)), None


def caching(corpus: Corpus) -> dict:
    """Sentences a second by what is kept; every arm must give the same translations."""
    teacher, texts = corpus.teacher, sources_of(corpus.test)[:256]
    arms, expected = {}, decode("", teacher, texts)
    for name, kind in (
        ("nothing", Forgetful),
        ("the encoder's output", Forgetful),
        ("and keys and values", TransformerSeq2Seq),
    ):
        words = teacher.source_vocabulary, teacher.target_vocabulary
        arms[name] = kind(*words, **teacher.settings).eval()
        arms[name].load_state_dict(teacher.state_dict())
        arms[name].encoder_too = name == "nothing"
        if decode("", arms[name], texts) != expected:
            raise AssertionError(f"other translations when it keeps {name}")
    return {name: speed["per_second"] for name, speed in speeds(arms, texts).items()}


def run(corpus: Corpus, seeds) -> dict:
    """All parts of one corpus."""
    with tempfile.TemporaryDirectory() as folder:
        return {
            "students": students(corpus, seeds, Path(folder)),
            "versions": versions(corpus, Path(folder)),
            "caching": caching(corpus),
        }


def table(results: dict) -> str:
    """The README's tables."""
    parts = []
    for corpus, title in TITLES.items():
        if corpus not in results:
            continue
        found = results[corpus]
        rows = [
            [
                name, *(spread([run[key] for run in runs]) for key in ("bleu", "right")),
                f"{runs[0]['parameters'] / 1e6:.2f} M", f"{runs[0]['megabytes']:.2f}",
                f"{runs[-1]['per_second']:,.0f}", f"{runs[-1]['alone_ms']:.1f}",
            ]
            for name, runs in found["students"].items()
        ]  # fmt: skip
        head = ["learned from", "BLEU", "right, %", "parameters", "MB"]
        head += ["sentences/s", "one sentence, ms"]
        parts += [f"{title}, teacher and students:", markdown(head, rows)]
        rows = [
            [
                name, f"{row['bleu']:.1f}", f"{row['same']:.1f}", f"{row['megabytes']:.2f}",
                f"{row['per_second']:,.0f}", f"{row['alone_ms']:.1f}",
            ]
            for name, row in found["versions"].items()
        ]  # fmt: skip
        head = ["the teacher in", "BLEU", "same translations, %", "MB", "sentences/s"]
        parts += [f"{title}, the teacher's forms:", markdown([*head, "one sentence, ms"], rows)]
        rows = [[name, f"{speed:,.0f}"] for name, speed in found["caching"].items()]
        head = ["kept from step to step", "sentences/s"]
        parts += [f"{title}, what decoding keeps:", markdown(head, rows)]
    return "\n\n".join(parts)


def main(quick: bool) -> None:
    pin(1)
    results = {"machine": machine("onnx", "onnxruntime", "sacrebleu")}
    if quick:
        whole = phrasebook_corpus(steps=50)
        parts = dict(few=whole.few[:200], many=whole.many[:400], test=whole.test[:128])
        results["phrasebook"] = run(replace(whole, **parts), seeds=(0,))
    else:
        results["phrasebook"] = run(phrasebook_corpus(), seeds=(0, 1, 2))
        results["captions"] = run(captions_corpus(), seeds=(0,))
        keep(results, RESULTS / "production.json")
    print(table(results))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, short, not saved")
    main(parser.parse_args().quick)
