"""The README's figures are those of the results files, and the benchmarks measure what they say."""

import importlib.util
import itertools
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from toy_models import learn_to_copy
from treadmill import Callback

from s2s_helpers.corpora import Pair, Splits, multi30k
from s2s_helpers.course import recipes
from s2s_helpers.data import Seq2SeqDataset, collate
from s2s_helpers.loss import Seq2SeqLoss
from s2s_helpers.models import TransformerSeq2Seq
from s2s_helpers.production.shortlist import learn_shortlist
from s2s_helpers.training import Seq2SeqTrainer, training_config
from s2s_helpers.vocabulary import EOS, PAD, SOS, Vocabulary

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))  # the scripts import from beside them


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def skip_without(packages):
    """Skip the test where one of these is missing, without importing them before their time."""
    for package in packages.split():
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


@pytest.fixture(scope="module")
def quality():
    return script("quality")


@pytest.fixture(scope="module")
def peers():
    return script("decoding_peers")


@pytest.fixture(scope="module")
def decoding():
    return script("decoding")


@pytest.fixture(scope="module")
def training_speed():
    return script("training_speed")


def test_the_readmes_show_the_results(quality):
    for path, names in quality.READMES.items():
        text = path.read_text(encoding="utf-8")
        for name in names:
            assert quality.in_readme(text, name) == text, "run `benchmarks/quality.py readme`"
            if name == "headlines" or (quality.RESULTS / f"{name}.json").exists():
                assert quality.table(name) in text
    assert quality.headlines().count("\n") == 4  # five lines


def test_the_readme_has_a_table_only_of_what_was_measured(quality, monkeypatch, tmp_path):
    monkeypatch.setattr(quality, "RESULTS", tmp_path)
    text = "Before.\n\n<!-- captions -->\n\nold\n\n<!-- end of captions -->\n\nAfter."
    without = quality.in_readme(text, "captions")
    assert without == "Before.\n\n<!-- captions -->\n\n<!-- end of captions -->\n\nAfter."
    scores = {"bleu": 50.04, "chrf": 70.26, "bleu_tokenised": 60}
    seeds = {
        seed: {
            "seconds": seconds, "tokens_per_second": 8000, "greedy": scores | {"bleu_tokenised": 5},
            "beam 5": scores, "device": "a GPU",
        }
        for seed, seconds in (("0", 280), ("1", 300))
    }  # fmt: skip
    seeds["0"]["weights"] = {"last": {"beam 5": {"bleu_tokenised": 57}}}
    (tmp_path / "captions.json").write_text(
        json.dumps({"runs": {"8 passes on a GPU": seeds}, "choices": {}})
    )
    written = quality.in_readme(without, "captions")
    row = "| 8 passes | a GPU | 2 | 290 ± 14 | 8,000 ± 0 | 50.0 ± 0.0 | 70.3 ± 0.0 | 60.0 ± 0.0 "
    assert row + "| 5.0 ± 0.0 | 57.0 | - |" in written.splitlines()
    assert written.startswith("Before.\n\n<!-- captions -->\n\n| run | ")
    assert written.endswith(" |\n\n<!-- end of captions -->\n\nAfter.")
    assert quality.in_readme(written, "captions") == written
    for wrong in (text.replace("end of", "end"), text + text, "".join(reversed(text.split("old")))):
        with pytest.raises(ValueError, match="each once"):
            quality.in_readme(wrong, "captions")


def test_a_table_for_each_machine(quality, monkeypatch, tmp_path):
    monkeypatch.setattr(quality, "RESULTS", tmp_path)
    monkeypatch.setattr(quality.decoding, "table", lambda run: f"decoded {run}")
    monkeypatch.setattr(quality.training_speed, "table", lambda run: f"trained {run}")
    (tmp_path / "decoding.json").write_text('{"A, 1 core": 7, "A, 2 cores": 8}')
    shown = "A, 1 core:\n\ndecoded 7\n\nA, 2 cores:\n\ndecoded 8"
    assert quality.table("decoding") == shown
    (tmp_path / "training_speed.json").write_text('{"runs": {"A, 1 core, memory kept": 9}}')
    assert quality.table("training_speed") == "A, 1 core, memory kept:\n\ntrained 9"


