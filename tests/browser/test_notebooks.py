"""The notebooks themselves in JupyterLab: run all, then use their widgets as a learner would.

A worker takes two at once: the long ones stand beside short ones."""

import re

from playwright.sync_api import expect


def test_05_a_training_and_what_the_decoder_reads(open_lab):
    aside = r"finals|in_eval|unstopped|resumed|made_up|in_pieces|make_step|speed|buckets\"\]"
    lab = open_lab("05_training.ipynb", without=aside)
    lab.run_all(500)
    live = lab.widget("live-training")
    expect(live).to_contain_text(
        "finished in epoch 3, after 375 steps; the model has the best weights"
    )
    expect(live.get_by_role("button", name="Stop training")).to_be_disabled()
    expect(live.locator("rect title")).not_to_have_count(0)
    schedules = lab.widget("forcing-schedules")
    expect(schedules.locator(".s2s-sum")).to_contain_text("step 250: Linear 0.25")
    schedules.get_by_label("step i").press("Home")
    expect(schedules.locator(".s2s-sum")).to_contain_text("step 0: Linear 1.00")
    # The sentence goes wrong where the model reads its own words, and comes back with gold ones.
    forcing = lab.widget("teacher-forcing")
    wrong, right = forcing.locator(".s2s-wrong"), forcing.locator(".s2s-right")
    forcing.get_by_role("button", name="All gold").click()
    expect(forcing.locator(".s2s-forcing")).not_to_contain_text("…")
    with_gold = right.count()
    forcing.get_by_role("button", name="All own").click()
    expect(forcing.locator(".s2s-fed-gold")).to_have_count(0)
    expect(forcing.locator(".s2s-forcing")).not_to_contain_text("…")
    assert right.count() <= with_gold - 3 and wrong.count() > 3
    told = forcing.locator(".s2s-sum").text_content()
    forcing.get_by_label("model", exact=True).select_option("scheduled sampling")
    expect(forcing.locator(".s2s-sum")).not_to_have_text(told)
    assert lab.python("print(forcing.model, all(forcing.own))") == "scheduled sampling True"
    assert lab.errors == []


def test_04_smoothing_and_padding(open_lab):
    lab = open_lab("04_loss.ipynb")
    lab.run_all()
    widget = lab.widget("label-smoothing")
    total = widget.locator(".s2s-sum")

    def mean():
        return float(re.search(r"= ([\d.]+) nats", total.text_content())[1])

    # Counting padding, which is easy, flatters the model.
    right = mean()
    widget.get_by_label("count padding").check()
    expect(total).to_contain_text("/ 6 =")
    assert mean() < right - 0.1
    # Without smoothing the least loss is at certainty, with it before.
    least = widget.locator("text", has_text="least at p")
    expect(least).to_have_text("least at p = 0.92")
    widget.get_by_label("smoothing ε").press("Home")
    expect(least).to_have_text("least at p = 0.99")
    widget.get_by_role("button", name="chat").click()
    expect(total).to_contain_text("Loss of “chat”: 0.799")
    assert lab.errors == []


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
    aside = r"Leaking|short_training|forced\[|def accuracy|blind|in without|attention_of|error\["
    aside += "|both_ways|runs_of"
    lab = open_lab("07_transformer.ipynb", without=aside)
    lab.run_all(500)
    positions = lab.widget("positional-encodings")
    positions.get_by_label("compared with position").press("Home")
    expect(positions.locator(".s2s-sum")).to_contain_text("Positions 10 and 0, 10 apart")
    positions.get_by_role("slider", name="dimension").press("End")
    expect(positions).to_contain_text("Dimension 127: a cosine, 54,410 positions long")
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


def test_06_a_beam_step_by_step_and_samples_side_by_side(open_lab):
    aside = r"def batched|variants|speed|ordered|cost|quality|right\["
    lab = open_lab("06_decoding.ipynb", without=aside)
    lab.run_all(500)
    toy, real = (lab.widget("beam-search-tree", number) for number in (0, 1))
    # Step through the table's search; at step 2 "le chat" has overtaken "un chat".
    toy.get_by_role("button", name="to the start").click()
    for step in (1, 2):
        toy.get_by_role("button", name="one step on").click()
        expect(toy.locator(".s2s-story")).to_contain_text(f"Step {step}, the best")
    first = toy.locator(".s2s-node").nth(3)
    first.hover()
    expect(toy.locator(".s2s-detail")).to_contain_text("“le chat”: log p = −0.92 − 0.11 = −1.02")
    # The length penalty moves the star from the short sentence to the long one.
    toy.get_by_label("step", exact=True).press("End")
    best = toy.locator("tbody tr").first
    expect(best).to_contain_text("le chat <eos>")
    toy.get_by_label("length penalty α").press("End")
    toy.get_by_label("step", exact=True).press("End")
    expect(best).to_contain_text("le chat dort bien <eos>")
    # A beam of 1 is greedy, on the half-trained model too.
    real.scroll_into_view_if_needed()
    greedy = real.locator("tbody tr", has_text="greedy").locator("td").nth(1)
    expect(real.locator("tbody tr").first.locator("td").nth(1)).not_to_have_text(
        greedy.text_content()
    )
    real.get_by_label("width k").press("Home")
    expect(real.locator("tbody tr").first.locator("td").nth(1)).to_have_text(greedy.text_content())
    # Samples: a word of the hot row, and what top-k leaves.
    play = lab.widget("decoding-playground")
    rows = play.locator(".s2s-decoder")
    rows.nth(2).locator(".s2s-token").nth(1).click()
    expect(play.locator(".s2s-story")).to_contain_text("temperature, word 2")
    rows.nth(3).locator(".s2s-token").nth(1).click()
    expect(play.locator(".s2s-story")).to_contain_text("Here 3 of 732 words stay")
    expect(play.locator(".s2s-cut")).to_have_count(7)
    assert lab.python("print(play.selected)") == "[3, 1]"
    before = rows.nth(2).text_content()
    play.get_by_role("button", name="new sample").click()
    expect(rows.nth(2)).not_to_have_text(before)
    assert lab.errors == []
