"""Pack the course into one file, s2s-workshop.pyz, that installs it where there is no network.

    python workshop/archive.py
    python workshop/archive.py --also windows-x86_64-3.12 darwin-arm64-3.12
    python workshop/archive.py --bare         without the captions and without trained models

In it are wheels (of the versions installed here), the project without the solutions, captions, and
trained models. It fits this system and this Python, and those that --also names.
"""

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from email.parser import BytesParser
from importlib import metadata
from pathlib import Path
from unittest import mock

from install import kind
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).resolve().parent.parent
CPU_TORCH = "https://download.pytorch.org/whl/cpu"  # on Linux, the usual one comes with CUDA
TAGS = {
    "linux-x86_64": ["manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"],
    "linux-arm64": ["manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"],
    "windows-x86_64": ["win_amd64"],
    "darwin-arm64": ["macosx_14_0_arm64"],
}
# What the requirements of a wheel may ask of a system.
SYSTEMS = {
    "linux": dict(sys_platform="linux", platform_system="Linux", os_name="posix"),
    "windows": dict(sys_platform="win32", platform_system="Windows", os_name="nt"),
    "darwin": dict(sys_platform="darwin", platform_system="Darwin", os_name="posix"),
}


def wanted() -> list[str]:
    """What a learner installs, from pyproject.toml; with pip, and what builds the project."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    notebooks = project["project"]["optional-dependencies"]["notebooks"]
    return [
        "pip",
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *notebooks,
    ]


def missing(requirements: list[str], wheels: list[Path], target: str) -> list[str]:
    """The requirements, those of the wheels included, that no wheel meets on the target.

    pip cannot tell: what it reads in a wheel it weighs for the machine that it runs on.
    """
    system, machine, version = target.split("-")
    facts = SYSTEMS[system] | dict(platform_machine=machine, python_version=version)
    facts |= dict(python_full_version=version + ".0", implementation_name="cpython")
    wheels_of = {parse_wheel_filename(wheel.name)[0]: wheel for wheel in wheels}
    todo, seen, absent = [(text, "") for text in requirements], set(), []
    while todo:
        text, extra = todo.pop()
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate(facts | {"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        if name not in wheels_of:
            absent.append(f"{requirement.name}{requirement.specifier}")
            continue
        for each in ("", *requirement.extras):
            if (name, each) not in seen:
                seen.add((name, each))
                todo += [(line, each) for line in requires(wheels_of[name])]
    return sorted(set(absent))


def requires(wheel: Path) -> list[str]:
    """What a wheel says that it requires."""
    with zipfile.ZipFile(wheel) as packed:
        (name,) = (n for n in packed.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n))
        return BytesParser().parsebytes(packed.read(name)).get_all("Requires-Dist", [])


def download(folder: Path, target: str, own: bool) -> list[Path]:
    """Fetch the wheels for a target, such as "windows-x86_64-3.12", in this Python's versions."""
    system, version = target.rsplit("-", 1)
    pins = {each.name: each.version.split("+")[0] for each in metadata.distributions()}
    del pins["s2s-helpers"]
    constraints = folder / "constraints.txt"
    lines = [f"{name}=={pin}\n" for name, pin in sorted(pins.items())]
    constraints.write_text("".join(lines), encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"]
    command += ["--retries=1", "--dest", folder, "--find-links", folder]
    command += ["--constraint", constraints]
    if not own:
        command += ["--no-deps", "--python-version", version]
        command += [f"--platform={tag}" for tag in TAGS[system]]
    if system.startswith("linux"):  # where there is no such build, the usual one comes below
        small = ["--no-deps", "--extra-index-url", CPU_TORCH, "torch"]
        subprocess.run([*command, *small], check=False)
    # Pure Python, but on PyPI as source alone: its wheel is built here and serves everywhere.
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder]
    subprocess.run([*build, f"rouge-score=={metadata.version('rouge-score')}"], check=True)
    todo, tried = wanted(), set()
    while todo:
        if tried.issuperset(todo):
            raise ValueError(f"there are no wheels for {target} of: {', '.join(todo)}")
        tried.update(todo)
        subprocess.run([*command, *todo], check=True)
        todo = missing(wanted(), sorted(folder.glob("*.whl")), target)
    return sorted(folder.glob("*.whl"))


