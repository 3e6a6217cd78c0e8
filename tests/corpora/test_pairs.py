"""The reader of one's own pairs, on files as people and spreadsheets make them."""

import csv
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2s_helpers.corpora import Pair, read_pairs
from s2s_helpers.text import normalise

PAIRS = [Pair("A man.", "Un homme."), Pair("A dog, a cat.", "Un chien, un chat.")]
CSV = 'A man.,Un homme.\n"A dog, a cat.","Un chien, un chat."\n'
JSONL = "".join(json.dumps({"source": p.source, "target": p.target}) + "\n" for p in PAIRS)


@pytest.fixture
def file(tmp_path):
    """Write a file of this name, and give its path."""

    def write(name, content):
        content = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["unix", "windows"])
@pytest.mark.parametrize(
    "name, text",
    [
        ("a.csv", CSV),
        ("A.CSV", CSV),
        ("a.csv", "source,target\n" + CSV),
        ("a.csv", "English,French\n" + CSV),
        ("a.tsv", CSV.replace('an.,U', 'an.\tU').replace('","', '"\t"')),
        ("a.TSV", "en\tfr\nA man.\tUn homme.\nA dog, a cat.\tUn chien, un chat."),
        ("a.jsonl", JSONL),
        ("a.JSONL", JSONL.replace("source", "en").replace("target", "fr")
            .replace("{", '{"translation": {').replace("}", "}}")),
    ],
)  # fmt: skip
def test_every_kind_of_file(file, name, text, end, mark):
    path = file(name, mark + text.replace("\n", end).encode())
    pairs = read_pairs(path)
    assert pairs == PAIRS and pairs.skipped == 0 and isinstance(pairs, list)
    assert read_pairs(str(path), limit=1) == PAIRS[:1]


def test_two_text_files(file):
    source = file("a.en", "\ufeffA man.\nTwo\u2028dogs \x0bplay.\r\n")
    target = file("a.fr", "Un homme.\n  Deux chiens jouent.")
    pairs = read_pairs(source, target)
    assert pairs == [PAIRS[0], Pair("Two\u2028dogs \x0bplay.", "Deux chiens jouent.")]


@pytest.mark.parametrize(
    "name, text",
    [
        ("a.csv", "a,b\n\nc,\n,d\n  , \n\ufeff,e\nf,g\n\n"),
        ("a.tsv", "a\tb\n\nc\t\n\td\n  \t \n\ufeff\te\nf\tg\n\n"),
        ("a.jsonl", '{"source": "a", "target": "b"}\n\n{"source": "c", "target": ""}\n'
            '{"source": null, "target": "d"}\n  \n{"source": "\ufeff", "target": "e"}\n'
            '{"source": "f", "target": "g"}\n\n'),
    ],
)  # fmt: skip
def test_rows_with_an_empty_side_are_skipped_and_counted(file, name, text):
    pairs = read_pairs(file(name, text), header=False)
    assert pairs == [Pair("a", "b"), Pair("f", "g")] and pairs.skipped == 6


def test_lines_with_an_empty_side_are_skipped_and_counted(file):
    source, target = file("en", "a\n\nc\n \nf\n\n\n"), file("fr", "b\n\n\nd\ng\n")
    pairs = read_pairs(source, target)
    assert pairs == [Pair("a", "b"), Pair("f", "g")] and pairs.skipped == 5


@pytest.mark.parametrize(
    "first, rest, header, expected",
    [
        ("source,target", {}, None, "b"),
        ("Source , TARGET", {}, None, "b"),
        ("target,source", {}, None, "c"),
        ("id,target,source", {}, None, "c"),
        ("fr,en", {}, None, "b"),
        ("fr,en", dict(columns=("en", "fr")), None, "c"),
        ("id,from,to", dict(columns=("from", "to")), None, "b"),
        ("id,from,to", dict(columns=("to", "from")), True, "c"),
        ("anything,at all", {}, True, "b"),
    ],
)
def test_a_header_names_the_columns(file, first, rest, header, expected):
    row = "1,b,c" if first.startswith("id") else "b,c"
    other = {"b": "c", "c": "b"}[expected]
    found = read_pairs(file("a.csv", f"{first}\n{row}\n"), header=header, **rest)
    assert found == [Pair(expected, other)] and found.skipped == 0


