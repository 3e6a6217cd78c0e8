"""plots: the numbers drawn are the numbers given, and every picture can be read."""

import math
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from s2s_helpers.course import plots

SOURCE, TARGET = ["the", "cat", "$5", "<eos>"], ["le", "chat", "<eos>"]


def weights(*shape):
    return torch.softmax(torch.randn(*shape, generator=torch.Generator().manual_seed(0)), -1)


def history():
    epochs = [
        {
            "epoch": epoch,
            "train_loss": 3 / epoch,
            "validation_loss": 4 / epoch,
            "token_accuracy": 1 - 1 / (epoch + 1),
            "seconds": 1.5,
        }
        for epoch in range(1, 6)
    ]
    steps = [
        {"step": step, "loss": 1.0, "lr": step / 1000, "grad_norm": 1 + step % 2}
        for step in range(1, 201)
    ]
    return SimpleNamespace(epochs=epochs, steps=steps)


def sinusoids(positions, width):
    angles = torch.arange(positions)[:, None] / 10000 ** (torch.arange(0, width, 2) / width)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


PICTURES = {
    "heatmap": lambda: plots.attention_heatmap(weights(3, 4), SOURCE, TARGET, gold={(0, 0)}),
    "grid": lambda: plots.attention_grid(weights(2, 4, 3, 4), SOURCE, TARGET),
    "training": lambda: plots.training_curves(history()),
    "length": lambda: plots.accuracy_by_length([3, 4, 5, 6], [1, 1, 0, 1], label="model"),
    "positions": lambda: plots.positional_encodings(sinusoids(20, 16)),
    "bars": lambda: plots.bars(["a", "b"], [0.1, 0.9], [0.1, 0.1], "Right", "accuracy"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_is_titled_labelled_and_large_enough_to_read(name):
    drawn = PICTURES[name]()
    figure = drawn if isinstance(drawn, plt.Figure) else drawn.figure
    figure.canvas.draw()
    written = [
        text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()
    ]
    assert min(text.get_fontsize() for text in written) >= 9
    axes = [ax for ax in figure.axes if ax.get_visible() and ax.get_label() != "<colorbar>"]
    if name == "grid":  # outer labels only: what is written below and beside holds for the rest
        assert all(ax.get_xlabel() for ax in axes[-4:]) and all(ax.get_ylabel() for ax in axes[::4])
    else:
        assert all(ax.get_title() and ax.get_ylabel() for ax in axes)
        assert name == "bars" or all(ax.get_xlabel() for ax in axes)
    size = figure.get_size_inches()
    assert 2 < size[0] <= 12 and 2 < size[1] <= 8


def test_the_colours_are_apart_for_colour_blind_readers():
    # Viénot, Brettel and Mollon 1999: how a reader without the long-wave cones sees linear RGB.
    without_red = np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]])
    rgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in plots.COLOURS])
    seen = (without_red @ (rgb**2.2).T).T.clip(0, 1) ** (1 / 2.2)
    gaps = np.abs(seen[:, None] - seen[None]).max(-1) + np.eye(len(rgb))
    assert gaps.min() > 0.1


def test_the_heatmap_draws_the_matrix_its_tokens_and_the_gold_cells():
    attention = weights(3, 4)
    ax = plots.attention_heatmap(attention, SOURCE, TARGET, "Luong", gold={(1, 1), (3, 2)})
    (image,) = ax.images
    assert np.allclose(image.get_array(), attention.numpy())
    assert image.get_clim() == (0, 1)
    assert [label.get_text() for label in ax.get_xticklabels()] == SOURCE
    assert [label.get_text() for label in ax.get_yticklabels()] == TARGET
    assert not ax.get_xticklabels()[2].get_parse_math()
    cells = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    centres = {
        (round(c.get_x() + c.get_width() / 2), round(c.get_y() + c.get_height() / 2)) for c in cells
    }
    assert centres == {(1, 1), (3, 2)} and not any(cell.get_fill() for cell in cells)
    assert "Luong" in ax.get_title() and "gold" in ax.get_title()


