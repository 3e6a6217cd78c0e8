"""Several processes: who gets which batch, one gradient, the same weights, nothing lost."""

import copy
import csv
import importlib.util
import json
import os
import re
import signal
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from on_processes import everything
from treadmill import EarlyStopping, ModelCheckpoint

from s2s_helpers.corpora import Pair, phrasebook, read_pairs, wmt
from s2s_helpers.course import scaling
from s2s_helpers.data import LengthBuckets, Seq2SeqDataset, collate, make_loader
from s2s_helpers.decoding import translate
from s2s_helpers.loss import Seq2SeqLoss
from s2s_helpers.models import TransformerSeq2Seq, load_model, save_model
from s2s_helpers.training import (
    Seq2SeqTrainer,
    Stream,
    checkpoint,
    distributed,
    inverse_square_root,
    set_seed,
    training_config,
    translation_trainer,
)
from s2s_helpers.training.__main__ import main
from s2s_helpers.vocabulary import Vocabulary

SHAPE = dict(width=16, heads=2, layers=1, feedforward=16)
TINY = [word for name, size in SHAPE.items() for word in (f"--{name}", size)]
TINY += ["--max-tokens", 64]
needs_accelerate = pytest.mark.skipif(
    importlib.util.find_spec("accelerate") is None, reason="accelerate is not installed"
)
needs_datasets = pytest.mark.skipif(
    importlib.util.find_spec("datasets") is None, reason="datasets is not installed"
)


def sharded(lengths, world, **settings):
    """The sampler of each rank."""
    size = {key: settings.pop(key) for key in ("batch_size", "max_tokens") if key in settings}
    buckets = LengthBuckets(lengths, **(size or dict(max_tokens=40)), seed=settings.pop("seed", 0))
    return [distributed.ShardedBuckets(buckets, rank, world, **settings) for rank in range(world)]


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=24, max_size=90),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 5),
    st.booleans(),
)
def test_ranks_share_every_example_once_and_evenly(lengths, world, each, epoch, neighbours):
    samplers = sharded(lengths, world, batches_per_step=world * each, neighbours=neighbours)
    for sampler in samplers:
        sampler.set_epoch(epoch)
    sizes = {len(sampler) for sampler in samplers}
    batches = [list(sampler) for sampler in samplers]
    assert sorted(n for own in batches for batch in own for n in batch) == list(range(len(lengths)))
    assert {len(own) for own in batches} == sizes and sizes.pop() % each == 0
    for batch in (batch for own in batches for batch in own):
        assert len(batch) * max(max(lengths[n]) for n in batch) <= 40


def test_every_epoch_has_an_order_of_its_own():
    (sampler,) = sharded([(n % 9 + 1, n % 7 + 1) for n in range(200)], 1, batches_per_step=2)
    whole = list(sampler)
    assert list(sampler) != whole
    sampler.set_epoch(0)
    assert list(sampler) == whole


def test_the_plan_of_one_rank_is_that_of_many():
    lengths = [(n % 9 + 1, n % 7 + 1) for n in range(200)]
    one = sharded(lengths, 1, batches_per_step=4)[0].steps(2)
    assert all(sampler.steps(2) == one for sampler in sharded(lengths, 4))
    assert all(len(step) == 4 for step in one)


def test_neighbours_cost_alike():
    lengths = [(n % 19 + 2, n % 19 + 2) for n in range(4000)]

    def waiting(neighbours):
        sampler = sharded(lengths, 4, batch_size=16, neighbours=neighbours)[0]
        loads = torch.tensor([[float(sampler.load(b)) for b in step] for step in sampler.steps(0)])
        return 1 - loads.mean() / loads.amax(dim=1).mean()

    assert waiting(True) < 0.02 < 0.2 < waiting(False)


def test_the_load_of_a_batch_counts_padding():
    sampler = sharded([(3, 5), (7, 2)], 1)[0]
    assert sampler.load([0, 1]) == 2 * (7 + 5)


def test_more_steps_on_demand():
    (sampler,) = sharded([(5, 5)] * 100, 1, max_tokens=100, at_least=9)
    assert len(sampler) == 9 and sorted(n for b in sampler for n in b) == list(range(100))


