"""The widgets on teacher forcing and its schedules, in the browser."""

from playwright.sync_api import expect

from s2s_helpers.course.widgets import ForcingSchedules
from s2s_helpers.course.widgets.base import module
from s2s_helpers.training import schedules

CELLS = [
    """
from s2s_helpers.corpora.phrasebook import load
from s2s_helpers.models import Seq2Seq, TransformerSeq2Seq
from s2s_helpers.course.recipes import phrasebook_vocabularies
from s2s_helpers.training import set_seed
from s2s_helpers.course.widgets import ForcingSchedules, TeacherForcing
set_seed(0)
words = phrasebook_vocabularies()
models = {"<img src=x onerror=alert(1)>": Seq2Seq(*words, embedding=16, hidden=16, cell="gru"),
          "transformer": TransformerSeq2Seq(*words, layers=4)}
""",
    "own = ('the boy reads <img src=x onerror=alert(1)> .', 'le garçon lit .')\n"
    "first = TeacherForcing(models, [own, load().test[0]])\nfirst",
    "long = ' '.join(['le garçon lit'] * 13)\n"
    "second = TeacherForcing(models, [('the boy reads', long)], model='transformer')\nsecond",
    "curves = ForcingSchedules()\ncurves",
]


def test_the_browsers_schedules_are_the_packages(browser):
    page = browser.new_page()
    script = module("forcing_schedules").split("export default")[0]
    values = page.evaluate(
        f"() => {{ {script}; return [0, 1, 50, 300, 5000].map((i) => "
        "[linear(i, 0.004, 0.25), exponential(i, 0.99), inverseSigmoid(i, 60)]); }"
    )
    curves = schedules.linear(0.004, minimum=0.25), schedules.exponential(0.99)
    for i, found in zip((0, 1, 50, 300, 5000), values, strict=True):
        ours = [curve(i) for curve in (*curves, schedules.inverse_sigmoid(60))]
        assert max(abs(a - b) for a, b in zip(found, ours, strict=True)) < 1e-12
    page.close()


def test_words_are_fed_by_mouse_and_keys(open_lab):
    lab = open_lab("teacher_forcing.ipynb", CELLS)
    lab.run_all()
    first, second = lab.widget("teacher-forcing", 0), lab.widget("teacher-forcing", 1)
    expect(first.get_by_label("sentence").locator("option").first).to_contain_text("<img src=x")
    assert first.locator("img").count() == 0
    expect(first.locator(".s2s-sum")).to_contain_text("Right so far:")
    before = second.text_content()
    # Its own word, then the gold one; the words stand on the buttons.
    own = first.get_by_role("button", name="Feed own")
    expect(own).to_contain_text("“")
    said = own.text_content().split("“")[1].split("”")[0]
    own.click()
    expect(own).not_to_contain_text("…")
    gold = first.get_by_role("button", name="Feed gold")
    gold.press("Enter")
    expect(gold).to_be_focused()
    fed = first.locator("[data-place]")
    expect(fed).to_have_count(2)
    expect(fed.first).to_have_text(f"{said}own")
    expect(fed.nth(1)).to_have_text("garçongold")
    assert lab.python("print(first.own, first.at)") == "[True, False, False, False] 3"
    # A fed word is changed afterwards, and the arrows move among them.
    fed.nth(1).focus()
    lab.page.keyboard.press("ArrowLeft")
    expect(fed.first).to_be_focused()
    lab.page.keyboard.press("Enter")
    expect(fed.first).to_have_text("legold")
    expect(first).to_contain_text("Position 2: after “le” it expects")
    fed.first.click()
    expect(fed.first).to_have_text(f"{said}own")
    # All its own words; then one back.
    first.get_by_role("button", name="All own").click()
    expect(fed).to_have_count(4)
    expect(first.get_by_role("button", name="Feed gold")).to_be_disabled()
    assert lab.python("print(first.columns == first.all_own)") == "True"
    first.get_by_role("button", name="Back").click()
    expect(fed).to_have_count(3)
    expect(first.locator(".s2s-right, .s2s-wrong")).to_have_count(4)
    # Python chooses another sentence and model; the neighbour has not moved.
    lab.python("first.pair, first.model = 1, 'transformer'")
    expect(fed).to_have_count(0)
    expect(first.get_by_label("model")).to_have_value("transformer")
    assert second.text_content() == before
    # 40 words of a transformer.
    click = "el => [...el.querySelectorAll('button')].find((b) => b.textContent === '%s').click()"
    second.get_by_role("button", name="All gold").click()
    expect(second.locator(".s2s-right, .s2s-wrong")).to_have_count(40)
    all_own = lab.milliseconds(
        click % "All own",
        # The kernel has answered when no cell waits any more.
        "el => !el.querySelector('.s2s-fed-own')"
        " || [...el.querySelectorAll('td, button')].some((one) => one.textContent.includes('…'))",
        second,
    )
    expect(second.locator(".s2s-right, .s2s-wrong")).to_have_count(40)
    back = lab.milliseconds(
        click % "◀ Back", "el => el.querySelectorAll('[data-place]').length", second
    )
    print(f"\nteacher forcing: back {back:.0f} ms; 40 of its own words {all_own:.0f} ms")
    assert lab.errors == []


def test_schedules_answer_sliders_and_mouse(open_lab):
    lab = open_lab("forcing_schedules.ipynb", [CELLS[0].split("\nset_seed")[0], CELLS[3]])
    lab.run_all()
    widget = lab.widget("forcing-schedules")
    state = ForcingSchedules()
    shares = [f"{curve(state.step):.2f}" for curve in state.curves.values()]
    told = f"Linear {shares[0]},  exponential {shares[1]},  inverse sigmoid {shares[2]}"
    assert told in widget.locator(".s2s-sum").text_content()
    widget.get_by_label("least ε").press("Home")
    widget.get_by_label("k of the inverse sigmoid").press("End")
    widget.get_by_label("step i").press("Home")
    expect(widget.locator(".s2s-sum")).to_contain_text("step 0: Linear 1.00")
    assert lab.python("print(curves.minimum, curves.sigmoid_k, curves.step)") == "0.0 200.0 0"
    widget.scroll_into_view_if_needed()
    box = widget.locator("svg").bounding_box()
    lab.page.mouse.move(box["x"] + 66 + 230, box["y"] + 50)
    expect(widget.locator(".s2s-sum")).to_contain_text("step 250:")
    took = lab.milliseconds(
        "el => { const i = el.querySelector('input'); i.value = 0.001;"
        " i.dispatchEvent(new Event('input')); }",
        "el => el.querySelector('.s2s-sum').textContent",
        widget,
    )
    print(f"\nforcing schedules: slider {took:.0f} ms")
    assert lab.errors == []
