"""Text to numbers and back: words, characters and subwords behind one interface.

A model sees ids only. A vocabulary cuts text into tokens, numbers the tokens, and turns a model's
ids into text again. Each language gets a vocabulary of its own (or both share one of subwords),
always built from training sentences alone.
"""

from __future__ import annotations

import base64
import io
import json
import operator
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import sentencepiece

from s2s_helpers.files import atomic_write
from s2s_helpers.text import each_of, language_code, normalise, word_detokenize, word_tokenize

PAD, UNK, SOS, EOS = 0, 1, 2, 3
SPECIALS = ("<pad>", "<unk>", "<sos>", "<eos>")

FORMAT = 2  # of saved vocabularies
_OTHER_APOSTROPHE = str.maketrans("'’", "’'")


def _sentences(sentences: Iterable[str]) -> Iterator[str]:
    for number, sentence in enumerate(each_of(sentences, "sentences")):
        if not isinstance(sentence, str):
            raise TypeError(f"sentence {number} is {sentence!r}, not a string")
        yield sentence


class BaseVocabulary:
    """What every vocabulary shares; `tokenize`, `_ids`, `_token`, `_join` and `to_dict` differ.

    A subclass enters `classes` by itself, so that `vocabulary_from_dict` knows it by its name.
    """

    classes: ClassVar[dict[str, type[BaseVocabulary]]] = {}
    level: str
    lowercase: bool
    language: str | None

    def __init_subclass__(cls) -> None:
        BaseVocabulary.classes[cls.__name__] = cls

    tokenize: Callable[[str], list[str]]  # the tokens of a text, known or not
    _ids: Callable[[str], list[int]]
    _token: Callable[[int], str]
    _join: Callable[[list[int]], str]
    __len__: Callable[[], int]

    def encode(self, text: str) -> list[int]:
        """The ids of a sentence, ending with EOS and without SOS; an unknown token is UNK.

        Raises ValueError where the text has no token at all.
        """
        if not isinstance(text, str):
            raise TypeError(f"text must be a string, not {type(text).__name__}")
        ids = self._ids(text)
        if not ids:
            raise ValueError(f"cannot encode an empty sentence: {text!r}")
        return [*ids, EOS]

    def decode(self, ids: Iterable[int], source: str | None = None) -> str:
        """The text of a sentence's ids, up to the first EOS; PAD and SOS are left out.

        `source`, the text that was translated, is for vocabularies that copy from it. Raises
        ValueError where an id is outside the vocabulary.
        """
        ids = self._checked(ids)
        if EOS in ids:
            ids = ids[: ids.index(EOS)]
        return self._join([index for index in ids if index not in (PAD, SOS)])

    def tokens(self, ids: Iterable[int], source: str | None = None) -> list[str]:
        """Every id as its token, specials included: the labels of a plot. `source` as above."""
        return [self._token(index) for index in self._checked(ids)]

    def to_dict(self) -> dict[str, Any]:
        """Everything `vocabulary_from_dict` needs, in plain strings, lists and numbers."""
        about = {"format": FORMAT, "class": type(self).__name__}
        return about | {"lowercase": self.lowercase, "language": self.language}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> Self:
        """The vocabulary of these entries of `to_dict`, "format" and "class" left out."""
        return cls(**saved)

    def save(self, path: str | os.PathLike) -> None:
        """Write the vocabulary as JSON; the file is the old one or the new one, never a part."""
        with atomic_write(path) as file:
            file.write(json.dumps(self.to_dict(), ensure_ascii=False).encode("utf-8"))

    def __eq__(self, other: object) -> bool:
        if self is other:  # as in every step of a distillation
            return True
        return type(self) is type(other) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        language = f", language={self.language!r}" if self.language else ""
        return f"<{type(self).__name__} of {len(self):,} tokens, level={self.level!r}{language}>"

    def _checked(self, ids: Iterable[int]) -> list[int]:
        ids = [operator.index(index) for index in (ids.tolist() if hasattr(ids, "tolist") else ids)]
        for index in ids:
            if not 0 <= index < len(self):
                raise ValueError(
                    f"id {index} is outside the vocabulary of {len(self)} tokens "
                    f"(0 to {len(self) - 1})"
                )
        return ids

    def _prepared(self, text: str) -> str:
        return normalise(text.lower() if self.lowercase else text)