@pytest.mark.parametrize(("rank", "world", "size"), [(2, 2, 2), (-1, 2, 2), (0, 2, 3), (0, 1, 0)])
def test_ranks_that_cannot_be(rank, world, size):
    with pytest.raises(ValueError, match="below world, and batches_per_step a multiple of world"):
        distributed.ShardedBuckets(LengthBuckets([1, 2], batch_size=1), rank, world, size)


def test_too_few_examples():
    with pytest.raises(ValueError, match="too few examples for steps of 3 batches"):
        list(sharded([(1, 1), (2, 2)], 3)[0])


@pytest.fixture(scope="module")
def pairs():
    return phrasebook.load().train[:300]


@pytest.fixture(scope="module")
def words(pairs):
    return [Vocabulary.build([getattr(p, side) for p in pairs]) for side in ("source", "target")]


def write_csv(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory, pairs):
    folder = tmp_path_factory.mktemp("data")
    return write_csv(folder / "pairs.csv", [(p.source, p.target) for p in pairs])


def alone(*arguments):
    main([str(each) for each in arguments])
    return checkpoint.read(Path(arguments[0]) / "last.pt")


def difference(first, second):
    there = second["model"]["weights"]
    return max((w - there[name]).abs().max() for name, w in first["model"]["weights"].items())


def counted(saved):
    return [(row["step"], row["tokens"]) for row in saved["history"]["steps"]]


# The trainer on several processes


def one_process(folder, epochs, **settings):
    folder.mkdir()
    trainer = everything(folder, epochs, **settings)
    return trainer, trainer.fit()


def several(folder, epochs, begun_by, *more):
    """The lines of two processes, and for each its weights and history."""
    script = Path(__file__).with_name("on_processes.py")
    lines = list(scaling.torchrun(script, folder, epochs, begun_by, *more))
    results = [
        (
            torch.load(folder / f"weights{rank}.pt", weights_only=True),
            json.loads((folder / f"history{rank}.json").read_text("utf-8")),
        )
        for rank in (0, 1)
    ]
    return lines, *results


def check_equal(trainer, history, first, second):
    """Two processes hold the same to the bit, and what one process has but for rounding."""
    expected = history.to_dict()
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(first[0][name], second[0][name])
        torch.testing.assert_close(first[0][name], weight, atol=1e-6, rtol=0)
    for found in (first[1], second[1]):
        assert found["best_epoch"] == expected["best_epoch"]
        assert found["stopped"] == expected["stopped"]
        for kind in ("steps", "epochs"):
            for ours, theirs in zip(found[kind], expected[kind], strict=True):
                theirs = {name: value for name, value in theirs.items() if name != "seconds"}
                assert ours == pytest.approx(theirs, rel=1e-5)
    assert first[1] == second[1]


@needs_accelerate
def test_two_processes_make_what_one_makes_also_resumed_and_begun_by_others(tmp_path):
    """Validation, averages, early stopping, best and last, callbacks, scheduled sampling."""
    trainer, history = one_process(tmp_path / "one", 4)
    assert len(history.epochs) == 4 and history.best_epoch is not None
    folder = tmp_path / "two"
    lines, first, second = several(folder, 2, "accelerate")
    assert len(first[1]["epochs"]) == 2 and first[1] == second[1]
    assert sum("epoch 2/2" in line for line in lines) == 1  # one bar, by rank 0
    assert sum("Checkpoint saved" in line for line in lines) >= 1
    lines, first, second = several(folder, 4, "torch")
    check_equal(trainer, history, first, second)
    assert first[1]["steps_seen"] == [6, 7, 8, 9, 10, 11]  # it went on
    rows = (folder / "log.csv").read_text("utf-8").removeprefix("epoch,").splitlines()
    assert [row.split(",")[0] for row in rows] == ["2", "3"]
    loaded = load_model(folder / "best.pt")
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, first[0][name])


def test_one_process_begins_and_two_go_on_until_they_stop_early(tmp_path):
    folder = tmp_path / "both"
    one_process(folder, 1)
    (folder / "last.pt").rename(folder / "kept.pt")
    trainer, history = one_process(tmp_path / "one", 60, patience=1)
    assert history.stopped == "early" and len(history.epochs) < 60
    (folder / "kept.pt").rename(folder / "last.pt")
    _, first, second = several(folder, 60, "trainer", 1)
    check_equal(trainer, history, first, second)