@pytest.mark.parametrize("first", ["hello,bonjour", "en,en", "the source,the target", "no,non"])
def test_what_is_no_header_is_a_pair(file, first):
    assert len(read_pairs(file("a.csv", f"{first}\na,b\n"))) == 2


def test_header_false_keeps_the_first_row(file):
    path = file("a.csv", "source,target\na,b\n")
    assert read_pairs(path, header=False)[0] == Pair("source", "target")
    with pytest.raises(ValueError, match="does not name"):
        read_pairs(path, columns=("source", "target"), header=False)


def test_other_delimiters_and_raw_quotation_marks(file):
    assert read_pairs(file("a.csv", "a, b;c\n"), delimiter=";") == [Pair("a, b", "c")]
    path = file("a.tsv", '"Go!" he cried.\t« Va ! »\nHe said "hi".\tb\n')
    with pytest.raises(ValueError, match=r"a\.tsv: row 1, .*quotes=False"):
        read_pairs(path)
    assert read_pairs(path, quotes=False)[0] == Pair('"Go!" he cried.', "« Va ! »")


@given(st.lists(st.tuples(*[st.text("a,b\"'\t é«;", min_size=1)] * 2), min_size=1))
def test_what_a_spreadsheet_writes_is_read(tmp_path_factory, rows):
    rows = [[text.strip() for text in row] for row in rows] + [["x", "y"]]
    path = tmp_path_factory.mktemp("pairs") / "a.csv"
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows(rows)
    assert read_pairs(path, header=False) == [Pair(*row) for row in rows if all(row)]


def rows_of(text, delimiter):
    """The rows of a table by RFC 4180, or None where a quotation mark is out of place."""
    rows, row, cell, quoted, at = [], [], "", False, 0
    fresh = True  # at the start of a cell, where a mark may open it
    while at < len(text):
        one, at = text[at], at + 1
        if quoted:
            if one != '"':
                cell += one
            elif text[at : at + 1] == '"':
                cell, at = cell + one, at + 1
            elif text[at : at + 1] in ("", "\n", delimiter):
                quoted = False
            else:
                return None
        elif one == '"' and fresh:
            quoted, fresh = True, False
        elif one in ("\n", delimiter):
            row, cell, fresh = [*row, cell], "", True
            if one == "\n":
                rows, row = [*rows, row], []
        else:
            cell, fresh = cell + one, False
    if quoted:
        return None
    return rows if fresh and not row and not cell else [*rows, [*row, cell]]


TABLE = ["a,b\n", '"e\nf",g\r\n', ",h\n", "é,\u200b\n", '"x""y",z\n', "\n", "en,fr\n", '"', "q"]
GOOD = {
    ".csv": TABLE,
    ".tsv": [row.replace(",", "\t") for row in TABLE],
    ".jsonl": ['{"source": "a", "target": "é"}\n', "\n", '{"source": "", "target": "b"}\r\n'],
    ".txt": ["a\n", "\n", "é\u2028b\n", "c \x0bd\r\n"],
}
JUNK = ["", "", "", '"', ",", "\t", "\n", "\r", "\ufeff", "\u200b", "{", "a", "[", "\0"]