class Vocabulary(BaseVocabulary):
    """Words or characters, each with an id; ids 0 to 3 are `SPECIALS`.

    `Vocabulary.build` counts the tokens of training sentences; `Vocabulary(tokens)` takes tokens in
    the order of their ids, from id 4 on. `lowercase` is True for words and False for characters
    unless told otherwise; `language` ("en", "fr" or None) tells `decode` how punctuation is spaced.
    An unknown word that is known with the other apostrophe, ' or ’, gets that one's id.
    """

    def __init__(
        self, tokens: Iterable[str], level: str = "word", lowercase: bool | None = None,
        language: str | None = None,
    ):  # fmt: skip
        if level not in ("word", "character"):
            raise ValueError(f'level must be "word" or "character", not {level!r}')
        self.level = level
        self.lowercase = level == "word" if lowercase is None else lowercase
        self.language = language_code(language)
        self._tokens = [*SPECIALS, *each_of(tokens, "tokens")]
        self._index = {token: index for index, token in enumerate(self._tokens)}
        if not all(isinstance(token, str) and token for token in self._tokens):
            raise ValueError("every token must be a string of at least one character")
        if len(self._index) != len(self._tokens):
            twice = next(token for token, count in Counter(self._tokens).items() if count > 1)
            raise ValueError(
                f"the token {twice!r} stands twice among the tokens (the specials count too)"
            )

    @classmethod
    def build(
        cls, sentences: Iterable[str], level: str = "word", min_count: int = 1,
        max_size: int | None = None, lowercase: bool | None = None, language: str | None = None,
    ) -> Self:  # fmt: skip
        """Number the tokens of training sentences, the most frequent first, ties alphabetically.

        Tokens seen fewer than `min_count` times are left to UNK, and so are those beyond
        `max_size` (specials counted). Raises ValueError where no token is left.
        """
        if min_count < 1 or (max_size is not None and max_size <= len(SPECIALS)):
            raise ValueError(
                f"min_count must be at least 1 and max_size above 4, not {min_count} and {max_size}"
            )
        rules = cls((), level, lowercase, language)
        counts = Counter(t for sentence in _sentences(sentences) for t in rules.tokenize(sentence))
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        kept = [token for token, count in ranked if count >= min_count]
        if not kept:
            raise ValueError(
                f"no token is left: {len(counts)} tokens in all, min_count={min_count}"
            )
        if max_size is not None:
            kept = kept[: max_size - len(SPECIALS)]
        return cls(kept, level, lowercase, language)

    @classmethod
    def numbered(cls, size: int) -> Self:
        """`size` ids of made-up words "w4", "w5" and so on, for tests and benchmarks."""
        if size <= len(SPECIALS):
            raise ValueError(f"size must be above 4, the number of specials, not {size}")
        return cls(f"w{index}" for index in range(len(SPECIALS), size))

    def tokenize(self, text: str) -> list[str]:
        text = self._prepared(text)
        return word_tokenize(text) if self.level == "word" else list(" ".join(text.split()))

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"level": self.level, "tokens": self._tokens[len(SPECIALS) :]}

    def __len__(self) -> int:
        return len(self._tokens)

    def __contains__(self, token: object) -> bool:
        return token == SPECIALS[UNK] or (isinstance(token, str) and self._id(token) != UNK)

    def _ids(self, text: str) -> list[int]:
        return [self._id(token) for token in self.tokenize(text)]

    def _id(self, token: str) -> int:
        return self._index.get(token) or self._index.get(token.translate(_OTHER_APOSTROPHE), UNK)

    def _token(self, index: int) -> str:
        return self._tokens[index]

    def _join(self, ids: list[int]) -> str:
        tokens = [self._tokens[index] for index in ids]
        return word_detokenize(tokens, self.language) if self.level == "word" else "".join(tokens)