def test_every_figure_is_of_three_seeds(quality):
    for name in ("phrasebook", "multi30k"):
        results = json.loads((quality.RESULTS / f"{name}.json").read_text("utf-8"))
        assert len(results["machine"]["seeds"]) == 3
        assert all(len(runs) == 3 for runs in results["runs"].values())


def test_attention_and_transformer_keep_their_promise(quality):
    runs = json.loads((quality.RESULTS / "phrasebook.json").read_text("utf-8"))["runs"]
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


# decoding.py


@pytest.fixture(scope="module")
def tiny():
    """A post-norm model that has learned a little of copying, and so to end."""
    torch.manual_seed(0)
    shared = Vocabulary.numbered(40)
    model = TransformerSeq2Seq(
        shared, shared, width=16, heads=2, layers=2, feedforward=24, dropout=0.0, norm_first=False
    )
    return learn_to_copy(model)


@pytest.fixture(scope="module")
def sentences(peers, tiny):
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(4, 40, (n,), generator=generator).tolist() for n in (5, 2, 9, 4, 7, 1)]
    tokens = tiny.source_vocabulary.tokens
    return [peers.Sentence(" ".join(tokens(row)), [*row, EOS]) for row in ids]


@pytest.mark.parametrize(
    "name",
    [
        *("translate", "shortlist", "naive", "production", "production shortlist"),
        *("transformers", "ctranslate2", "joeynmt"),
    ],
)
@pytest.mark.parametrize("beam", [1, 3])
def test_every_peer_writes_what_ours_writes(peers, tiny, sentences, name, beam, monkeypatch):
    peer = peers.PEERS[name]
    rows = [" ".join(tiny.source_vocabulary.tokens([n, n])) for n in range(4, 40)]
    data = Seq2SeqDataset([(row, row) for row in rows], *[tiny.source_vocabulary] * 2)
    monkeypatch.setattr(peers, "shortlist_of", lambda model: learn_shortlist(data, 1, 36))
    skip_without(peer.package or "")
    if beam > 1 and len(peer.searches) == 1:
        pytest.skip("greedy only")
    expected = peers.ours(tiny)(sentences, beam, 4)
    assert peer.build(tiny)(sentences, beam, 4) == expected
    assert len({len(ids) for ids in expected}) > 1  # or nothing would be told apart


def test_other_weights_are_noticed(peers, tiny):
    for change, fails in (0.0, False), (0.01, True):
        theirs = lambda batch, change=change: tiny(batch)[0] + change  # noqa: E731
        if fails:
            with pytest.raises(
                ValueError, match=r"the logits of X differ from ours by up to 0\.01"
            ):
                peers.check_logits("X", tiny, theirs)
        else:
            peers.check_logits("X", tiny, theirs)


def test_sentences_of_like_lengths_stand_together_and_come_back_in_order(peers, sentences):
    widths = []

    def reversed_rows(batch):
        widths.append(batch.source.shape)
        return [[*row[mask].flip(0).tolist(), 7] for row, mask in zip(*rows_of(batch), strict=True)]

    def rows_of(batch):
        return batch.source, batch.source_mask

    found = peers.sorted_batches(sentences, 4, reversed_rows)
    assert widths == [(4, 6), (2, 10)]
    # The source backwards starts with EOS, after which nothing counts.
    assert found == [[EOS]] * 6
    kept = peers.sorted_batches(sentences, 4, lambda batch: batch.source.tolist())
    assert kept == [sentence.ids for sentence in sentences]


def test_what_is_not_installed_is_named(peers, monkeypatch, capsys):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "joeynmt" else real(name)
    )
    assert peers.installed(["ours", "joeynmt", "naive"]) == ["ours", "naive"]
    told = capsys.readouterr().out
    assert told == "Joey NMT is left out; to have it: pip install joeynmt importlib_metadata\n"


