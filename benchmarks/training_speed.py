"""How fast the package trains, beside Hugging Face's MarianMTModel and torch's nn.Transformer.

python benchmarks/training_speed.py [--threads 1|2] [--device auto|cpu] [--quick] [--keep-memory]
python benchmarks/training_speed.py table

All train a post-norm transformer of the same shape with tied embeddings on real captions of
Multi30k: dropout, label smoothing, gradients clipped, fused AdamW. "ours" is a step of
`Seq2SeqTrainer`; the others compute all logits and take torch's cross_entropy. Every row trains on
pairs as they come ("random") or on pairs of like lengths ("buckets"), with about as many real
tokens to a batch. In every round each row has its turn, the rounds to and fro, and the batches are
new: a shape not yet seen costs more, in bfloat16 above all. A speed is the median over the rounds.

--keep-memory starts Python anew with glibc told to keep the memory it has (its tunables count only
at the start of a process): large tensors then cost less, which helps those most who have most.
Everything goes to benchmarks/results/training_speed.json.
"""

import argparse
import importlib.util
import itertools
import json
import os
import sys
from functools import partial

import torch
from measuring import (
    RESULTS,
    alternate,
    device_for,
    device_name,
    keep,
    machine,
    markdown,
    median_of,
    pin,
    times_as_fast,
)
from torch import nn
from torch.nn import functional as F

from s2s_helpers.corpora import multi30k
from s2s_helpers.data import Seq2SeqDataset, make_loader
from s2s_helpers.loss import Seq2SeqLoss
from s2s_helpers.models import TransformerSeq2Seq
from s2s_helpers.models.transformer import sinusoidal_positions
from s2s_helpers.optional import import_optional
from s2s_helpers.training import Seq2SeqTrainer, gains_by_bf16, set_seed, training_config
from s2s_helpers.vocabulary import EOS, PAD, SOS, SubwordVocabulary

FILE = RESULTS / "training_speed.json"
VOCABULARY, WIDTH, HEADS, LAYERS, FEEDFORWARD, DROPOUT = 10_000, 128, 4, 4, 256, 0.1
SMOOTHING, LR, CLIP = 0.1, 1e-3, 1.0
BATCH, MAX_TOKENS = 64, 1024  # about 900 real target tokens to a batch, both ways
PEAK_SIZE = {"cpu": 1024, "cuda": 8192}  # of the matrices that show what a device can do
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "67108864",
}


# Who trains. Each function returns step(batch).


def ours(vocabulary, bf16=False, whole_logits=False, device="cpu"):
    """A step of this package's trainer."""

    class WholeLogits(Seq2SeqLoss):
        """Its own `total` needs all the logits."""

        def total(self, logits, targets):
            return super().total(logits, targets)

    model = TransformerSeq2Seq(
        vocabulary, vocabulary, width=WIDTH, heads=HEADS, layers=LAYERS, feedforward=FEEDFORWARD,
        dropout=DROPOUT, norm_first=False,
    )  # fmt: skip
    config = training_config(1, lr=LR, clip=CLIP, progress=False, device=device, bf16=bf16)
    loss = (WholeLogits if whole_logits else Seq2SeqLoss)(SMOOTHING)
    trainer = Seq2SeqTrainer(model.train(), config, [], loss=loss)
    return lambda batch: trainer._train_step(batch, 0)


def usual_step(model, logits_of, bf16: bool, device: str):
    """The usual training step around `logits_of(batch)`."""
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), LR, (0.9, 0.98), 1e-9, 0.01, fused=True)
    model.train()

    def step(batch):
        batch = batch.to(device)
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            logits = logits_of(batch)
            loss = F.cross_entropy(
                logits.flatten(0, 1), batch.target_output.flatten(),
                ignore_index=PAD, label_smoothing=SMOOTHING,
            )  # fmt: skip
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return loss.item()

    return step


def transformers(vocabulary, bf16=False, device="cpu"):
    """Hugging Face's MarianMTModel."""
    marian = import_optional("transformers")
    half = dict(layers=LAYERS, attention_heads=HEADS, ffn_dim=FEEDFORWARD)
    halves = {f"{side}_{name}": half[name] for side in ("encoder", "decoder") for name in half}
    config = marian.MarianConfig(
        vocab_size=len(vocabulary), d_model=WIDTH, max_position_embeddings=256,
        **halves,
        dropout=DROPOUT, attention_dropout=0.0, activation_dropout=0.0, activation_function="relu",
        scale_embedding=True, pad_token_id=PAD, eos_token_id=EOS, decoder_start_token_id=SOS,
        forced_eos_token_id=None,
    )  # fmt: skip
    model = marian.MarianMTModel(config)

    def logits_of(batch):
        return model(
            input_ids=batch.source, attention_mask=batch.source_mask.long(),
            decoder_input_ids=batch.target_input, use_cache=False,
        ).logits  # fmt: skip

    return usual_step(model, logits_of, bf16, device)


