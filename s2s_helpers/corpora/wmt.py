"""WMT's pairs of translated news, tens of millions, as a stream: `datasets` fetches some thousands
at a time from Hugging Face's hub, or reads files of the same form (Bojar et al. 2014, *Findings of
the 2014 Workshop on Statistical Machine Translation*)."""

from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from s2s_helpers.corpora import Pair
from s2s_helpers.corpora.hub import hub_address, why_no_hub
from s2s_helpers.corpora.pairs import check_limit
from s2s_helpers.optional import import_optional
from s2s_helpers.text import normalise

KINDS = {".parquet": "parquet", ".json": "json", ".jsonl": "json"}


def stream(
    name: str = "wmt14", languages: str = "fr-en", split: str = "train", source: str = "en",
    rank: int = 0, world: int = 1, limit: int | None = None, buffer: int = 10_000, seed: int = 0,
    path: str | PathLike | None = None,
) -> Iterator[Pair]:  # fmt: skip
    """Pairs of `source` and the other of the two `languages`, shuffled within a `buffer` of rows.

    Of `world` readers each gets the rows of its `rank`, and together they get every row once, the
    first `limit` or all. `path`: a .parquet, .json or .jsonl file in place of the hub; a row is
    {"translation": {"en": text, "fr": text}}. Pairs with an empty side (WMT has
    such) are left out.

    Raises ValueError for a rank, limit, language or row that cannot be, FileNotFoundError, and
    ConnectionError within seconds where the hub cannot be reached.
    """
    both = languages.split("-")
    if source not in both or len(both) != 2:
        raise ValueError(f"languages must be two, such as 'fr-en', one of them {source!r}")
    check_limit(limit)
    if not 0 <= rank < world:
        raise ValueError(f"rank must be from 0 to world - 1 = {world - 1}, not {rank}")
    target = both[1 - both.index(source)]
    kind = f"wmt/{name}" if path is None else KINDS.get(Path(path).suffix)
    if kind is None:
        raise ValueError(f"{path} is not one of {', '.join(KINDS)}")
    if path is None:
        if why := why_no_hub():
            raise ConnectionError(
                f"{hub_address()} cannot be reached: {why}. path=... reads a file of your own"
            )
        where = dict(name=languages, split=split)
    elif Path(path).is_file():
        where = dict(data_files=str(Path(path).absolute()), split="train")
    else:
        raise FileNotFoundError(f"no file {path}")
    rows = import_optional("datasets").load_dataset(kind, streaming=True, **where)
    rows = rows if limit is None else rows.take(limit)
    rows = rows.shuffle(seed=seed, buffer_size=buffer)  # the same for all, and only then dealt out
    for row in import_optional("datasets.distributed").split_dataset_by_node(rows, rank, world):
        texts = row.get("translation")
        texts = texts if isinstance(texts, dict) else {}
        if not all(isinstance(texts.get(side, 0), str | None) for side in (source, target)):
            raise ValueError(f"a row needs a translation with {source} and {target}, not {row}")
        ours, theirs = (normalise(texts[side] or "").strip() for side in (source, target))
        if ours and theirs:
            yield Pair(ours, theirs)
