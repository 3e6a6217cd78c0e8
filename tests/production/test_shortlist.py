"""A shortlist lets through what a sentence can call for, and changes nothing else."""

import importlib.util
import inspect
import math
from collections import Counter, defaultdict

import pytest
import torch
from torch.nn.utils import parametrizations
from toy_models import KINDS, SOURCE, build, learn_to_copy, next_step, padded
from toy_models import sentences as toy_sentences

from s2s_helpers.corpora import phrasebook
from s2s_helpers.data import Seq2SeqDataset, collate, make_loader
from s2s_helpers.decoding import beam_search, greedy_decode, translate, translate_file
from s2s_helpers.files import save_file
from s2s_helpers.models import CopyVocabulary, PointerGenerator, TransformerSeq2Seq
from s2s_helpers.models.prepacked import prepacked
from s2s_helpers.production.shortlist import (
    Shortlist,
    Shortlisted,
    learn_shortlist,
    load_shortlist,
    save_shortlist,
    translation_probabilities,
)
from s2s_helpers.training import Seq2SeqTrainer, linear_warmup, training_config
from s2s_helpers.vocabulary import EOS, PAD, SOS, UNK, Vocabulary

WORDS, MORE = Vocabulary.numbered(19), Vocabulary.numbered(23)
PAIRS = [
    ("w5 w6", "w9 w8"), ("w5", "w9"), ("w6 w7 w6", "w8 w10 w8"), ("w7", "w10 w4"),
    ("w11 w5 w12", "w15 w4 w9"), ("w11", "w15"), ("w22", "w18 w4"), ("w22 w6", "w8 w18 w4"),
]  # fmt: skip


def everything(model):
    """A shortlist that leaves nothing out."""
    sizes = len(model.source_vocabulary), len(model.target_vocabulary)
    return Shortlist(torch.arange(sizes[1]), torch.full((sizes[0], 2), PAD), sizes[1])


def only(likely, model, always=(PAD, UNK, SOS, EOS)):
    """A shortlist of these candidates, a dict of lists by source id."""
    sizes = len(model.source_vocabulary), len(model.target_vocabulary)
    width = max(map(len, likely.values()))
    table = torch.full((sizes[0], width), PAD)
    for source, ids in likely.items():
        table[source, : len(ids)] = torch.tensor(ids)
    return Shortlist(torch.tensor(always), table, sizes[1])


def the_same(found, expected, atol=1e-4):
    for one, other in zip(found, expected, strict=True):
        ones, others = (x if isinstance(x, list) else [x] for x in (one, other))
        assert [x.ids for x in ones] == [x.ids for x in others]
        for x, y in zip(ones, others, strict=True):
            assert math.isclose(x.score, y.score, abs_tol=atol)
            assert math.isclose(x.log_probability, y.log_probability, abs_tol=atol)
            assert (x.attention is None) == (y.attention is None)
            if x.attention is not None:
                torch.testing.assert_close(x.attention, y.attention, atol=atol, rtol=0)


def search(model, batch, beam=1, alpha=0.6, n_best=None, **options):
    return model.own_search(beam, alpha, n_best)(model, batch.source, batch.source_mask, **options)


@pytest.fixture(scope="module")
def copier():
    """A transformer that has learned to copy, and sentences of its words."""
    shape = dict(width=16, heads=2, layers=2, feedforward=12, max_positions=40, dropout=0.0)
    model = learn_to_copy(TransformerSeq2Seq(WORDS, WORDS, **shape), 150)
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(4, 19, (1 + n % 9,), generator=generator).tolist() for n in range(200)]
    texts = [" ".join(WORDS.tokens(row)) for row in rows]
    learned = learn_shortlist(Seq2SeqDataset([(t, t) for t in texts], WORDS, WORDS), 2, 1)
    return model, texts, learned


@pytest.fixture(scope="module")
def phrases():
    """A transformer that knows two hundred short phrases by heart, and these as a dataset."""
    pairs = [pair for pair in phrasebook.load().train if len(pair.source.split()) <= 4][:200]
    words = [Vocabulary.build([getattr(pair, s) for pair in pairs]) for s in ("source", "target")]
    data = Seq2SeqDataset(pairs, *words)
    shape = dict(width=48, heads=4, layers=1, feedforward=64, dropout=0.0)
    model = TransformerSeq2Seq(*words, **shape)
    loader = make_loader(data, batch_size=50, shuffle=True, seed=0)
    config = training_config(30, 1e-2, progress=False, device="cpu")
    schedule = linear_warmup(10, 30 * len(loader))
    Seq2SeqTrainer(model, config, loader, schedule=schedule).fit()
    return model.eval(), data


