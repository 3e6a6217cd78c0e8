"""Multi30k: 29,000 captions of photographs in English, each translated into French by a person.

Captions of Flickr30k (Young et al. 2014), translated by Elliott et al. (2016; 2017). The text is
raw: cased, untokenized. See `download` for where the files are looked for.
"""

import gzip
from dataclasses import dataclass
from functools import cached_property

from s2s_helpers.corpora import Pair, Splits
from s2s_helpers.corpora.download import Download

URL = (
    "https://raw.githubusercontent.com/multi30k/dataset/"
    "a3d2e0d26b56f3846f66a952536ffed4e401d05a/data/task1/raw/"
)
SHA256 = {
    "train.en.gz": "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f",
    "train.fr.gz": "622e75069e9f4c577425c4f277116ce66e63a2401c0a2312d90073cb12379a3c",
    "val.en.gz": "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28",
    "val.fr.gz": "ca3106f1a72390591d25f6c45cb4cd39dec4cd3f123e099748a3ce5256c160e9",
    "test_2016_flickr.en.gz": "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9",
    "test_2016_flickr.fr.gz": "6d326e188d259fb1d04ac19eae3af956559b3a0b93d7635e56c90987c40c8b90",
    "test_2017_flickr.en.gz": "76a444ee25172e72695cddb13ae4a3bda59430617be88e0bb46b60504f054074",
    "test_2017_flickr.fr.gz": "3ba671ceb2299f3304ffafefea7a833d08632fbaf0ba18546f8a2ec2391af496",
}
FILES = Download("Multi30k", URL, SHA256)


@dataclass(frozen=True)
class Captions(Splits[Pair]):
    """Multi30k's splits; `test` is that of 2016."""

    @cached_property
    def test_2017(self) -> list[Pair]:
        """1,000 captions of other photographs, read when they are asked for."""
        return _pairs("test_2017_flickr")


def load() -> Captions:
    """The (English, French) caption pairs: 29,000 to train, 1,014 to validate, 1,000 to test.

    Raises ValueError for a damaged file, FileNotFoundError where the files are neither at hand nor
    to be had from the network.
    """
    return Captions(*map(_pairs, ("train", "val", "test_2016_flickr")))


def _pairs(split: str) -> list[Pair]:
    sides = []
    for language in "en", "fr":
        text = gzip.decompress(FILES.find(f"{split}.{language}.gz").read_bytes()).decode("utf-8")
        # Not splitlines: a caption may hold a character that it takes for the end of a line.
        sides.append(text.removesuffix("\n").split("\n"))
    return [Pair(source, target) for source, target in zip(*sides, strict=True)]
