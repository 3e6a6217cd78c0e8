"""The playground of decoding, without a browser."""

import base64

import pytest
import torch
from test_widgets_beam_search_tree import WORDS, Table
from toy_models import KINDS, SOURCE, TINY, build, log_probability, next_step, sentences
from traitlets import TraitError

from s2s_helpers.course.widgets import DecodingPlayground
from s2s_helpers.course.widgets.decoding_playground import DRAWN, ROWS
from s2s_helpers.decoding import beam_search, greedy_decode, random_of, sample
from s2s_helpers.models import TransformerSeq2Seq
from s2s_helpers.vocabulary import EOS, PAD, SOS, Vocabulary

BIG = Vocabulary.numbered(30)


def a_playground(kind="luong", **state):
    model, ids = build(kind, BIG, seed=4, sharpness=2.0), sentences(1)[0]
    text = model.source_vocabulary.decode(ids)
    return DecodingPlayground(model, text, **(dict(max_length=8) | state)), torch.tensor([ids])


def numbers(words) -> list[int]:
    return [BIG.tokens(range(len(BIG))).index(word) for word in words]


@pytest.mark.parametrize("kind", KINDS)
def test_the_rows_are_what_the_package_decodes(kind):
    play, source = a_playground(kind, temperature=1.7, top_k=4, top_p=0.6, seed=5, beam_size=3)
    wanted = {
        "greedy": greedy_decode(play.model, source, max_length=8)[0],
        "beam": beam_search(play.model, source, beam_size=3, max_length=8)[0][0],
        "temperature": sample(play.model, source, max_length=8, temperature=1.7, seed=5)[0],
        "top_k": sample(play.model, source, max_length=8, top_k=4, seed=5)[0],
        "top_p": sample(play.model, source, max_length=8, top_p=0.6, seed=5)[0],
    }
    for row in play.rows:
        assert numbers(row["words"]) == wanted[row["name"]].ids
        log_p = log_probability(play.model, source[0].tolist(), wanted[row["name"]].ids)
        assert row["log_p"] == pytest.approx(log_p, abs=1e-3)
    assert [row["name"] for row in play.rows] == list(ROWS)


def by_hand(p: list[float], row: str, play) -> list[float]:
    """q in plain Python, for p from large to small; what is never written is no part of it."""
    p = [share / sum(p) for share in p]
    if row == "temperature":
        q = [share ** (1 / play.temperature) for share in p]
    elif row == "top_k":
        q = [share if place < play.top_k else 0.0 for place, share in enumerate(p)]
    else:
        q, held = [], 0.0
        for share in p:
            q.append(share if held < play.top_p else 0.0)
            held += share
    return [share / sum(q) for share in q]


@pytest.mark.parametrize("kind", KINDS)
def test_every_word_has_the_distribution_it_was_taken_from(kind):
    play, source = a_playground(kind, temperature=1.7, top_k=4, top_p=0.6, seed=5)
    for row in play.rows:
        luck, ids = random_of(5), numbers(row["words"])
        for place, step in enumerate(row["steps"]):
            p = torch.tensor(next_step(play.model, source[0].tolist(), ids[:place])).exp()
            p[[PAD, SOS]] = 0
            p, order = p.sort(descending=True)
            p, rank = p.tolist(), order.tolist().index(ids[place])
            assert step["rank"] == rank and step["others"] == 28 - len(step["words"])
            shown = [*range(10), *([rank] if rank > 9 else [])]
            assert numbers(step["words"]) == order[shown].tolist()
            assert step["p"] == pytest.approx([p[r] for r in shown], abs=1e-4)
            assert step["rest"] == pytest.approx(sum(p) - sum(step["p"]), abs=1e-4)
            assert ("q" in step) == (row["name"] in DRAWN)
            if "q" in step:
                q, number = by_hand(p, row["name"], play), luck.random()
                assert step["q"] == pytest.approx([q[r] for r in shown], abs=1e-4)
                assert step["kept"] == sum(share > 0 for share in q)
                # The number that was drawn fell on the word that was written.
                assert step["luck"] == number
                assert sum(q[:rank]) - 1e-4 <= number <= sum(q[: rank + 1]) + 1e-4


