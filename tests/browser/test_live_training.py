"""The widget that watches a training, in the browser: it moves, and its button stops."""

import time

from playwright.sync_api import expect

CELLS = [
    """
from s2s_helpers.course import recipes
from s2s_helpers.course.widgets import LiveTraining
live = LiveTraining("the cat sees <img src=x onerror=alert(1)> .")
trainer = recipes.phrasebook_trainer("luong", progress=False, epochs=50)
trainer.callbacks.append(live)
validation = trainer.val_dataloader
live
""",
    "early = LiveTraining('the boy reads .')\nearly",
]


def test_it_moves_and_its_button_stops(open_lab):
    lab = open_lab("live_training.ipynb", CELLS)
    lab.run_all()
    live, early = lab.widget("live-training", 0), lab.widget("live-training", 1)
    stop = live.get_by_role("button", name="Stop training")
    expect(stop).to_be_disabled()
    expect(live).to_contain_text("The training begins when its cell runs")
    # A cell that trains for minutes; while it runs, the kernel's main shell is busy.
    lab.page.locator(".jp-NotebookPanel .jp-Cell").last.click()
    for key in ("Escape", "b", "Enter"):
        lab.page.keyboard.press(key)
    lab.page.keyboard.insert_text("print('done:', trainer.fit().stopped)")
    lab.page.keyboard.press("Control+Enter")
    expect(stop).to_be_enabled(timeout=60_000)
    expect(live).to_contain_text("<img src=x onerror=alert(1)>")
    assert live.locator("img").count() == 0
    progress = live.locator("progress")
    expect(progress).not_to_have_js_property("value", 0)
    first = progress.evaluate("bar => bar.value")
    lab.page.wait_for_function(
        "([bar, first]) => bar.value > first", arg=[progress.element_handle(), first]
    )
    assert live.locator("rect title").count() > 10  # attention
    # By keyboard; the training ends at once, and says what is in the model.
    stop.focus()
    started = time.perf_counter()
    lab.page.keyboard.press("Enter")
    # The widget is drawn anew when the cell is over.
    expect(live).to_contain_text("stopped in epoch 1", timeout=60_000)
    took = 1000 * (time.perf_counter() - started)
    expect(live).to_contain_text("the model has the weights of step")
    expect(live.get_by_role("button")).to_be_disabled()
    expect(lab.page.locator(".jp-OutputArea-output", has_text="done: interrupted")).to_be_visible()
    # The neighbour did not move.
    expect(early).to_contain_text("no training yet")
    assert lab.python("print(live.status, live.steps[-1][0] == trainer.step)") == "stopped True"
    print(f"\nlive training: stopped {took:.0f} ms after the click")
    assert lab.errors == []