def test_gradients_are_added_up_where_any_rank_has_one(tmp_path):
    script = tmp_path / "gradients.py"
    script.write_text(
        """
import torch
from torch import nn
from s2s_helpers.training import Processes
run = Processes.find()
kinds = (torch.float32, torch.bfloat16, torch.float32, torch.float32)
both, half, first, none = (nn.Parameter(torch.ones(2, 3, dtype=kind)) for kind in kinds)
both.grad, half.grad = torch.full((2, 3), 1.0 + run.rank), torch.ones(2, 3, dtype=torch.bfloat16)
if run.is_main:
    first.grad = torch.full((2, 3), 5.0)
run.sum_gradients([both, half, first, none])
weights = torch.full((2,), float(run.rank + 4))
run.share([weights])
found = [both.grad.flatten()[0].item(), half.grad.dtype, first.grad.sum().item(), none.grad]
run.wait_for_all()
print(f"{run.rank} of {run.world}: {found} {run.sums(1, run.rank)} {weights.tolist()}\\n", end="")
run.end()
"""
    )
    # gloo may print, too
    lines = sorted(line for line in scaling.torchrun(script) if " of 2: " in line)
    said = "[3.0, torch.bfloat16, 30.0, None] [2.0, 1.0] [4.0, 4.0]"
    assert lines == [f"{rank} of 2: {said}" for rank in (0, 1)]


def test_one_process_asks_nobody():
    run, weight = distributed.Processes.find(), torch.nn.Parameter(torch.ones(2))
    assert (run.rank, run.world, run.is_main) == (0, 1, True)
    assert run.sum(weight) is weight and run.sums(3, 0.5) == [3, 0.5]
    run.sum_gradients([weight])
    run.share([weight])
    run.wait_for_all()
    run.end()
    assert weight.grad is None


def test_what_ranks_cannot_share_is_refused(pairs, words):
    dataset = Seq2SeqDataset(pairs, *words)
    model = TransformerSeq2Seq(*words, **SHAPE)
    two, config = distributed.Processes(1, 2), training_config(1, progress=False)
    plain = Seq2SeqTrainer(model, config, make_loader(dataset), processes=two)
    with pytest.raises(ValueError, match=r"each of the 2 processes .*sharded_loader\(dataset"):
        plain._check_loaders()
    loader = distributed.sharded_loader(dataset, 8, processes=two, batches_per_step=4)
    with pytest.raises(ValueError, match="4 batches per step, but accumulate=1 on 2 processes"):
        Seq2SeqTrainer(model, config, loader, processes=two)._check_loaders()
    config.accumulate_grad_batches = 2
    Seq2SeqTrainer(model, config, loader, processes=two)._check_loaders()


def test_only_rank_0_has_callbacks_that_write(tmp_path, pairs, words):
    stopping = EarlyStopping("loss")
    callbacks = [ModelCheckpoint(str(tmp_path / "x.pt")), stopping]
    trainer = Seq2SeqTrainer(
        TransformerSeq2Seq(*words, **SHAPE), training_config(1, progress=False), [None],
        callbacks=callbacks, processes=distributed.Processes(1, 2),
    )  # fmt: skip
    assert trainer.callbacks == [stopping] and not stopping.verbose and len(callbacks) == 2


@pytest.mark.parametrize("seed", range(6))
def test_a_step_of_two_batches_is_that_of_one_large_batch(pairs, words, seed):
    dataset = Seq2SeqDataset(pairs[:60], *words)
    set_seed(seed)
    model = TransformerSeq2Seq(*words, **SHAPE, dropout=0.0).double()
    large = copy.deepcopy(model)
    loader = distributed.sharded_loader(dataset, max_tokens=64, batches_per_step=2)
    steps = loader.batch_sampler.steps(0)
    config = training_config(1, 1e-2, weight_decay=0.0, accumulate=2, progress=False, device="cpu")
    schedule = inverse_square_root(4)
    loss = Seq2SeqLoss(0.1)
    Seq2SeqTrainer(model, config, loader, loss=loss, schedule=schedule).fit()

    adamw = torch.optim.AdamW(large.parameters(), betas=(0.9, 0.98), eps=1e-9, weight_decay=0.0)
    for number, step in enumerate(steps, 1):
        batch = collate([dataset[n] for rows in step for n in rows])
        loss(large.train()(batch)[0], batch.target_output).backward()
        torch.nn.utils.clip_grad_norm_(large.parameters(), 1.0)
        adamw.param_groups[0]["lr"] = 1e-2 * min((4 / number) ** 0.5, number / 4)
        adamw.step()
        adamw.zero_grad()
    # A bias of keys changes no output, and its gradient is nothing but rounding.
    both = zip(model.named_parameters(), large.parameters(), strict=True)
    away = {name: (a - b).abs().max() for (name, a), b in both if not name.endswith("key.bias")}
    assert max(away.values()) < 1e-8, away


