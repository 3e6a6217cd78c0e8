"""The notebooks themselves in JupyterLab: run all, then use their widgets as a learner would."""

import re

from playwright.sync_api import expect


def test_03_two_attentions_on_a_sentence(open_lab):
    lab = open_lab("03_attention.ipynb")
    lab.run_all()
    explorer = lab.widget("attention-explorer")
    panes = [explorer.locator(".s2s-pane").nth(number) for number in (0, 1)]
    words = [pane.locator("[data-side=target]") for pane in panes]
    expect(panes[0].locator(".s2s-gold .s2s-halo")).not_to_have_count(0)
    # Both models look at once: what a source word has in one, it has in the other.
    panes[0].locator("[data-side=source]").nth(2).hover()
    for pane in panes:
        expect(pane.locator(".s2s-said")).to_have_text(re.compile("^“proud” is looked at by “.+” "))
    # A second-best word of the first model; the other goes its own way.
    before = [pane.locator(".s2s-text").inner_text() for pane in panes]
    words[0].nth(2).click()
    expect(words[0].nth(2)).to_contain_text("◆")
    expect(panes[0].locator(".s2s-text")).not_to_have_text(before[0])
    expect(panes[1].locator(".s2s-text")).to_have_text(before[1])
    # Another sentence, and one that is typed.
    explorer.get_by_label("sentence").select_option(index=1)
    expect(explorer.locator(".s2s-lit ~ text", has_text="not").first).to_be_visible()
    expect(explorer.get_by_text("◆")).to_have_count(0)
    field = explorer.get_by_label("or type one")
    field.fill("the zebra does not sleep.")
    field.press("Enter")
    expect(panes[1]).to_contain_text("read as <unk>: zebra")
    assert lab.python("print(explorer.sentence)") == "the zebra does not sleep."
    assert lab.errors == []


def test_07_three_kinds_of_attention(open_lab):
    lab = open_lab("07_transformer.ipynb")
    lab.run_all(500)
    explorer = lab.widget("attention-explorer")
    words, said = explorer.locator("[data-side=target]"), explorer.locator(".s2s-said")
    # The decoder's first word has only <sos> to look at; the encoder's reads all the source.
    words.nth(0).hover()
    expect(said).to_contain_text("looks at “<sos>” 100%")
    explorer.get_by_label("attention", exact=True).select_option(index=1)
    explorer.get_by_label("layer").select_option("layer 2")
    explorer.get_by_label("head").select_option("head 2")
    expect(words.nth(2)).to_have_text("cat")
    words.nth(2).hover()
    expect(said).to_have_text(re.compile("^“cat” looks at “.+” "))
    # In cross-attention, a second-best word and back.
    explorer.get_by_label("attention", exact=True).select_option(index=0)
    before = explorer.locator(".s2s-text").inner_text()
    words.nth(3).click()
    expect(words.nth(3)).to_contain_text("◆")
    expect(explorer.locator(".s2s-text")).not_to_have_text(before)
    explorer.get_by_text("take back the last choice").click()
    expect(explorer.locator(".s2s-text")).to_have_text(before)
    assert lab.python("print(explorer.kind, explorer.layer, explorer.head)") == "cross 2 2"
    assert lab.errors == []
