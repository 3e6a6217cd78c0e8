"""Text that was spoiled: how much of it, in which form, and that it can be mended."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2s_helpers.training.denoising import corrupt_spans, infill

TEXTS = st.lists(
    st.sampled_from(["a", "the", "dog", "runs", "on", "grass", ","]), min_size=1, max_size=30
)
SEEDS = st.integers(0, 2**32 - 1)
SENTINEL = re.compile(r"<extra_id_(\d+)>")


@given(TEXTS, SEEDS)
def test_what_stands_between_masks_is_the_text_in_its_order(words, seed):
    spoiled = infill(" ".join(words), np.random.default_rng(seed))
    assert "<mask>" in spoiled
    pattern = r".*?".join(map(re.escape, spoiled.split("<mask>")))
    pattern = pattern.replace(r"\ .*?", r"(?: .*)?").replace(r".*?\ ", r"(?:.* )?")
    assert re.fullmatch(pattern, " ".join(words)), spoiled


def test_infilling_takes_the_share_and_draws_lengths_from_poisson():
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(100)]
    lost, masks = [], []
    for _ in range(300):
        left = infill(" ".join(words), rng).split()
        masks.append(left.count("<mask>"))
        lost.append(100 - (len(left) - masks[-1]))
    # A span of no words counts as one towards the 30 that go; a twentieth of all spans has none.
    assert 28 < np.mean(lost) <= 30 and min(lost) < 30
    assert 9 < np.mean(masks) < 11.5  # 30 words, 3 at a time; the last span is cut


def test_infilling_by_hand():
    """All words in one span; and spans of one word each."""
    assert infill("a b c d", np.random.default_rng(1), share=0.99, mean=50) == "<mask>"
    ones = [infill("a b c d", np.random.default_rng(seed), 0.5, 1e-9) for seed in range(20)]
    assert all(text.replace("<mask>", "").split() == list("abcd") for text in ones)  # insertions
    assert infill("le chat", np.random.default_rng(0), mask="[M]").count("[M]") == 1


@given(TEXTS, SEEDS)
def test_sentinels_say_where_each_word_belongs(words, seed):
    source, target = corrupt_spans(" ".join(words), np.random.default_rng(seed))
    numbers = [int(n) for n in SENTINEL.findall(source)]
    assert numbers == list(range(len(numbers))) and numbers
    assert [int(n) for n in SENTINEL.findall(target)] == [*numbers, len(numbers)]
    spans = [span.split() for span in SENTINEL.split(target)[2::2]]
    assert all(spans[:-1]) and not spans[-1]  # nothing stands after the last sentinel
    mended = []
    for word in source.split():
        mended += spans[int(SENTINEL.match(word)[1])] if SENTINEL.match(word) else [word]
    assert mended == words


def test_span_corruption_drops_fifteen_of_a_hundred_words():
    rng = np.random.default_rng(0)
    text = " ".join(["word"] * 500)
    lost = [500 - corrupt_spans(text, rng)[0].split().count("word") for _ in range(100)]
    assert np.mean(lost) == pytest.approx(75, abs=3)


def test_spans_end_with_the_sentinels_that_t5_has():
    words = [f"w{n}" for n in range(5000)]
    source, target = corrupt_spans(" ".join(words), np.random.default_rng(0))
    assert [int(n) for n in SENTINEL.findall(source)] == list(range(99))
    assert target.endswith(" <extra_id_99>") and source.endswith(" ".join(words[1000:]))
    kept = [word for word in (source + " " + target).split() if not SENTINEL.match(word)]
    assert sorted(kept) == sorted(words)


@pytest.mark.parametrize("mean", [3.0, 1e6])
@pytest.mark.parametrize("text", ["<mask>", "<mask> <mask>", "a <mask> b <mask> c d", "a <mask>"])
def test_masks_of_the_text_stay_and_infilling_ends(text, mean):
    for seed in range(20):
        words = infill(text, np.random.default_rng(seed), 0.9, mean).split()
        assert words.count("<mask>") > text.count("<mask>")
        left = [word for word in words if word != "<mask>"]
        assert left == [word for word in text.split() if word in left]


def test_the_papers_example():
    """Figure 2 of Raffel et al. 2020, with the words that it drops."""

    class Drawn:
        def random(self, size):
            gone = {"for", "inviting", "last"}
            return np.array([0.0 if word in gone else 1.0 for word in text.split()])

    text = "Thank you for inviting me to your party last week ."
    source, target = corrupt_spans(text, Drawn())
    assert source == "Thank you <extra_id_0> me to your party <extra_id_1> week ."
    assert target == "<extra_id_0> for inviting <extra_id_1> last <extra_id_2>"


@pytest.mark.parametrize("spoil", [infill, corrupt_spans])
def test_what_cannot_be_spoiled(spoil):
    with pytest.raises(ValueError, match=r"no words to spoil: '  '"):
        spoil("  ", np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"share must lie between 0 and 1, got 1.5"):
        spoil("a b", np.random.default_rng(0), share=1.5)
