"""One training on many processes: the same weights as on one, only sooner.

    python -m s2s_helpers.training.distributed FOLDER DATA                        one process
    torchrun --nproc-per-node 2 -m s2s_helpers.training.distributed FOLDER DATA   two, here

Each process holds the whole model and takes a share of every step's batches; their gradients are
averaged before the optimiser steps (Li et al. 2020, *PyTorch Distributed*). Accelerate finds the
other processes, and takes GPUs and NCCL, or processors and gloo.
"""

import argparse
import csv
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from functools import partial
from itertools import chain, count, islice, repeat
from pathlib import Path

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.rendezvous import rendezvous
from torch.utils.data import DataLoader, Sampler

from s2s_helpers.corpora import Pair, wmt
from s2s_helpers.data import LengthBuckets, Seq2SeqDataset, collate
from s2s_helpers.files import save_file
from s2s_helpers.loss import Seq2SeqLoss
from s2s_helpers.models import TransformerSeq2Seq, model_to_dict, save_model
from s2s_helpers.optional import import_optional
from s2s_helpers.training import checkpoint
from s2s_helpers.training.schedules import inverse_square_root
from s2s_helpers.vocabulary import SubwordVocabulary, Vocabulary


class ShardedBuckets(Sampler[list[int]]):
    """A batch sampler for one of several processes: its share of the batches of `buckets`.

    A step is `together` batches (default: one for each of the `world` ranks); rank r takes numbers
    r, r + world, and so on. The plan of a pass is a function of the buckets' seed and the pass's
    number, so every rank makes it alone. Each example comes once a pass, and every rank has as many
    batches as the others: where they do not come out even, or make fewer than `at_least` steps, the
    largest are cut in two. With `neighbours`, batches of like size make a step, so that no rank
    waits long for another.
    """

    def __init__(
        self, buckets: LengthBuckets, rank=0, world=1, together=None, neighbours=True, at_least=0
    ):
        self.together = world if together is None else together
        if not 0 <= rank < world or self.together < 1 or self.together % world:
            raise ValueError(
                f"rank must be below world, and together a multiple of world, "
                f"not rank {rank}, world {world}, together {self.together}"
            )
        self.buckets, self.rank, self.world = buckets, rank, world
        self.neighbours, self.at_least = neighbours, at_least
        self.set_epoch(0)

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Let the next pass be number `epoch`, from its step `start` on."""
        self.epoch, self.start = epoch, start

    def load(self, batch: list[int]) -> int:
        """Tokens of source and target, padding counted: what a batch costs."""
        keys = [self.buckets._sort_keys[index] for index in batch]
        return len(batch) * sum(map(max, zip(*keys, strict=True)))

    def steps(self, epoch: int) -> list[list[list[int]]]:
        """The steps of a pass, of `together` batches each."""
        batches = self.buckets._batches(epoch)
        if self.neighbours:
            batches.sort(key=self.load)
        while len(batches) % self.together or len(batches) < self.at_least * self.together:
            at = max(range(len(batches)), key=lambda number: len(batches[number]))
            if len(batches[at]) < 2:
                raise ValueError(f"too few examples for steps of {self.together} batches")
            batches[at : at + 1] = batches[at][::2], batches[at][1::2]
        steps = [batches[n : n + self.together] for n in range(0, len(batches), self.together)]
        if self.neighbours:
            random.Random(f"steps {self.buckets.seed} {epoch}").shuffle(steps)
        return steps

    def __iter__(self):
        steps = self.steps(self.epoch)[self.start :]
        self.set_epoch(self.epoch + 1)
        for step in steps:
            yield from step[self.rank :: self.world]

    def __len__(self) -> int:
        return (len(self.steps(self.epoch)) - self.start) * self.together // self.world


def sharded_loader(dataset: Seq2SeqDataset, max_tokens: int, seed=0, **sampler) -> DataLoader:
    """A DataLoader of one rank's batches of `max_tokens`; the rest goes to `ShardedBuckets`."""
    lengths = list(zip(dataset.source_lengths, dataset.target_lengths, strict=True))
    buckets = LengthBuckets(lengths, max_tokens=max_tokens, shuffle=True, seed=seed)
    sharded = ShardedBuckets(buckets, **sampler)
    return DataLoader(dataset, batch_sampler=sharded, collate_fn=collate)


