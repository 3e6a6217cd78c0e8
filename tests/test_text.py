"""The normal form of texts, words and how they are joined again."""

import sys
import unicodedata

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from s2s_helpers.text import each_of, language_code, normalise, word_detokenize, word_tokenize

ENGLISH = [
    "The small cat sleeps.",
    "The cat doesn't see the dog.",
    "A dog sees the small cat!",
    "Is the dog tired? No, the dog isn't tired.",
    "It cost $1,000 at 10:30 in the U.S. Army, i.e. 3.5% more, and/or -5°C.",
    "He paid €20 (or 5€, £3) for 1/2 of A&M's; she didn’t, “of course”.",
    "Dr. Smith, e.g. J.P. Morgan's, ran 2.5 km, 95,000 steps, in 1:02:03.5.",
    "¿Qué? ¡Sí! The col·lecció costs .5, 20° turned, on 2020-05-12.",
]
FRENCH = [
    "Le petit chat dort.",
    "L'homme qu'il voit n'est pas aujourd'hui à l'école.",
    "Est-ce que le chien est fatigué ?",
    "Vingt-deux garçons, jusqu'à l'été : « oui » !",
    "Il a payé 3,5 % de 1.000,50 €, soit 20 €, à 10:30 et/ou plus ?!",
]
OTHERS = [  # each letter with its marks is one
    "हिन्दी में किताब।",
    "क्‍ष और क्‌ष",  # with a joiner, and with one that parts
    "שָׁלוֹם עֲלֵיכֶם, בֵּית־סֵפֶר צה״ל.",
    "مُحَمَّدٌ رَسُولٌ، أَيْنَ الْكِتَابُ؟",
    "می‌خواهم بروم.",
    "Ọjọ́ dára, ọ̀rọ̀ àti ẹ̀kọ́.",
    "ภาษาไทย ง่าย",
    "👩‍🚒 👍🏽 🇫🇷 ❤️ 1️⃣ 🏴󠁧󠁢󠁥󠁮󠁧󠁿!",
]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("l'homme", ["l'", "homme"]),
        ("L'homme qu'il voit", ["L'", "homme", "qu'", "il", "voit"]),
        ("lorsqu'elle n'y va pas", ["lorsqu'", "elle", "n'", "y", "va", "pas"]),
        ("jusqu'à aujourd'hui", ["jusqu'", "à", "aujourd'hui"]),
        ("l’été", ["l’", "été"]),
        ("quelqu'un", ["quelqu'un"]),
        ("vingt-deux", ["vingt-deux"]),
        ("I don't, he won't.", ["I", "don't", ",", "he", "won't", "."]),
        ("the boys' dog", ["the", "boys", "'", "dog"]),
        ("est-ce vrai ?", ["est-ce", "vrai", "?"]),
        ("e\u0301te\u0301", ["été"]),
        ("  a   b ", ["a", "b"]),
        ("", []),
        ("l’été, don’t", ["l’", "été", ",", "don’t"]),
        ("$1,000 or 3,5 %", ["$", "1,000", "or", "3,5", "%"]),
        ("1, 2 and 3.", ["1", ",", "2", "and", "3", "."]),
        ("at 10:30: go", ["at", "10:30", ":", "go"]),
        ("the U.S. and the E.U.", ["the", "U.S", ".", "and", "the", "E.U", "."]),
        ("a cat.A dog.", ["a", "cat", ".", "A", "dog", "."]),
        ("and/or", ["and", "/", "or"]),
        ("5€ 5 € €5", ["5€", "5", "€", "€", "5"]),
        ("-5 or 10-5 - 3", ["-5", "or", "10-5", "-", "3"]),
        ("20°C", ["20°C"]),
        ("हिन्दी", ["हिन्दी"]),
        ("שָׁלוֹם", [unicodedata.normalize("NFC", "שָׁלוֹם")]),
        ("ọ̀rọ̀", ["ọ̀rọ̀"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("👩\u200d🚒👍🏽🇫🇷🇩🇪", ["👩\u200d🚒", "👍🏽", "🇫🇷", "🇩🇪"]),
        ("so\u00adft hy\u200bphen\ufeff", ["soft", "hyphen"]),
    ],
)
def test_word_tokenize(text, tokens):
    assert word_tokenize(text) == tokens


@pytest.mark.parametrize("text", [*ENGLISH, *FRENCH, *OTHERS])
def test_detokenize_is_the_inverse_on_tidy_text(text):
    text = unicodedata.normalize("NFC", text)
    assert word_detokenize(word_tokenize(text), "fr" if text in FRENCH else None) == text