class TorchTransformer(nn.Module):
    """torch's nn.Transformer between tied embeddings and an output layer."""

    def __init__(self, size: int):
        super().__init__()
        self.embedding = nn.Embedding(size, WIDTH, padding_idx=PAD)
        self.register_buffer("positions", sinusoidal_positions(256, WIDTH))
        self.dropout = nn.Dropout(DROPOUT)
        self.inner = nn.Transformer(
            WIDTH, HEADS, LAYERS, LAYERS, FEEDFORWARD, DROPOUT, batch_first=True
        )
        self.output = nn.Linear(WIDTH, size)
        self.output.weight = self.embedding.weight

    def embed(self, ids):
        return self.dropout(self.embedding(ids) * WIDTH**0.5 + self.positions[: ids.shape[1]])

    def forward(self, batch):
        time = batch.target_input.shape[1]
        hidden = self.inner(
            self.embed(batch.source), self.embed(batch.target_input),
            tgt_mask=torch.ones(time, time, dtype=torch.bool, device=self.positions.device).triu(1),
            tgt_is_causal=True,
            src_key_padding_mask=~batch.source_mask, memory_key_padding_mask=~batch.source_mask,
        )  # fmt: skip
        return self.output(hidden)


def nn_transformer(vocabulary, bf16=False, device="cpu"):
    """torch's nn.Transformer."""
    model = TorchTransformer(len(vocabulary))
    return usual_step(model, model, bf16, device)


TRAINERS = {
    "nn.Transformer": nn_transformer,
    "nn.Transformer, bf16": partial(nn_transformer, bf16=True),
    "Hugging Face Marian": transformers,
    "Hugging Face Marian, bf16": partial(transformers, bf16=True),
    "ours, all logits at once": partial(ours, whole_logits=True),
    "ours": ours,
    "ours, bf16": partial(ours, bf16=True),
}
PEERS = [name for name in TRAINERS if not name.startswith("ours")]


# Measuring


def some_batches(count: int) -> tuple:
    """The vocabulary, and {"random": batches, "buckets": batches}."""
    pairs = multi30k.load().train
    texts = [text for pair in pairs for text in (pair.source, pair.target)]
    shared = SubwordVocabulary.train(texts, VOCABULARY)
    data = Seq2SeqDataset(pairs, shared, shared)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0)).tolist()
    random = torch.utils.data.DataLoader(
        data, sampler=order, batch_size=BATCH, collate_fn=make_loader(data).collate_fn
    )
    buckets = make_loader(data, max_tokens=MAX_TOKENS, shuffle=True)
    loaders = {"random": random, "buckets": buckets}
    return shared, {name: list(itertools.islice(x, count)) for name, x in loaders.items()}


def padding(batches) -> float:
    """The share of padding among all ids, source and target."""
    masks = [mask for batch in batches for mask in (batch.source_mask, batch.target_mask)]
    return 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)


def multiplications(batches) -> float:
    """Floating-point operations of the matrix multiplications that training on the real tokens
    needs: two for each weight and token forwards, four backwards."""
    square, feedforward = WIDTH**2, 2 * WIDTH * FEEDFORWARD
    total = 0
    for batch in batches:
        sources, targets = batch.source_mask.sum(1), batch.target_mask.sum(1)  # (batch,)
        on_source = LAYERS * (6 * square + feedforward)  # with cross-attention's keys and values
        on_target = LAYERS * (6 * square + feedforward) + WIDTH * VOCABULARY
        looks = 2 * LAYERS * WIDTH * (sources**2 + targets**2 + sources * targets)
        total += int((on_source * sources + on_target * targets + looks).sum())
    return 6 * total


def multiply(dtype, device: str, times: int = 20):
    """A matrix multiplication large enough to show what the device can do."""
    size = PEAK_SIZE[device]
    one, other = torch.randn(2, size, size, device=device).to(dtype)
    for _ in range(times):
        product = one @ other
    product[0, 0].item()  # a GPU is still at work
    return 2 * size**3 * times