@pytest.mark.parametrize("suffix", GOOD)
@given(st.data())
@settings(max_examples=200)
def test_a_mangled_file_is_read_whole_or_named_with_its_row(tmp_path_factory, suffix, data):
    def mangled():
        rows = data.draw(st.lists(st.sampled_from(GOOD[suffix]), max_size=6))
        whole, junk = "".join(rows).encode(), data.draw(st.sampled_from(JUNK)).encode()
        at, more = data.draw(st.integers(0, len(whole))), data.draw(st.integers(0, 3))
        # Something comes between, or in the place of, or all that follows is lost.
        return whole[:at] + junk + (b"" if more == 3 else whole[at + more :])

    path = tmp_path_factory.mktemp("pairs") / f"mangled{suffix}"
    target = path.with_name("mangled.fr") if suffix == ".txt" else None
    path.write_bytes(one := mangled())
    two = mangled() if target else one
    if target:
        target.write_bytes(two)
    try:
        found = read_pairs(path, target, header=False)
    except ValueError as error:
        assert re.search(r"mangled\.\w+.*(row|lines, but)", str(error), re.DOTALL)
        return
    text = re.sub("\r\n?", "\n", one.decode("utf-8"))
    if suffix in (".txt", ".jsonl"):
        lines = [whole.count(b"\n") + (whole[-1:] not in (b"", b"\n")) for whole in (one, two)]
        assert len(found) + found.skipped == max(lines)
        return
    rows = rows_of(text.removeprefix("\ufeff"), {".csv": ",", ".tsv": "\t"}[suffix])
    expected = [[normalise(cell).strip() for cell in row] for row in rows]
    plain = [Pair(*(re.sub("\r\n?", "\n", t) for t in (p.source, p.target))) for p in found]
    assert plain == [Pair(*row) for row in expected if len(row) == 2 and all(row)]
    assert len(found) + found.skipped == len(rows)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(columns=("en", "en")), "columns must be two different names"),
        (dict(columns="en"), "columns must be two different names"),
        (dict(columns=("en",)), "columns must be two different names"),
        (dict(delimiter="ab"), "delimiter must be one character"),
        (dict(delimiter=""), "delimiter must be one character"),
        (dict(delimiter='"'), "delimiter must be one character"),
        (dict(limit=-1), "limit must be 1 or more"),
    ],
)
def test_settings_that_cannot_be(file, wrong, message):
    with pytest.raises(ValueError, match=message):
        read_pairs(file("a.csv", "en,fr\na,b\n"), **wrong)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.en"])
def test_what_is_invisible_is_dropped_and_nothing_else(file, name):
    rows = [
        ("\u200bso\u00adft\u202a", "e\u0301t\u00e9\u2060"),
        ("\u200b", "x"),
        ("ﬁ m²", "می\u200cخواهم"),
    ]
    expected = [Pair("soft", "été"), Pair("ﬁ m²", "می\u200cخواهم")]
    both = None
    if name == "a.jsonl":
        text = "\n".join(json.dumps({"source": one, "target": two}) for one, two in rows)
    elif name == "a.en":
        text, both = "\n".join(one for one, _ in rows), file("a.fr", "\n".join(r[1] for r in rows))
    else:
        text = "\n".join({"a.csv": ",", "a.tsv": "\t"}[name].join(row) for row in rows)
    pairs = read_pairs(file(name, text), both)
    assert pairs == expected and pairs.skipped == 1


def test_the_first_rows_may_be_invisible_and_a_header_marked(file):
    path = file("a.csv", "\u200b\n\ufeff\u200bsource,\u200btarget\na,b\n\u00ad\nc,d\n")
    pairs = read_pairs(path)
    assert pairs == [Pair("a", "b"), Pair("c", "d")] and pairs.skipped == 2