class TotalLoss(nn.Module):
    """A model and its loss: a batch to the loss summed over real tokens.

    DistributedDataParallel acts on what is called through `forward`, so the loss belongs inside.
    """

    def __init__(self, model, loss: Seq2SeqLoss):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch):
        if not self.model.forward_is_split:
            return self.loss.total(self.model(batch)[0], batch.target_output)[0]
        features, _ = self.model.features(batch)
        return self.loss.of_features(features, self.model.output_layer, batch.target_output)[0]


def accelerator(bf16: bool = False):
    """Accelerate's view of the processes: a GPU for each, or all of them on the processor."""
    cpu = torch.cuda.device_count() < int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT")
    if attempt is not None and not dist.is_initialized():
        # torchrun keeps its store through a restart, with the addresses of the processes that died
        # in it: each attempt gets names of its own.
        store, rank, world = next(rendezvous("env://"))
        store = dist.PrefixStore(f"attempt {attempt}", store)
        backend = "gloo" if cpu else "nccl"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world)
    return import_optional("accelerate").Accelerator(
        cpu=cpu, mixed_precision="bf16" if bf16 else "no"
    )


def train(
    model, loaders, folder, passes=1, lr=2e-3, warmup=200, label_smoothing=0.1, seed=0,
    save_every=100, bf16=False, settings=(), log=print,
) -> list[dict]:  # fmt: skip
    """Train on all processes that were started; goes on from folder/last.pt where there is one.

    `loaders(n)` yields this rank's DataLoaders, each of a `ShardedBuckets` and for one pass, from
    pass n on. A step's loss is the mean over the real tokens of all ranks; `lr` is the peak of
    the schedule of Vaswani et al. 2017, section 5.3. Gradients are clipped to a norm of 1.
    Every `save_every` steps rank 0 writes all that the next step depends on. Dropout's randomness
    is a function of seed, step and batch: of it nothing need be kept. `settings`: plain values, by
    name, in which a resumed run has to agree.

    Returns for each time of saving a dict with "step", and since the time before "tokens" (of the
    target), "loss" (nats a token) and "seconds". Raises ValueError where last.pt is of another run.
    """
    run, last = accelerator(bf16), Path(folder) / "last.pt"
    rank, world = run.process_index, run.num_processes
    adamw = torch.optim.AdamW(model.parameters(), lr, betas=(0.9, 0.98), eps=1e-9, fused=True)
    told = dict(settings, lr=lr, warmup=warmup, label_smoothing=label_smoothing, seed=seed)
    state = {"epoch": 0, "done": 0, "step": 0, "history": []}
    if last.exists():
        saved = checkpoint.read(last)
        checkpoint.check_same_model(last, saved["model"], model_to_dict(model))
        for key, value in told.items():
            if (there := saved["settings"].get(key)) != value:
                raise ValueError(f"{last} is of another run: its {key} is {there}, not {value}")
        model.load_state_dict(saved["model"]["weights"])
        adamw.load_state_dict(saved["optimizer"])
        state = saved["state"]
        log(f"rank {rank} goes on after step {state['step']}")
    wrapped, optimizer = run.prepare(TotalLoss(model.train(), Seq2SeqLoss(label_smoothing)), adamw)
    factor, sums = (
        inverse_square_root(warmup),
        torch.zeros(2, dtype=torch.double, device=run.device),
    )
    since = time.perf_counter()

    def save():
        nonlocal since
        total, tokens = run.reduce(sums, "sum").tolist()
        if tokens:
            row = {"step": state["step"], "tokens": int(tokens), "loss": total / tokens}
            state["history"].append(row | {"seconds": time.perf_counter() - since})
        sums.zero_()
        since = time.perf_counter()
        if run.is_main_process:
            kept = {"model": model_to_dict(model), "optimizer": adamw.state_dict()}
            save_file(kept | {"state": state, "settings": told}, last)
        if run.is_main_process and tokens:
            log(f"step {state['step']}, loss {total / tokens:.4f}")

    for loader in islice(loaders(state["epoch"]), passes - state["epoch"]):
        sampler = loader.batch_sampler
        sampler.set_epoch(state["epoch"], state["done"])
        batches, mine = iter(loader), sampler.together // sampler.world
        while step := list(islice(batches, mine)):
            local = torch.tensor(float(sum(batch.tokens for batch in step)), device=run.device)
            tokens = run.reduce(local, "sum")
            for number, batch in enumerate(step):
                # The place within the step is the same, whichever rank has the batch.
                place = f"{seed} {state['step']} {rank + number * world}"
                torch.manual_seed(random.Random(place).getrandbits(63))
                last_one = number == len(step) - 1  # gradients travel once a step, with it
                with nullcontext() if last_one else run.no_sync(wrapped):
                    total = wrapped(batch.to(run.device))
                    run.backward(total * (world / tokens))  # DDP divides by world
                sums[0] += total.detach()
            sums[1] += local
            run.clip_grad_norm_(model.parameters(), 1.0)
            adamw.param_groups[0]["lr"] = lr * factor(state["step"] + 1)
            optimizer.step()
            optimizer.zero_grad()
            state["step"], state["done"] = state["step"] + 1, state["done"] + 1
            if state["step"] % save_every == 0:
                save()
        state["epoch"], state["done"] = state["epoch"] + 1, 0
        save()
    run.wait_for_everyone()
    return state["history"]