def test_captions_are_new_distinct_and_of_the_lengths(decoding, monkeypatch):
    known, fresh = "1 2 3 4 5 6 7 8", [f"{n} 2 3 4 5 6 7 8" for n in range(10, 16)]
    texts = dict(train=[known], validation=[known, *fresh[:3]], test=["1 2", *fresh[2:5]])
    texts |= dict(test_2017=fresh[4:])
    data = {split: [Pair(text, "x") for text in each] for split, each in texts.items()}
    monkeypatch.setattr(multi30k, "load", lambda: SimpleNamespace(**data))
    vocabulary = Vocabulary([str(n) for n in range(40)])
    found = decoding.captions(vocabulary, 6)
    assert sorted(sentence.text for sentence in found) == fresh
    assert [sentence.text for sentence in found] != fresh
    assert found == decoding.captions(vocabulary, 6)
    assert all(sentence.ids == vocabulary.encode(sentence.text) for sentence in found)
    with pytest.raises(ValueError, match="only 6 such captions, not 7"):
        decoding.captions(vocabulary, 7)


def test_all_take_turns_to_and_fro(decoding):
    calls = []
    jobs = {name: lambda name=name: calls.append(name) or name.upper() for name in "abc"}
    times, outputs = decoding.alternate(jobs, 3)
    assert "".join(calls) == "abccbaabc"
    assert outputs == {"a": "A", "b": "B", "c": "C"}
    assert all(len(pairs) == 3 for pairs in times.values())


def test_speeds_and_ratios(decoding):
    ours, theirs = [(1, 1), (2, 2), (30, 3)], [(2, 4), (4, 4), (90, 9)]
    row = decoding.speed(ours, theirs, 8)
    assert row["wall_seconds"] == row["cpu_seconds"] == 4
    assert row["sentences_per_second"] == 2
    assert row["ours_times_as_fast"] == 2  # of 2, 2 and 3; the medians' ratio would be 2 as well
    assert row["ours_times_as_fast_cpu"] == 3  # of 4, 2 and 3; the medians' ratio would be 2


def test_agreement_counts(decoding):
    ours, theirs = [[5, EOS], [6, EOS], [7, EOS]], [[5, EOS], [6, 6], [PAD, SOS, EOS]]
    expected = {"sentences": 3, "same": 1, "unfinished": 1, "with_pad_or_sos": 1}
    assert decoding.agreement(ours, theirs) == expected


def test_the_score_is_the_sum_of_steps(decoding, tiny, sentences):
    outputs = [[9, 8, EOS], [EOS], [4, 5, 6, 7, 8, EOS], [11, EOS], [12, EOS], [30, 31, EOS]]
    total = 0.0
    with torch.inference_mode():
        for sentence, ids in zip(sentences, outputs, strict=True):
            source = torch.tensor([sentence.ids])
            memory = tiny.encode(source, source != PAD)
            state = tiny.start(memory)
            for before, token in zip([SOS, *ids], ids, strict=False):
                logits, state, _ = tiny.step(torch.tensor([before]), state, memory)
                total += logits.log_softmax(-1)[0, token].item()
    found = decoding.mean_score(tiny, sentences, outputs)
    assert math.isclose(found, total / 6, rel_tol=1e-5)


def measured(decoding, monkeypatch, tiny, peers, sentences):
    monkeypatch.setattr(decoding, "trained_model", lambda quick: tiny)
    monkeypatch.setattr(decoding, "captions", lambda vocabulary, count: sentences)
    monkeypatch.setattr(decoding, "pin", lambda threads: None)
    return decoding.run(["ours", "naive"], 1, quick=False, count=256)