# The command


def test_two_processes_one_of_them_killed_end_where_one_ends(tmp_path, data, words, pairs):
    same = [data, *TINY, "--batches-per-step", 2, "--save-every", 5, "--epochs", 3]
    same += ["--held-out", 0, "--patience", 0]
    workers, lines = {}, []
    for line in scaling.torchrun(tmp_path / "two", *same, restarts=1):
        lines.append(line)
        if "process" in line and len(workers) < 2:
            workers[line.split()[1]] = int(line.split()[-1])
        if line.startswith("step 20,"):
            os.kill(workers["1"], getattr(signal, "SIGKILL", signal.SIGTERM))
    assert sum("goes on after step" in line for line in lines) == 2  # it did die
    two, one = checkpoint.read(tmp_path / "two" / "last.pt"), alone(tmp_path / "one", *same)
    assert difference(one, two) < 1e-6
    assert counted(one) == counted(two)
    tokens = sum(Seq2SeqDataset(pairs, *words).target_lengths)
    assert sum(count for _, count in counted(two)) == 3 * tokens
    model = load_model(tmp_path / "two" / "model.pt")
    assert difference(one, {"model": {"weights": model.state_dict()}}) < 1e-6


def test_two_text_files_to_a_translator_that_is_validated_and_saved(tmp_path, capfd):
    """By the command, and the same in Python in eleven lines."""
    letters = "abcdef"
    texts = [f"{a} {b}" for a in letters for b in letters]
    for name, lines in {"en": texts, "fr": [f"les {text}s" for text in texts]}.items():
        (tmp_path / f"train.{name}").write_text("".join(f"{line}\n" for line in [*lines, ""]))
        (tmp_path / f"held.{name}").write_text("".join(f"{line}\n" for line in lines[::5]))
    files = [tmp_path / f"{part}.{side}" for part in ("train", "held") for side in ("en", "fr")]
    how = ["--epochs", 40, "--lr", 0.01, "--warmup", 20, "--max-tokens", 64, "--patience", 30]
    main([str(x) for x in (tmp_path / "a", *files[:2], "--validation", *files[2:], *TINY, *how)])
    shown = capfd.readouterr().out
    assert "left out 1 rows with an empty side" in shown and "validation loss" in shown
    assert re.search(r"model.pt is of epoch \d+ of \d+\n$", shown)
    by_command = load_model(tmp_path / "a" / "model.pt")
    assert translate(by_command, ["a f"])[0].text == "les a fs"

    pairs, held = (read_pairs(*files[first : first + 2]) for first in (0, 2))
    trainer = translation_trainer(
        pairs, tmp_path / "b", held, epochs=40, lr=0.01, warmup=20, max_tokens=64, patience=30,
        progress=False, **SHAPE,
    )  # fmt: skip
    trainer.fit()
    save_model(trainer.model, tmp_path / "b" / "model.pt")
    weights = load_model(tmp_path / "b" / "model.pt").state_dict()
    assert all(torch.equal(w, weights[name]) for name, w in by_command.state_dict().items())


def test_a_share_is_held_out_and_never_learned_from(pairs):
    trainer = translation_trainer(pairs, validation=0.1, subwords=200, ema=0.9, **SHAPE)
    train, held = (x.dataset.pairs for x in (trainer.train_dataloader, trainer.val_dataloader))
    assert len(held) == 30 and sorted(map(str, [*train, *held])) == sorted(map(str, pairs))
    assert trainer.model.source_vocabulary is trainer.model.target_vocabulary
    assert len(trainer.model.source_vocabulary) == 200
    alone = translation_trainer(pairs, validation=None, **SHAPE)
    assert alone.val_dataloader is None and len(alone.train_dataloader.dataset.pairs) == 300
    assert alone.config.early_stopping_patience is None


