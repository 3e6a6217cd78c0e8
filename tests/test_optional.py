"""Optional packages: there, missing, or hidden behind a torchvision that does not fit."""

import subprocess
import sys

import pytest

from s2s_helpers.optional import import_optional


@pytest.mark.parametrize(
    "name, extra", [("no_such_thing", "advanced"), ("statsmodels.datasets", "notebooks")]
)
def test_a_missing_package_says_how_to_get_it(monkeypatch, name, extra):
    for loaded in [m for m in sys.modules if m.partition(".")[0] == "statsmodels"]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setattr(sys, "meta_path", [])
    message = rf"needs the package {name}: pip install 's2s-helpers\[{extra}\]'"
    with pytest.raises(ImportError, match=message):
        import_optional(name)


def test_a_package_that_is_there():
    assert import_optional("json").loads("[1]") == [1]


def test_an_error_inside_a_package_is_its_own(tmp_path, monkeypatch):
    (tmp_path / "half_there.py").write_text("import not_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="No module named 'not_at_all'"):
        import_optional("half_there")


@pytest.mark.parametrize("broken", ["raise RuntimeError('operator')", "1"])
def test_a_torchvision_that_does_not_fit_is_hidden(tmp_path, broken):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(f"import torchvision.part\n{broken}\n")
    (tmp_path / "torchvision" / "part.py").write_text("")
    code = (
        "import importlib.util, sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from s2s_helpers.optional import import_optional\n"
        "import_optional('json')\n"
        "print(importlib.util.find_spec('torchvision') is not None, "
        "'torchvision.part' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == [str(broken == "1")] * 2