def test_only_what_a_change_touches_is_decoded_anew():
    play, _ = a_playground(temperature=2.5)
    before = {row["name"]: row for row in play.rows}
    play.temperature = 0.05
    after = {row["name"]: row for row in play.rows}
    assert after["temperature"]["words"] == after["greedy"]["words"]
    assert after["temperature"] != before["temperature"]
    assert all(after[name] is before[name] for name in ROWS if name != "temperature")
    play.seed = 7
    assert {row["name"] for row in play.rows if row is not after[row["name"]]} == set(DRAWN)
    play.sentence = play.model.source_vocabulary.decode([4, 5])
    assert len(play.source) == 3 and play.source[-1] == "<eos>"


def test_a_selection_stays_within_its_row():
    play, _ = a_playground(temperature=2.5, max_length=8)
    play.selected = [2, len(play.rows[2]["words"]) - 1]
    play.max_length = 1
    play.sentence = play.model.source_vocabulary.decode([4])
    assert play.selected == [2, 0]


def test_a_small_table_has_only_its_possible_words():
    play = DecodingPlayground(Table(WORDS, WORDS), top_k=1)
    step = play.rows[3]["steps"][0]
    assert (step["words"], step["others"]) == (["a", "b", "<eos>"], 0)
    assert step["q"] == pytest.approx([1, 0, 0]) and step["rest"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "change, cause",
    [
        (dict(sentence=""), "empty sentence"),
        (dict(temperature=0.0), "temperature"),
        (dict(top_k=0), "top_k"),
        (dict(top_p=1.1), "top_p"),
        (dict(beam_size=0), "beam_size"),
        (dict(seed=-1), "seed"),
        (dict(selected=[5, 0]), r"selected is \[row, word\]"),
        (dict(selected=[0, 99]), r"not \[0, 99\]"),
        (dict(selected=[0]), r"not \[0\]"),
    ],
)
def test_a_wrong_value_is_refused_and_nothing_changes(change, cause):
    play, _ = a_playground()
    before = play.describe(), play.selected
    (name, value), *_ = change.items()
    with pytest.raises(TraitError, match=cause):
        setattr(play, name, value)
    play.set_state(change)
    assert play.message and (play.describe(), play.selected) == before
    play.set_state({"selected": [0, 0]})
    assert play.message == "" and play.selected == [0, 0]


def test_what_is_saved_is_a_picture_and_a_sentence():
    play, _ = a_playground(top_k=2, selected=[3, 0])
    left, right = play.figure().axes
    assert [bar.get_width() for bar in right.patches] == play.rows[3]["steps"][0]["p"]
    assert [bar.get_hatch() for bar in right.patches[:3]] == [None, None, "///"]
    assert right.get_title() == "top_k, 2: word 1"
    assert len(left.texts) == 10
    data, _ = play._repr_mimebundle_()
    assert data["text/plain"].startswith("DecodingPlayground: ")
    assert "top_k, 2: " in data["text/plain"] and "seed 0; greedy: " in data["text/plain"]
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")


def test_a_decoding_may_reach_the_last_position():
    torch.manual_seed(0)
    model = TransformerSeq2Seq(
        SOURCE, TINY, width=8, heads=2, layers=1, positions="learned", max_positions=6
    ).eval()
    model.output.bias.data[EOS] = -50  # it hardly ever ends
    rows = DecodingPlayground(model, "w4 w5").rows
    assert [len(row["words"]) for row in rows if row["name"] != "beam"] == [6] * 4
    assert all(len(row["steps"]) == len(row["words"]) for row in rows)