def test_a_pair_of_ones_own_that_is_too_long_is_named():
    pairs = [("a b", "c"), ("c " * 300, "d"), ("c " * 2000, "e")]
    trainer = translation_trainer(pairs, validation=None, **SHAPE)
    with pytest.raises(ValueError, match=r"training pair 1 has 301 tokens.* 256 positions.*c c"):
        trainer.fit()
    how = dict(max_length=20, epochs=1, progress=False)
    cut = translation_trainer(pairs, validation=None, **how, **SHAPE)
    assert cut.fit().epochs
    with pytest.raises(ValueError, match="3 batches per step cannot be shared by 2 processes"):
        two = distributed.Processes(0, 2)
        translation_trainer(pairs, batches_per_step=3, processes=two)


def test_pairs_of_ones_own_in_other_forms_and_none():
    pairs = [("a b", "c"), ("c", "d e")] * 5
    rows = [{"source": source, "target": target} for source, target in pairs]
    how = dict(validation=0.2, progress=False, **SHAPE)
    same = [translation_trainer(p, seed=s, **how) for p, s in ((pairs, 3), (rows, np.int64(3)))]
    one, other = (trainer.model.state_dict() for trainer in same)
    assert all(torch.equal(one[name], other[name]) for name in one)
    for wrong, error, message in (
        ([], ValueError, "there are no pairs to learn from"),
        ([*pairs, ("a", None)], TypeError, "sentence 10 is None, not a string"),
        ([*pairs, ("a", "b", "c")], TypeError, "pair 10 is not a"),
        ({"a": "b"}, TypeError, "pairs must be a list, not a dict"),
        ([("a", "\u200b")], ValueError, "no token is left"),
    ):
        with pytest.raises(error, match=message):
            translation_trainer(wrong, validation=None, **SHAPE)
    with pytest.raises(ValueError, match="chunk must be 1 or more pairs, not 0"):
        Stream(lambda *place: pairs, 0)


# WMT, from files of its form


def rows_of(pairs):
    return [{"translation": {"en": p.source, "fr": p.target}} for p in pairs]


@pytest.fixture(scope="module")
def jsonl(tmp_path_factory, pairs):
    path = tmp_path_factory.mktemp("wmt") / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows_of(pairs)), encoding="utf-8")
    return path


def plain(pairs):
    return [(pair.source, pair.target) for pair in pairs]


@needs_datasets
@pytest.mark.parametrize("world", [1, 2, 3])
def test_readers_share_every_pair_once(jsonl, pairs, world):
    shares = [plain(wmt.stream(path=jsonl, rank=r, world=world, seed=4)) for r in range(world)]
    assert sorted(pair for share in shares for pair in share) == sorted(plain(pairs))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert shares[0] == plain(wmt.stream(path=jsonl, world=world, seed=4))
    assert shares[0] != plain(wmt.stream(path=jsonl, world=world, seed=5))


@needs_datasets
def test_a_parquet_file_the_other_way_round_and_a_limit(tmp_path, pairs):
    import datasets

    datasets.Dataset.from_list(rows_of(pairs)).to_parquet(tmp_path / "pairs.parquet")
    found = list(wmt.stream(path=tmp_path / "pairs.parquet", source="fr", limit=40))
    assert sorted(plain(found)) == sorted((p.target, p.source) for p in pairs[:40])