def test_a_text_may_hold_a_line_break_in_quotation_marks(file):
    assert read_pairs(file("a.csv", '"a\nb",c\nd,e\n')) == [Pair("a\nb", "c"), Pair("d", "e")]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.csv", 'a,b\n"c,d\ne,f\n', r"a\.csv: row 2, which begins in line 2: .*close it"),
        ("a.csv", 'a,b\n"c,d\ne,f\n"g","h"\n', r"a\.csv: row 2, which begins in line 2"),
        ("a.csv", 'a,"b\nc"\n"d" e,f\n', r"a\.csv: row 2, which begins in line 3"),
        ("a.csv", "a,b\nc\n", r"a\.csv: row 2 has 1 columns, not 2: \['c'\]"),
        ("a.csv", "a,b\nc,d,e\n", r"row 2 has 3 columns, not 2"),
        ("a.csv", "\na,b,c\n", "3 columns between marks ',', not 2.*by name"),
        ("a.csv", "a;b\n", "1 columns between marks ','.*another delimiter"),
        ("a.csv", b"a,b\nc,caf\xe9\n", r"a\.csv: row 2 is not UTF-8: 'caf"),
        ("a.csv", "a,b\n".encode("utf-16"), r"a\.csv: row 1 is not UTF-8"),
        ("a.csv", "a,b\n".encode("utf-16-le"), r"a\.csv: row 1 has a zero byte, as UTF-16 has"),
        ("a.csv", "a,b\n" + "x" * 200_000, r"a\.csv: row 2, .*field larger"),
        ("a.jsonl", "\n" + "[" * 100_000, r"a\.jsonl: row 2 is not JSON"),
        ("a.jsonl", '{"source": "a", "target": NaN}', r"a\.jsonl: row 1 has nan where a text"),
        ("a.jsonl", '{"source": "a", "target": 5}\n', r"a\.jsonl: row 1 has 5 where a text"),
        ("a.jsonl", '{"source": ["a"], "target": "b"}\n', r"row 1 has \['a'\] where a text"),
        ("a.jsonl", '{"source": "a", "target": "b"}\n{"source": "c", "tar', "row 2 is not JSON"),
        ("a.jsonl", '{"source": "a"}\n', "row 1 needs source and target"),
        ("a.jsonl", '["a", "b"]\n', "row 1 needs source and target"),
        ("a.jsonl", '{"translation": {"en": "a", "fr": "b"}}\n{"translation": {"en": "a"}}',
            "row 2 needs en and fr"),
        ("a.jsonl", '{"source": "\\ud83d", "target": "b"}', "row 1 is not UTF-8"),
        ("a.jsonl", b'{"source": "caf\xe9", "target": "b"}', "row 1 is not UTF-8"),
        ("a.csv", "", "has no pairs"),
        ("a.csv", "source,target\n", "has no pairs"),
        ("a.csv", "\n\n,a\n", "has no pairs; rows with an empty side: 3"),
        ("a.jsonl", "\n", "has no pairs"),
        ("a.xlsx", "a,b", r"a\.xlsx must end in \.csv, \.tsv or \.jsonl, or have a second"),
    ],
)  # fmt: skip
def test_errors_name_file_and_row(file, name, content, message):
    with pytest.raises(ValueError, match=message):
        read_pairs(file(name, content))


@pytest.mark.parametrize("lines", [(3, 5), (5, 3)])
def test_text_files_of_unlike_length_are_named_with_both_counts(file, lines):
    one, other = (file(f"{n}.txt", "a\n" * count) for n, count in enumerate(lines))
    with pytest.raises(ValueError, match=rf"0\.txt has {lines[0]} lines, .*1\.txt has {lines[1]}"):
        read_pairs(one, other)
    assert len(read_pairs(one, other, limit=2)) == 2


def test_the_target_that_is_not_utf_8_is_named(file):
    with pytest.raises(ValueError, match=r"a\.fr: row 2 is not UTF-8"):
        read_pairs(file("a.en", "a\nb\n"), file("a.fr", b"a\n\xff\n"))


def test_empty_text_files_missing_files_and_limits(file, tmp_path):
    with pytest.raises(ValueError, match="has no pairs"):
        read_pairs(file("a.en", ""), file("a.fr", "\n"))
    with pytest.raises(FileNotFoundError, match="nothing"):
        read_pairs(tmp_path / "nothing.csv")
    with pytest.raises(ValueError, match="limit must be 1 or more, not 0"):
        read_pairs(file("a.csv", "a,b"), limit=0)


def test_jsonl_columns_by_name(file):
    path = file("a.jsonl", '{"en": "a", "fr": "b", "id": 1}\n')
    assert read_pairs(path, columns=("fr", "en")) == [Pair("b", "a")]
    path = file("a.jsonl", '{"translation": {"en": "a", "fr": "b"}}\n{"translation": '
        '{"fr": "d", "en": "c"}}\n')  # fmt: skip
    assert read_pairs(path, columns=("fr", "en")) == [Pair("b", "a"), Pair("d", "c")]
    assert read_pairs(path) == [Pair("a", "b"), Pair("c", "d")]
