"""The tree of a beam search, in the browser."""

import re

from playwright.sync_api import expect

from s2s_helpers.course.recipes import phrasebook_vocabularies

TOY = """
import torch
from s2s_helpers.models.interface import Memory, Seq2SeqModel, State
from s2s_helpers.vocabulary import EOS, SOS, Vocabulary
from s2s_helpers.course.widgets import BeamSearchTree

words = Vocabulary(["<img src=x onerror=alert(1)>", "le", "chat", "dort", "bien"])
table = torch.zeros(9, 9)
table[:, EOS] = 1
table[SOS] = torch.tensor([0, 0, 0, 0.1, 0.5, 0.4, 0, 0, 0])
table[4] = torch.tensor([0, 0, 0, 0, 0, 0, 0.36, 0.34, 0.3])
table[5] = torch.tensor([0, 0, 0, 0.1, 0, 0, 0.9, 0, 0])
table[6] = torch.tensor([0, 0, 0, 0.45, 0, 0, 0, 0.55, 0])
table[7] = torch.tensor([0, 0, 0, 0.3, 0, 0, 0, 0, 0.7])

class Table(Seq2SeqModel):
    def encode(self, source, source_mask):
        return Memory(mask=source_mask, states=source)
    def start(self, memory):
        return State()
    def step(self, tokens, state, memory):
        return table[tokens].log(), state, None

toy = BeamSearchTree(Table(words, words))
toy
"""
# An untrained transformer: it hesitates at every word, and needs no cache.
REAL = """
from s2s_helpers.models import TransformerSeq2Seq
from s2s_helpers.course.recipes import phrasebook_vocabularies, set_seed
set_seed(0)
real = BeamSearchTree(
    TransformerSeq2Seq(*phrasebook_vocabularies(), width=96, feedforward=192, layers=2).eval(),
    "the cat sleeps.", beam_size=4, max_length=40, sentences=["the small cat eats."])
real
"""


