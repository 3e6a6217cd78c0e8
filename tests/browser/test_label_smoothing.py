"""The widget on label smoothing, in the browser."""

import pytest
from pytest import approx

from s2s_helpers.widgets import LabelSmoothing

CELLS = [
    "from s2s_helpers.widgets import LabelSmoothing",
    "LabelSmoothing(words=['<pad>', '<eos>', 'le', '<img src=x onerror=alert(1)>', 'b', 'c'])",
    "second = LabelSmoothing(smoothing=0.3)\nsecond",
]


@pytest.fixture
def page(open_lab):
    page = open_lab("label_smoothing.ipynb", CELLS)
    page.run_all()
    return page


def test_it_answers_mouse_and_keys_and_agrees_with_the_loss(page):
    first, second = page.widget("label-smoothing", 0), page.widget("label-smoothing", 1)
    # Text stays text.
    assert "<img src=x onerror=alert(1)>" in first.inner_text()
    assert first.locator("img").count() == 0
    # The browser's own arithmetic is the package's.
    expected = LabelSmoothing(smoothing=0.3)
    second_sum = second.locator(".s2s-sum")
    assert f"= {expected.mean:.3f} nats a real token" in second_sum.inner_text()
    # The slider moves the loss; the neighbour stays as it was.
    before = second_sum.inner_text()
    slider = first.get_by_label("smoothing ε")
    slider.focus()
    page.page.keyboard.press("Home")
    assert "0.00" in first.locator(".s2s-value").inner_text()
    assert first.locator(".s2s-sum").inner_text().startswith("Loss of “le”: 0.357")
    assert second_sum.inner_text() == before
    # A bar by mouse and by key.
    bar = second.locator(".s2s-bar").nth(2)
    box = bar.bounding_box()
    page.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 9)
    share = float(bar.get_attribute("aria-valuenow"))
    assert share > 0.9
    bar.press("ArrowDown")
    page.page.wait_for_timeout(100)
    assert float(bar.get_attribute("aria-valuenow")) == approx(share - 0.05, abs=0.01)
    # A position of padding is counted only where one asks for it.
    second.get_by_label("count padding").check()
    assert "/ 6 =" in second_sum.inner_text()
    # What the browser changed, Python sees.
    page.page.wait_for_timeout(300)
    assert page.python("print(second.count_padding, second.position)") == "True 0"
    # And the other way round.
    page.python("second.position = 3")
    second.locator("[aria-pressed=true] >> text=<eos>").wait_for()
    took = page.milliseconds(
        "el => { const i = el.querySelector('input'); i.value = 0.5;"
        " i.dispatchEvent(new Event('input')); }",
        "el => el.querySelector('.s2s-sum').textContent",
        second,
    )
    print(f"\nlabel smoothing: slider to loss {took:.0f} ms")
    assert page.errors == []
