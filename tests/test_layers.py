"""Imports never go up, and importing the library stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("guided", "classifiers", "editing", "demos")

# From the ground up: a module may import its own row and those before it; "guided.x" stands for all inside it.
LAYERS = [
    {
        "guided.devices", "guided.types", "guided.noise", "guided.schedule", "guided.processes",
        "guided.spacing", "guided.labels",
        "guided.pixels", "guided.images", "guided.film", "guided.folders", "guided.augment", "guided.data",
        "guided.conditions",
        "guided.segments", "guided.pair_files", "guided.pairs",
        "guided.parametrizations", "guided.bpe", "guided.towers", "guided.text", "guided.holes", "guided.derived",
    },
    {"guided.networks", "guided.compiling"},
    {"guided.latent.autoencoder", "guided.latent.space"},
    {"guided.model"},
    {
        "guided.guidance", "guided.terms", "guided.samplers",
        "guided.density", "guided.bits", "guided.losses", "guided.levels", "guided.objective", "guided.presets",
    },
    {
        "guided.train", "guided.training", "guided.checkpoint", "guided.stored", "guided.openai", "guided.sampling",
        "guided.evaluate", "guided.evaluation",
        "guided.finetune", "guided.binding", "guided.joined", "guided.tuning", "guided.step_tuning", "guided.adapters",
        "guided.cascade", "guided.latent",
    },
    {"guided"},
    {"classifiers"},
    {"editing"},
    {"demos"},
]  # fmt: skip
COMMAND_LINE = {"guided.cli", "guided.commands", "guided.__main__"}  # above all, imported by nobody
RECIPES = {f"guided.commands.{name}" for name in ("recipe", "draw", "labels", "clip", "upsampling")}  # but for what a
# PNG remembers: pictures of the demo are made again by `guided replay` too


def files() -> list[Path]:
    return sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(module, name) of every import of ours in a file, those inside functions too; name "" for a plain import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] in PACKAGES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if (node.module or "").split(".")[0] in PACKAGES:
                yield from ((node.module, alias.name) for alias in node.names)


def resolved(module: str, name: str) -> str:
    """`from guided import checkpoint` is an import of guided.checkpoint."""
    inner = f"{module}.{name}"
    path = ROOT / inner.replace(".", "/")
    return inner if name and (path.with_suffix(".py").exists() or path.is_dir()) else module


def within(module: str, row: set[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in row if name != "guided") or (
        module == "guided" and "guided" in row
    )


def layer(module: str) -> int:
    for i, row in enumerate(LAYERS):
        if within(module, row):
            return i
    raise AssertionError(f"{module} has no layer: give it one in LAYERS")


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_never_go_up(path):
    module = module_of(path)
    if within(module, COMMAND_LINE):
        return
    for imported in (resolved(*pair) for pair in imports(ast.parse(path.read_text()))):
        if module.startswith("demos.") and imported in RECIPES:
            continue
        assert not within(imported, COMMAND_LINE), f"{module} imports the command line"
        assert layer(imported) <= layer(module), f"{module} imports {imported}, which is above it"


@pytest.mark.parametrize("path", [p for p in files() if p.parts[-2] == "editing"], ids=lambda p: p.name)
def test_editors_import_only_public_names(path):
    import guided

    for module, name in imports(ast.parse(path.read_text())):
        if module.startswith("guided"):
            assert module == "guided" and (not name or name in guided.__all__), f"{module}.{name} is not public"


def test_the_test_sees_an_import_that_goes_up():
    code = "from guided.sampling import sample\nimport guided.cli\ndef f():\n    from guided import train"
    tree = ast.parse(code)
    found = [resolved(*pair) for pair in imports(tree)]
    assert found == ["guided.sampling", "guided.cli", "guided.train"]
    assert layer(found[0]) > layer("guided.samplers.unipc") > layer("guided.networks.unet") > layer("guided.types")
    assert within("guided.commands.train", COMMAND_LINE)


def test_the_parser_needs_only_the_standard_library():
    """Commands import what is heavy when they run: --help and a wrong word do not wait for it."""
    seen, wanted = set(), ["guided.cli"]
    while wanted:
        module = wanted.pop()
        seen.add(module)
        path = ROOT / f"{module.replace('.', '/')}.py"
        path = path if path.exists() else ROOT / module.replace(".", "/") / "__init__.py"
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
                for name in names:
                    assert name.split(".")[0] in sys.stdlib_module_names | {"guided"}, f"{module} imports {name}"
                wanted += [m for m in (resolved(*pair) for pair in imports(node)) if m not in seen]
    assert "guided.commands.sample" in seen and "guided" not in seen


def test_import_guided_pulls_in_torch_and_numpy_only():
    heavy = ("timm", "open_clip", "kornia", "gradio", "accelerate", "torchvision", "PIL", "tqdm", "safetensors")
    code = f"import sys, torch, numpy; old = set(sys.modules); import guided; print([m for m in {heavy!r} if m in "
    code += "set(sys.modules) - old])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
