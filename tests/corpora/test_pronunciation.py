"""CMUdict's splits, the error rates against jiwer and by hand, and the benchmark in small."""

import hashlib
import importlib
import json
import sys
from pathlib import Path

import jiwer
import pooch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2s_helpers.corpora import Pair, Splits, pronunciation
from s2s_helpers.corpora.pronunciation import (
    Word,
    closest,
    edit_distance,
    error_rates,
    load,
    pairs,
    vocabularies,
)
from s2s_helpers.data import Seq2SeqDataset

PHONEMES = """AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH
UH UW V W Y Z ZH"""
DIGESTS = ["e0e1d0f786ab", "4324e2c05623", "c3e3213b0142"]
TEXTS = st.lists(st.sampled_from(["AH", "B", "K", "S"]), min_size=1, max_size=6).map(" ".join)


@pytest.fixture(scope="module")
def words():
    """CMUdict's splits; without the dictionary here and without a network, no test of it."""
    try:
        return load()
    except FileNotFoundError as error:
        pytest.skip(str(error))


def test_the_splits_hold_every_word_once(words):
    assert [len(words.validation), len(words.test)] == [2670, 12000]
    assert len(words.train) > 105_000
    together = [*words.train, *words.validation, *words.test]
    assert len(together) == len({word.source for word in together})
    assert set("".join(word.source for word in together)) == set("abcdefghijklmnopqrstuvwxyz'")
    spoken = {p for word in together for said in word.accepted for p in said.split()}
    assert spoken == set(PHONEMES.split()) and len(spoken) == 39
    for word in together:
        assert len(set(word.accepted)) == len(word.accepted) > 0
        assert word.target == word.accepted[0] and word.alignment is None


def test_the_splits_are_those_of_the_published_figures(words):
    """Error rates in benchmarks/results are of these words: no change may deal them anew."""
    digests = [
        hashlib.sha256(" ".join(word.source for word in split).encode()).hexdigest()[:12]
        for split in (words.train, words.validation, words.test)
    ]
    assert digests == DIGESTS


def test_pronunciations_are_the_dictionarys_without_stress(words):
    accepted = {w.source: w.accepted for w in [*words.train, *words.validation, *words.test]}
    assert accepted["live"] in [("L AY V", "L IH V"), ("L IH V", "L AY V")]
    assert accepted["box"] == ("B AA K S",) and accepted["knight"] == ("N AY T",)
    # AH0 K T IH1 V and such: what differs by stress alone is one pronunciation.
    assert accepted["increase"] == ("IH N K R IY S",)


def small(text, tmp_path, monkeypatch):
    (tmp_path / "cmudict.dict").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    files = pronunciation.FILES._replace(sha256={"cmudict.dict": digest})
    monkeypatch.setattr(pronunciation, "FILES", files)
    monkeypatch.setenv("S2S_DATA_DIR", str(tmp_path))


def test_lines_of_the_dictionary(tmp_path, monkeypatch):
    text = "live L AY1 V\nlive(2) L IH1 V\naalto AA1 L T OW2 # name, finnish\n\ntwo(10) T UW1\n"
    small(text, tmp_path, monkeypatch)
    assert pronunciation.dictionary() == {
        "live": [["L", "AY1", "V"], ["L", "IH1", "V"]],
        "aalto": [["AA1", "L", "T", "OW2"]], "two": [["T", "UW1"]],
    }  # fmt: skip


def test_a_words_split_depends_on_its_letters_alone(words, monkeypatch):
    """With a tenth of the dictionary gone and the rest in another order, no test word leaves."""
    some = [item for number, item in enumerate(pronunciation.dictionary().items()) if number % 10]
    some = dict(reversed(some))
    monkeypatch.setattr(pronunciation, "dictionary", lambda: some)
    after = load.__wrapped__()
    assert len(after.test) == 12000
    kept = {word.source for word in words.test if word.source in some}
    assert kept <= {word.source for word in after.test}


def test_a_made_up_dictionary_is_dealt_by_its_letters(monkeypatch):
    made = {a + b: [["K", "AH0"], ["K", "AH1"], ["S"]] for a in "abcdefghij" for b in "klmnop'"}
    made |= {"x2": [["K"]], "Ab": [["K"]], "a-b": [["K"]]}  # no words of letters and apostrophes
    monkeypatch.setattr(pronunciation, "TEST", 20)
    monkeypatch.setattr(pronunciation, "VALIDATION", 10)
    monkeypatch.setattr(pronunciation, "dictionary", lambda: made)
    splits = load.__wrapped__()
    parts = [[word.source for word in part] for part in vars(splits).values()]
    assert [len(part) for part in parts] == [40, 10, 20]
    assert {word for part in parts for word in part} == made.keys() - {"x2", "Ab", "a-b"}
    assert all(word.accepted == ("K AH", "S") for word in splits.test)
    monkeypatch.setattr(pronunciation, "dictionary", lambda: dict(reversed(made.items())))
    assert load.__wrapped__() == splits