# What is learned


def slow_model_1(pairs, iterations):
    """p(target | source) by IBM Model 1, with a dict and a loop over every link."""
    p = defaultdict(lambda: 1.0)
    for _ in range(iterations):
        counts = defaultdict(float)
        for source, target in pairs:
            for t in target:
                total = sum(p[s, t] for s in source)
                for s in source:
                    counts[s, t] += p[s, t] / total
        totals = defaultdict(float)
        for (s, _), count in counts.items():
            totals[s] += count
        p = {link: count / totals[link[0]] for link, count in counts.items()}
    return p


@pytest.mark.parametrize("iterations", [1, 3])
def test_the_dictionary_is_that_of_a_plain_loop(iterations, monkeypatch):
    monkeypatch.setattr("s2s_helpers.production.shortlist.PAIRS", 3)  # several batches
    dataset = Seq2SeqDataset(PAIRS, MORE, WORDS)
    sources, targets, p = (x.tolist() for x in translation_probabilities(dataset, iterations))
    found = {(s, t): x for s, t, x in zip(sources, targets, p, strict=True) if x > 0}
    expected = slow_model_1([dataset[n] for n in range(len(dataset))], iterations)
    assert found.keys() == expected.keys()
    assert all(math.isclose(found[link], expected[link], rel_tol=1e-9) for link in found)


@pytest.mark.parametrize("per_token, frequent", [(2, 3), (1, 0), (30, 1), (0, 100)])
def test_candidates_are_those_of_a_plain_count(per_token, frequent):
    dataset = Seq2SeqDataset(PAIRS, MORE, WORDS)
    shortlist = learn_shortlist(dataset, per_token, frequent)
    pairs = [dataset[n] for n in range(len(dataset))]
    counts = Counter(t for _, target in pairs for t in target if t >= 4)
    usual = sorted(counts, key=lambda t: (-counts[t], t))[:frequent]
    always = {PAD, UNK, SOS, EOS, *usual}
    assert shortlist.always.tolist() == sorted(always)
    p = slow_model_1(pairs, 5)
    for source, row in enumerate(shortlist.likely.tolist()):
        links = {t: p[s, t] for s, t in p if s == source and t not in always}
        row = [t for t in row if t != PAD]
        assert len(row) == len({*row}) == min(per_token, len(links))
        best = sorted(links.values(), reverse=True)[:per_token]
        assert [links[t] for t in row] == pytest.approx(best)


def test_a_word_finds_its_translation():
    """w5 is w9, though it stands beside others, and w4, beside all, is no translation."""
    shortlist = learn_shortlist(Seq2SeqDataset(PAIRS, MORE, WORDS), 1, 0)
    assert shortlist.likely[[5, 6, 7, 11, 22], 0].tolist() == [9, 8, 10, 15, 18]


def test_what_is_allowed_is_the_union_of_a_rows_tokens():
    model = build("transformer")
    likely = {4: [5, 6], 5: [4], EOS: [], 9: [6, 4, 5]}
    shortlist = only(likely, model)
    source = torch.tensor([[4, 5, EOS], [4, EOS, 9]])  # the 9 stands on padding
    mask = torch.tensor([[True, True, True], [True, True, False]])
    found = [row.nonzero()[:, 0].tolist() for row in shortlist.allowed(source, mask)]
    assert found == [[0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 5, 6]]


# What is written


