import math

import numpy as np
import pandas as pd
import pytest
import sacrebleu
import torch
from hypothesis import given
from hypothesis import strategies as st

from s2s_helpers.metrics import (
    alignment_error_rate,
    attention_links,
    bleu,
    bleu_signature,
    chrf,
    perplexity,
    sequence_accuracy,
    token_accuracy,
)
from s2s_helpers.vocabulary import PAD

HYPOTHESES = ["The cat sits on the mat.", "a dog , a small one , sleeps"]
REFERENCES = ["The cat sat on the mat today.", "A dog, a small one, is sleeping."]


def test_token_accuracy_counts_real_tokens_only():
    targets = torch.tensor([[4, 5, PAD, PAD], [6, 4, 5, 3]])
    said = torch.tensor([[4, 6, PAD, 5], [6, 4, 5, 4]])
    logits = torch.nn.functional.one_hot(said, 7).float()
    accuracy = token_accuracy(logits, targets)
    assert isinstance(accuracy, float) and accuracy == pytest.approx(4 / 6)


@given(st.integers(0, 1000))
def test_token_accuracy_equals_a_loop(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 4, 5, generator=generator)
    targets = torch.randint(0, 5, (3, 4), generator=generator)
    targets[0, 0] = 4
    right = [
        max(range(5), key=lambda token: logits[row, column, token]) == targets[row, column]
        for row in range(3)
        for column in range(4)
        if targets[row, column] != PAD
    ]
    assert token_accuracy(logits, targets) == pytest.approx(sum(right) / len(right))


