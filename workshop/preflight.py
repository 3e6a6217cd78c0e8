"""Is this machine ready for the course? One line a check; where something is wrong, what to do.

    python workshop/preflight.py        exit code 0: ready; 1: not ready

Only the standard library is imported at the top, and nothing here is younger than Python 2.7: so
this answers, too, where packages are missing or Python is too old.
"""

from __future__ import print_function

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
INSTALL = 'run: %s -m pip install -e ".[notebooks]"' % sys.executable
GB_MEMORY, GB_DISK = 2.0, 1.0
WIDGETS = ("anywidget", "@jupyter-widgets/jupyterlab-manager")
# What a widget asks of a browser: an ES module that is loaded while the page lives, and a canvas.
PAGE = """<body><script>
const module = new Blob(["export default 6 * 7"], {type: "text/javascript"});
import(URL.createObjectURL(module)).then(({default: answer}) => {
  const canvas = document.createElement("canvas").getContext("2d");
  canvas.fillRect(0, 0, 1, 1);
  document.body.textContent = "it draws " + (answer + canvas.getImageData(0, 0, 1, 1).data[3]);
});
</script>"""
BROWSERS = (
    "chromium", "chromium-browser", "google-chrome", "chrome", "msedge", "microsoft-edge",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "C:/Program Files (x86)/Microsoft/Edge/Application/msedge.exe",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
)  # fmt: skip


class Wrong(Exception):
    """What is wrong, and what to do about it."""


class Note(Exception):
    """What is not as it might be, though the course runs."""


def pyproject():
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        return file.read().decode("utf-8")


def numbers(version):
    """The release of a version, for example (2, 13, 0) of "2.13.0+cpu"."""
    return tuple(int(part) for part in re.match(r"\d+(?:\.\d+)*", version).group().split("."))


def within(version, bounds):
    """Whether a version keeps bounds such as ">=2.6,<3"."""
    for bound in bounds.replace(" ", "").split(","):
        operator, limit = re.match(r"(>=|<)(.+)$", bound).groups()
        have, limit = numbers(version), numbers(limit)
        width = max(len(have), len(limit))
        have, limit = (parts + (0,) * (width - len(parts)) for parts in (have, limit))
        if (have < limit) != (operator == "<"):
            return False
    return True


def requirements(text):
    """(name, bounds) of all that a learner needs, from pyproject.toml's two lists."""
    lists = re.findall(r"^(?:dependencies|notebooks) = \[\n(.*?)^\]", text, re.M | re.S)
    return re.findall(r'^\s*"([\w.-]+)([^"]*)"', "\n".join(lists), re.M)


def python():
    needed = re.search(r'requires-python = ">=([\d.]+)"', pyproject()).group(1)
    found = "%d.%d.%d" % sys.version_info[:3]
    advice = "install Python %s or newer from python.org, and run this with it" % needed
    if sys.version_info < numbers(needed):
        raise Wrong("Python %s is too old" % found, advice)
    if sys.maxsize < 2**32:
        raise Wrong("Python %s is a 32-bit build, and PyTorch has none" % found, advice)
    return "%s at %s" % (found, sys.executable)


def packages():
    from importlib import metadata

    missing, found = [], []
    for name, bounds in requirements(pyproject()):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if not within(version, bounds):
            found.append("%s is %s, and %s is needed" % (name, version, bounds))
    if missing:
        found.append("missing: " + ", ".join(missing))
    if found:
        ours = os.path.join(ROOT, ".venv")
        if os.path.isdir(ours) and os.path.realpath(sys.prefix) != os.path.realpath(ours):
            raise Wrong("; ".join(found), "run this with the Python in %s" % ours)
        raise Wrong("; ".join(found), INSTALL)
    return "all %d, within pyproject.toml's bounds" % len(requirements(pyproject()))


def project():
    import s2s_helpers

    here = os.path.dirname(os.path.dirname(os.path.realpath(s2s_helpers.__file__)))
    if here != os.path.realpath(ROOT):
        raise Wrong("s2s_helpers is that of %s" % here, "in this folder, " + INSTALL)
    return "s2s_helpers %s, of this folder" % s2s_helpers.__version__


def memory():
    import psutil

    free, total = (getattr(psutil.virtual_memory(), key) / 1e9 for key in ("available", "total"))
    if free < GB_MEMORY:
        raise Wrong(
            "%.1f of %.1f GB are free, and %.0f are needed" % (free, total, GB_MEMORY),
            "close other programs and the kernels of other notebooks",
        )
    return "%.1f of %.1f GB free" % (free, total)


def disk():
    from s2s_helpers.course.recipes import cache_folder

    folder = str(cache_folder())
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise Wrong("trained models cannot be kept: %s" % error, "set S2S_CACHE_DIR to a folder")
    free = shutil.disk_usage(folder).free / 1e9
    if free < GB_DISK:
        raise Wrong("%.1f GB free, and %.0f are needed" % (free, GB_DISK), "empty the bin")
    return "%.1f GB free for %s" % (free, folder)