@pytest.mark.parametrize("kind", KINDS)
def test_with_everything_allowed_nothing_changes(kind):
    model, batch = build(kind), padded(toy_sentences())
    for each in (model, prepacked(model)):
        listed = Shortlisted(each, everything(model))
        the_same(search(listed, batch), greedy_decode(model, batch.source, batch.source_mask))
        for alpha, n_best in (0.6, 1), (0.0, 3):
            found = search(listed, batch, 3, alpha, n_best)
            the_same(found, beam_search(model, batch.source, None, 3, alpha, n_best=n_best))
        found = search(listed, batch, max_length=2, attention=False)
        the_same(found, greedy_decode(model, batch.source, max_length=2, attention=False))


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_models_own_search_with_the_others_forbidden(kind):
    """Against the model with -inf logits for what a sentence may not have, one alone at a time."""
    torch.manual_seed(1)
    target = Vocabulary.numbered(15)
    model, rows = build(kind, target, ending=0.0), toy_sentences(9)
    likely = {source: torch.randperm(11)[: source % 3].add(4).tolist() for source in range(12)}
    listed = Shortlisted(model, only(likely, model))
    batch = padded(rows)
    found = {beam: search(listed, batch, beam, n_best=beam) for beam in (1, 3)}
    output = model.output if kind == "transformer" else model.decoder.output
    different = 0
    for number, row in enumerate(rows):
        allowed = {PAD, UNK, SOS, EOS}.union(*(likely[source] for source in row))
        bias = output.bias.detach().clone()
        with torch.no_grad():
            for token in {*range(15)} - allowed:
                output.bias[token] = -1e9
        one = padded([row])
        the_same([found[1][number]], greedy_decode(model, one.source))
        several = beam_search(model, one.source, beam_size=3, n_best=3)
        some = [x for x in several[0] if x.log_probability > -1e6]
        kept = [x for x in found[3][number] if x.log_probability > -1e6]
        the_same([kept], [some])
        for x in some:
            assert {*x.ids} <= allowed
        with torch.no_grad():
            output.bias.copy_(bias)
        different += greedy_decode(model, one.source)[0].ids != found[1][number].ids
    assert different  # or nothing was forbidden that mattered


def test_a_sentence_does_not_hear_of_its_neighbours(copier):
    model, texts, learned = copier
    listed = Shortlisted(model, learned)
    for beam, n_best in (1, None), (3, 2):
        together = translate(listed, texts[:40], beam, n_best=n_best)
        alone = translate(listed, texts[:40], beam, n_best=n_best, batch_size=1)
        for one, other in zip(together, alone, strict=True):
            ones, others = (x if n_best else [x] for x in (one, other))
            assert [x.text for x in ones] == [x.text for x in others]
            scores = [x.score for x in others]
            assert [x.score for x in ones] == pytest.approx(scores, abs=1e-4)


def test_a_translation_stays_exactly_where_all_of_it_is_allowed(copier):
    model, texts, learned = copier
    own, found = (translate(each, texts) for each in (model, Shortlisted(model, learned)))
    batch = padded([WORDS.encode(text) for text in texts])
    allowed = learned.allowed(batch.source, batch.source_mask)  # (texts, vocabulary)
    assert allowed.sum(1).float().mean() < 15
    numbers = {token: number for number, token in enumerate(WORDS.tokens(range(19)))}
    stay = 0
    for one, other, row in zip(own, found, allowed, strict=True):
        assert all(row[numbers[token]] for token in other.tokens)
        may = all(row[numbers[token]] for token in one.tokens)
        assert may == (one.text == other.text)
        assert not may or other.score >= one.score - 1e-4
        stay += may
    assert 0.9 * len(texts) < stay < len(texts)
    assert sum(other.score - one.score for one, other in zip(own, found, strict=True)) > 1


def test_phrases_stay_as_they_are_and_take_a_fraction_of_the_words(phrases):
    model, data = phrases
    sources = [pair.source for pair in data.pairs]
    learned = learn_shortlist(data, per_token=4, frequent=8)
    for beam in 1, 4:
        own, found = (translate(x, sources, beam) for x in (model, Shortlisted(model, learned)))
        same = sum(one.text == other.text for one, other in zip(own, found, strict=True))
        assert same >= 0.99 * len(sources)
        assert found[0].attention.shape == own[0].attention.shape
    batch = padded([data[number][0] for number in range(len(data))])
    size = learned.allowed(batch.source, batch.source_mask).sum(1).float().mean()
    assert size < len(model.target_vocabulary) / 4


def test_log_probabilities_are_those_among_the_candidates(copier):
    model, texts, learned = copier
    listed, source = Shortlisted(model, learned), WORDS.encode(texts[3])
    one = search(listed, padded([source]))[0]
    row = torch.tensor([source])
    allowed = learned.allowed(row, row != PAD)[0]
    log_p = 0.0
    for length, token in enumerate(one.ids):  # the model's own p, over the sum of those allowed
        steps = torch.tensor(next_step(model, source, one.ids[:length], cache={}))
        log_p += float(steps[token] - steps[allowed].logsumexp(0))
    assert math.isclose(one.log_probability, log_p, abs_tol=1e-4)