@needs_datasets
def test_an_empty_side_is_left_out_and_another_form_is_named(tmp_path):
    path = tmp_path / "pairs.json"
    rows = [
        {"translation": {"en": en, "fr": fr}} for en, fr in (("a ", " b"), ("", "c"), ("d", " "))
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert list(wmt.stream(path=path)) == [Pair("a", "b")]
    with pytest.raises(ValueError, match="needs a translation with en and de"):
        list(wmt.stream(path=path, languages="de-en"))
    path.write_text(json.dumps({"translation": {"en": "\u200b", "fr": "a"}}))
    with pytest.raises(ValueError, match="the stream has no pairs"):
        next(Stream(lambda *place: wmt.stream(path=path), 5).chunks())
    for broken in ({"en": 3, "fr": "a"}, "a", None):
        path.write_text(json.dumps({"translation": broken}))
        with pytest.raises(ValueError, match="needs a translation with en and fr"):
            list(wmt.stream(path=path))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (dict(rank=2, world=2), ValueError, "rank must be from 0 to world - 1 = 1, not 2"),
        (dict(languages="fr"), ValueError, "languages must be two"),
        (dict(source="de"), ValueError, "one of them 'de'"),
        (dict(limit=-1), ValueError, "limit must be 1 or more, not -1"),
        (dict(path="pairs.txt"), ValueError, "pairs.txt is not one of .parquet"),
        (dict(path="nowhere.json"), FileNotFoundError, "no file nowhere.json"),
    ],
)
def test_streams_that_cannot_be(settings, error, message):
    with pytest.raises(error, match=message):
        next(wmt.stream(**settings))


def test_no_network_is_said_at_once(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(ConnectionError, match=r"127.0.0.1:9 cannot be reached.*path=\.\.\."):
        next(wmt.stream())


@needs_datasets
def test_chunks_of_a_stream_and_resumed(tmp_path, jsonl):
    same = [jsonl, *TINY, "--stream", 100]
    at_once = alone(tmp_path / "a", *same, "--epochs", 4)
    alone(tmp_path / "b", *same, "--epochs", 2)
    assert difference(at_once, alone(tmp_path / "b", *same, "--epochs", 4)) == 0
    words = load_model(tmp_path / "a" / "model.pt").target_vocabulary
    tokens = sum(len(words.encode(p.target)) for p in wmt.stream(path=jsonl))
    steps = [epoch["train_loss"] for epoch in at_once["history"]["epochs"]]
    assert len(steps) == 4  # three chunks of 100 are the corpus
    saved = alone(tmp_path / "c", *same, "--epochs", 3)
    assert sum(count for _, count in counted(saved)) == tokens
    with pytest.raises(ValueError, match="its max_tokens is 64, not 90"):
        alone(tmp_path / "c", *same, "--max-tokens", 90, "--epochs", 4)


def test_ranks_of_a_stream_have_their_own_pairs_and_take_as_many_steps(pairs, words):
    """Also where one has fewer."""
    stream = Stream(lambda number, rank, world: pairs[rank::world][: 60 - 20 * rank], 40)
    seen = []
    for rank in (0, 1):
        run = distributed.Processes(rank, 2)
        dataset_of = partial(Seq2SeqDataset, source_vocabulary=words[0], target_vocabulary=words[1])
        loader = stream.deal(run, 4, dataset_of, max_tokens=64, seed=0)
        object.__setattr__(run, "sums", lambda *steps: [9.0, 9.0])
        loader.set_epoch(1)
        loader.set_epoch(0)
        batches = list(loader)
        assert len(batches) == 9 * 2 and sum(len(batch) for batch in batches) == 40
        seen.append(loader.loader.dataset.pairs)
    assert not {*map(str, seen[0])} & {*map(str, seen[1])}


def test_a_stream_without_pairs_ends():
    with pytest.raises(ValueError, match="the stream has no pairs"):
        next(Stream(lambda number, rank, world: [], 10).chunks())


# The benchmark


@pytest.fixture(scope="module")
def benchmark():
    sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # it imports from beside it
    path = Path(__file__).parents[2] / "benchmarks" / "scaling.py"
    spec = importlib.util.spec_from_file_location("scaling_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_benchmark_measures_and_tabulates(benchmark, pairs):
    batches = json.loads(json.dumps(benchmark.batches_of(pairs, 2)))
    plain, best = batches["32 sentences"], batches["512 tokens, neighbours"]
    assert plain["waiting"]["4"] > best["waiting"]["4"] and plain["mean_of_means_error"] > 0.01
    run = {"tokens_a_second": {"1": 1000.0, "2": 1500.0}, "difference_1_2": 0.0}
    runs = [run | {"difference_killed": 2e-7}, run | {"difference_killed": 0.0}]
    lines = benchmark.table({"runs": runs, "batches": batches}).splitlines()
    assert lines[3] == "| two | 1,500 ± 0 | 1.50 ± 0.00 | 0e+00 from one |"
    assert lines[4].endswith("2e-07 from two |") and len(lines) == 5 + 1 + 2 + 4