def test_a_damaged_dictionary_and_a_missing_one_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache")
    monkeypatch.delenv("S2S_CACHE_DIR", raising=False)
    monkeypatch.setenv("S2S_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    files = pronunciation.FILES._replace(url="http://127.0.0.1:9/")
    monkeypatch.setattr(pronunciation, "FILES", files)
    with pytest.raises(FileNotFoundError, match=r"CMUdict's .*network once .*S2S_DATA_DIR"):
        load.__wrapped__()
    (tmp_path / "cmudict.dict").write_text("box B AA1 K S\n")
    with pytest.raises(ValueError, match=r"not CMUdict's cmudict\.dict"):
        load.__wrapped__()


def test_a_pair_for_every_pronunciation_and_the_way_back():
    words = [
        Word("live", "L AY V", None, ("L AY V", "L IH V")),
        Word("it's", "IH T S", None, ("IH T S",)),
    ]
    assert pairs(words) == [
        Pair("live", "L AY V"), Pair("live", "L IH V"), Pair("it's", "IH T S"),
    ]  # fmt: skip
    letters, phonemes = vocabularies(words)
    assert letters.decode(letters.encode("It's")) == "it's"
    assert letters.tokens(letters.encode("vet"))[:3] == ["v", "e", "t"]
    dataset = Seq2SeqDataset(pairs(words), letters, phonemes)
    assert [phonemes.decode(target) for _, target in dataset] == [p.target for p in pairs(words)]


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=8))
def test_error_rates_equal_jiwers_where_one_is_accepted(spoken):
    hypotheses, references = map(list, zip(*spoken, strict=True))
    found = error_rates(hypotheses, [(reference,) for reference in references])
    assert found.phonemes == pytest.approx(100 * jiwer.wer(references, hypotheses))
    wrong = [jiwer.wer(r, h) > 0 for h, r in spoken]
    assert found.words == pytest.approx(100 * sum(wrong) / len(wrong))


def test_error_rates_by_hand():
    """Of the accepted ones the closest counts: 0 edits of 3 phonemes, 1 of 4, 2 of 2."""
    spoken = ["L IH V", "B AA K", "AH B K S"]
    accepted = [("L AY V", "L IH V"), ("B AA K S", "B AO K Z S"), ("K S", "T T T T T T T")]
    assert error_rates(spoken, accepted) == (pytest.approx(300 / 9), pytest.approx(200 / 3))
    assert closest("B AA K", accepted[1]) == (1, "B AA K S")
    assert error_rates([""], [("K S",)]) == (100, 100)
    assert error_rates(["K", "S"], [("K", ""), ("",)]) == (100, 50)
    with pytest.raises(ValueError, match="have no phonemes"):
        error_rates(["K"], [("",)])


@given(TEXTS, TEXTS)
def test_edit_distance_is_the_textbooks(one, other):
    a, b = one.split(), other.split()
    rows = [list(range(len(b) + 1))]
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            row.append(min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (x != y)))
        rows.append(row)
    assert edit_distance(a, b) == rows[-1][-1]


@pytest.mark.parametrize(
    "spoken, accepted, error, message",
    [
        (["K"], [], ValueError, "1 pronunciations, but accepted ones of 0 words"),
        ([], [], ValueError, "0 pronunciations"),
        (["K", "S"], [("K",), ()], ValueError, "word 1 has nothing accepted"),
        ("K", [("K",)], TypeError, "spoken is a list of texts"),
        (["K"], ["K"], TypeError, "accepted a list with several texts for each"),
    ],
)
def test_bad_input_is_named(spoken, accepted, error, message):
    with pytest.raises(error, match=message):
        error_rates(spoken, accepted)


# The benchmark


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    sys.modules.pop("pronunciation", None)
    return importlib.import_module("pronunciation")


def test_the_benchmark_measures_and_shows_every_row(benchmark, words):
    tiny = dict(hidden=8, embedding=4) | benchmark.QUICK
    few = words.test[:30]
    result = benchmark.run(tiny, 0, words=few)
    assert result["test_words"] == 30 and result["steps"] > 0
    for search in benchmark.SEARCHES:
        assert result[search]["per"] > 0 and 0 < result[search]["wer"] <= 100
    results = {"runs": {"short": {"0": result, "1": result}, "long": {"0": result}}}
    text = benchmark.table(json.loads(json.dumps(results)))
    assert "Toshniwal and Livescu 2016" in text and "| 5.23 | 22.10 |" in text
    assert len({line.count("|") for line in text.splitlines()}) == 1
    assert f"| 2 | {result['greedy']['per']:.2f} ± 0.00 |" in text
    assert f"| 1 | {result['beam 5']['per']:.2f} |" in text


def test_the_long_training_ends_by_the_clock(benchmark, words, monkeypatch, tmp_path):
    few = Splits(words.train[:200], words.validation[:20], words.test[:20])
    monkeypatch.setattr(benchmark, "load", lambda: few)
    monkeypatch.setattr(benchmark, "LONG", benchmark.LONG | dict(width=16, layers=1))
    monkeypatch.setattr(benchmark, "FILE", tmp_path / "pronunciation.json")

    def here(command, check):
        benchmark.main(command[2:])

    monkeypatch.setattr(sys.modules["speedrun"].subprocess, "run", here)
    benchmark.main(["long", "--minutes", "0.01", "--processes", "1", "--seed", "7"])
    run = json.loads(benchmark.FILE.read_text("utf-8"))["runs"]["long"]["7"]
    assert run["settings"] == benchmark.LONG and run["steps"] > 0 and run["test_words"] == 20
    assert min(run["beam 5"]["per"], run["greedy"]["per"], run["validation"]["per"]) > 0
    assert 1 <= run["training_seconds"] <= run["seconds"]


def test_benchmark_results_are_kept_whole(benchmark, monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark, "FILE", tmp_path / "pronunciation.json")
    benchmark.write({"runs": {}})
    assert json.loads(benchmark.FILE.read_text("utf-8"))["machine"]["cores"]
    assert [path.name for path in tmp_path.iterdir()] == ["pronunciation.json"]
    assert pronunciation.PUBLISHED
