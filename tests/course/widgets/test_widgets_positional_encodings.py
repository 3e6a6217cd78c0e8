"""The widget on positional encodings, without a browser."""

import math

import pytest
import torch
from traitlets import TraitError

from s2s_helpers.course.widgets import PositionalEncodings
from s2s_helpers.models.transformer import sinusoidal_positions


def test_values_waves_and_products_are_the_tables():
    widget = PositionalEncodings(width=32, positions=50, position=7, dimension=9, other=30)
    table = sinusoidal_positions(50, 32)
    assert widget.value == pytest.approx(table[7, 9].item())
    # After one wavelength a dimension is where it was.
    later = 7 + widget.wavelength
    angle = later / 10000 ** (8 / 32)
    assert math.cos(angle) == pytest.approx(widget.value, abs=1e-5)
    assert widget.product == pytest.approx((table[7] * table[30]).sum().item(), abs=1e-4)
    assert "23 apart" in widget.describe() and f"{widget.wavelength:.1f}" in widget.describe()


def test_the_product_depends_on_the_distance_alone():
    one, two = PositionalEncodings(position=3, other=11), PositionalEncodings(position=40, other=32)
    assert one.product == pytest.approx(two.product, abs=1e-3)


@pytest.mark.parametrize(
    "name, value, cause",
    [
        ("width", 31, "even"),
        ("width", 2, "width"),
        ("positions", 500, "positions"),
        ("position", 60, "position is 0 to 59, not 60"),
        ("dimension", 128, "dimension is 0 to 127"),
        ("other", -1, "other is 0 to 59"),
    ],
)
def test_a_wrong_value_is_refused(name, value, cause):
    widget = PositionalEncodings()
    before = widget.describe()
    with pytest.raises(TraitError, match=cause):
        setattr(widget, name, value)
    widget.set_state({name: value})
    assert widget.message and widget.describe() == before


def test_a_smaller_table_keeps_the_choice_inside():
    widget = PositionalEncodings(dimension=100, position=50, other=59)
    widget.width, widget.positions = 16, 20
    assert (widget.dimension, widget.position, widget.other) == (15, 19, 19)


def test_the_picture_has_the_table_and_the_choice():
    widget = PositionalEncodings(width=16, positions=20, position=4, dimension=3, other=9)
    left, middle, right = widget.figure().axes[:3]
    table = sinusoidal_positions(20, 16)
    assert torch.allclose(torch.tensor(left.images[0].get_array()).float(), table)
    chosen = next(line for line in middle.lines if line.get_label() == "dimension 3")
    assert chosen.get_ydata() == pytest.approx(table[:, 3].numpy())
    distance, cosine = (float(x[0]) for x in right.lines[-1].get_data())
    assert distance == 5 and cosine == pytest.approx(widget.product / 8)
