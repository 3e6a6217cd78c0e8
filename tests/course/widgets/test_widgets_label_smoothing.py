"""The widget on label smoothing, without a browser."""

import base64

import pytest
import torch
from traitlets import TraitError

from s2s_helpers.course.widgets import LabelSmoothing
from s2s_helpers.loss import Seq2SeqLoss
from s2s_helpers.vocabulary import PAD

ROW = [0.02, 0.08, 0.3, 0.2, 0.3, 0.1]


def a_widget(**changes):
    rows = [ROW, ROW[::-1], ROW, ROW, ROW, ROW]
    return LabelSmoothing(**(dict(probabilities=rows) | changes))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_losses_and_mean_are_those_of_the_loss(smoothing):
    widget = a_widget(smoothing=smoothing)
    logits = torch.tensor(widget.probabilities, dtype=torch.double).log()
    targets, loss = torch.tensor(widget.targets), Seq2SeqLoss(smoothing)
    for place in range(4):
        one = loss(logits[place : place + 1], targets[place : place + 1]).item()
        assert widget.losses[place] == pytest.approx(one)
    assert widget.mean == pytest.approx(loss(logits, targets).item())
    assert f"the mean is {widget.mean:.2f}" in widget.describe()


def test_padding_counts_only_where_one_asks_for_it():
    widget = a_widget(count_padding=True)
    assert widget.targets.count(PAD) == 2
    assert widget.mean == pytest.approx(sum(widget.losses) / 6)
    assert widget.mean != pytest.approx(a_widget().mean)


@pytest.mark.parametrize(
    "change, cause",
    [
        (dict(smoothing=1.0), "smoothing"),
        (dict(smoothing=-0.1), "smoothing"),
        (dict(position=6), "position is 0 to 5, not 6"),
        (dict(position=-1), "position is 0 to 5"),
        (dict(probabilities=[ROW]), r"shape \(6, 6\), not \(1, 6\)"),
        (dict(probabilities=[[0.0, 0.2, 0.2, 0.2, 0.2, 0.2]] * 6), "above 0"),
        (dict(probabilities=[[0.3] * 6] * 6), "sums to 1"),
    ],
)
def test_a_wrong_value_is_refused_and_nothing_changes(change, cause):
    widget = a_widget()
    before = widget.describe()
    (name, value), *_ = change.items()
    with pytest.raises(TraitError, match=cause):
        setattr(widget, name, value)
    assert widget.describe() == before
    # The same from the browser is told there.
    widget.set_state(change)
    assert widget.message and widget.describe() == before
    widget.set_state({"position": 3})
    assert widget.message == "" and widget.position == 3


def test_the_picture_shows_the_state():
    widget = a_widget(smoothing=0.2, position=1)
    left, right = widget.figure().axes
    heights = [bar.get_height() for bar in left.patches]
    assert heights[:6] == pytest.approx([0.2 / 6] * 3 + [0.8 + 0.2 / 6] + [0.2 / 6] * 2)
    assert heights[6:] == pytest.approx(ROW[::-1])
    assert [bar.get_height() for bar in right.patches] == pytest.approx(widget.losses)
    assert left.get_title() == "Position 2: chat"


def test_what_is_saved_is_a_picture_and_a_sentence():
    data, _ = a_widget(words=["<pad>", "<eos>", "$x$", "<img>", "c", "d"])._repr_mimebundle_()
    assert data["text/plain"].startswith("LabelSmoothing: at '$x$', with probability 0.30")
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
