"""The widget on positional encodings, in the browser."""

import torch
from playwright.sync_api import expect

from s2s_helpers.course.widgets import PositionalEncodings
from s2s_helpers.course.widgets.base import module
from s2s_helpers.models.transformer import sinusoidal_positions

CELLS = [
    "from s2s_helpers.course.widgets import PositionalEncodings\n"
    "first = PositionalEncodings()\nfirst",
    "second = PositionalEncodings(width=8, positions=20, dimension=5)\nsecond",
]


def test_the_browsers_table_is_the_packages(browser):
    page = browser.new_page()
    script = module("positional_encodings").split("export default")[0]
    for positions, width in ((60, 128), (200, 256), (10, 4)):
        table = page.evaluate(f"() => {{ {script}; return encodings({positions}, {width}); }}")
        ours = sinusoidal_positions(positions, width)
        assert torch.allclose(torch.tensor(table), ours, atol=5e-5)
        products = page.evaluate(
            f"() => {{ {script}; return [0, 3, 9].map((k) => alike(k, {width})); }}"
        )
        assert torch.allclose(torch.tensor(products), (ours[:10] @ ours[0])[[0, 3, 9]], atol=1e-3)
    page.close()


def test_it_answers_mouse_and_keys(open_lab):
    lab = open_lab("positional_encodings.ipynb", CELLS)
    lab.run_all()
    first, second = (lab.widget("positional-encodings", k) for k in (0, 1))
    state = PositionalEncodings()
    expect(first.locator(".s2s-sum")).to_contain_text(f"= {state.value:.4f}")
    expect(first.locator(".s2s-sum")).to_contain_text(f"dot product {state.product:.2f} of 64")
    # A slider by its keys; the neighbour stays as it was.
    before = first.locator(".s2s-sum").text_content()
    second.get_by_label("compared with position").press("Home")
    expect(second.locator(".s2s-sum")).to_contain_text("Positions 10 and 0, 10 apart")
    expect(first.locator(".s2s-sum")).to_have_text(before)
    # The mouse over the table chooses a row and a column, and Python knows when it has left.
    first.locator("canvas").scroll_into_view_if_needed()
    table = first.locator("canvas").bounding_box()
    lab.page.mouse.move(table["x"] + table["width"] * 0.5 + 1, table["y"] + table["height"] / 2 + 1)
    expect(first.locator(".s2s-sum")).to_contain_text("PE(30, 64)")
    expect(first).to_contain_text("Dimension 64: a sine, 628 positions long")
    lab.page.mouse.move(0, 0)
    assert lab.python("print(first.position, first.dimension)") == "30 64"
    # A smaller table keeps the choice inside it, in the browser and in Python.
    width = first.get_by_label("width d")
    width.press("Home")
    expect(first.locator(".s2s-sum")).to_contain_text("PE(30, 3)")
    assert lab.python("print(first.width, first.dimension)") == "4 3"
    lab.python("first.width, first.dimension = 64, 20")
    expect(first.locator(".s2s-sum")).to_contain_text("PE(30, 20) = sin(30 / 10000^(20/64))")
    took = lab.milliseconds(
        "el => { const c = el.querySelector('canvas').getBoundingClientRect();"
        " el.querySelector('.s2s-under svg').dispatchEvent(new PointerEvent('pointermove',"
        " {clientX: c.left + 100, clientY: c.top + 100})); }",
        "el => el.querySelector('.s2s-sum').textContent",
        first,
    )
    resized = lab.milliseconds(
        "el => { const i = el.querySelector('input'); i.value = 256;"
        " i.dispatchEvent(new Event('input')); }",
        "el => el.querySelector('.s2s-sum').textContent",
        first,
    )
    print(f"\npositional encodings: hover {took:.0f} ms, new width {resized:.0f} ms")
    assert lab.errors == []