def test_int8_and_training_mode_and_files(copier, tmp_path):
    model, texts, learned = copier
    listed = Shortlisted(model, learned)
    right = [one.text for one in translate(listed, texts[:50])]
    int8 = translate(prepacked(listed, torch.int8), texts[:50])
    assert sum(one.text == text for one, text in zip(int8, right, strict=True)) >= 45
    before = torch.get_rng_state()
    again = Shortlisted(model.train(), learned)
    assert torch.equal(torch.get_rng_state(), before) and model.training
    assert [one.text for one in translate(again, texts[:50])] == right
    model.eval()
    (tmp_path / "in").write_text("\n".join(texts[:50]) + "\n", "utf-8")
    translate_file(listed, tmp_path / "in", tmp_path / "out", progress=False)
    assert (tmp_path / "out").read_text("utf-8").split("\n")[:-1] == right


def test_the_search_is_called_as_ours_are(copier):
    given = inspect.signature(Shortlisted(copier[0], copier[2]).own_search(1, 0.6, 1)).parameters
    assert list(given) == ["model", "source", "source_mask", "max_length", "attention"]


# What does not fit


def test_what_cannot_be_a_shortlist_is_said():
    always, likely = torch.arange(4), torch.zeros(5, 2, dtype=torch.long)
    for arguments, message in (
        ((always[:3], likely, 9), r"always lacks special tokens, the ids \[3\]"),
        ((always, likely + 9, 9), "ids of likely must lie between 0 and 8, got 9 to 9"),
        ((always - 1, likely, 9), "ids of always must lie between 0 and 8, got -1 to 2"),
        ((always, likely[0], 9), r"likely must be int64 ids with 2 axes, got .* \(2,\)"),
        ((always.float(), likely, 9), "always must be int64 ids with 1 axes, got torch.float32"),
    ):
        with pytest.raises(ValueError, match=message):
            Shortlist(*arguments)
    dataset = Seq2SeqDataset(PAIRS, MORE, WORDS)
    for options in {"per_token": -1}, {"frequent": -1}, {"iterations": 0}:
        ((name, value),) = options.items()
        with pytest.raises(ValueError, match=f"{name} must be at least {value + 1}, got {value}"):
            learn_shortlist(dataset, **options)
    with pytest.raises(TypeError, match="must be a Seq2SeqDataset, not a list"):
        learn_shortlist(PAIRS)


def test_what_cannot_be_shortlisted_is_said(copier):
    model, _, learned = copier
    other = build("transformer")
    with pytest.raises(ValueError, match="19 source and 19 target tokens, the model has 12 and 7"):
        Shortlisted(other, learned)
    words = CopyVocabulary.numbered(12)
    pointer = PointerGenerator(words, words, embedding=4, hidden=6)
    with pytest.raises(TypeError, match="a PointerGenerator has no method `features`"):
        Shortlisted(pointer, everything(pointer))
    parametrizations.weight_norm(other.output)
    with pytest.raises(ValueError, match=r"the layer output was changed: only rows of a plain"):
        Shortlisted(other, everything(other))
    other = build("rnn")
    listed = Shortlisted(other, everything(other))
    other.decoder.output.register_forward_hook(lambda module, given, out: 2 * out)
    with pytest.raises(ValueError, match="got a hook, which would be lost"):
        translate(listed, [SOURCE.decode([5, 6])])
    listed = Shortlisted(model, learned)
    with pytest.raises(ValueError, match="source id 99 is outside the source vocabulary"):
        search(listed, collate([([99, EOS], None)]))
    with pytest.raises(ValueError, match="n_best must lie between 1 and beam_size 2, got 3"):
        translate(listed, ["w5"], beam_size=2, n_best=3)
    with pytest.raises(NotImplementedError):  # single steps, which a search of one's own wants
        translate(listed, ["w5"], search=greedy_decode)


