"""Files that are fetched once and kept, or read from a folder; never another version of them."""

import hashlib
import logging
import os
from pathlib import Path
from typing import NamedTuple

import pooch


def cache_folder() -> Path:
    """Where fetched files are kept: in the user's cache folder, or that of `S2S_CACHE_DIR`."""
    root = Path(os.environ.get("S2S_CACHE_DIR") or pooch.os_cache("s2s_helpers"))
    return root.expanduser() / "corpora"


def data_folders() -> list[Path]:
    """The folders that the environment variable S2S_DATA_DIR names, parted as those of PATH."""
    names = os.environ.get("S2S_DATA_DIR", "").split(os.pathsep)
    return [Path(name).expanduser().absolute() for name in names if name]


class Download(NamedTuple):
    """The files of a corpus, each with its SHA-256, at a pinned address that ends in a slash."""

    corpus: str
    url: str
    sha256: dict[str, str]

    def find(self, name: str) -> Path:
        """The file of this name, to the byte: from the folders of S2S_DATA_DIR, else fetched.

        Raises ValueError where it is damaged or another version, FileNotFoundError where it is
        neither at hand nor to be had from the network.
        """
        for folder in data_folders():
            if (path := folder / name).is_file():
                found = hashlib.sha256(path.read_bytes()).hexdigest()
                if found != self.sha256[name]:
                    raise ValueError(
                        f"{path} is not {self.corpus}'s {name}: it is cut short or another version "
                        f"(its sha256 is {found}, not {self.sha256[name]}). Delete it and get it "
                        f"again from {self.url}"
                    )
                return path
        # The logger would leave this machine's paths in a notebook.
        pooch.get_logger().setLevel(logging.WARNING)
        known = f"sha256:{self.sha256[name]}"
        try:
            return Path(pooch.retrieve(self.url + name, known, name, cache_folder()))
        except ValueError as error:  # pooch has deleted what it got
            raise ValueError(
                f"the download of {name} from {self.url} came cut short or changed; try again"
            ) from error
        except OSError as error:  # everything the network can do wrong
            searched = "".join(f"; there is no {folder / name}" for folder in data_folders())
            raise FileNotFoundError(
                f"{self.corpus}'s {name} is not on this machine and could not be fetched. Either "
                f"connect to the network once (files are then kept in {cache_folder()}), or put "
                f"the files of {self.url} in a folder and name it in the environment variable "
                f"S2S_DATA_DIR{searched}. The fetching failed with: {error}"
            ) from error