def test_the_first_target_token_is_at_the_top():
    ax = plots.attention_heatmap(weights(3, 4), SOURCE, TARGET)
    bottom, top = ax.get_ylim()
    assert bottom > top
    assert "gold" not in ax.get_title()


def test_a_picture_goes_into_the_axes_it_is_given():
    _, (left, right) = plt.subplots(1, 2)
    assert plots.attention_heatmap(weights(3, 4).numpy(), SOURCE, TARGET, ax=right) is right
    assert right.images and not left.images
    assert plots.bars(["a"], [1], ax=left) is left
    assert len(plt.get_fignums()) == 1


def test_the_grid_has_one_heatmap_a_head_in_reading_order():
    attention = weights(2, 3, 3, 4).requires_grad_()
    figure = plots.attention_grid(attention, SOURCE, TARGET)
    images = [ax.images[0] for ax in figure.axes[:6]]
    for index, image in enumerate(images):
        expected = attention[index // 3, index % 3].detach().numpy()
        assert np.allclose(image.get_array(), expected)
    assert [ax.get_title() for ax in figure.axes[:3]] == ["head 1", "head 2", "head 3"]
    assert figure.axes[3].get_ylabel().startswith("layer 2")


def lines(ax):
    return {line.get_label(): line.get_xydata() for line in ax.lines}


def test_training_curves_draw_each_number_of_the_history():
    record = history()
    figure = plots.training_curves(record)
    loss, accuracy, rate, norm = (ax for ax in figure.axes if ax.get_visible())
    drawn = lines(loss)
    assert np.allclose(drawn["train"], [(e["epoch"], e["train_loss"]) for e in record.epochs])
    assert np.allclose(
        drawn["validation"], [(e["epoch"], e["validation_loss"]) for e in record.epochs]
    )
    assert np.allclose(
        lines(accuracy)["validation"], [(e["epoch"], e["token_accuracy"]) for e in record.epochs]
    )
    assert np.allclose(rate.lines[0].get_xydata(), [(s["step"], s["lr"]) for s in record.steps])
    assert rate.get_xlabel() == norm.get_xlabel() == "step" and loss.get_xlabel() == "epoch"
    # the running mean of 1, 2, 1, 2, … over an even number of steps, at the steps in the middle
    mean = norm.lines[1].get_xydata()
    assert np.allclose(mean[:, 1], 1.5) and mean[0, 0] > 1 and mean[-1, 0] < 201


def test_training_curves_without_steps_or_without_epochs():
    record = history()
    figure = plots.training_curves(SimpleNamespace(epochs=record.epochs[:1], steps=[]))
    assert len(figure.axes) == 2
    with pytest.raises(ValueError, match="no epochs"):
        plots.training_curves(SimpleNamespace(epochs=[], steps=[]))


def test_accuracy_by_length_draws_shares_and_their_standard_errors():
    lengths = [2] * 10 + [3] * 5 + [6] * 4
    correct = [True] * 9 + [False] + [True] * 5 + [True, False] * 2
    ax = plots.accuracy_by_length(lengths, correct, label="one", bins=[2, 4, 7])
    assert np.allclose(ax.lines[0].get_xydata(), [((20 + 15) / 15, 14 / 15), (6, 0.5)])
    corners = ax.collections[0].get_paths()[0].vertices
    ys = corners[np.isclose(corners[:, 0], 6)][:, 1]
    error = math.sqrt(0.5 * 0.5 / 4)
    assert np.isclose(ys.min(), 0.5 - error) and np.isclose(ys.max(), 0.5 + error)


def test_several_models_in_one_axes_differ_in_colour_and_marker():
    ax = plots.accuracy_by_length([1, 2, 3], [1, 1, 1], label="one")
    assert plots.accuracy_by_length(torch.tensor([1, 2, 3]), torch.ones(3).bool(), ax, "two") is ax
    first, second = ax.lines
    assert first.get_color() != second.get_color() and first.get_marker() != second.get_marker()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "two"]


