"""Several processes: who gets which batch, one gradient, the same weights, nothing lost."""

import csv
import importlib.util
import json
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from s2s_helpers.corpora import Pair, phrasebook, wmt
from s2s_helpers.data import LengthBuckets, Seq2SeqDataset, collate
from s2s_helpers.loss import Seq2SeqLoss
from s2s_helpers.models import AttentionSeq2Seq, TransformerSeq2Seq, load_model
from s2s_helpers.training import checkpoint, distributed
from s2s_helpers.vocabulary import Vocabulary

TINY = ["--width", 16, "--heads", 2, "--layers", 1, "--feedforward", 16, "--max-tokens", 64]
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
    samplers = sharded(lengths, world, together=world * each, neighbours=neighbours)
    for sampler in samplers:
        sampler.set_epoch(epoch)
    sizes = {len(sampler) for sampler in samplers}
    batches = [list(sampler) for sampler in samplers]
    assert sorted(n for own in batches for batch in own for n in batch) == list(range(len(lengths)))
    assert {len(own) for own in batches} == sizes and sizes.pop() % each == 0
    for batch in (batch for own in batches for batch in own):
        assert len(batch) * max(max(lengths[n]) for n in batch) <= 40


def test_a_pass_goes_on_where_it_stopped():
    (sampler,) = sharded([(n % 9 + 1, n % 7 + 1) for n in range(200)], 1, together=2)
    whole = list(sampler)
    assert list(sampler) != whole  # pass 1 has another order
    sampler.set_epoch(0, start=3)
    assert len(sampler) == len(whole) - 6
    assert list(sampler) == whole[6:]
    assert len(list(sampler)) == len(whole)  # the next pass is whole again


def test_the_plan_of_one_rank_is_that_of_many():
    lengths = [(n % 9 + 1, n % 7 + 1) for n in range(200)]
    one = sharded(lengths, 1, together=4)[0].steps(2)
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


@pytest.mark.parametrize(
    ("rank", "world", "together"), [(2, 2, 2), (-1, 2, 2), (0, 2, 3), (0, 1, 0)]
)
def test_ranks_that_cannot_be(rank, world, together):
    with pytest.raises(ValueError, match="rank must be below world, and together a multiple"):
        distributed.ShardedBuckets(LengthBuckets([1, 2], batch_size=1), rank, world, together)


def test_too_few_examples():
    with pytest.raises(ValueError, match="too few examples for steps of 3 batches"):
        list(sharded([(1, 1), (2, 2)], 3)[0])


@pytest.fixture(scope="module")
def pairs():
    return phrasebook.load().train[:300]


@pytest.fixture(scope="module")
def words(pairs):
    return [Vocabulary.build([getattr(p, side) for p in pairs]) for side in ("source", "target")]


@pytest.mark.parametrize("model_class", [TransformerSeq2Seq, AttentionSeq2Seq])
def test_the_total_is_that_of_the_logits(model_class, pairs, words):
    batch = collate([Seq2SeqDataset(pairs[:9], *words)[n] for n in range(9)])
    model = model_class(*words).eval()
    expected, _ = Seq2SeqLoss(0.1).total(model(batch)[0], batch.target_output)
    total = distributed.TotalLoss(model, Seq2SeqLoss(0.1))(batch)
    assert torch.allclose(total, expected, rtol=1e-5)


def write_csv(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory, pairs):
    folder = tmp_path_factory.mktemp("data")
    return write_csv(folder / "pairs.csv", [(p.source, p.target) for p in pairs])


def alone(*arguments):
    distributed.main([str(each) for each in arguments])
    return checkpoint.read(Path(arguments[0]) / "last.pt")


def difference(first, second):
    there = second["model"]["weights"]
    return max((w - there[name]).abs().max() for name, w in first["model"]["weights"].items())


def counted(saved):
    return [(row["step"], row["tokens"]) for row in saved["state"]["history"]]


@needs_accelerate
def test_two_processes_one_of_them_killed_end_where_one_ends(tmp_path, data, words, pairs, capsys):
    same = [data, *TINY, "--together", 2, "--save-every", 5, "--passes", 3]
    workers, lines = {}, []
    for line in distributed.torchrun(tmp_path / "two", *same, restarts=1):
        lines.append(line)
        if "process" in line and len(workers) < 2:
            workers[line.split()[1]] = int(line.split()[-1])
        if line.startswith("step 20,"):
            os.kill(workers["1"], signal.SIGKILL)
    assert sum("goes on after step" in line for line in lines) == 2  # it did die
    two, one = checkpoint.read(tmp_path / "two" / "last.pt"), alone(tmp_path / "one", *same)
    assert difference(one, two) < 1e-6
    assert counted(one) == counted(two)
    tokens = sum(Seq2SeqDataset(pairs, *words).target_lengths)
    assert sum(count for _, count in counted(two)) == 3 * tokens
    model = load_model(tmp_path / "two" / "model.pt")
    assert difference(one, {"model": {"weights": model.state_dict()}}) < 1e-6


