"""The tree of a beam search, without a browser."""

import base64
import itertools
import math

import pytest
import torch
from toy_models import KINDS, brute_force, build, log_probability, padded, sentences
from traitlets import TraitError

from s2s_helpers.course.widgets import BeamSearchTree
from s2s_helpers.course.widgets.searching import every_sentence, trace
from s2s_helpers.decoding import BeamSearch, beam_search, length_penalty_of
from s2s_helpers.models.interface import Memory, Seq2SeqModel, State
from s2s_helpers.vocabulary import EOS, SOS, Vocabulary

ALPHAS = (0.0, 0.3, 0.6, 1.0)
WORDS = Vocabulary(["a", "b", "c"])
NEXT = {SOS: [0.5, 0.4, 0.1], 4: [0.0, 0.4, 0.6], 5: [0.9, 0.0, 0.1], 6: [0.2, 0.2, 0.6]}


class Table(Seq2SeqModel):
    """The next word depends on the last alone: a, b or the end; c is never written."""

    def encode(self, source, source_mask):
        return Memory(mask=source_mask, states=source)

    def start(self, memory):
        return State()

    def step(self, tokens, state, memory):
        p = torch.zeros(len(tokens), len(WORDS))
        for line, token in enumerate(tokens.tolist()):
            p[line, [4, 5, EOS]] = torch.tensor(NEXT.get(token, NEXT[6]))
        return p.log(), state, None


def a_tree(**state):
    return BeamSearchTree(Table(WORDS, WORDS), **(dict(max_length=6) | state))


def steps_of(model, source, beam_size, alpha, limit) -> int:
    """How many steps the package's search takes."""
    with torch.inference_mode():
        limits = torch.tensor([limit])
        search = BeamSearch(model, source, source > 0, limits, beam_size, alpha, 1)
        while len(search.searching):
            search.advance()
    return len(search.history)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beam_size", [1, 2, 3, 5])
def test_it_shows_what_beam_search_finds_and_stops_where_that_stops(kind, beam_size):
    stops = set()
    for seed, ending in itertools.product(range(3), (0.0, 2.0)):
        model = build(kind, seed=seed, ending=ending)
        ids = sentences(3, seed)[seed]
        text, source = model.source_vocabulary.decode(ids), torch.tensor([ids])
        assert model.source_vocabulary.encode(text) == ids
        tree = BeamSearchTree(model, text, max_length=8, beam_size=beam_size)
        for alpha in ALPHAS:
            tree.length_penalty = alpha
            ((best,),) = beam_search(model, source, None, beam_size, alpha, max_length=8)
            assert tree.hypotheses[0].ids == best.ids
            assert tree.hypotheses[0].score == pytest.approx(best.score, abs=1e-6)
            assert tree.stop == steps_of(model, source, beam_size, alpha, 8)
            stops.add(tree.stop)
    assert len(stops) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_candidate_is_a_sentence_with_its_log_p_and_its_fate(kind):
    model, ids = build(kind, seed=1, ending=2.0), sentences(1)[0]
    tree = BeamSearchTree(model, model.source_vocabulary.decode(ids), max_length=5, beam_size=3)
    before = None
    for number, candidates in enumerate(tree.search["steps"], 1):
        values = [c["log_p"] for c in candidates]
        assert values == sorted(values, reverse=True) and len(values) <= 6
        unfinished = [c for c in candidates if c["token"] != EOS]
        for place, c in enumerate(candidates, 1):
            path = tree.path(number, place)
            assert len(path) == number and path[-1] == c["token"]
            assert c["log_p"] == pytest.approx(log_probability(model, ids, path), abs=1e-3)
            assert c["word"] == model.target_vocabulary.tokens([c["token"]])[0]
            assert before is None or before[c["parent"]]["fate"] == "kept"
            if c["token"] == EOS:
                wanted = "finished" if place <= 3 else "pruned"
            else:
                wanted = "kept" if any(c is other for other in unfinished[:3]) else "pruned"
            assert c["fate"] == wanted
        before = candidates


def test_a_smaller_penalty_takes_the_same_steps():
    model, source = build("luong", seed=2), padded(sentences(1)).source
    steps, limit = trace(model, source, 3)
    assert limit == 2 * int((source > 0).sum()) + 10
    longest = steps_of(model, source, 3, 1.0, limit)
    assert len(steps) == longest >= steps_of(model, source, 3, 0.0, limit)