def test_saved_and_read_again(tmp_path, copier):
    learned = copier[2]
    save_shortlist(learned, tmp_path / "list.pt")
    again = load_shortlist(tmp_path / "list.pt")
    assert again.target_size == learned.target_size == 19
    assert torch.equal(again.always, learned.always) and torch.equal(again.likely, learned.likely)
    with pytest.raises(FileNotFoundError, match=r"no shortlist at .*: use save_shortlist"):
        load_shortlist(tmp_path / "none.pt")
    whole = {"format": 1, "target_size": 19, "always": torch.arange(4), "likely": learned.likely}
    for change, message in (
        ({"format": 2}, "is not a shortlist of format 1"),
        ({"always": torch.arange(3)}, "not a complete shortlist: always lacks special tokens"),
        ({"always": None}, "is not a complete shortlist"),
        ({"target_size": "9"}, "is not a complete shortlist"),
    ):
        save_file(whole | change, tmp_path / "bad.pt")
        with pytest.raises(ValueError, match=message):
            load_shortlist(tmp_path / "bad.pt")
    save_file({k: v for k, v in whole.items() if k != "likely"}, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match="is not a complete shortlist: 'likely'"):
        load_shortlist(tmp_path / "bad.pt")
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is broken or not a shortlist"):
        load_shortlist(tmp_path / "bad.pt")


# CTranslate2

needs_ctranslate2 = pytest.mark.skipif(
    importlib.util.find_spec("ctranslate2") is None, reason="ctranslate2 is not installed"
)


@needs_ctranslate2
def test_both_ways_write_the_same(copier, tmp_path):
    from s2s_helpers.production.ctranslate2 import CTranslate2Model, export_ctranslate2

    model, texts, learned = copier
    folder = export_ctranslate2(model, tmp_path / "model", shortlist=learned)
    runtime, listed = CTranslate2Model(folder), Shortlisted(model, learned)
    for beam in 1, 3:  # alone, for the runtime lets the sentences of a batch share candidates
        ours, theirs = (translate(x, texts[:60], beam, batch_size=1) for x in (listed, runtime))
        for one, other in zip(ours, theirs, strict=True):
            assert one.text == other.text
            assert beam > 1 or math.isclose(one.score, other.score, abs_tol=1e-3)
    plain = CTranslate2Model(export_ctranslate2(model, tmp_path / "plain"))
    assert "vmap.txt" in runtime.settings["files"] and "vmap.txt" not in plain.settings["files"]
    own = translate(plain, texts[:60], batch_size=1)
    found = translate(runtime, texts[:60], batch_size=1)
    assert sum(x.score - y.score for x, y in zip(found, own, strict=True)) > 1


@needs_ctranslate2
def test_the_runtime_writes_candidates_alone(tmp_path):
    from s2s_helpers.production.ctranslate2 import CTranslate2Model, export_ctranslate2

    torch.manual_seed(0)
    model = TransformerSeq2Seq(MORE, WORDS, width=8, heads=2, layers=1, feedforward=8)
    likely = {5: [8, 11], 6: [9], 22: [18], EOS: [10]}
    export_ctranslate2(model, tmp_path / "model", shortlist=only(likely, model, range(5)))
    lines = (tmp_path / "model" / "vmap.txt").read_bytes().decode().split("\n")
    assert lines[0] == "\t<pad> <unk> <sos> <eos> w4"
    assert {"w5\tw8 w11", "w6\tw9", "w22\tw18", "<eos>\tw10", "w7\t"} <= {*lines}
    runtime = CTranslate2Model(tmp_path / "model")
    for text, allowed in ("w5 w7", {8, 11}), ("w6", {9}), ("w22 w6", {18, 9}), ("w7", set()):
        found = translate(runtime, [text], beam_size=3, n_best=3, max_length=6)[0]
        tokens = {*WORDS.tokens({UNK, EOS, 4, 10} | allowed)}
        assert {token for one in found for token in one.tokens} <= tokens


@needs_ctranslate2
def test_a_token_that_the_runtimes_lines_cannot_hold_is_named(copier, tmp_path):
    from s2s_helpers.production.ctranslate2 import export_ctranslate2

    letters = Vocabulary.build(["a b"], level="character")
    model = TransformerSeq2Seq(letters, letters, width=8, heads=2, layers=1, feedforward=8)
    with pytest.raises(ValueError, match=r"the token ' ' has a space or a break in it"):
        export_ctranslate2(model, tmp_path / "model", shortlist=everything(model))
    with pytest.raises(ValueError, match="the shortlist is for 19 source and 19 target tokens"):
        export_ctranslate2(model, tmp_path / "model", shortlist=copier[2])
    assert not list(tmp_path.iterdir())