def test_it_answers_mouse_and_keys_and_tells_what_python_tells(open_lab):
    lab = open_lab("beam_search_tree.ipynb", [TOY, REAL])
    lab.run_all()
    toy, real = lab.widget("beam-search-tree", 0), lab.widget("beam-search-tree", 1)
    story, detail = toy.locator(".s2s-story"), toy.locator(".s2s-detail")
    first_row = toy.locator("tbody tr").first
    # Text stays text.
    expect(toy.locator(".s2s-node").first).to_have_attribute("aria-label", re.compile("^<img src"))
    assert toy.locator("img").count() == 0
    # Step by step, with the mouse and with keys.
    toy.get_by_role("button", name="to the start").click()
    expect(toy.locator(".s2s-node:visible")).to_have_count(0)
    expect(story).to_contain_text("Nothing is written yet")
    toy.get_by_role("button", name="one step on").click()
    expect(toy.locator(".s2s-node:visible")).to_have_count(3)
    expect(story).to_contain_text("Step 1, the best 3 candidates: 2 kept, 1 pruned.")
    expect(story).to_contain_text("Nothing has finished yet")
    toy.get_by_role("button", name="one step on").press("Enter")
    expect(story).to_contain_text("Step 2")
    toy.get_by_label("step", exact=True).press("End")
    expect(first_row).to_contain_text("le chat dort bien <eos>")
    # Point at a word: its path, its log p, its score, and why it is where it is.
    node = toy.get_by_role("button", name="le chat: log p")
    node.hover()
    expect(detail).to_contain_text("log p = −0.92 − 0.11 = −1.02, p = 0.36; score")
    expect(detail).to_contain_text("−1.02 / 1.10 = −0.93. ✓ Among the best")
    expect(toy.locator(".s2s-node.s2s-on")).to_have_count(2)
    story.hover()
    expect(toy.locator(".s2s-on")).to_have_count(0)
    # The same with keys: along the tree with the arrows; Enter keeps a word, Escape lets it go.
    toy.locator(".s2s-node[tabindex='0']").focus()
    lab.page.keyboard.press("ArrowDown")
    expect(detail).to_contain_text("“le”")
    lab.page.keyboard.press("ArrowRight")
    lab.page.keyboard.press("ArrowRight")
    expect(detail).to_contain_text("“le chat dort”")
    lab.page.keyboard.press("ArrowLeft")
    lab.page.keyboard.press("Enter")
    assert lab.python("print(toy.selected, toy.path(*toy.selected))") == "[2, 1] [5, 6]"
    expect(detail).to_contain_text("“le chat”")
    lab.python("toy.selected = []")
    expect(detail).to_contain_text("Point at a word")
    # Alpha: the browser ranks the finished ones anew, and stops where the search would.
    toy.get_by_label("length penalty α").press("Home")
    expect(first_row).to_contain_text("le chat <eos>")
    expect(toy.locator(".s2s-value").last).to_have_text("4 of 4")
    expect(story).to_contain_text("nothing can overtake, the search stops")
    python = lab.python("print(toy.stop, toy.describe())")
    assert python.startswith("4 k = 2, alpha = 0.00, step 4 of 4: le chat <eos>")
    # A wider beam is a new search; its neighbour does not move.
    before = real.locator(".s2s-story").text_content()
    toy.get_by_label("width k").press("ArrowRight")
    expect(toy.locator("tbody")).to_contain_text("■ step 1<eos>")
    assert lab.python("print(toy.beam_size)") == "3"
    expect(real.locator(".s2s-story")).to_have_text(before)
    # Greedy and brute force stand below; where that is too much, it says so.
    expect(toy.locator("tbody")).to_contain_text("brute force, all 1")
    power = f"{len(phrasebook_vocabularies()[1])} words in up to 40 places"
    expect(real).to_contain_text(power)
    # A sentence of one's own, one to choose, one that is none.
    field = real.get_by_label("sentence", exact=True)
    field.fill("the <img src=x onerror=alert(1)> cat")
    field.press("Enter")
    expect(real).to_contain_text("read as: the <unk>")
    assert real.locator("img").count() == 0
    real.get_by_label("choose a sentence").select_option("the small cat eats.")
    expect(real).to_contain_text("read as: the small cat eats . <eos>")
    expect(field).to_have_value("the small cat eats.")
    field.fill("  ")
    field.press("Enter")
    expect(real.get_by_role("alert")).to_contain_text("cannot encode an empty sentence")
    assert lab.python("print(real.sentence)") == "the small cat eats."
    lab.python("real.sentence = 'the cat sleeps.'; real.step = 3")
    expect(real).to_contain_text("read as: the cat sleeps . <eos>")
    expect(real.locator(".s2s-story")).to_contain_text("Step 3")
    real.get_by_label("step", exact=True).press("ArrowLeft")
    expect(real.locator(".s2s-story")).to_contain_text("Step 2")
    expect(real.get_by_role("alert")).to_have_text("")

    lab.python(f"real.sentence = 'the cat ' * 19 + 'sleeps.'; real.step = {40}")
    expect(real.locator(".s2s-head").last).to_have_text("step 40")
    slide = (
        "el => { const i = el.querySelectorAll('input[type=range]')[%d]; i.value = %s;"
        " i.dispatchEvent(new Event('input')); }"
    )
    text = (
        "el => el.querySelector('.s2s-story').textContent + el.querySelector('table').textContent"
    )
    hover = (
        "el => el.querySelectorAll('.s2s-node')[200]"
        ".dispatchEvent(new Event('pointerover', {bubbles: true}))"
    )
    told = "el => el.querySelector('.s2s-detail').textContent"
    kernel = "el => el.querySelectorAll('.s2s-node').length"
    times = {
        "hover": lab.milliseconds(hover, told, real),
        "alpha": lab.milliseconds(slide % (1, "0.1"), text, real),
        "step": lab.milliseconds("el => el.querySelectorAll('button')[1].click()", text, real),
        "width (kernel)": lab.milliseconds(slide % (0, "8"), kernel, real),
    }
    found = ", ".join(f"{name} {took:.0f} ms" for name, took in times.items())
    print(f"\nbeam search tree, 40 x 40 tokens: {found}")
    assert lab.errors == []