def test_brute_force_finds_all_sentences_or_says_that_they_are_too_many():
    tree = a_tree()
    every = {tuple(one["ids"]): one["log_p"] for one in tree.search["every"]}
    expected = {}
    for length in range(6):
        for middle in itertools.product((4, 5), repeat=length):
            path = [SOS, *middle, EOS]
            p = math.prod(NEXT[a][[4, 5, EOS].index(b)] for a, b in itertools.pairwise(path))
            if p:
                expected[tuple(path[1:])] = math.log(p)
    assert every == pytest.approx(expected, abs=1e-5)
    assert [one["log_p"] for one in tree.search["every"]] == sorted(every.values(), reverse=True)
    model, ids = build("transformer"), sentences(1)[0]
    found = every_sentence(model, torch.tensor([ids]), 3)
    wanted = [ids for _, ids in brute_force(model, ids, 0.0, 3)]
    assert [ids for ids, _ in found] == wanted
    assert every_sentence(model, torch.tensor([ids]), 8) is None


def test_the_penalty_changes_the_best_without_a_search():
    tree = a_tree(beam_size=2)
    search = tree.search
    assert tree.search["greedy"]["words"] == ["a", "<eos>"]
    words = {}
    for alpha in (0.0, 1.0):
        tree.length_penalty = alpha
        best = max(
            (log_p / length_penalty_of(len(ids), alpha), ids)
            for ids, log_p in ((one["ids"], one["log_p"]) for one in search["every"])
        )
        assert tree.hypotheses[0].ids == best[1] and f"score {best[0]:.2f}" in tree.describe()
        words[alpha] = best[1]
    assert tree.search is search


def test_only_what_is_shown_counts():
    tree = a_tree(beam_size=2, step=1)
    assert tree.shown == 1 and tree.hypotheses == []
    assert "nothing finished yet" in tree.describe() and "step 1 of" in tree.describe()
    tree.step = 2
    assert [WORDS.tokens(h.ids) for h in tree.hypotheses] == [["a", "<eos>"]]


def test_a_new_search_keeps_the_step_and_drops_the_selection():
    tree = a_tree(beam_size=1, step=1, selected=[1, 2])
    tree.beam_size = 3
    assert (tree.step, tree.selected) == (1, [])
    tree.step = len(tree.search["steps"])
    tree.selected = [2, 1]
    tree.beam_size = 2
    assert tree.step == len(tree.search["steps"]) and tree.selected == []


def test_where_nothing_ends_the_unfinished_are_shown():
    model = build("rnn", ending=-50.0)
    ids = sentences(1)[0]
    tree = BeamSearchTree(model, model.source_vocabulary.decode(ids), max_length=3, beam_size=2)
    ((best,),) = beam_search(model, torch.tensor([ids]), beam_size=2, max_length=3)
    assert tree.hypotheses[0].ids == best.ids and not best.finished
    assert len(tree.hypotheses) == 2


@pytest.mark.parametrize(
    "change, cause",
    [
        (dict(sentence=" "), "empty sentence"),
        (dict(beam_size=0), "beam_size"),
        (dict(beam_size=9), "beam_size"),
        (dict(length_penalty=1.1), "length_penalty"),
        (dict(step=9), "step is 0 to 3, not 9"),
        (dict(step=-1), "step is 0 to"),
        (dict(selected=[4, 1]), r"selected is \[step, place\]"),
        (dict(selected=[1, 0]), r"not \[1, 0\]"),
        (dict(selected=[1]), r"not \[1\]"),
    ],
)
def test_a_wrong_value_is_refused_and_nothing_changes(change, cause):
    tree = a_tree(sentence="a", max_length=3, selected=[1, 1])
    before = tree.describe(), tree.selected
    (name, value), *_ = change.items()
    with pytest.raises(TraitError, match=cause):
        setattr(tree, name, value)
    tree.set_state(change)
    assert tree.message and (tree.describe(), tree.selected) == before
    tree.set_state({"step": 1})
    assert tree.message == "" and tree.step == 1


def test_what_is_saved_is_a_picture_and_a_sentence():
    tree = a_tree(beam_size=2, selected=[2, 1])
    drawn = {text.get_text() for text in tree.figure().axes[0].texts}
    assert {"<sos>", f"a\n{math.log(0.5):.2f}", f"b\n{math.log(0.5 * 0.4):.2f}"} <= drawn
    data, _ = tree._repr_mimebundle_()
    assert data["text/plain"].startswith("BeamSearchTree: k = 2, alpha = 0.60, step ")
    assert "(greedy)" in data["text/plain"]
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
