"""Text before it is numbered: its normal form, its words and how they are joined."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

# Invisible, and without a meaning: control characters, soft hyphen, spaces of no width, marks of
# direction, fillers.
_INVISIBLE = (
    "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u17b4\u17b5\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001"
)
# These shape what stands before them: joiners, selectors of a variant, the tags of flags. After
# Latin letters and most ASCII they do nothing.
_SHAPING = "\u180e\u200c\u200d\ufe00-\ufe0f\U000e0020-\U000e007f\U000e0100-\U000e01ef"
_UNSHAPED = rf"[^\s{_INVISIBLE}\x00-\u024f\u0300-\u036f\u1e00-\u2027]"
_HALF = re.compile("[\ud800-\udfff]")
_MEANINGLESS = re.compile(rf"[{_INVISIBLE}]+|(?<!{_UNSHAPED})(?<![0-9#*©®])[{_SHAPING}]+")


def normalise(text: str) -> str:
    """The text as every vocabulary reads it: in Unicode's form NFC, without what has no meaning.

    Dropped are control characters and what is invisible: byte-order marks, soft hyphens, spaces of
    no width, marks of direction. Joiners and variant selectors stay where they may mean something,
    as in Persian, Indic scripts and emoji. A text of nothing else becomes empty. Raises ValueError
    for half a surrogate pair, which is no character.
    """
    if text.isascii() and text.isprintable():
        return text
    if _HALF.search(text):
        raise ValueError(f"{text!r} holds half a surrogate pair, which is no character")
    text = _MEANINGLESS.sub("", unicodedata.normalize("NFC", text))
    return unicodedata.normalize("NFC", text)  # what was dropped may have kept an accent apart


def _marks() -> str:
    """Accents, vowel signs and what else belongs to the character before it, as regex ranges."""
    codes = [code for code in range(0x300, 0x1F000) if unicodedata.category(chr(code))[0] == "M"]
    ends = [n for n in range(1, len(codes)) if codes[n] - codes[n - 1] > 1]
    ranges = zip([0, *ends], [*ends, len(codes)], strict=True)
    return "".join(f"{chr(codes[start])}-{chr(codes[end - 1])}" for start, end in ranges)


_MARKS = _marks() + _SHAPING + "\U0001f3fb-\U0001f3ff"  # and the colours of skin
_ELISION = r"(?:[ldjmtscn]|qu|jusqu|lorsqu|puisqu)['’]"
_PART = rf"\w[\w{_MARKS}]*"
# Inside a word; between the letters of U.S; between digits.
_INNER = r"[-'’&·\u058a\u05be\u05f3\u05f4\u2010\u2011](?=\w)"
_INNER += r"|(?<=\b[^\W\d_])\.(?=[^\W\d_]\b)|(?<=\d)[.,:](?=\d)"
_UNIT = r"(?<=\d)(?:[€£¥₹$¢°](?!\w)|°[CF]\b)"
_OPENING = "([{“$#/¿¡"
_OPEN = re.escape(_OPENING + '«"')
_SYMBOL = rf"[^\w\s][{_MARKS}]*"
_TOKEN = re.compile(
    rf"{_ELISION}(?=\w)"
    rf"|(?:(?<![^\s{_OPEN}])[-+−.](?=\d))?{_PART}(?:(?:{_INNER}){_PART})*(?:{_UNIT})?"
    rf"|[\U0001f1e6-\U0001f1ff]{{2}}|{_SYMBOL}(?:(?<=\u200d){_SYMBOL})*",
    re.IGNORECASE,
)
_ENDS_IN_ELISION = re.compile(_ELISION, re.IGNORECASE)
_LANGUAGES = {"english": "en", "anglais": "en", "french": "fr", "français": "fr"}


def word_tokenize(text: str) -> list[str]:
    """Cut English or French text into words and punctuation marks; the case stays as it is.

    A French elision keeps its apostrophe and stands alone ("l'homme" gives "l'", "homme"); a word
    with an inner apostrophe or hyphen is one token ("don't", "vingt-deux", "aujourd'hui"), and so
    are a number ("1,000", "10:30", "-5", "20°C", "5€", but "$", "5"), letters with dots between
    them ("U.S", "."), a letter with its marks in any script, an emoji; every other mark is a token.
    The text is taken in its `normalise`d form.
    """
    return _TOKEN.findall(normalise(text))


def word_detokenize(tokens: Sequence[str], language: str | None = None) -> str:
    """Join tokens into text: the inverse of `word_tokenize` on tidily spaced text.

    Tidy is one space between words, none before a closing mark, after an opening one, or around a
    slash; and quotation in “ ”, « » or " ". French (`language="fr"`) has a space before ? ! : ; % €
    and inside « »; otherwise none stands there. Addresses and program code are not tidy.
    """
    french = language_code(language) == "fr"
    closing = {*".,)]}…”'’/", *"।॥،؛؟۔"}
    opening = {*_OPENING}
    currency = set() if french else {*"€£¥₹"}
    closing_quote = False
    if not french:
        closing |= {*"?!:;»%"}
        opening |= {"«"}
    text, glue, before = "", True, ""
    for token in tokens:
        straight = token == '"'
        glue = glue or token in closing or (straight and closing_quote)
        glue = glue or (before in currency and token[:1].isdigit())
        glue = glue or (before in ("?", "!") and token in ("?", "!"))
        text += token if glue else f" {token}"
        glue = token in opening or bool(_ENDS_IN_ELISION.fullmatch(token))
        if straight:  # the same mark opens and closes, in turn
            glue = closing_quote = not closing_quote
        before = token
    return text


def language_code(language: str | None) -> str | None:
    """The short code of a language: "fr" of "fr", "FR", "fr-CA" or "French"; None of None.

    Raises ValueError for what is neither a code nor the name of English or French.
    """
    if language is None:
        return None
    name = str(language).lower()
    code = _LANGUAGES.get(name) or re.split("[-_]", name)[0]
    if not re.fullmatch("[a-z]{2,3}", code):
        raise ValueError(f'language must be a code such as "en" or "fr", or None, not {language!r}')
    return code


def each_of(values: Iterable, name: str) -> Iterator[Any]:
    """The items of a list, an array, a pandas Series, or anything else that has an order.

    Raises TypeError, with the `name` of the values, for one string, and for a dict or a DataFrame,
    whose keys would come in place of what is in them.
    """
    if isinstance(values, (str, bytes)):
        raise TypeError(f"{name} must be a list, not one string (put it in a list)")
    if isinstance(values, Mapping) or hasattr(values, "columns"):
        kind = type(values).__name__
        raise TypeError(f"{name} must be a list, not a {kind}: give a column of it, or its .values")
    return iter(values)