def training_flops(model, source: int, target: int) -> float:
    """Operations to train a transformer on so many source and target tokens: 2 forward, 4 backward
    for each weight and token that it multiplies (Kaplan et al. 2020, section 2.1).

    Attention's own products, small for sentences, are left out; looking embeddings up is free.
    """
    flops = 6.0 * target * model.output_layer.weight.numel()
    for name, weight in model.named_parameters():
        if weight.dim() > 1 and name.startswith(("encoder.", "decoder.")):
            of_source = re.search(r"^encoder\.|\.cross\.(key|value)\.", name)
            flops += 6.0 * weight.numel() * (source if of_source else target)
    return flops


def all_reduce_seconds(parameters: int, ranks: int, bandwidth: float, size: int = 4) -> float:
    """A ring all-reduce of numbers of `size` bytes at `bandwidth` bytes a second: every rank sends
    2 (N - 1) / N of them (Patarasuk and Yuan 2009)."""
    return 2 * (ranks - 1) / ranks * parameters * size / bandwidth


def torchrun(*arguments, processes: int = 2, restarts: int = 0):
    """Run this module, or the script that the first argument names, in so many processes here;
    yields each line that they print. When one fails, all start anew, at most `restarts` times.

    When the caller stops reading, all are ended. Raises RuntimeError where the run fails.
    """
    module = [] if str(arguments[0]).endswith(".py") else ["-m", "s2s_helpers.training.distributed"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", f"--max-restarts={restarts}", *module]
    once = dict(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", PYTHONUNBUFFERED="1")
    with tempfile.TemporaryFile("w+") as errors, subprocess.Popen(
        [*command, *map(str, arguments)], stdout=subprocess.PIPE, stderr=errors, text=True,
        env=os.environ | once,
    ) as process:  # fmt: skip
        try:
            yield from map(str.rstrip, process.stdout)
            if process.wait():
                errors.seek(0)
                text = errors.read()
                found = re.search(r"^(?:\[rank\d+\]: *)?(\w*Error: .*)", text, re.MULTILINE)
                raise RuntimeError(f"the run failed: {found[1] if found else text[-3000:]}")
        finally:
            process.terminate()  # torchrun ends its workers first


def read_csv(path, limit: int | None = None) -> list[Pair]:
    """The two columns of a CSV file; raises ValueError for a row that has not two texts."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[:limit]
    for number, row in enumerate(rows, 1):
        if len(row) != 2 or not all(text.strip() for text in row):
            raise ValueError(f"{path}: row {number} is not two texts: {row}")
    return [Pair(*row) for row in rows]


def main(arguments=None) -> None:
    """Train on a CSV file, held in memory, or chunk by chunk on a stream like WMT's."""
    parser = argparse.ArgumentParser(
        prog="s2s_helpers.training.distributed", description=__doc__.split("\n")[0]
    )
    parser.add_argument("folder", help="for last.pt and model.pt")
    parser.add_argument("data", help="a file: .csv, .jsonl, .parquet; or a name of WMT's: wmt14")
    parser.add_argument("--together", type=int, help="batches a step; default: one a process")
    parser.add_argument("--bf16", action="store_true")
    options = dict(languages="fr-en", pairs=0, chunk=100_000, subwords=0, max_tokens=1024)
    options |= dict(width=128, heads=4, layers=2, feedforward=256, dropout=0.1)
    fixed = ["data", "together", *options]  # what a resumed run has to share
    options |= dict(passes=1, save_every=100, lr=2e-3, warmup=200, label_smoothing=0.1, seed=0)
    for name, value in options.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    told = parser.parse_args(arguments)
    run = accelerator(told.bf16)
    rank, world = run.process_index, run.num_processes
    told.together = told.together or world
    if told.together % world:
        parser.error(f"--together {told.together} is not a multiple of the {world} processes")
    # In one piece, for several processes write here.
    say = lambda line: print(f"{line}\n", end="", flush=True)  # noqa: E731
    say(f"rank {rank} of {world} on {run.device.type}, process {os.getpid()}")

    def chunks(rank: int, world: int, first: int = 0):
        """Lists of pairs, pass after pass over the stream, from number `first` on."""
        path = told.data if Path(told.data).suffix else None
        place = dict(rank=rank, world=world, limit=told.pairs or None, path=path)
        endless = (wmt.stream(told.data, told.languages, seed=n, **place) for n in count())
        pairs = islice(chain.from_iterable(endless), first * told.chunk, None)
        return iter(lambda: list(islice(pairs, told.chunk)), [])

    in_memory = Path(told.data).suffix == ".csv"
    pairs = read_csv(told.data, told.pairs or None) if in_memory else next(chunks(0, 1))
    texts = [[pair.source for pair in pairs], [pair.target for pair in pairs]]
    if told.subwords:
        both = [SubwordVocabulary.train(texts[0] + texts[1], told.subwords)] * 2
    else:
        both = [Vocabulary.build(side) for side in texts]
    cut = min(told.max_tokens, 256)  # the model's positions

    def loaders(first: int):
        make = partial(sharded_loader, max_tokens=told.max_tokens, seed=told.seed)
        if in_memory:  # every rank knows all pairs
            data = Seq2SeqDataset(pairs, *both, cut)
            yield from repeat(make(data, rank=rank, world=world, together=told.together))
        for own in chunks(rank, world, first):  # it has its own, and agrees on the number of steps
            data, mine = Seq2SeqDataset(own, *both, cut), told.together // world
            steps = torch.tensor([len(make(data, together=mine)) // mine], device=run.device)
            yield make(data, together=mine, at_least=int(run.gather(steps).max()))

    torch.manual_seed(told.seed)
    shape = {name: getattr(told, name) for name in fixed[-5:]}
    model = TransformerSeq2Seq(*both, **shape)
    model.wants_attention = False
    settings = {name: getattr(told, name) for name in fixed}
    if not in_memory:
        settings["number of processes"] = world  # the shares of the stream hang on it
    train(
        model, loaders, told.folder, told.passes, told.lr, told.warmup, told.label_smoothing,
        told.seed, told.save_every, told.bf16, settings, log=say,
    )  # fmt: skip
    if run.is_main_process:
        save_model(model, Path(told.folder) / "model.pt")
    run.end_training()


if __name__ == "__main__":
    main()
