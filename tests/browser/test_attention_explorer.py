"""The attention explorer in the browser: mouse, keys, Python, and how fast it answers."""

import re
import statistics

from playwright.sync_api import expect

SETUP = """
import torch
from s2s_helpers.corpora import Pair
from s2s_helpers.models import AttentionSeq2Seq, Seq2Seq, TransformerSeq2Seq
from s2s_helpers.vocabulary import Vocabulary
from s2s_helpers.course.widgets import AttentionExplorer
torch.manual_seed(0)
english = Vocabulary(["the", "cat", "dog", "sees", "sleeps", "."], language="en")
french = Vocabulary(["le", "chat", "chien", "voit", "dort", "."], language="fr")
pair = Pair("the cat sleeps.", "le chat dort.", ((0, 0), (1, 1), (2, 2), (3, 3)))
"""
CELLS = [
    SETUP,
    "rnn = AttentionSeq2Seq(english, french, embedding=8, hidden=8)\n"
    "transformer = TransformerSeq2Seq(english, french, width=16, heads=2, layers=2)\n"
    "one = AttentionExplorer(transformer, [pair, 'the dog sees the cat.'])\none",
    "two = AttentionExplorer(rnn, [pair], other=Seq2Seq(english, french, embedding=8, hidden=8),"
    " names=['with', 'without'])\ntwo",
    "three = AttentionExplorer.of([[0.75, 0.25], [0.1, 0.9]],"
    " ['<img src=x onerror=alert(1)>', 'b'], ['x', 'y'], gold=[(0, 0)])\nthree",
]


def token(widget, side, position, pane=0):
    """The word at this place."""
    words = widget.locator(".s2s-pane").nth(pane).locator(f"[data-side={side}]")
    return words.nth(position)


def test_hover_focus_and_click(open_lab):
    lab = open_lab("attention_explorer.ipynb", CELLS)
    lab.run_all()
    three = lab.widget("attention-explorer", 2)
    # Text stays text.
    expect(three).to_contain_text("<img src=x onerror=alert(1)>")
    assert three.locator("img").count() == 0
    # A word that looks, and one that is looked at, by mouse; the mouse gone, the light is too.
    said = three.locator(".s2s-said")
    token(three, "target", 1).hover()
    expect(said).to_have_text("“y” looks at “b” 90%, “<img src=x onerror=alert(1)>” 10%")
    expect(token(three, "source", 1).locator("rect")).to_have_attribute("fill-opacity", "0.495")
    token(three, "source", 0).hover()
    expect(said).to_contain_text("is looked at by “x” 75%, “y” 10%")
    lab.page.mouse.move(0, 0)
    expect(said).to_have_text("")
    # By keys: Tab to the first word, arrows on, and Python knows.
    token(three, "target", 0).focus()
    lab.page.keyboard.press("ArrowDown")
    expect(said).to_contain_text("“y” looks at “b” 90%")
    assert lab.python("print(three.selected)") == "('target', 1)"
    token(three, "target", 1).press("Escape")
    expect(said).to_have_text("")
    # The overlay, and lines in the place of the matrix.
    expect(three.locator(".s2s-gold rect")).to_have_count(2)
    three.get_by_label("view").select_option("lines")
    expect(three.locator(".s2s-gold line")).to_have_count(1)
    three.get_by_label("gold alignment").uncheck()
    expect(three.locator(".s2s-gold line")).to_have_count(0)
    assert lab.python("print(three.view, three.gold)") == "lines False"
    assert lab.errors == []