class SubwordVocabulary(BaseVocabulary):
    """Pieces of words, learned by byte-pair encoding (Sennrich et al. 2016, §3.2).

    Frequent words are one piece, rare ones several, and hardly any text needs UNK. A piece that
    starts a word carries the mark "▁", so text comes back with its spaces. Make one with
    `SubwordVocabulary.train`; sentencepiece does the work.

    A text is `normalise`d and its spaces become single ones; sentencepiece's own rules, which write
    m2 for m², 1⁄2 for ½ and no for nº, are not used. "▁" in a text is read as "_", and an
    apostrophe, ' or ’, that training did not show as the other one.
    """

    level = "subword"

    def __init__(self, model: bytes, lowercase: bool = False, language: str | None = None):
        self.lowercase = lowercase
        self.language = language_code(language)
        if not model:
            raise ValueError("not a sentencepiece model: it is empty")
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
            specials = tuple(self._processor.id_to_piece([PAD, UNK, SOS, EOS]))
        except (RuntimeError, IndexError, TypeError) as error:
            raise ValueError(f"not a sentencepiece model: {error}") from error
        if specials != SPECIALS:
            raise ValueError(
                f"the sentencepiece model must have {SPECIALS} as ids 0 to 3, not {specials}"
            )

    @classmethod
    def train(
        cls, sentences: Iterable[str], size: int = 4000, lowercase: bool = False,
        language: str | None = None,
    ) -> Self:  # fmt: skip
        """Learn `size` pieces, specials counted; the same sentences always give the same pieces.

        Pass training sentences of both languages to share one vocabulary. Raises ValueError where
        they are too few for so many pieces, or have more different characters than that.
        """
        rules = cls.__new__(cls)
        rules.lowercase = lowercase
        prepared = [rules._prepared(sentence) for sentence in _sentences(sentences)]
        if not any(prepared):
            raise ValueError("there is no sentence to learn subwords from")
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(prepared), model_writer=model, model_type="bpe",
                vocab_size=size, character_coverage=1.0, max_sentence_length=1 << 20,
                normalization_rule_name="identity",
                pad_id=PAD, unk_id=UNK, bos_id=SOS, eos_id=EOS,
                pad_piece=SPECIALS[PAD], unk_piece=SPECIALS[UNK], bos_piece=SPECIALS[SOS],
                eos_piece=SPECIALS[EOS], unk_surface=SPECIALS[UNK],
                num_threads=1, minloglevel=2,
            )  # fmt: skip
        except RuntimeError as error:
            text = f"cannot learn {size} subwords from these sentences: {error}"
            raise ValueError(text) from error
        return cls(model.getvalue(), lowercase, language)

    def tokenize(self, text: str) -> list[str]:
        """The pieces of a text, with the mark "▁" where a word starts."""
        return self._processor.encode(self._known(text), out_type=str)

    def to_dict(self) -> dict[str, Any]:
        model = base64.b64encode(self._processor.serialized_model_proto()).decode("ascii")
        return super().to_dict() | {"model": model}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> Self:
        return cls(**saved | {"model": base64.b64decode(saved["model"], validate=True)})

    def __len__(self) -> int:
        return self._processor.get_piece_size()

    def __contains__(self, token: object) -> bool:
        if not isinstance(token, str):
            return False
        return token == SPECIALS[UNK] or self._processor.piece_to_id(token) != UNK

    def _ids(self, text: str) -> list[int]:
        return self._processor.encode(self._known(text))

    def _prepared(self, text: str) -> str:
        return " ".join(super()._prepared(text).replace("▁", "_").split())

    def _known(self, text: str) -> str:
        text = self._prepared(text)
        for one, other in ("'’", "’'"):
            if one in text and one not in self and other in self:
                text = text.replace(one, other)
        return text

    def _token(self, index: int) -> str:
        return self._processor.id_to_piece(index)

    def _join(self, ids: list[int]) -> str:
        return self._processor.decode(ids)


def vocabulary_from_dict(saved: dict[str, Any]) -> BaseVocabulary:
    """The vocabulary that `to_dict` described. Raises ValueError where it describes none."""
    if not isinstance(saved, dict) or not {"format", "class"} <= saved.keys():
        raise ValueError('not a saved vocabulary: the entries "format" and "class" are missing')
    if saved["format"] != FORMAT:
        raise ValueError(f"a vocabulary of format {saved['format']!r}; {FORMAT} can be read here")
    if (kind := BaseVocabulary.classes.get(str(saved["class"]))) is None:
        known = ", ".join(sorted(BaseVocabulary.classes))
        raise ValueError(
            f"unknown vocabulary class {saved['class']!r}; known are {known}. Import the module "
            "that defines it first"
        )
    try:
        return kind.from_dict({k: v for k, v in saved.items() if k not in ("format", "class")})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a complete vocabulary: {error}") from error


def load_vocabulary(path: str | os.PathLike) -> BaseVocabulary:
    """Read what `save` wrote, of the class it was.

    Raises FileNotFoundError where there is no such file, ValueError where it is damaged or
    something else.
    """
    try:
        return vocabulary_from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no vocabulary file {path}") from None
    except ValueError as error:  # json and utf-8 errors are ValueErrors too
        raise ValueError(f"{path} is not a vocabulary file, or it is damaged: {error}") from error
