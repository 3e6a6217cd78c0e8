import json
import os
import sys
import unicodedata

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2s_helpers.text import normalise, word_detokenize, word_tokenize
from s2s_helpers.vocabulary import (
    EOS,
    FORMAT,
    PAD,
    SOS,
    SPECIALS,
    UNK,
    SubwordVocabulary,
    Vocabulary,
    load_vocabulary,
    vocabulary_from_dict,
)

ENGLISH = [
    "The small cat sleeps.",
    "The cat doesn't see the dog.",
    "A dog sees the small cat!",
    "Is the dog tired? No, the dog isn't tired.",
]
FRENCH = [
    "Le petit chat dort.",
    "L'homme qu'il voit n'est pas aujourd'hui à l'école.",
    "Est-ce que le chien est fatigué ?",
    "Vingt-deux garçons, jusqu'à l'été : « oui » !",
]


@pytest.fixture(scope="module")
def subwords():
    return SubwordVocabulary.train(ENGLISH + FRENCH, size=90)


@given(st.lists(st.from_regex(r"[a-zé]{4,8}", fullmatch=True), min_size=1))
def test_encode_and_decode_are_inverses(words):
    vocabulary = Vocabulary.build([" ".join(words)])
    ids = vocabulary.encode(" ".join(words))
    assert len(ids) == len(words) + 1 and ids[-1] == EOS and UNK not in ids and SOS not in ids
    assert vocabulary.decode(ids) == " ".join(words)


def test_ids_go_by_falling_frequency_then_alphabet():
    vocabulary = Vocabulary.build(["b a c c", "d c b a"])
    assert vocabulary.tokens(range(8)) == [*SPECIALS, "c", "a", "b", "d"]
    assert vocabulary == Vocabulary.build(["d c b a", "b a c c"])


def test_rare_tokens_are_unknown():
    vocabulary = Vocabulary.build(["b a c c", "d c b a"], min_count=2)
    assert len(vocabulary) == 7 and "d" not in vocabulary and "c" in vocabulary
    assert vocabulary.encode("d c") == [UNK, 4, EOS]
    assert len(Vocabulary.build(["b a c c", "d c b a"], max_size=6)) == 6


def test_case_is_folded_for_words_unless_told_otherwise():
    assert Vocabulary.build(["The the"]).encode("THE") == [4, EOS]
    cased = Vocabulary.build(["The the the"], lowercase=False)
    assert cased.encode("the The THE") == [4, 5, UNK, EOS]


def test_characters():
    vocabulary = Vocabulary.build(["ab  a", "B"], level="character")
    assert vocabulary.tokens(range(4, len(vocabulary))) == ["a", " ", "B", "b"]
    assert vocabulary.decode(vocabulary.encode("a  Ba")) == "a Ba"


def test_decode_stops_at_eos_and_skips_padding():
    vocabulary = Vocabulary.build(["le chat dort ?"], language="fr")
    chat = vocabulary.encode("chat")[0]
    assert vocabulary.decode([SOS, chat, PAD, UNK, EOS, chat]) == "chat <unk>"
    assert vocabulary.tokens([SOS, chat, EOS, PAD]) == ["<sos>", "chat", "<eos>", "<pad>"]
    assert vocabulary.decode(vocabulary.encode("le chat dort ?")) == "le chat dort ?"
    assert vocabulary.decode([EOS]) == ""


def test_ids_may_be_tensors():
    import torch

    vocabulary = Vocabulary.numbered(10)
    assert vocabulary.decode(torch.tensor([4, 9, EOS])) == "w4 w9"
    assert vocabulary.encode("w4 w9") == [4, 9, EOS]
    assert len(vocabulary) == 10


def test_subwords_read_back_as_text(subwords):
    assert len(subwords) == 90
    assert subwords.tokens([PAD, UNK, SOS, EOS]) == list(SPECIALS)
    for text in ENGLISH + FRENCH:
        ids = subwords.encode(text)
        assert ids[-1] == EOS and UNK not in ids and SOS not in ids
        assert subwords.decode([SOS, *ids, PAD, PAD]) == text
        pieces = subwords.tokens(ids)[:-1]
        assert pieces == subwords.tokenize(text) and pieces[0].startswith("▁")
        assert all(piece in subwords for piece in pieces)
    assert "nothing like this" not in subwords
    assert subwords.decode(subwords.encode("cat ☃ dog")) == "cat <unk> dog"


