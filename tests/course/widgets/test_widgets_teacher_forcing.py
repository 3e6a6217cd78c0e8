"""The widgets on teacher forcing and its schedules, without a browser."""

import pytest
import torch
from traitlets import TraitError

from s2s_helpers.corpora.phrasebook import load
from s2s_helpers.course.recipes import phrasebook_vocabularies
from s2s_helpers.course.widgets import ForcingSchedules, TeacherForcing
from s2s_helpers.data import collate
from s2s_helpers.models import AttentionSeq2Seq, Seq2Seq, TransformerSeq2Seq
from s2s_helpers.models.interface import unroll
from s2s_helpers.training import schedules, set_seed

TINY = {
    Seq2Seq: dict(embedding=8, hidden=8),
    AttentionSeq2Seq: dict(embedding=8, hidden=8),
    TransformerSeq2Seq: dict(width=8, heads=2, layers=1, feedforward=8),
}
PAIRS = load().test[:3]


def a_model(model_class=Seq2Seq, seed=0):
    set_seed(seed)
    return model_class(*phrasebook_vocabularies(), **TINY[model_class])


def expected(model, pair, teacher_forcing):
    """Right or not and p(gold) of every position, by `unroll`."""
    source, target = phrasebook_vocabularies()
    batch = collate([(source.encode(pair.source), target.encode(pair.target))])
    with torch.inference_mode():
        p = unroll(model.eval(), batch, teacher_forcing)[0].softmax(-1)[0]  # (target, vocabulary)
    gold = batch.target_output[0]
    return (p.argmax(-1) == gold).tolist(), p[range(len(gold)), gold].tolist()


@pytest.mark.parametrize("model_class", TINY)
def test_the_extremes_are_the_training_s(model_class):
    model = a_model(model_class)
    model.train()
    widget = TeacherForcing(model, PAIRS, pair=1)
    assert model.training  # as it was
    for columns, share in ((widget.all_gold, 1.0), (widget.all_own, 0.0)):
        right, p = expected(model, PAIRS[1], share)
        assert [column["right"] for column in columns] == right
        assert [column["p_gold"] for column in columns] == pytest.approx(p, abs=1e-4)
    assert widget.columns == widget.all_gold
    widget.own = [True] * len(widget.own)
    assert widget.columns == widget.all_own and widget.feeding == widget.own
    assert f"{sum(right)} reading its own" in widget.describe()


def test_one_choice_changes_what_comes_after_and_nothing_before():
    widget = TeacherForcing(a_model(), PAIRS)
    before = widget.columns
    assert before[2]["said"] != before[2]["gold"]
    widget.own = [place == 2 for place in range(len(widget.own))]
    assert widget.columns[:3] == before[:3]
    assert widget.columns[3]["fed"] == before[2]["said"] != before[3]["fed"]
    assert widget.columns[4]["fed"] == before[4]["fed"]
    assert widget.columns[3]["best"] != before[3]["best"]
    best = widget.columns[3]["best"]
    assert best[0] == [widget.columns[3]["said"], widget.columns[3]["p"]] and len(best) == 5


def test_python_can_step():
    widget = TeacherForcing(a_model(), PAIRS)
    for own in (True, False, True):
        widget.feed(own)
    assert widget.at == 4 and widget.own[:4] == [True, False, True, False]
    widget.at = len(widget.columns)
    widget.feed(True)  # at the end there is no step more
    assert widget.at == len(widget.columns)


def test_another_sentence_starts_anew_and_another_model_keeps_the_choices():
    models = {"one": a_model(), "two": a_model(seed=1)}
    widget = TeacherForcing(models, PAIRS)
    widget.feed(True)
    first = widget.columns
    widget.model = "two"
    assert widget.own[0] and widget.at == 2 and widget.columns != first
    assert widget.columns == TeacherForcing(models["two"], PAIRS, own=widget.own).columns
    widget.pair = 2
    assert not any(widget.own) and widget.at == 1
    words = phrasebook_vocabularies()[1]
    assert [c["gold"] for c in widget.columns] == words.tokens(words.encode(PAIRS[2].target))


@pytest.mark.parametrize(
    "name, value, cause",
    [
        ("pair", 3, "pair is 0 to 2, not 3"),
        ("model", "x", "model is one of"),
        ("at", 0, "at is 1 to"),
        ("at", 99, "at is 1 to"),
        ("own", [True], "own has .* choices"),
    ],
)
def test_a_wrong_value_is_refused(name, value, cause):
    widget = TeacherForcing(a_model(), PAIRS)
    before = widget.get_state()
    with pytest.raises(TraitError, match=cause):
        setattr(widget, name, value)
    widget.set_state({name: value})
    assert widget.message
    assert widget.get_state() == before | {"message": widget.message}


def test_texts_that_cannot_be_read_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        TeacherForcing(a_model(), [])
    with pytest.raises(ValueError, match="empty"):
        TeacherForcing(a_model(), [("", "le")])


def test_the_picture_shows_the_words_and_the_lines():
    widget = TeacherForcing(a_model(), [("the boy reads .", "le $x$ lit .")])
    widget.own = [k % 2 == 0 for k in range(len(widget.own))]
    table, chart = widget.figure().axes
    texts = [text.get_text() for text in table.texts]
    assert texts[1::3] == [column["fed"] for column in widget.columns]
    drawn = [list(line.get_ydata()) for line in chart.lines]
    p = [[c["p_gold"] for c in cs] for cs in (widget.all_gold, widget.all_own, widget.columns)]
    assert drawn == p


def test_the_schedules_are_the_package_s():
    widget = ForcingSchedules(c=0.01, minimum=0.1, k=0.98, sigmoid_k=30.0, steps=300, step=40)
    assert {name: curve(40) for name, curve in widget.curves.items()} == {
        "linear": schedules.linear(0.01, minimum=0.1)(40),
        "exponential": schedules.exponential(0.98)(40),
        "inverse sigmoid": schedules.inverse_sigmoid(30)(40),
    }
    assert widget.describe().startswith("share of gold words at step 40: linear 0.60,")
    (ax,) = widget.figure().axes
    assert ax.lines[1].get_ydata()[40] == pytest.approx(0.98**40)


@pytest.mark.parametrize(
    "change", [{"c": -0.1}, {"minimum": 1.1}, {"k": 1.0}, {"sigmoid_k": 0.5}, {"step": 501}]
)
def test_a_schedule_that_cannot_be_is_refused(change):
    widget = ForcingSchedules()
    (name, value), *_ = change.items()
    with pytest.raises(TraitError):
        setattr(widget, name, value)
    before = widget.describe()
    widget.set_state(change)
    assert widget.message and widget.describe() == before
    widget.steps = 100
    assert widget.step == 100