def project_files() -> dict[str, Path]:
    """What git keeps of the project, without the solutions."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, encoding="utf-8"
    ).stdout.split("\0")
    kept = [
        name for name in listed if name and not name.startswith(("notebooks/solutions/", ".ci/"))
    ]
    return {f"project/{name}": ROOT / name for name in kept if (ROOT / name).is_file()}


def data_files() -> dict[str, Path]:
    """Captions and dictionary, fetched if need be, and the trained models, trained if need be."""
    import torch

    from s2s_helpers.corpora import multi30k, pronunciation
    from s2s_helpers.course import recipes

    files = {
        f"corpora/{name}": corpus.find(name)
        for corpus in (multi30k.FILES, pronunciation.FILES)
        for name in corpus.sha256
    }
    version = torch.__version__.split("+")[0]
    for model in recipes.KINDS:
        recipes.phrasebook_model(model)
        name = f"phrasebook-{model}-0-{{}}.pt"
        path = recipes.cache_folder() / name.format(recipes.fingerprint(model, 0))
        for told in (version, version + "+cpu"):  # on a Mac, and elsewhere
            with mock.patch.object(torch, "__version__", told):
                files["models/" + name.format(recipes.fingerprint(model, 0))] = path
    return files


def pack(files: dict[str, Path], made_for: list[str], out: Path) -> str:
    """Write the archive, whole or not at all; its sha256."""
    scratch = out.with_name(out.name + ".part")
    sums = []
    with zipfile.ZipFile(scratch, "w") as packed:  # stored: wheels are compressed already
        packed.write(Path(__file__).with_name("install.py"), "__main__.py")
        packed.writestr("made_for.txt", "\n".join(made_for))
        for name, path in files.items():
            data = path.read_bytes()
            packed.writestr(name, data)
            sums.append(f"{hashlib.sha256(data).hexdigest()}  {name}\n")
        packed.writestr("SHA256SUMS", "".join(sums))
    with scratch.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    os.replace(scratch, out)
    out.with_name(out.name + ".sha256").write_text(f"{digest}  {out.name}\n", encoding="utf-8")
    return digest


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "s2s-workshop.pyz")
    parser.add_argument("--also", nargs="*", default=[], metavar="SYSTEM-PROCESSOR-PYTHON")
    parser.add_argument("--bare", action="store_true", help="no captions, no trained models")
    asked = parser.parse_args()
    for target in asked.also:
        if target.rpartition("-")[0] not in TAGS or not re.search(r"-3\.\d+$", target):
            parser.error(f"{target!r}: wanted is one of {', '.join(TAGS)}, then -3.12 or the like")
    own = f"{kind()}-{sys.version_info[0]}.{sys.version_info[1]}"
    begin = time.perf_counter()
    files = project_files() | ({} if asked.bare else data_files())
    made_for = list(dict.fromkeys([own, *asked.also]))
    with tempfile.TemporaryDirectory() as scratch:
        for target in made_for:
            folder = Path(scratch) / target
            folder.mkdir()
            wheels = download(folder, target, target == own)
            size = sum(wheel.stat().st_size for wheel in wheels) / 1e6
            print(f"{target}: {len(wheels)} wheels, {size:.0f} MB", flush=True)
            files |= {f"wheels/{wheel.name}": wheel for wheel in wheels}
        digest = pack(files, made_for, asked.out)
    size, seconds = asked.out.stat().st_size / 1e6, time.perf_counter() - begin
    print(f"{asked.out}: {len(files)} files, {size:.0f} MB, {seconds:.0f} s\nsha256 {digest}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(f"This failed, and says above why: {' '.join(map(str, error.cmd))}")
    except (OSError, ValueError) as error:
        sys.exit(f"No archive was written: {error}")
