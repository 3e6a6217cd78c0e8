"""Install the course on a machine without a network: the start of s2s-workshop.pyz.

    python3 s2s-workshop.pyz [FOLDER]        FOLDER is s2s-workshop unless another is named

archive.py packs this file. Nothing is taken from a network, from pip's settings or from its cache.
Like preflight.py it is written in words that old Pythons understand, so that they answer plainly.
"""

from __future__ import print_function

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import zipfile

MACHINES = {"amd64": "x86_64", "aarch64": "arm64"}
FOLDERS = "from s2s_helpers.course import recipes; from s2s_helpers.corpora import download; " + (
    "print(recipes.cache_folder()); print(download.cache_folder())"
)


def kind():
    """System and processor, for example "linux-x86_64"."""
    machine = platform.machine().lower()
    return "%s-%s" % (platform.system().lower(), MACHINES.get(machine, machine))


def find_python(made_for):
    """This Python, or another one here that the archive has wheels for; None if there is none."""
    if "%s-%d.%d" % ((kind(),) + sys.version_info[:2]) in made_for:
        return sys.executable
    for each in made_for:
        system, _, version = each.rpartition("-")
        for command in (["python" + version], ["py", "-" + version]):
            if system == kind() and shutil.which(command[0]):
                asked = command + ["-c", "import sys; print(sys.executable)"]
                found = subprocess.run(asked, capture_output=True, text=True, check=False)
                if found.returncode == 0:
                    return found.stdout.strip()
    return None


def unpack(archive, folder):
    """Write the archive's files into a folder; raise ValueError for one that is not as it was."""
    with zipfile.ZipFile(archive) as packed:
        sums = packed.read("SHA256SUMS").decode("utf-8").splitlines()
        for line in sums:
            known, name = line.split("  ", 1)
            if hashlib.sha256(packed.read(name)).hexdigest() != known:
                raise ValueError(name)
            packed.extract(name, folder)


def install(part, folder, python):
    """Make FOLDER/.venv with all that lies in part, and put corpora and models in their places."""
    wheels = os.path.join(part, "wheels")
    windows = platform.system() == "Windows"
    own = os.path.join(folder, ".venv", "Scripts" if windows else "bin", "python")
    # pip obeys no settings of this machine, in any of the processes that it starts.
    clean = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PIP_", "PYTHON", "VIRTUAL_ENV", "TORCH"))
    }
    clean.update(PIP_CONFIG_FILE=os.devnull, PIP_NO_INPUT="1", PIP_DISABLE_PIP_VERSION_CHECK="1")

    def run(*command):
        subprocess.run(command, check=True, env=clean, cwd=folder)

    (pip,) = (name for name in os.listdir(wheels) if name.startswith("pip-"))
    here = ("--no-index", "--find-links", wheels, "--no-cache-dir", "--quiet")
    run(python, "-m", "venv", "--without-pip", os.path.join(folder, ".venv"))
    run(own, os.path.join(wheels, pip, "pip"), "install", *(here + ("pip",)))
    run(own, "-m", "pip", "install", *(here + ("-e", folder + "[notebooks]")))

    places = subprocess.check_output([own, "-c", FOLDERS], cwd=folder, text=True).splitlines()
    for name, place in zip(("models", "corpora"), places):
        source = os.path.join(part, name)
        os.makedirs(place, exist_ok=True)
        for file in os.listdir(source) if os.path.isdir(source) else ():
            shutil.copy(os.path.join(source, file), place)
    run(own, os.path.join(folder, "run.py"), "note-installed")
    return own


def main(arguments):
    if sys.version_info < (3, 11):
        print("Python 3.11 or newer is needed; this is %d.%d. Name another, such as" %
              sys.version_info[:2], "python3.12 s2s-workshop.pyz")  # fmt: skip
        return 1
    archive = os.path.dirname(os.path.abspath(__file__))
    folder = os.path.abspath(arguments[0] if arguments else "s2s-workshop")
    part = folder + ".part"
    if os.path.exists(part):  # an installation that did not come to its end
        shutil.rmtree(part)
        shutil.rmtree(folder, ignore_errors=True)
    if os.path.exists(folder):
        print("%s is there already. Delete it, or name another folder." % folder)
        return 1
    with zipfile.ZipFile(archive) as packed:
        made_for = packed.read("made_for.txt").decode("utf-8").split()
    python = find_python(made_for)
    if python is None:
        print("This archive is for %s. This machine is %s-%d.%d. Install one of these Pythons,"
              % ((", ".join(made_for), kind()) + sys.version_info[:2]),
              "or ask for an archive that is made for yours.")  # fmt: skip
        return 1
    needed = 8 * os.path.getsize(archive)  # for a while its wheels lie there, too
    if shutil.disk_usage(os.path.dirname(folder)).free < needed:
        print("%.1f GB are needed on the disk of %s." % (needed / 1e9, folder))
        return 1
    print("Installing into %s; this takes a minute or two." % folder)
    sys.stdout.flush()
    try:
        unpack(archive, part)
        shutil.move(os.path.join(part, "project"), folder)
        own = install(part, folder, python)
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        print("The archive is damaged (%s). Copy it again." % error)
        return 1
    except subprocess.CalledProcessError as error:
        print("This failed, and says above why: %s" % " ".join(map(str, error.cmd)))
        return 1
    shutil.rmtree(part)
    ready = subprocess.call([own, os.path.join(folder, "workshop", "preflight.py")], cwd=folder)
    print("To start:\n    cd %s\n    %s run.py open" % (folder, os.path.relpath(own, folder)))
    return ready


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