def test_subwords_are_reproducible_and_fold_case_if_told(subwords):
    assert subwords == SubwordVocabulary.train(ENGLISH + FRENCH, size=90)
    folded = SubwordVocabulary.train(ENGLISH + FRENCH, size=90, lowercase=True)
    assert folded.decode(folded.encode("The Cat")) == "the cat"
    assert folded != subwords


def test_a_vocabulary_returns_from_its_file(tmp_path, subwords):
    for index, vocabulary in enumerate(
        [
            Vocabulary.build(FRENCH, language="fr", min_count=2),
            Vocabulary.build(FRENCH, level="character", lowercase=True),
            subwords,
        ]
    ):
        path = tmp_path / "new" / f"{index}.json"
        vocabulary.save(path)
        again = load_vocabulary(path)
        assert type(again) is type(vocabulary) and again == vocabulary
        assert (again.level, again.lowercase, again.language) == (
            vocabulary.level,
            vocabulary.lowercase,
            vocabulary.language,
        )
        assert again.encode("Le petit chat") == vocabulary.encode("Le petit chat")
        assert vocabulary_from_dict(json.loads(json.dumps(vocabulary.to_dict()))) == vocabulary
    assert sorted(os.listdir(tmp_path / "new")) == ["0.json", "1.json", "2.json"]


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "v.json"
    old = Vocabulary.numbered(6)
    old.save(path)
    broken = Vocabulary.numbered(7)
    monkeypatch.setattr(broken, "to_dict", lambda: {"tokens": ["a", object()]})
    with pytest.raises(TypeError):
        broken.save(path)
    assert load_vocabulary(path) == old
    assert os.listdir(tmp_path) == ["v.json"]


def test_vocabularies_differ_where_anything_differs():
    one = Vocabulary.build(["a b"])
    assert one != Vocabulary.build(["a c"])
    assert one != Vocabulary.build(["a b"], language="fr")
    assert one != Vocabulary.build(["a b"], lowercase=False)
    assert one != "a b"


@pytest.mark.parametrize("damage", ["cut", "foreign", "bytes", "no tokens", "no model"])
def test_damaged_files_are_refused(tmp_path, subwords, damage):
    path = tmp_path / "v.json"
    subwords.save(path)
    if damage == "cut":
        path.write_text(path.read_text()[:200])
    elif damage == "foreign":
        path.write_text("[1, 2]")
    elif damage == "bytes":
        path.write_bytes(b"\xff\xfe\x00")
    elif damage == "no tokens":
        path.write_text(json.dumps({**subwords.to_dict(), "class": "Vocabulary"}))
    else:
        path.write_text(json.dumps({**subwords.to_dict(), "model": "AAAA"}))
    with pytest.raises(ValueError, match=r"v\.json"):
        load_vocabulary(path)


def test_another_format_and_an_unknown_class_are_named():
    saved = Vocabulary(["a"]).to_dict()
    assert saved["format"] == FORMAT
    with pytest.raises(ValueError, match=f"of format 99; {FORMAT} can be read"):
        vocabulary_from_dict(saved | {"format": 99})
    with pytest.raises(ValueError, match=r"class 'Mine'; known are .*SubwordVocabulary"):
        vocabulary_from_dict(saved | {"class": "Mine"})
    with pytest.raises(ValueError, match="not a complete vocabulary"):
        vocabulary_from_dict(saved | {"colour": "red"})


def test_a_class_of_ones_own_is_saved_and_read(tmp_path):
    class Reversed(Vocabulary):
        def tokenize(self, text):
            return super().tokenize(text)[::-1]

    vocabulary = Reversed(["a", "b"], language="fr")
    vocabulary.save(tmp_path / "v.json")
    again = load_vocabulary(tmp_path / "v.json")
    assert type(again) is Reversed and again == vocabulary != Vocabulary(["a", "b"], language="fr")
    assert again.encode("a b") == [5, 4, EOS]