def test_a_run_has_every_figure(decoding, peers, monkeypatch, tiny, sentences, capsys):
    run = measured(decoding, monkeypatch, tiny, peers, sentences)
    rows = run["greedy"]["batches"]
    assert list(rows) == ["ours", "naive"] and list(run["beam of 5"]["batches"]) == ["ours"]
    assert rows["naive"]["agreement"]["same"] == len(sentences)
    assert rows["naive"]["same_batch"]["batch"] == 64
    assert rows["naive"]["best_batch"]["batch"] in decoding.PEERS["naive"].batches
    assert rows["ours"]["same_batch"]["ours_times_as_fast"] == 1
    assert rows["naive"]["same_batch"]["rounds"] >= 5
    assert "nn.Transformer without a cache" in capsys.readouterr().out
    # By CPU time on one core, by the wall on two and on a GPU.
    rows["naive"]["same_batch"] |= {
        "sentences_per_second": 10, "ours_times_as_fast": 2.5,
        "sentences_per_cpu_second": 20, "ours_times_as_fast_cpu": 3.5,
    }  # fmt: skip
    by_cpu, by_wall = "| 20 (3.50) |", "| 10 (2.50) |"
    for threads, device, shown in (1, "cpu", by_cpu), (2, "cpu", by_wall), (1, "cuda", by_wall):
        changed = run | {"threads": threads, "device": device}
        text = decoding.table(json.loads(json.dumps(changed)))
        head, _, first, last = text.splitlines()
        assert head.count("|") == first.count("|") == last.count("|") == 10
        assert first.startswith("| s2s_helpers | ") and "(1.00) | 100.0 |" in first
        assert last.startswith(f"| nn.Transformer without a cache {shown}")
        assert last.endswith("| 100.0 | - | - | - | - |")


# multi30k.py


