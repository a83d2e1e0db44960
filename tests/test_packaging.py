"""The project file and the wheel that is built of it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import guided

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WEIGHTS = sorted(
    str(path.relative_to(ROOT))
    for folder in ("guided/weights", "classifiers/weights", "classifiers/clip/weights")
    for path in (ROOT / folder).rglob("*")
    if path.is_file()
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> list[str]:
    """The names in a wheel built of this folder, offline."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", out, ROOT]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    assert path.name.startswith(f"guided-{guided.__version__}-")
    return zipfile.ZipFile(path).namelist()


def test_the_wheel_holds_the_weights(wheel):
    assert any(name.endswith(".safetensors") for name in WEIGHTS), "there are no embedded weights"
    missing = [name for name in WEIGHTS if name not in wheel]
    assert not missing, f"the wheel lacks {missing}"


def test_the_wheel_holds_every_module_and_nothing_else(wheel):
    for package in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        for path in (ROOT / package).rglob("*.py"):
            assert str(path.relative_to(ROOT)) in wheel
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"guided", "classifiers", "editing", "demos"}
    assert {"demos/page.css", "demos/page.js"} <= set(wheel)
    (points,) = [name for name in wheel if name.endswith("entry_points.txt")]
    assert points


def test_every_package_with_code_ships():
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    with_code = [name for name in ("guided", "classifiers", "editing", "demos") if list((ROOT / name).rglob("*.py"))]
    assert packages == with_code


def test_the_command_is_the_one_declared():
    module, _, function = PROJECT["project"]["scripts"]["guided"].partition(":")
    assert module == "guided.cli" and callable(getattr(__import__(module, fromlist=[function]), function))


def test_what_is_imported_is_declared():
    """Every third-party package that the code names at an import is a dependency, or an extra of its own use."""
    names = {"PIL": "pillow", "open_clip": "open-clip-torch", "huggingface_hub": "huggingface-hub"}
    extras = PROJECT["project"]["optional-dependencies"]
    uses = [line for use, lines in extras.items() if use not in ("test", "dev", "browser") for line in lines]
    declared = {re.match(r"[a-zA-Z-]+", line)[0] for line in PROJECT["project"]["dependencies"] + uses}
    own = {"guided", "classifiers", "editing", "demos"}
    for package in own:
        for path in (ROOT / package).rglob("*.py"):
            for name in re.findall(r"^\s*(?:import|from)\s+([a-zA-Z_]\w*)", path.read_text(), flags=re.M):
                if name not in sys.stdlib_module_names | own:
                    assert names.get(name, name) in declared, f"{path.name} imports {name}"