def run(threads: int, rounds: int, count: int, device: str = "cpu") -> dict:
    """All rows, in turn."""
    pin(threads)
    device = device_for(device).type
    # A GPU's time is the wall's.
    busy = 1 if device == "cpu" else 0
    vocabulary, batches = some_batches(rounds * count)
    jobs, tokens = {}, {}
    bf16 = device != "cpu" or gains_by_bf16()  # else it would take minutes for a batch
    best = "ours, bf16" if bf16 else "ours"
    for name, build in TRAINERS.items():
        if name.endswith("bf16") and not bf16:
            continue
        set_seed(0)
        if name.startswith("Hugging Face") and importlib.util.find_spec("transformers") is None:
            print(f"{name} is left out; to have it: pip install transformers")
            continue
        step = build(vocabulary, device=device)
        for order, some in batches.items():
            for batch in some[: 1 if device == "cpu" else count]:  # a GPU loads its kernels late
                step(batch)
            parts = [some[i : i + count] for i in range(0, len(some), count)]  # one for each round
            left = iter(parts)
            jobs[name, order] = lambda step=step, left=left: [step(b) for b in next(left)]
            tokens[name, order] = [sum(batch.tokens for batch in part) for part in parts]
    for dtype in (torch.float32, torch.bfloat16)[: 1 + bf16]:
        jobs["peak", str(dtype).removeprefix("torch.")] = partial(multiply, dtype, device)
    times, outputs = alternate(jobs, rounds)
    peak = {
        dtype: outputs["peak", dtype] / median_of(times["peak", dtype], busy)
        for dtype in ("float32", "bfloat16")[: 1 + bf16]
    }
    rows = []
    # Seconds for a token, so that rounds of different sizes compare.
    each = {
        row: [(wall / n, cpu / n) for (wall, cpu), n in zip(times[row], counts, strict=True)]
        for row, counts in tokens.items()
    }
    for (name, order), measured in each.items():
        mine, total = each[best, "buckets"], sum(tokens[name, order])
        wall, cpu = median_of(measured, 0), median_of(measured, busy)
        kind = "bfloat16" if "bf16" in name else "float32"
        rows.append({
            "trainer": name, "batches": order, "padding": padding(batches[order]),
            "tokens": total, "rounds": rounds,
            "tokens_per_second": 1 / wall, "tokens_per_cpu_second": 1 / cpu,
            "ours_times_as_fast": times_as_fast(mine, measured, 0),
            "ours_times_as_fast_cpu": times_as_fast(mine, measured, busy),
            "share_of_peak": multiplications(batches[order]) / total / cpu / peak[kind],
        })  # fmt: skip
    return {
        "on": device_name(torch.device(device), threads),
        "best": best,
        "peak_flops_per_cpu_second": peak,
        "rows": rows,
    }


def table(run: dict) -> str:
    """A Markdown table of one run."""
    head = [
        "training", "batches", "padding, %", "tokens/s", "tokens/s of CPU time",
        f"{run['best']}, buckets is faster", "by CPU time", "of the peak, %",
    ]  # fmt: skip
    rows = [
        [
            row["trainer"], row["batches"], f"{100 * row['padding']:.0f}",
            f"{row['tokens_per_second']:,.0f}", f"{row['tokens_per_cpu_second']:,.0f}",
            f"{row['ours_times_as_fast']:.2f} ×", f"{row['ours_times_as_fast_cpu']:.2f} ×",
            f"{100 * row['share_of_peak']:.0f}",
        ]
        for row in run["rows"]
    ]  # fmt: skip
    return markdown(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=["run", "table"], default="run")
    parser.add_argument("--threads", type=int, choices=[1, 2], default=1)
    parser.add_argument("--device", choices=["auto", "cpu"], default="auto")
    parser.add_argument("--quick", action="store_true", help="3 rounds of 2 batches, not saved")
    parser.add_argument("--keep-memory", action="store_true", help="see above; needs glibc")
    told = parser.parse_args()
    if told.keep_memory and "MALLOC_TOP_PAD_" not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEP_MEMORY)
    results = json.loads(FILE.read_text("utf-8")) if FILE.exists() else {"runs": {}}
    if told.what == "run":
        rounds, count = (3, 2) if told.quick else (5, 6)
        result = run(told.threads, rounds, count, told.device)
        name = result["on"] + (", memory kept" if told.keep_memory else "")
        if told.quick:
            results = {"runs": {name: result}}
        else:
            results["runs"][name] = result | {"machine": machine("transformers")}
            keep(results, FILE)
    for name, result in results["runs"].items():
        peak = {k: round(v / 1e9) for k, v in result["peak_flops_per_cpu_second"].items()}
        print(f"\n{name}; peak of a matrix multiplication, GFLOP/s: {peak}\n\n{table(result)}")


if __name__ == "__main__":
    main()