@pytest.fixture
def captions(monkeypatch, tmp_path):
    module = script("multi30k")
    monkeypatch.setenv("S2S_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(module, "FILE", tmp_path / "results" / "captions.json")
    return module


def test_results_of_several_trainings_stand_side_by_side(captions):
    for name, seed in ("8 passes on A", "0"), ("8 passes on A", "1"), ("20 passes on B", "0"):
        captions.write("runs", name, {"seed": int(seed)}, seed)
    captions.write("choices", "as it is", {"seed": 0})
    kept = json.loads(captions.FILE.read_text("utf-8"))
    assert {name: list(seeds) for name, seeds in kept["runs"].items()} == {
        "8 passes on A": ["0", "1"], "20 passes on B": ["0"]
    }  # fmt: skip
    version = kept["choices"]["as it is"]["machine"]["versions"]["torch"]
    # What pip knows may leave the build out, "2.13.0" for "2.13.0+cu130".
    assert version.partition("+")[0] == torch.__version__.partition("+")[0]
    assert "tok:13a" in kept["signature"]


def test_one_command_from_the_captions_to_a_saved_score(captions, monkeypatch, capsys):
    skip_without("sacremoses")
    pairs = [Pair(f"a dog {n}", f"un chien {n}") for n in range(60)]
    known, new = pairs[:40], pairs[40:]
    words = Vocabulary.build([text for pair in pairs for text in (pair.source, pair.target)])
    sets = tuple(Seq2SeqDataset(part, words, words) for part in (known, new))
    monkeypatch.setattr(recipes, "multi30k_datasets", lambda size: sets)
    monkeypatch.setattr(captions, "multi30k_datasets", lambda size: sets)
    monkeypatch.setattr(multi30k, "load", lambda: Splits(known, new, new))
    monkeypatch.setattr(captions, "pin", lambda threads: None)
    monkeypatch.setattr(captions, "SHORT", dict(captions.BASE, epochs=1, warmup_steps=0))
    small = dict(width=16, heads=2, feedforward=16, layers=1, warmup_steps=2)
    monkeypatch.setitem(captions.RUNS, 8, dict(captions.BASE, epochs=6, **small))
    for how in ["--quick"], ["--passes", "8", "--seed", "3"]:
        monkeypatch.setattr(sys, "argv", ["multi30k.py", "train", "--device", "cpu", *how])
        captions.main()
    shown = capsys.readouterr().out
    assert "| 1 pass | " in shown and "| 8 passes | " in shown
    (seeds,) = json.loads(captions.FILE.read_text("utf-8"))["runs"].values()
    assert list(seeds) == ["3"]  # what is quick is not kept
    run = seeds["3"]
    assert [row["epoch"] for row in run["curve"]] == [1, 2, 3, 4, 5, 6]
    assert run["tokens_per_second"] > 0 and run["seconds"] >= run["training_seconds"]
    scores = [run["greedy"], run["beam 5"], *(w["beam 5"] for w in run["weights"].values())]
    assert list(run["weights"]) == ["last", captions.MEAN]
    assert all(0 <= score["bleu_tokenised"] <= 100 for score in scores)


def test_the_weights_of_the_last_passes(captions):
    source = Vocabulary.numbered(12)
    model = TransformerSeq2Seq(source, source, width=8, heads=2, layers=1, feedforward=8)
    batch = collate([([5, EOS], [6, EOS])])
    config = training_config(captions.LAST + 2, lr=0.1, progress=False, device="cpu")
    seen, weights = [], captions.LastWeights()

    class Seen(Callback):
        def on_batch_end(self, trainer, batch_idx, metrics, **kwargs):
            seen.append(trainer.model.output.bias.detach().clone())

    Seq2SeqTrainer(model, config, [batch, batch], callbacks=[Seen(), weights], ema=0.5).fit()
    last = seen[1::2][-captions.LAST :]  # at the end of each pass
    assert len(weights.kept) == captions.LAST
    kept = [state["output.bias"] for state in weights.kept]
    assert all(torch.equal(a, b) for a, b in zip(kept, last, strict=True))
    assert torch.allclose(weights.mean()["output.bias"], torch.stack(last).mean(0))
    assert not torch.allclose(model.output.bias, last[-1])  # which is the running mean


# training_speed.py


@pytest.fixture
def small(training_speed, monkeypatch):
    """A vocabulary, and batches of 3 sentences with and without padding."""
    monkeypatch.setattr(training_speed, "VOCABULARY", 40)
    monkeypatch.setattr(training_speed, "PEAK_SIZE", {"cpu": 64})
    monkeypatch.setattr(training_speed, "pin", lambda threads: None)
    shared = Vocabulary.numbered(40)
    rows = [([5] * n + [EOS], [6] * (n + 2) + [EOS]) for n in (4, 4, 4, 1, 3, 7)]
    batches = {"buckets": 2 * [collate(rows[:3])], "random": 2 * [collate(rows[3:])]}
    monkeypatch.setattr(training_speed, "some_batches", lambda count: (shared, batches))
    return shared, batches


def test_multiplications_are_those_of_torchs_counter(training_speed, small):
    shared, batches = small
    step = training_speed.ours(shared)
    with FlopCounterMode(display=False) as counter:
        step(batches["buckets"][0])
    assert training_speed.multiplications(batches["buckets"][:1]) == counter.get_total_flops()
    alone = [collate([row]) for row in zip(*unpadded(batches["random"][0]), strict=True)]
    expected = training_speed.multiplications(alone)
    assert training_speed.multiplications(batches["random"][:1]) == expected


def unpadded(batch):
    sources = [row[row != PAD].tolist() for row in batch.source]
    return sources, [row[row != PAD].tolist()[1:] for row in batch.target]


@pytest.mark.parametrize("name", ["nn.Transformer", "Hugging Face Marian, bf16", "ours, bf16"])
def test_every_trainer_learns(training_speed, small, name):
    if name.startswith("Hugging Face"):
        skip_without("transformers")
    shared, batches = small
    torch.manual_seed(0)
    step = training_speed.TRAINERS[name](shared)
    losses = [step(batches["random"][0]) for _ in range(60)]
    losses = [loss["loss"] if isinstance(loss, dict) else loss for loss in losses]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("bf16", [True, False])
def test_training_speed_measures_and_shows_every_row(training_speed, small, monkeypatch, bf16):
    monkeypatch.setattr(training_speed, "gains_by_bf16", lambda: bf16)
    result = training_speed.run(threads=1, rounds=2, count=1)
    assert result["best"] == ("ours, bf16" if bf16 else "ours")
    trainers = {row["trainer"] for row in result["rows"]}
    assert trainers >= {"nn.Transformer", "ours", result["best"]}
    assert any(trainer.endswith("bf16") for trainer in trainers) == bf16
    for row in result["rows"]:
        assert row["padding"] == (0 if row["batches"] == "buckets" else pytest.approx(20 / 54))
        assert row["tokens"] == 2 * (21 if row["batches"] == "buckets" else 20)
        assert row["tokens_per_cpu_second"] > 0
        if row["trainer"] == result["best"] and row["batches"] == "buckets":
            assert row["ours_times_as_fast"] == row["ours_times_as_fast_cpu"] == 1
    assert len(training_speed.table(result).splitlines()) == 2 + len(result["rows"])


# scale.py


def test_scale_measures_and_shows_everything(decoding, monkeypatch, tiny, sentences):
    scale = script("scale")
    many = [sentence for sentence in sentences if sentence.ids] * 12
    monkeypatch.setattr(scale, "captions", lambda vocabulary, count: many[:count])
    monkeypatch.setattr(scale, "LENGTHS", (4, 8))
    monkeypatch.setattr(scale, "BATCHES", (1, 16, 64))
    result = scale.run(tiny, 64, 1, (50,), 300)
    assert list(result["batch"]) == [1, 16, 64] and min(result["batch"].values()) > 0
    assert list(result["length"]) == [4, 8]
    assert set(result["vocabulary"][50]) == {"all logits", "of features"}
    assert result["lines"]["lines"] == 300 and result["lines"]["same_as_translate"]
    assert result["lines"]["megabytes_end"] >= result["lines"]["megabytes_early"] > 0
    other = result | {"batch": {1: 10, 16: 4321, 64: 5}}
    text = scale.table(json.loads(json.dumps({"runs": {"A": result, "B": other}})))
    assert text.count("| --- ") == 4 + 3 + 4 + 6 and "| A | 300 | 0.0 |" in text
    assert "| B | 10 | 4,321 | 5 |" in text


def test_all_logits_take_memory_that_features_do_not():
    scale = script("scale")
    found = scale.by_vocabulary([20_000])[20_000]
    # 5,120 x 20,000 numbers of 4 bytes, at least twice: the logits and their gradient.
    assert found["all logits"] > 800
    assert found["all logits"] > 3 * found["of features"]


# speedrun.py


def test_a_speedrun_from_the_captions_to_a_record(monkeypatch, tmp_path, capsys):
    skip_without("sacremoses")
    speedrun = script("speedrun")
    pairs = [Pair(f"A dog {n}", f"Un chien {n}") for n in range(60)]
    monkeypatch.setattr(multi30k, "load", lambda: Splits(pairs[:40], pairs[40:50], pairs[50:]))
    small = speedrun.BASE | dict(width=16, layers=1, vocabulary=40)
    monkeypatch.setattr(speedrun, "TRACKS", {5: small})
    monkeypatch.setattr(speedrun, "RESERVE", 299.0)  # so that no second is left, and one taken
    for name in "FILE", "TRIALS":
        monkeypatch.setattr(speedrun, name, tmp_path / f"{name}.json")

    def here(command, check):
        monkeypatch.setattr(sys, "argv", command[1:])
        speedrun.main()

    monkeypatch.setattr(speedrun.subprocess, "run", here)
    trial = ["--seed", "5", "--set", "layers=2", "dropout=0.3"]
    for how in ["--quick"], ["--seed", "3"], ["--seed", "4", "--text", "cased"], trial:
        monkeypatch.setattr(sys, "argv", ["speedrun.py", "run", "--processes", "1", *how])
        speedrun.main()
    records = json.loads(speedrun.FILE.read_text("utf-8"))["records"]
    assert {name: list(seeds) for name, seeds in records.items()} == {
        "5 minutes, lower": ["3"], "5 minutes, cased": ["4"]
    }  # fmt: skip
    run = records["5 minutes, lower"]["3"]
    assert run["seconds"] > run["training_seconds"] and run["settings"] == small
    *_, lower, cased, _, _, _, last = capsys.readouterr().out.splitlines()
    assert lower.startswith("| 5 minutes | lower |") and lower.endswith("| - | - |")
    assert "| cased |" in cased and "-" not in cased.split("|")[-2:]
    (run,) = json.loads(speedrun.TRIALS.read_text("utf-8"))
    assert run["settings"] == small | dict(layers=2, dropout=0.3) and "test" not in run
    assert last.startswith("| 5 minutes | lower | layers=2, dropout=0.3 | 1 | 5 |")
    with pytest.raises(ValueError, match="no setting 'depth'; there are: width, layers,"):
        speedrun.changes(["depth=3"])


# optimizers.py and ladder.py


def test_a_training_by_the_clock_ends_when_its_seconds_are_over():
    measuring, seconds = script("measuring"), itertools.count(100)
    trainer = recipes.phrasebook_trainer("luong", progress=False, epochs=10**4)
    measuring.fit_for(
        10.0, trainer, lambda percent: 1 - percent / 100, lambda: float(next(seconds))
    )
    shares = [step["lr"] / trainer.base_lrs[0] for step in trainer.history.steps]
    assert shares == pytest.approx([1 - step / 10 for step in range(10)])


def test_of_an_optimisers_rates_the_best_for_one_seed_has_the_others():
    optimizers = script("optimizers")
    runs = [dict(lr=lr, seed=0, perplexity=p) for lr, p in ((1, 5.0), (2, 4.0), (4, math.inf))]
    runs += [dict(lr=2, seed=1, perplexity=9.0), dict(lr=2, seed=2, perplexity=9.0)]
    assert optimizers.best(runs) == [runs[1], *runs[3:]]


def test_a_rung_keeps_what_the_rungs_below_it_changed():
    ladder = script("ladder")
    *_, last = ladder.RUNGS
    assert ladder.settings(last) == dict(
        max_tokens=1280, lr=7e-3, muon_lr=0.014, falls=True, ema=0.99, whole_logits=False,
        bf16=True, quick=True, quiet=True, counted=True,
    )  # fmt: skip
    assert ladder.settings(next(iter(ladder.RUNGS))) == ladder.NAIVE
    torch.manual_seed(0)
    logits, targets = torch.randn(3, 4, 9), torch.tensor([[5, 6, 3, PAD], [7, 3, PAD, PAD]] * 2)[:3]
    ours = Seq2SeqLoss(0.1)(logits, targets)  # the same loss, only whole
    torch.testing.assert_close(ladder.smoothed(logits, targets), ours)


def test_embeddings_by_counting_put_a_word_beside_its_translation():
    speedrun, words = script("speedrun"), range(12)
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randperm(12, generator=generator)[:3].tolist() for _ in range(200)]
    data = [([4 + w for w in draw], [16 + w for w in reversed(draw)]) for draw in draws]
    torch.manual_seed(0)
    found = speedrun.embeddings_by_counting(data, 28, 8)  # (pieces, width)
    torch.testing.assert_close(found[4:].norm(dim=1), torch.ones(24))
    near = found[4:16] @ found[16:].T  # (words of one language, of the other)
    assert near.argmax(dim=1).tolist() == list(words) and near.diagonal().min() > 0.99