def test_a_vocabulary_takes_the_source_and_does_without(subwords):
    for vocabulary in (subwords, Vocabulary.build(ENGLISH)):
        ids = vocabulary.encode(ENGLISH[0])
        assert vocabulary.decode(ids, "a source") == vocabulary.decode(ids)
        assert vocabulary.tokens(ids, source="a source") == vocabulary.tokens(ids)


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_text", refuse)
    with pytest.raises(PermissionError):
        load_vocabulary(tmp_path / "v.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_vocabulary(tmp_path / "nowhere.json")


@pytest.mark.parametrize("kind", ["word", "subword"])
def test_bad_text_and_ids_are_refused(subwords, kind):
    vocabulary = subwords if kind == "subword" else Vocabulary.build(ENGLISH)
    for text in ("", "   ", "\n"):
        with pytest.raises(ValueError, match="empty"):
            vocabulary.encode(text)
    with pytest.raises(TypeError, match="list"):
        vocabulary.encode(["a"])
    for wrong in (-1, len(vocabulary)):
        for read in (vocabulary.decode, vocabulary.tokens):
            with pytest.raises(ValueError, match=f"id {wrong} .* {len(vocabulary)} tokens"):
                read([4, wrong])
    with pytest.raises(TypeError):
        vocabulary.decode([4.5])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Vocabulary.build([]), "no token"),
        (lambda: Vocabulary.build(["a"], min_count=2), "min_count=2"),
        (lambda: Vocabulary.build(["a"], min_count=0), "min_count"),
        (lambda: Vocabulary.build(["a"], max_size=4), "max_size"),
        (lambda: Vocabulary.build(["a"], level="syllable"), "syllable"),
        (lambda: Vocabulary(["a", "b", "a"]), "'a' stands twice"),
        (lambda: Vocabulary(["<eos>"]), "'<eos>' stands twice"),
        (lambda: Vocabulary([""]), "at least one character"),
        (lambda: Vocabulary.numbered(4), "above 4"),
        (lambda: SubwordVocabulary.train([]), "no sentence"),
        (lambda: SubwordVocabulary.train(["a b"], size=4000), "4000"),
        (lambda: SubwordVocabulary(b""), "empty"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_one_string_is_not_a_list_of_sentences():
    for make in (Vocabulary.build, SubwordVocabulary.train):
        with pytest.raises(TypeError, match="list"):
            make("the cat")


@pytest.mark.parametrize("missing", [None, float("nan"), b"a b", ["a", "b"]])
def test_what_is_no_sentence_is_named_by_its_number(missing):
    for make in (Vocabulary.build, SubwordVocabulary.train):
        with pytest.raises(TypeError, match=r"sentence 2 is .*, not a string"):
            make(["a", "b", missing])


def test_other_apostrophes_are_known_and_known_ones_stay():
    for learned, asked in ("don't l'été", "don’t l’été"), ("don’t l’été", "don't l'été"):
        for level in "word", "character":
            vocabulary = Vocabulary.build([learned], level=level)
            assert UNK not in vocabulary.encode(asked) == vocabulary.encode(learned)
            assert vocabulary.decode(vocabulary.encode(asked)) == learned
        assert asked.split()[0] in Vocabulary.build([learned])
        subword = SubwordVocabulary.train([learned * 3], size=20)
        assert subword.decode(subword.encode(asked)) == learned
        assert subword.tokens(subword.encode(asked))[:-1] == subword.tokenize(asked)
    both = Vocabulary.build(["don't don’t"])
    assert both.encode("don’t don't") == [5, 4, EOS] and both.decode([5, 4]) == "don’t don't"


def of_every_category():
    """Some characters of every category of Unicode but halves of surrogate pairs."""
    kinds = {}
    for code in range(sys.maxunicode + 1):
        kinds.setdefault(unicodedata.category(chr(code)), []).append(chr(code))
    del kinds["Cs"]
    return "".join("".join(kind[:: len(kind) // 30 + 1]) for kind in kinds.values())


EVERY = of_every_category()
WRITTEN = st.text(st.sampled_from(EVERY) | st.sampled_from("ab .'’,\u0301\u200d\u00ad"))


@pytest.fixture(scope="module")
def that_know_all():
    """A vocabulary of characters and one of subwords that know all of EVERY, cased and not."""
    texts = [
        f"a{character} {character}b ab" for form in (EVERY, EVERY.lower()) for character in form
    ]
    return [
        make
        for lowercase in (False, True)
        for make in (
            Vocabulary.build([*texts, *".'’,"], level="character", lowercase=lowercase),
            SubwordVocabulary.train([*texts, *".'’,"], size=1250, lowercase=lowercase),
        )
    ]


@given(WRITTEN)
@settings(max_examples=300)
def test_what_was_encoded_comes_back_normalised(that_know_all, text):
    for vocabulary in that_know_all:
        expected = " ".join(normalise(text.lower() if vocabulary.lowercase else text).split())
        if vocabulary.level == "subword":
            expected = expected.replace("▁", "_")
        if not expected:
            with pytest.raises(ValueError, match="empty"):
                vocabulary.encode(text)
            continue
        ids = vocabulary.encode(text)
        if UNK not in ids:
            assert vocabulary.decode(ids) == expected
            assert vocabulary.encode(expected) == ids


@given(WRITTEN, st.booleans())
def test_words_come_back_normalised(text, lowercase):
    tidy = word_detokenize(word_tokenize(text.lower() if lowercase else text))
    if tidy:
        vocabulary = Vocabulary.build([text], lowercase=lowercase)
        ids = vocabulary.encode(text)
        assert UNK not in ids and vocabulary.decode(ids) == tidy


def test_subwords_keep_every_character_that_training_showed():
    texts = ["m² ½ nº ﬁ ３ ①", "a  b\u00a0c\u2028d\te"]
    vocabulary = SubwordVocabulary.train(texts, size=30)
    assert vocabulary.decode(vocabulary.encode(texts[0])) == texts[0]
    assert vocabulary.decode(vocabulary.encode(texts[1])) == "a b c d e"
    assert vocabulary.decode(vocabulary.encode("a▁b").copy()) == "a<unk>b"


@pytest.mark.parametrize("level", ["word", "character", "subword"])
def test_invisible_characters_change_nothing(level, subwords):
    vocabulary = subwords if level == "subword" else Vocabulary.build(ENGLISH, level=level)
    for text in (
        "\ufeffThe small cat",
        "The sm\u00adall\u200b cat",
        "The \u202asmall\u202c c\u2060at\x00",
    ):
        assert vocabulary.encode(text) == vocabulary.encode("The small cat")
    for empty in "\u200b", "\ufeff \u00ad", "\u200d\ufe0f":
        with pytest.raises(ValueError, match="empty"):
            vocabulary.encode(empty)
    for half in "\ud83d", "The small \udc00cat":
        with pytest.raises(ValueError, match="half a surrogate pair"):
            vocabulary.encode(half)


@pytest.mark.parametrize(
    "make", [Vocabulary.build, lambda texts: SubwordVocabulary.train(texts, 12)]
)
def test_sentences_may_come_as_any_list(make):
    expected = make(["a b", "c d"])
    for texts in (("a b", "c d"), pd.Series(["a b", "c d"], [4, 2]), np.array(["a b", "c d"])):
        assert make(texts) == expected == make(iter(texts))
    for wrong in ("the cat", {"the": 4}):
        with pytest.raises(TypeError, match="tokens must be a list, not"):
            Vocabulary(wrong)
    for wrong in ({"a b": "c"}, pd.DataFrame({"a b": ["c d"]})):
        with pytest.raises(TypeError, match="sentences must be a list, not"):
            make(wrong)


def test_languages_are_named_in_more_than_one_way():
    for name in "fr", "French", "FR", "fr-CA":
        assert Vocabulary.build(["oui ?"], language=name).language == "fr"
    assert SubwordVocabulary.train(["oui oui ?"], size=10, language="French").language == "fr"
    for make in (
        Vocabulary.build,
        lambda texts, language: SubwordVocabulary.train(texts, 10, language=language),
    ):
        with pytest.raises(ValueError, match="language must be a code"):
            make(["oui oui ?"], language="the language of Molière")


@settings(max_examples=30)
@given(st.lists(st.sampled_from(ENGLISH + FRENCH), min_size=1, max_size=3))
def test_subword_text_is_the_same_whatever_sentences_are_joined(subwords, sentences):
    text = " ".join(sentences)
    assert subwords.decode(subwords.encode(text)) == text
