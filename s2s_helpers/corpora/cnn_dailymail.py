"""CNN/DailyMail: news articles and their highlights, read one by one as they come in.

Hermann et al. 2015, made into summaries of several sentences by Nallapati et al. 2016; See et al.
2017 use it without placeholders for names (version 3.0.0). It needs the package datasets. Nothing
is stored but what the hub's client keeps.
"""

import os
from collections.abc import Iterator
from itertools import islice
from urllib.parse import urlparse

from s2s_helpers.corpora import Pair
from s2s_helpers.corpora.hub import hub_address, why_no_hub
from s2s_helpers.corpora.pairs import check_limit
from s2s_helpers.optional import import_optional
from s2s_helpers.text import normalise

NAME, VERSION = "abisee/cnn_dailymail", "3.0.0"
SPLITS = ("train", "validation", "test")


def stream(
    split: str = "train", limit: int | None = None, path: str | os.PathLike | None = None,
    article_words: int = 400, highlight_words: int = 100,
) -> Iterator[Pair]:  # fmt: skip
    """The first `limit` (None: all) pairs of a split: article and highlights, cut to so many words
    (See et al. 2017, section 5).

    `path` names a .jsonl file of lines with "article" and "highlights" to read in place of the hub.
    Raises ValueError for another split, a limit below 1 or a line without these two texts,
    ConnectionError where the hub cannot be reached, FileNotFoundError for a path that is not there.
    """
    if split not in SPLITS:
        raise ValueError(f"CNN/DailyMail has the splits {', '.join(SPLITS)}, not {split!r}")
    check_limit(limit)
    load_dataset = import_optional("datasets").load_dataset
    if path is None:
        if why := why_no_hub():
            host = urlparse(hub_address()).hostname
            raise ConnectionError(f"{NAME} is on {host}, which cannot be reached: {why}")
        rows = load_dataset(NAME, VERSION, split=split, streaming=True)
    elif not os.path.isfile(path):
        raise FileNotFoundError(f"there is no file {path} of articles")
    else:
        rows = load_dataset("json", data_files=str(path), split="train", streaming=True)
    for number, row in enumerate(islice(rows, limit)):
        texts = [row.get(name) for name in ("article", "highlights")]
        words = [normalise(text).split() if isinstance(text, str) else [] for text in texts]
        if not all(words):
            raise ValueError(f'row {number} needs "article" and "highlights"; it has {sorted(row)}')
        yield Pair(" ".join(words[0][:article_words]), " ".join(words[1][:highlight_words]))
