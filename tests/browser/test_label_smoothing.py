"""The widget on label smoothing, in the browser."""

import re

from playwright.sync_api import expect

from s2s_helpers.course.widgets import LabelSmoothing

CELLS = [
    "from s2s_helpers.course.widgets import LabelSmoothing",
    "LabelSmoothing(words=['<pad>', '<eos>', 'le', '<img src=x onerror=alert(1)>', 'b', 'c'])",
    "second = LabelSmoothing(smoothing=0.3)\nsecond",
]


def test_it_answers_mouse_and_keys_and_agrees_with_the_loss(open_lab):
    lab = open_lab("label_smoothing.ipynb", CELLS)
    lab.run_all()
    first, second = lab.widget("label-smoothing", 0), lab.widget("label-smoothing", 1)
    # Text stays text.
    expect(first).to_contain_text("<img src=x onerror=alert(1)>")
    assert first.locator("img").count() == 0
    # The browser's own arithmetic is the package's.
    total = second.locator(".s2s-sum")
    expect(total).to_contain_text(f"= {LabelSmoothing(smoothing=0.3).mean:.3f} nats a real token")
    # The slider, by its keys, moves the loss; the neighbour stays as it was.
    before = total.text_content()
    first.get_by_label("smoothing ε").press("Home")
    expect(first.locator(".s2s-value")).to_have_text("0.00")
    expect(first.locator(".s2s-sum")).to_contain_text("Loss of “le”: 0.357")
    expect(total).to_have_text(before)
    # A bar by mouse and by key.
    bar = second.locator(".s2s-bar").nth(2)
    bar.click(position={"x": 30, "y": 9})
    expect(bar).to_have_attribute("aria-valuenow", re.compile(r"^0\.9"))
    share = float(bar.get_attribute("aria-valuenow"))
    bar.press("ArrowDown")
    expect(bar).to_have_attribute("aria-valuenow", f"{share - 0.05:.3f}")
    # A position of padding is counted only where one asks for it.
    second.get_by_label("count padding").check()
    expect(total).to_contain_text("/ 6 =")
    # What the browser changed, Python sees; and the other way round.
    assert lab.python("print(second.count_padding, second.position)") == "True 0"
    lab.python("second.position = 3")
    expect(second.locator("[aria-pressed=true]")).to_contain_text("<eos>")
    took = lab.milliseconds(
        "el => { const i = el.querySelector('input'); i.value = 0.5;"
        " i.dispatchEvent(new Event('input')); }",
        "el => el.querySelector('.s2s-sum').textContent",
        second,
    )
    print(f"\nlabel smoothing: slider to loss {took:.0f} ms")
    assert lab.errors == []