def test_token_accuracy_refuses_bad_input():
    with pytest.raises(ValueError, match=r"\(2, 3\), not \(2, 2\)"):
        token_accuracy(torch.zeros(2, 3, 5), torch.ones(2, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="PAD"):
        token_accuracy(torch.zeros(2, 3, 5), torch.zeros(2, 3, dtype=torch.long))


def test_sequence_accuracy_of_texts_and_ids():
    assert sequence_accuracy(["a b", "c"], ["a b", "d"]) == 0.5
    assert sequence_accuracy([[4, 5], (6, 3), torch.tensor([7])], [[4, 5], [6], [7]]) == 2 / 3
    assert sequence_accuracy(["ab"], ["abc"]) == 0
    with pytest.raises(TypeError, match="both"):
        sequence_accuracy(["a"], [[4]])


def test_perplexity():
    assert perplexity(math.log(50)) == pytest.approx(50)
    assert perplexity(0) == 1
    assert perplexity(1e6) == math.inf
    assert math.isnan(perplexity(math.nan))


def test_bleu_by_hand():
    # 1- to 4-gram precisions 5/6, 3/5, 2/4, 1/3; both have 6 words, so brevity costs nothing
    expected = 100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    assert bleu(["the cat sat on the mat"], ["the cat sat on a mat"]) == pytest.approx(expected)
    # a hypothesis of 4 right words for a reference of 5: only exp(1 - 5/4) is lost
    assert bleu(["a b c d"], ["a b c d e"]) == pytest.approx(100 * math.exp(-1 / 4))
    assert bleu(["a b c d e"], ["a b c d"]) < 80  # hypotheses come first: precision counts


def test_bleu_and_chrf_are_sacrebleus_corpus_scores():
    assert bleu(HYPOTHESES, REFERENCES) == sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score
    assert chrf(HYPOTHESES, REFERENCES) == sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score
    by_sentence = [bleu([h], [r]) for h, r in zip(HYPOTHESES, REFERENCES, strict=True)]
    assert bleu(HYPOTHESES, REFERENCES) != pytest.approx(sum(by_sentence) / 2)
    assert bleu(REFERENCES, REFERENCES) == pytest.approx(100) == chrf(REFERENCES, REFERENCES)
    assert chrf(HYPOTHESES, REFERENCES) != chrf(REFERENCES, HYPOTHESES)


def test_bleu_takes_sacrebleus_options():
    upper = [text.upper() for text in REFERENCES]
    assert bleu(upper, REFERENCES) < 50
    assert bleu(upper, REFERENCES, lowercase=True) == pytest.approx(100)
    assert chrf(HYPOTHESES, REFERENCES, word_order=2) != chrf(HYPOTHESES, REFERENCES)


def test_bleu_signature_says_the_settings():
    expected = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:"
    assert bleu_signature().startswith(expected)
    assert "case:lc" in bleu_signature(lowercase=True)


@pytest.mark.parametrize("metric", [bleu, chrf, sequence_accuracy, alignment_error_rate])
def test_lists_must_match(metric):
    with pytest.raises(ValueError, match=r"2 .* but 1"):
        metric(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="no"):
        metric([], [])
    for one, other in (("ab", ["a", "b"]), (["a", "b"], "ab")):
        with pytest.raises(TypeError, match="not one string"):
            metric(one, other)


@pytest.mark.parametrize("metric", [bleu, chrf, sequence_accuracy])
def test_texts_may_be_a_column_an_array_or_a_generator(metric):
    expected = metric(HYPOTHESES, REFERENCES)
    for make in (lambda texts: pd.Series(texts, index=[5, 2]), np.array, tuple, iter):
        assert metric(make(HYPOTHESES), make(REFERENCES)) == expected
    for wrong in ({"a": "b", "c": "d"}, pd.DataFrame({"a": ["b"], "c": ["d"]})):
        with pytest.raises(TypeError, match="references must be a list, not a"):
            metric(HYPOTHESES, wrong)
        with pytest.raises(TypeError, match="hypotheses must be a list, not a"):
            metric(wrong, REFERENCES)


def test_links_may_come_from_a_generator():
    links = [{(0, 0), (1, 2)}, {(2, 1)}]
    assert alignment_error_rate((each for each in links), iter(links)) == 0


def test_texts_must_be_texts():
    for metric in (bleu, chrf):
        with pytest.raises(TypeError, match=r"references\[0\]"):
            metric(["a"], [["a"]])
        with pytest.raises(TypeError, match=r"hypotheses\[1\]"):
            metric(["a", None], ["a", "b"])


def test_attention_links_are_source_first():
    attention = torch.tensor([[0.1, 0.2, 0.7], [0.8, 0.1, 0.1]])
    assert attention_links(attention) == {(2, 0), (0, 1)}
    with pytest.raises(ValueError, match=r"\(target, source\)"):
        attention_links(attention.unsqueeze(0))


def test_alignment_error_rate_by_hand():
    # sentence 1: 2 of 3 predicted links are among 4 gold; sentence 2: 1 of 2 among 1
    predicted = [{(0, 0), (1, 2), (2, 2)}, [(0, 0), (1, 1)]]
    gold = [{(0, 0), (1, 1), (1, 2), (3, 3)}, ((1, 1),)]
    assert alignment_error_rate(predicted, gold) == pytest.approx(1 - 2 * 3 / (5 + 5))
    assert alignment_error_rate([{(0, 1)}], [{(1, 0)}]) == 1
    assert alignment_error_rate([[(0, 0), (0, 0)]], [{(0, 0)}]) == 0  # a link said twice is one
    with pytest.raises(ValueError, match="no links"):
        alignment_error_rate([set()], [set()])


links = st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1)


@given(st.lists(st.tuples(links, links), min_size=1, max_size=5))
def test_alignment_error_rate_properties(sentences):
    one, other = zip(*sentences, strict=True)
    rate = alignment_error_rate(one, other)
    assert 0 <= rate <= 1
    assert rate == alignment_error_rate(other, one)
    assert alignment_error_rate(one, one) == 0
    moved = [{(source + 6, target) for source, target in links} for links in one]
    assert alignment_error_rate(moved, one) == 1
    # precision and recall against the same sets give the same number, by another way
    common = sum(len(a & b) for a, b in sentences)
    precision = common / sum(len(a) for a in one)
    recall = common / sum(len(b) for b in other)
    harmonic = 2 * precision * recall / (precision + recall) if common else 0
    assert rate == pytest.approx(1 - harmonic)