def test_sentences_second_best_words_and_two_models(open_lab):
    lab = open_lab("attention_explorer_models.ipynb", CELLS)
    lab.run_all()
    one, two = lab.widget("attention-explorer", 0), lab.widget("attention-explorer", 1)
    # What is said of a word, and its candidates, push nothing away from the mouse.
    height = (
        "el => el.querySelector('svg').getBoundingClientRect().y - el.getBoundingClientRect().y"
    )
    for widget in (one, two):
        place = widget.evaluate(height)
        token(widget, "target", 1).hover()
        expect(widget.locator(".s2s-chip").first).to_be_visible()
        assert widget.evaluate(height) == place
    # A click forces the second-best word, there and in one explorer only.
    untouched = two.locator(".s2s-text").first.text_content()
    token(one, "target", 1).click()
    expect(token(one, "target", 1)).to_contain_text("◆")
    chosen = one.locator(".s2s-chip[aria-pressed=true]")
    expect(chosen).to_have_count(1)
    forced = lab.python("print(one.forced[1], one.readings[0].candidates[1][1][0])").split()
    assert forced[0] == forced[1] and chosen.inner_text().startswith(forced[0])
    expect(two.locator(".s2s-text").first).to_have_text(untouched)
    # Back by the keys: the focus has stayed on the word.
    token(one, "target", 1).press("Enter")
    expect(one.get_by_text("◆")).to_have_count(0)
    expect(token(one, "target", 1)).to_be_focused()
    # The third by its button, and back by the button for it.
    one.locator(".s2s-chip").nth(2).click()
    expect(token(one, "target", 1)).to_contain_text("◆")
    one.get_by_text("take back the last choice").click()
    expect(one.get_by_text("◆")).to_have_count(0)
    assert lab.python("print(one.forced)") == "{}"
    # Kinds, layers and heads; the decoder does not see the future.
    one.get_by_label("attention", exact=True).select_option(
        label="decoder: translation at its past"
    )
    one.get_by_label("layer").select_option("layer 2")
    one.get_by_label("head").select_option("head 1")
    token(one, "target", 0).hover()
    expect(one.locator(".s2s-said")).to_contain_text("looks at “<sos>” 100%")
    assert lab.python("print(one.kind, one.layer, one.head)") == "decoder 2 1"
    lab.python("one.kind, one.layer = 'encoder', None")
    expect(one.get_by_label("layer")).to_have_value("mean of 2")
    expect(token(one, "target", 1)).to_have_text("cat")
    # Sentences: chosen, typed, refused. What is typed stays text.
    one.get_by_label("sentence").select_option("the dog sees the cat.")
    expect(token(one, "source", 1)).to_have_text("dog")
    field = one.get_by_label("or type one")
    field.fill("the <img src=x onerror=alert(1)> sleeps.")
    field.press("Enter")
    expect(one.locator(".s2s-pane .s2s-note")).to_contain_text("read as <unk>: < img src")
    assert one.locator("img").count() == 0
    field.fill(" ")
    field.press("Enter")
    expect(one.locator(".s2s-message")).to_contain_text("type at least one word")
    assert lab.python("print(one.sentence)") == "the <img src=x onerror=alert(1)> sleeps."
    # Two models on a sentence: one has no attention and says so, and can be forced all the same.
    expect(two.locator(".s2s-pane").nth(1)).to_contain_text("This model has no attention")
    token(two, "target", 0, pane=1).click()
    expect(token(two, "target", 0, pane=1)).to_contain_text("◆")
    expect(token(two, "target", 0, pane=0)).not_to_contain_text("◆")
    lab.python("two.sentence = 'the dog sleeps.'; two.selected = ('source', 1)")
    for pane in (0, 1):
        expect(token(two, "source", 1, pane=pane)).to_have_class(re.compile("s2s-chosen"))
    assert lab.errors == []


LARGE = [
    SETUP,
    "words = Vocabulary.numbered(4000)\n"
    "large = TransformerSeq2Seq(words, words, width=128, heads=4, layers=4, max_positions=40)\n"
    "sentences = [' '.join(f'w{n + 3 * k}' for n in range(4, 43)) for k in range(8)]\n"
    "shown = AttentionExplorer(large, sentences)\nshown",
]


def test_it_answers_at_40_by_40_tokens_and_4_by_4_heads(open_lab):
    lab = open_lab("attention_explorer_large.ipynb", LARGE)
    lab.run_all()
    widget = lab.widget("attention-explorer")
    expect(widget.locator("[data-side=source]")).to_have_count(40)

    def median(name, acts, change):
        took = []
        for act in acts:
            lab.page.wait_for_timeout(200)  # a hand does not click faster
            took.append(lab.milliseconds(act, change, widget))
        print(f"\n40x40, 4x4: {name} {statistics.median(took):.0f} ms (most {max(took):.0f})")

    move = (
        "el => el.querySelectorAll('[data-side={}]')[{}]"
        ".dispatchEvent(new PointerEvent('pointermove', {{bubbles: true}}))"
    )
    pick = (
        "el => {{ const labels = [...el.querySelectorAll('label')];"
        " const label = labels.find((each) => each.textContent === '{}');"
        " const control = el.querySelector('#' + label.htmlFor); control.selectedIndex = {};"
        " control.dispatchEvent(new Event('change')); }}"
    )
    lit = "el => { const own = el.querySelector('.s2s-chosen'); return own && {...own.dataset}; }"
    cells = "el => [...el.querySelectorAll('.s2s-marks > *')].map((m) => m.outerHTML)"
    for view in ("matrix", "lines"):
        widget.get_by_label("view").select_option(view)
        expect(widget.locator(".s2s-marks line")).to_have_count(0 if view == "matrix" else 1600)
        for side in ("target", "source"):
            median(
                f"{view}, hover a {side} word", [move.format(side, n) for n in range(1, 10)], lit
            )
        median(f"{view}, another layer", [pick.format("layer", n) for n in (1, 2, 3, 4, 0)], cells)
        median(f"{view}, another head", [pick.format("head", n) for n in (1, 2, 3, 4, 0)], cells)
    written = "el => el.querySelector('.s2s-text').textContent"
    source = "el => el.querySelector('[data-side=source]').textContent"
    median("a new sentence", [pick.format("sentence", n) for n in range(1, 8)], source)
    click = (
        "el => el.querySelectorAll('[data-side=target]')[{}]"
        ".dispatchEvent(new MouseEvent('click', {{bubbles: true}}))"
    )
    median("a second-best word", [click.format(n) for n in (3, 6, 9, 12, 15)], written)
    kernel = lab.python(
        "import time\ntook = []\nfor s in sentences:\n    start = time.perf_counter()\n"
        "    shown.sentence = s\n    took.append(1000 * (time.perf_counter() - start))\n"
        "print(sorted(took)[4])"
    )
    print(f"\n40x40, 4x4: the kernel's part of a new sentence {float(kernel):.0f} ms")
    assert lab.errors == []