def training():
    import torch

    from s2s_helpers.corpora import phrasebook
    from s2s_helpers.course.recipes import phrasebook_vocabularies
    from s2s_helpers.data import Seq2SeqDataset, collate
    from s2s_helpers.loss import Seq2SeqLoss
    from s2s_helpers.models import Seq2Seq

    vocabularies = phrasebook_vocabularies()
    dataset = Seq2SeqDataset(phrasebook.load().train[:32], *vocabularies)
    batch = collate([dataset[row] for row in range(32)])
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine two would wait for each other
    model = Seq2Seq(*vocabularies, embedding=32, hidden=64, cell="gru")
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses, begin = [], time.time()
    for _ in range(30):
        loss = Seq2SeqLoss()(model(batch)[0], batch.target_output)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    torch.set_num_threads(threads)
    told = "30 steps in %.1f s, loss %.2f to %.2f" % (time.time() - begin, losses[0], losses[-1])
    if not losses[-1] < 0.8 * losses[0]:
        raise Wrong(told + ": it did not learn", "show this line to your instructor")
    return told


def models():
    from s2s_helpers.course import recipes

    folder = recipes.cache_folder()
    names = {kind: "phrasebook-%s-0-%s.pt" % (kind, recipes.fingerprint(kind, 0))
             for kind in recipes.KINDS}  # fmt: skip
    absent = sorted(kind for kind, name in names.items() if not (folder / name).exists())
    if absent:
        raise Note(
            "not trained yet: %s" % ", ".join(absent),
            "nothing; the first notebook that needs one trains it, a minute each",
        )
    return "all %d trained" % len(names)


def corpora():
    import hashlib

    from s2s_helpers.corpora import download, multi30k, pronunciation

    folders = [str(folder) for folder in download.data_folders()]
    folders.append(str(download.cache_folder()))
    for notebook, files in ("08", multi30k.FILES), ("11", pronunciation.FILES):
        for name, known in sorted(files.sha256.items()):
            paths = [os.path.join(folder, name) for folder in folders]
            paths = [path for path in paths if os.path.isfile(path)]
            if not paths:
                raise Note(
                    "no %s in %s" % (name, " or ".join(folders)),
                    "only notebook %s needs it, and fetches it once; " % notebook
                    + "or name a folder that has it in S2S_DATA_DIR",
                )
            with open(paths[0], "rb") as file:
                if hashlib.sha256(file.read()).hexdigest() != known:
                    raise Wrong(
                        "%s is damaged" % paths[0],
                        "delete it; notebook %s fetches it again" % notebook,
                    )
    return "whole, in %s" % " and ".join(folders)


def kernel():
    from jupyter_client.kernelspec import KernelSpecManager

    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")
    program = KernelSpecManager().get_kernel_spec("python3").argv[0]
    if os.path.isabs(program) and os.path.realpath(program) != os.path.realpath(sys.executable):
        raise Wrong(
            "JupyterLab's Python 3 is another one, %s" % program,
            "run: %s -m ipykernel install --sys-prefix --name python3" % sys.executable,
        )
    return "JupyterLab's Python 3 is this one"


def widgets():
    from jupyter_core.paths import jupyter_path
    from jupyterlab.commands import AppOptions, get_app_info

    info = get_app_info(AppOptions(labextensions_path=jupyter_path("labextensions")))
    for name in WIDGETS:
        if name not in info["federated_extensions"]:
            raise Wrong("JupyterLab has no extension %s" % name, INSTALL)
        if any(name == each or each.startswith(name + ":") for each in info["disabled"]):
            raise Wrong(
                "the extension %s is switched off" % name,
                "run: %s -m jupyter labextension enable %s" % (sys.executable, name),
            )
    return "JupyterLab %s has %s" % (info["version"], " and ".join(WIDGETS))


def browser():
    import pathlib
    import webbrowser

    paths = [path for path in map(shutil.which, BROWSERS) if path]
    if not paths:
        try:
            return "%s, not tried out" % webbrowser.get().name
        except webbrowser.Error:
            raise Note("none found", "open the address that JupyterLab prints in any browser")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        page = os.path.join(folder, "page.html")
        with open(page, "w", encoding="utf-8") as file:
            file.write(PAGE)
        command = [paths[0], "--headless", "--disable-gpu", "--virtual-time-budget=2000"]
        command += ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        command += ["--user-data-dir=" + folder, "--dump-dom", pathlib.Path(page).as_uri()]
        try:
            shown = subprocess.run(command, capture_output=True, timeout=60, check=False).stdout
        except subprocess.TimeoutExpired:
            shown = b""
    if b"it draws 297" not in shown:
        raise Note("%s drew no test picture" % paths[0], "update it, or use another browser")
    return "%s runs modules and draws" % os.path.basename(paths[0])


CHECKS = (
    python, packages, project, memory, disk, training, models, corpora, kernel, widgets, browser
)  # fmt: skip


def main():
    failed = []
    for check in CHECKS:
        try:
            mark, told = "ok   ", check()
        except Note as note:
            mark, told = "note ", "%s. What to do: %s." % note.args
        except Wrong as wrong:
            mark, told = "WRONG", "%s. What to do: %s." % wrong.args
        except Exception as error:
            if packages in failed and isinstance(error, ImportError):
                mark, told = "-    ", "not tried, for want of packages"
            else:
                told = "%s: %s" % (type(error).__name__, " ".join(str(error).split()))
                mark, told = "WRONG", told + ". What to do: show this to your instructor."
        print("%s  %-9s %s" % (mark, check.__name__, told))
        sys.stdout.flush()
        failed += [check] if mark == "WRONG" else []
        if check is python and failed:
            break
    print("Not ready: see WRONG above." if failed else "Ready.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
