"""The playground of decoding, in the browser."""

import re

from playwright.sync_api import expect

from s2s_helpers.course.widgets.decoding_playground import ROWS

# A transformer that was not trained: it hesitates at every word, and needs no cache.
CELLS = [
    "from s2s_helpers.models import TransformerSeq2Seq\n"
    "from s2s_helpers.course.recipes import phrasebook_vocabularies, set_seed\n"
    "from s2s_helpers.course.widgets import DecodingPlayground\n"
    "set_seed(0)\n"
    "model = TransformerSeq2Seq(*phrasebook_vocabularies(), width=96, feedforward=192).eval()\n"
    "first = DecodingPlayground(model, 'the cat sleeps.', max_length=40, top_k=2,\n"
    "    sentences=['the small cat eats.'])\nfirst",
    "second = DecodingPlayground(model, 'the cat sleeps.', max_length=6, selected=[0, 0])\nsecond",
]


def test_it_answers_mouse_and_keys_and_the_kernel(open_lab):
    lab = open_lab("decoding_playground.ipynb", CELLS)
    lab.run_all()
    first, second = (lab.widget("decoding-playground", number) for number in (0, 1))
    rows = [first.locator(".s2s-decoder").nth(number) for number in range(5)]
    title, chosen = first.locator(".s2s-story"), first.locator(".s2s-token[aria-pressed=true]")
    neighbour = second.text_content()

    def words(row):
        return rows[row].locator(".s2s-token").all_text_contents()

    def kernel(code):
        return lab.python(f"print({code})")

    # What is shown is what the kernel found.
    for number, name in enumerate(ROWS):
        assert str(words(number)) == kernel(f"first.rows[{number}]['words']"), name
    # Click a word: its distribution, and what top-k leaves of it.
    rows[3].locator(".s2s-token").nth(1).click()
    expect(title).to_contain_text("top-k, word 2, after “<sos> ")
    expect(title).to_contain_text("Here 2 of 732 words stay")
    expect(first.locator(".s2s-choice")).to_have_count(10)
    expect(first.locator(".s2s-cut")).to_have_count(8)
    expect(first.locator(".s2s-cut").first).to_contain_text("✕ cut")
    expect(first.locator(".s2s-taken")).to_have_count(1)
    expect(first).to_contain_text("and 722 other words, together p 0.")
    expect(first).to_contain_text(f"fell on “{words(3)[1]}”")
    # The same with keys.
    chosen.press("ArrowRight")
    lab.page.keyboard.press("Enter")
    expect(title).to_contain_text("top-k, word 3")
    assert kernel("first.selected") == "[3, 2]"
    # Greedy draws nothing.
    rows[0].locator(".s2s-token").first.click()
    expect(title).to_contain_text("greedy, word 1")
    expect(title).to_contain_text(", rank 1.")
    expect(first.locator(".s2s-luck")).to_be_hidden()
    # Top-k of 1 is greedy. A new sample has a new seed.
    first.get_by_label("temperature: T").press("Home")
    first.get_by_label("top-k: k").press("Home")
    expect(rows[3].locator(".s2s-token")).to_have_text(words(0))
    before = words(4)
    first.get_by_role("button", name="new sample").click()
    expect(first).to_contain_text("seed 1")
    expect(rows[4].locator(".s2s-token").first).not_to_have_text(before[0])
    assert kernel("first.seed, first.top_k, first.temperature") == "1 1 0.05"
    # Where a row leaves greedy's way, it says so.
    expect(rows[4].locator(".s2s-leaves")).to_have_count(1)
    expect(rows[3].locator(".s2s-leaves")).to_have_count(0)
    # From Python; and the neighbour does not move.
    lab.python("first.selected = [4, 0]; first.top_p = 0.5")
    expect(title).to_contain_text("top-p, word 1")
    expect(first.get_by_label("top-p: p")).to_have_value("0.5")
    assert second.text_content() == neighbour
    # Sentences of one's own.
    field = first.get_by_label("sentence", exact=True)
    field.fill("the <img src=x onerror=alert(1)> cat")
    field.press("Enter")
    expect(first).to_contain_text("read as: the <unk>")
    assert first.locator("img").count() == 0
    first.get_by_label("choose a sentence").select_option("the small cat eats.")
    expect(first).to_contain_text("read as: the small cat eats . <eos>")
    field.fill(" ")
    field.press("Enter")
    expect(first.get_by_role("alert")).to_contain_text("cannot encode an empty sentence")
    assert kernel("first.sentence") == "the small cat eats."

    lab.python("first.sentence = 'the cat ' * 19 + 'sleeps.'; first.temperature = 1.0")
    expect(first).to_contain_text(re.compile("(the cat ){19}sleeps"))
    slide = (
        "el => { const i = el.querySelectorAll('input[type=range]')[%d]; i.value = %s;"
        " i.dispatchEvent(new Event('input')); }"
    )
    texts = "el => el.querySelectorAll('.s2s-words')[%d].textContent"
    times = {
        "click": lab.milliseconds(
            "el => el.querySelectorAll('.s2s-token')[5].click()",
            "el => el.querySelector('.s2s-story').textContent",
            first,
        ),
        "temperature (kernel)": lab.milliseconds(slide % (1, 2.0), texts % 2, first),
        "top-p (kernel)": lab.milliseconds(slide % (3, 0.95), texts % 4, first),
        "new sample (kernel)": lab.milliseconds(
            "el => el.querySelector('button').click()", texts % 4, first
        ),
    }
    found = ", ".join(f"{name} {took:.0f} ms" for name, took in times.items())
    print(f"\ndecoding playground, 40 x 40 tokens: {found}")
    assert lab.errors == []
