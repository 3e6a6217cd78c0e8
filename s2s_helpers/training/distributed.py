"""One training on many processes: the same weights as on one, only sooner.

Each process holds the whole model and takes a share of every step's batches; their gradients are
added up before the optimiser steps (Li et al. 2020, *PyTorch Distributed*). All that the trainer
wants of the others is in `Processes`.
"""

import os
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.rendezvous import rendezvous
from torch.utils.data import DataLoader, Dataset, Sampler

from s2s_helpers.data import LengthBuckets, collate, lengths_of


@dataclass(frozen=True)
class Processes:
    """The processes that train one model: `world` of them, and this one's `rank` and `device`.

    What is asked of the others must be asked by every rank, in the same order.
    """

    rank: int = 0
    world: int = 1
    device: str = "cpu"

    @classmethod
    def find(cls) -> "Processes":
        """Those of torch.distributed, if it has begun (Accelerate's `Accelerator()` begins it);
        those that torchrun or `accelerate launch` started; or this one alone.

        With a GPU for each of a machine's ranks they speak NCCL, else processors speak gloo.
        """
        if not distributed.is_available():
            return cls()
        if not distributed.is_initialized():
            if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", 1)) == 1:
                return cls()
            gpus = torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", 1))
            # torchrun keeps its store through a restart, with the addresses of the processes that
            # died in it: each attempt gets names of its own.
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            store, rank, world = next(rendezvous("env://"))
            store = distributed.PrefixStore(f"attempt {attempt}", store)
            backend = "nccl" if gpus else "gloo"
            distributed.init_process_group(backend, store=store, rank=rank, world_size=world)
        device = "cpu"
        if "nccl" in distributed.get_backend():
            device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
            torch.cuda.set_device(device)
        return cls(distributed.get_rank(), distributed.get_world_size(), device)

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes the files and speaks."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of all ranks' tensors of this shape, put in the place of each."""
        if self.world > 1:
            distributed.all_reduce(tensor)
        return tensor

    def sums(self, *numbers: float) -> list[float]:
        """The sum over all ranks of each number."""
        if self.world == 1:
            return list(numbers)
        return self.sum(torch.tensor(numbers, dtype=torch.double, device=self.device)).tolist()

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give each parameter the sum of its gradients on all ranks, None where no rank has one."""
        if self.world == 1:
            return
        parameters = list(parameters)
        there = [float(p.grad is not None) for p in parameters]
        parts = [torch.tensor(there, device=self.device)]
        parts += [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = self.sum(torch.cat([part.flatten() for part in parts]))  # in one go: it is faster
        there, *gradients = flat.split([part.numel() for part in parts])
        for parameter, any_rank, gradient in zip(parameters, there, gradients, strict=True):
            found = gradient.view_as(parameter).to(parameter.dtype)
            parameter.grad = found if any_rank else None

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give all ranks the values of rank 0."""
        for tensor in tensors if self.world > 1 else ():
            distributed.broadcast(tensor.detach(), 0)

    def wait_for_all(self) -> None:
        """Return when every rank has come here."""
        if self.world > 1:
            distributed.barrier()

    def end(self) -> None:
        """Part from the others: nothing can be asked of them any more."""
        if self.world > 1 and distributed.is_initialized():
            distributed.destroy_process_group()


class ShardedBuckets(Sampler[list[int]]):
    """A batch sampler for one of several processes: its share of the batches of `buckets`.

    A step is `batches_per_step` batches of all the ranks (default: one each); rank r takes numbers
    r, r + world, and so on. The plan of an epoch is a function of the buckets' seed and the epoch's
    number, so every rank makes it alone. Each example comes once an epoch, and every rank has as
    many batches as the others: where they do not come out even, or make fewer than `at_least`
    steps, the largest are cut in two. With `neighbours`, batches of like size make a step, so that
    no rank waits long for another.
    """

    def __init__(
        self, buckets: LengthBuckets, rank: int = 0, world: int = 1,
        batches_per_step: int | None = None, neighbours: bool = True, at_least: int = 0,
    ):  # fmt: skip
        self.batches_per_step = world if batches_per_step is None else batches_per_step
        each, rest = divmod(self.batches_per_step, world)
        if not 0 <= rank < world or each < 1 or rest:
            raise ValueError(
                f"rank must be below world, and batches_per_step a multiple of world, not rank "
                f"{rank}, world {world}, batches_per_step {self.batches_per_step}"
            )
        self.buckets, self.rank, self.world = buckets, rank, world
        self.neighbours, self.at_least, self.epoch = neighbours, at_least, 0

    def set_epoch(self, epoch: int) -> None:
        """Let the next epoch be that of this number."""
        self.epoch = epoch

    def load(self, batch: list[int]) -> int:
        """Tokens of source and target, padding counted: what a batch costs."""
        keys = [self.buckets._sort_keys[index] for index in batch]
        return len(batch) * sum(map(max, zip(*keys, strict=True)))

    def steps(self, epoch: int) -> list[list[list[int]]]:
        """The steps of an epoch, of `batches_per_step` batches each."""
        size, batches = self.batches_per_step, self.buckets._batches(epoch)
        if self.neighbours:
            batches.sort(key=self.load)
        while len(batches) % size or len(batches) < self.at_least * size:
            at = max(range(len(batches)), key=lambda number: len(batches[number]))
            if len(batches[at]) < 2:
                raise ValueError(f"too few examples for steps of {size} batches")
            batches[at : at + 1] = batches[at][::2], batches[at][1::2]
        steps = [batches[n : n + size] for n in range(0, len(batches), size)]
        if self.neighbours:
            random.Random(f"steps {self.buckets.seed} {epoch}").shuffle(steps)
        return steps

    def __iter__(self) -> Iterator[list[int]]:
        steps = self.steps(self.epoch)
        self.epoch += 1
        for step in steps:
            yield from step[self.rank :: self.world]

    def __len__(self) -> int:
        return len(self.steps(self.epoch)) * self.batches_per_step // self.world


def sharded_loader(
    dataset: Dataset, batch_size: int | None = None, max_tokens: int | None = None,
    seed: int = 0, processes: Processes | None = None, **sampler: Any,
) -> DataLoader:  # fmt: skip
    """A DataLoader of this rank's batches, in another order each epoch, as `make_loader` makes
    them; `sampler` goes to `ShardedBuckets`. Raises ValueError as these two."""
    processes = Processes.find() if processes is None else processes
    buckets = LengthBuckets(lengths_of(dataset), batch_size, max_tokens, seed=seed)
    sharded = ShardedBuckets(buckets, processes.rank, processes.world, **sampler)
    return DataLoader(dataset, batch_sampler=sharded, collate_fn=collate)


def batches_per_step(loader: Any) -> int | None:
    """How many batches of all ranks are a step, for a loader that deals them out; None: it does
    not, and gives every rank the same."""
    dealer = getattr(loader, "batch_sampler", None)
    return getattr(loader if dealer is None else dealer, "batches_per_step", None)