def test_a_quiet_start_adds_nothing_and_compares_like_with_like():
    speedrun, words = script("speedrun"), Vocabulary.numbered(20)
    torch.manual_seed(0)
    model = TransformerSeq2Seq(words, words, width=16, heads=1, layers=2).eval()
    speedrun.start_quietly(model)
    source = torch.tensor([[5, 9, 14, 11, EOS]])
    memory = model.encode(source, source != PAD)
    plain = model.encoder_norm(model.embed(model.source_embedding, source))  # (1, source, width)
    torch.testing.assert_close(memory.states, plain)
    cross = model.decoder[1].cross
    torch.testing.assert_close(cross.query(plain), cross.key(plain))


def test_quick_dropout_drops_so_many_and_keeps_the_mean():
    speedrun = script("speedrun")
    torch.manual_seed(0)
    layer, x = speedrun.QuickDropout(0.3), torch.ones(999, 77, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert set(y.unique().tolist()) == {0.0, torch.tensor(1 / 0.7).item()}
    assert abs((y == 0).float().mean() - 0.3) < 0.01 and abs(y.mean() - 1) < 0.01
    torch.testing.assert_close(x.grad, y)  # the gradient goes the same way
    assert not torch.equal(layer(x), y)
    assert layer.eval()(x) is x