@pytest.mark.parametrize("lengths", [[5], [5, 5, 5], list(range(3, 40)), [1, 100]])
def test_every_sentence_falls_into_a_bin(lengths):
    ax = plots.accuracy_by_length(lengths, [1] * len(lengths))
    xs = ax.lines[0].get_xdata()
    assert 1 <= len(xs) <= 7 and min(lengths) <= xs.min() and xs.max() <= max(lengths)
    # The mean of the bins' means, each weighed by its sentences, needs every sentence.
    step = max(1, math.ceil((max(lengths) - min(lengths) + 1) / 6))
    sizes = np.bincount([(length - min(lengths)) // step for length in lengths])
    assert np.isclose(xs @ sizes[sizes > 0], sum(lengths))


def test_positions_are_less_alike_the_farther_they_are_apart():
    figure = plots.positional_encodings(sinusoids(50, 32))
    table, columns, likeness = figure.axes[:3]
    assert np.allclose(table.images[0].get_array(), sinusoids(50, 32).numpy())
    cosines = likeness.lines[0].get_ydata()
    # For sinusoids it is the mean of cos(distance x frequency) over the frequencies.
    frequencies = 10000 ** -(np.arange(0, 32, 2) / 32)
    expected = np.cos(np.arange(50)[:, None] * frequencies).mean(1)
    assert np.allclose(cosines, expected, atol=1e-5)
    assert np.allclose(columns.lines[0].get_ydata(), np.sin(np.arange(50)), atol=1e-5)


def test_a_narrow_or_empty_looking_table_is_drawn_too():
    assert plots.positional_encodings(torch.zeros(3, 2))


def test_bars_stand_at_their_values_with_the_numbers_above():
    ax = plots.bars(["a", "b"], [0.25, 0.5], [0.1, 0.2], "Right", "accuracy", form="{:.0%}")
    assert [bar.get_height() for bar in ax.patches] == [0.25, 0.5]
    assert [text.get_text() for text in ax.texts] == ["25%", "50%"]
    ends = [segment[:, 1] for segment in ax.collections[0].get_segments()]
    assert np.allclose(ends, [(0.15, 0.35), (0.3, 0.7)])


def test_groups_of_bars_stand_side_by_side_with_a_legend():
    ax = plots.bars(["a", "b"], {"test": [1, 2], "new": [3, 4]}, {"test": [0.1, 0.1]})
    assert [bar.get_height() for bar in ax.patches] == [1, 2, 3, 4]
    lefts = [bar.get_x() for bar in ax.patches]
    assert lefts[0] < lefts[2] < lefts[1] < lefts[3]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["test", "new"]
    assert to_hex(ax.patches[0].get_facecolor()) != to_hex(ax.patches[2].get_facecolor())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.attention_heatmap(weights(3, 4), TARGET, SOURCE), "3 target x 4 source"),
        (lambda: plots.attention_heatmap(weights(2, 3, 4), SOURCE, TARGET), "2 dimensions"),
        (lambda: plots.attention_heatmap(weights(3, 4) / 0, SOURCE, TARGET), "finite"),
        (
            lambda: plots.attention_heatmap(weights(3, 4), SOURCE, TARGET, gold={(0, 3)}),
            r"source 0, target 3\) lies outside",
        ),
        (lambda: plots.attention_grid(weights(3, 4), SOURCE, TARGET), "4 dimensions"),
        (lambda: plots.attention_grid(weights(1, 1, 4, 3), SOURCE, TARGET), "4 target x 3"),
        (lambda: plots.accuracy_by_length([1, 2], [True]), "2 lengths but 1"),
        (lambda: plots.accuracy_by_length([1, 2], [1, 7]), "True and False"),
        (lambda: plots.accuracy_by_length([], []), "none empty"),
        (lambda: plots.accuracy_by_length([1, 2], [1, 1], bins=[5, 6]), "no sentence"),
        (lambda: plots.positional_encodings(torch.zeros(5)), "2 dimensions"),
        (lambda: plots.bars(["a", "b"], [1]), "2 labels"),
        (lambda: plots.bars(["a", "b"], [1, 2], [1]), "2 labels"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(call, message):
    with pytest.raises(ValueError, match=message):
        call()
