"""Multi30k: 29,000 captions of photographs in English, each translated into French by a person.

Captions of Flickr30k (Young et al. 2014), translated by Elliott et al. (2016; 2017). The text is
raw: cased, untokenized. Files are fetched once and kept, or read from the folder that the
environment variable S2S_DATA_DIR names; either way a file that is not to the byte the one this
course was written with is never used.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
from pathlib import Path

import pooch

from s2s_helpers.corpora import Pair

SPLITS = ("train", "val", "test_2016_flickr", "test_2017_flickr")
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


def load(split: str) -> list[Pair]:
    """The (English, French) caption pairs of "train", "val", "test_2016_flickr" or
    "test_2017_flickr": 29,000, 1,014, 1,000 and 1,000.

    Raises ValueError for another split or a damaged file, FileNotFoundError where the files are
    neither at hand nor to be had from the network.
    """
    if split not in SPLITS:
        raise ValueError(f"Multi30k has the splits {', '.join(SPLITS)}, not {split!r}")
    sources, targets = (_lines(f"{split}.{language}.gz") for language in ("en", "fr"))
    return [Pair(source, target) for source, target in zip(sources, targets, strict=True)]


def cache_folder() -> Path:
    """Where fetched files are kept."""
    return Path(pooch.os_cache("s2s_helpers")) / "multi30k"


def _lines(name: str) -> list[str]:
    # Not splitlines: a caption may hold a character that it takes for the end of a line.
    return gzip.decompress(_read(name)).decode("utf-8").removesuffix("\n").split("\n")


def _read(name: str) -> bytes:
    folder = os.environ.get("S2S_DATA_DIR")
    path = Path(folder).expanduser().absolute() / name if folder else _fetch(name)
    if not path.is_file():
        raise FileNotFoundError(
            f"the folder that S2S_DATA_DIR names has no file {path}. "
            f"Put {name} from {URL} there, or unset S2S_DATA_DIR to have it fetched."
        )
    data = path.read_bytes()
    if (found := hashlib.sha256(data).hexdigest()) != SHA256[name]:
        raise ValueError(
            f"{path} is not Multi30k's {name}: it is cut short or another version "
            f"(its sha256 is {found}, not {SHA256[name]}). Delete it and get it again from {URL}"
        )
    return data


def _fetch(name: str) -> Path:
    # The logger would leave this machine's paths in a notebook.
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        return Path(pooch.retrieve(URL + name, "sha256:" + SHA256[name], name, cache_folder()))
    except ValueError as error:  # pooch has deleted what it got
        raise ValueError(
            f"the download of {name} from {URL} came cut short or changed; try again"
        ) from error
    except OSError as error:  # everything the network can do wrong
        raise FileNotFoundError(
            f"Multi30k's {name} is not on this machine and could not be fetched. Either connect to "
            f"the network once (files are then kept in {cache_folder()}), or put the files of "
            f"{URL} in a folder and set the environment variable S2S_DATA_DIR to that folder. "
            f"The fetching failed with: {error}"
        ) from error