@given(st.text(), st.sampled_from([None, "fr"]))
@example("l' 'x $ 5 / 6 - 7 , 8 : 9 U . S .", None)
@example("{ .0 $ -5", None)
@example("? ! € 5 « a » % ( . 5", "fr")
def test_what_was_joined_is_tidy(text, language):
    tidy = word_detokenize(word_tokenize(text), language)
    assert word_detokenize(word_tokenize(tidy), language) == tidy


def test_detokenize_spaces_punctuation_as_the_language_does():
    assert word_detokenize(["oui", "?"], "fr") == "oui ?"
    assert word_detokenize(["yes", "?"], "en") == word_detokenize(["yes", "?"]) == "yes?"
    quoted = 'a "small cat" (and "a dog") sleeps...'
    assert word_detokenize(word_tokenize(quoted)) == quoted
    assert word_detokenize([]) == ""


@given(st.text())
def test_tokenize_loses_only_spaces(text):
    assert "".join(word_tokenize(text)) == "".join(normalise(text).split())


SEEN = {  # signs of Unicode's category Cf that one sees
    *range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD,
    *range(0x13430, 0x13440),
}  # fmt: skip
SHAPING = {0x180E, 0x200C, 0x200D, *range(0xE0020, 0xE0080)}


def test_every_character_without_meaning_is_dropped():
    for code in range(sys.maxunicode + 1):
        character, kind = chr(code), unicodedata.category(chr(code))
        if kind in ("Cc", "Cf") and not character.isspace() and code not in SEEN:
            assert normalise(f"a{character}b") == "ab" and normalise(character) == "", hex(code)
            meant = f"न{character}न" if code in SHAPING else "नन"
            assert normalise(f"न{character}न") == meant, hex(code)
        elif kind[0] in "LNPSZ" and code not in (0x3164, 0xFFA0):  # fillers of Hangul
            assert normalise(character), hex(code)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("\ufeffA\u00adb\u200b \u202ac\u202c\x00", "Ab c"),
        ("e\u00ad\u0301", "é"),
        ("e\u200d\u0301\u200d", "é"),
        ("cat\u200c \u200dcat\ufe0f", "cat cat"),
        ("\ufe0f\u200d\u200b", ""),
        ("#\ufe0f\u20e3 ©\ufe0f ‼\ufe0f", "#\ufe0f\u20e3 ©\ufe0f ‼\ufe0f"),
        ("m² ½ nº ﬁ", "m² ½ nº ﬁ"),
        ("a\u2028b\tc\nd", "a\u2028b\tc\nd"),
        *((unicodedata.normalize("NFC", text),) * 2 for text in OTHERS),
    ],
)
def test_normalise(text, expected):
    assert normalise(text) == expected


MIXED = st.characters(exclude_categories=["Cs"]) | st.sampled_from("\u200d\u200b\ufe0fe\u0301न👍")


@given(st.text(MIXED))
def test_the_normal_form_is_its_own(text):
    once = normalise(text)
    assert normalise(once) == once and unicodedata.is_normalized("NFC", once)


def test_half_a_surrogate_pair_is_no_text():
    for text in ("\ud83d", "a \udc00 b"):
        with pytest.raises(ValueError, match="half a surrogate pair"):
            normalise(text)


@pytest.mark.parametrize(
    "name, code",
    [("fr", "fr"), ("FR", "fr"), ("French", "fr"), ("français", "fr"), ("fr-CA", "fr"),
     ("fr_FR", "fr"), ("English", "en"), ("en", "en"), ("de", "de"), (None, None)],
)  # fmt: skip
def test_names_of_languages(name, code):
    assert language_code(name) == code
    assert word_detokenize(["oui", "?"], name) == ("oui ?" if code == "fr" else "oui?")


@pytest.mark.parametrize("wrong", ["", "Klingon", 3, "f"])
def test_what_is_no_language_is_refused(wrong):
    with pytest.raises(ValueError, match=r'language must be a code such as "en" or "fr"'):
        language_code(wrong)


def test_each_of_takes_what_has_an_order():
    series = pd.Series(["a", "b"], index=[7, 3])
    for values in (["a", "b"], ("a", "b"), series, np.array(["a", "b"]), (c for c in "ab")):
        assert list(each_of(values, "texts")) == ["a", "b"]
    for wrong in ("ab", b"ab", {"a": "b"}, pd.DataFrame({"a": ["b"]})):
        with pytest.raises(TypeError, match="texts must be a list, not"):
            each_of(wrong, "texts")