@needs_accelerate
def test_a_step_of_two_batches_is_that_of_one_large_batch(tmp_path, pairs, words):
    dataset = Seq2SeqDataset(pairs[:60], *words)
    model, large = (
        TransformerSeq2Seq(*words, width=16, heads=2, layers=1, feedforward=16, dropout=0.0)
        for _ in range(2)
    )
    large.load_state_dict(model.state_dict())
    loader = distributed.sharded_loader(dataset, max_tokens=64, together=2)
    steps = loader.batch_sampler.steps(0)
    distributed.train(model, lambda n: iter([loader]), tmp_path, lr=1e-2, warmup=4)

    adamw = torch.optim.AdamW(large.parameters(), betas=(0.9, 0.98), eps=1e-9)
    for number, step in enumerate(steps, 1):
        batch = collate([dataset[n] for rows in step for n in rows])
        Seq2SeqLoss(0.1)(large.train()(batch)[0], batch.target_output).backward()
        torch.nn.utils.clip_grad_norm_(large.parameters(), 1.0)
        adamw.param_groups[0]["lr"] = 1e-2 * min((4 / number) ** 0.5, number / 4)
        adamw.step()
        adamw.zero_grad()
    # A bias of keys changes no output, and its gradient is nothing but rounding.
    both = zip(model.named_parameters(), large.parameters(), strict=True)
    away = {name: (a - b).abs().max() for (name, a), b in both if not name.endswith("key.bias")}
    assert max(away.values()) < 1e-4, away


@needs_accelerate
def test_stopped_and_resumed_is_as_if_never_stopped(tmp_path, data, words, pairs):
    dataset = Seq2SeqDataset(pairs, *words)

    def run(folder, fail_at=None, passes=2, **changes):
        torch.manual_seed(0)
        model = TransformerSeq2Seq(*words, width=16, heads=2, layers=1, feedforward=16, dropout=0.2)
        loader = distributed.sharded_loader(dataset, max_tokens=64, together=2)
        lines = []

        def log(line):
            lines.append(line)
            if fail_at is not None and line.startswith(f"step {fail_at},"):
                raise InterruptedError

        distributed.train(
            model, lambda n: iter([loader] * 9), folder, passes, save_every=7, log=log, **changes
        )
        return model.state_dict(), lines

    undisturbed, _ = run(tmp_path / "a")
    with pytest.raises(InterruptedError):
        run(tmp_path / "b", fail_at=14)
    resumed, lines = run(tmp_path / "b")
    assert lines[0] == "rank 0 goes on after step 14"
    assert all(torch.equal(undisturbed[name], resumed[name]) for name in undisturbed)
    with pytest.raises(ValueError, match=r"of another run: its lr is 0\.002, not 0\.1"):
        run(tmp_path / "b", lr=0.1)
    before = (tmp_path / "b" / "last.pt").read_bytes()
    assert [line.rpartition(" ")[0] for line in run(tmp_path / "b")[1]] == [
        "rank 0 goes on after step"
    ]
    assert (tmp_path / "b" / "last.pt").read_bytes() == before  # done is done


def test_a_failed_run_says_why(tmp_path):
    script = tmp_path / "broken.py"
    script.write_text("raise ValueError('no such thing')\n")
    with pytest.raises(RuntimeError, match="the run failed: ValueError: no such thing"):
        list(distributed.torchrun(script, processes=1))


def test_a_caller_that_stops_reading_leaves_nothing_running(tmp_path):
    script = tmp_path / "sleeper.py"
    script.write_text("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(300)\n")
    lines = distributed.torchrun(script, processes=1)
    process = int(next(lines))
    lines.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


@pytest.mark.parametrize("row", [["a"], ["a", "b", "c"], ["a", " "]])
def test_a_csv_row_that_is_no_pair(tmp_path, row):
    path = write_csv(tmp_path / "x.csv", [("a", "b"), row])
    with pytest.raises(ValueError, match="row 2 is not two texts"):
        distributed.read_csv(path)
    assert distributed.read_csv(path, limit=1) == [Pair("a", "b")]


def test_operations_are_those_that_torch_counts():
    words = Vocabulary.numbered(500)
    model = TransformerSeq2Seq(words, words, width=128, heads=4, layers=2, feedforward=512)
    batch = collate([([5] * 6, [6] * 4)] * 8)
    with FlopCounterMode(display=False) as counter:
        model(batch)[0].sum().backward()
    expected = distributed.training_flops(model, batch.source.numel(), batch.target_output.numel())
    assert expected == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_the_cost_of_a_ring():
    # A thousand numbers of 4 bytes, four ranks: 6 pieces of 1,000 bytes, at 3,000 bytes a second.
    assert distributed.all_reduce_seconds(1000, 4, 3000) == pytest.approx(2)
    assert distributed.all_reduce_seconds(1000, 1, 3000) == 0


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


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (dict(rank=2, world=2), ValueError, "rank must be from 0 to world - 1 = 1, not 2"),
        (dict(languages="fr"), ValueError, "languages must be two"),
        (dict(source="de"), ValueError, "one of them 'de'"),
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
@needs_accelerate
def test_chunks_of_a_stream_and_resumed(tmp_path, jsonl):
    same = [jsonl, *TINY, "--chunk", 100]
    at_once = alone(tmp_path / "a", *same, "--passes", 4)
    alone(tmp_path / "b", *same, "--passes", 2)
    assert difference(at_once, alone(tmp_path / "b", *same, "--passes", 4)) == 0
    words = load_model(tmp_path / "a" / "model.pt").target_vocabulary
    tokens = sum(len(words.encode(p.target)) for p in wmt.stream(path=jsonl))
    third = sum(count for _, count in counted(at_once)[:3])
    assert third == tokens  # three chunks of 100 are the corpus


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
