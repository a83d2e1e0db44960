"""The documents say what is so: examples run, commands parse, equations have their functions, paths exist."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import classifiers
import guided
import guided.cli
from guided.networks import Encoder, EncoderConfig, TextConfig, UNet, UNetConfig
from guided.presets import PRESETS
from guided.samplers import SAMPLERS
from guided.stored import WEIGHTS
from guided.text import Bytes

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
CARDS = sorted([*ROOT.glob("*/weights/*/README.md"), *ROOT.glob("*/*/weights/*/README.md")])
PAPERS = ROOT / "docs" / "papers.md"
EDITING = ROOT / "docs" / "editing.md"
SEGMENTATION = ROOT / "docs" / "segmentation.md"
INVERSE = ROOT / "docs" / "inverse.md"
DEMO = ROOT / "docs" / "demo.md"
ANY = ROOT / "docs" / "any_tensor.md"
PAGES = [
    ROOT / "CONTRIBUTING.md",
    ROOT / "README.ko.md",
    ROOT / "recipes" / "README.md",
    PAPERS,
    EDITING,
    SEGMENTATION,
    INVERSE,
    DEMO,
    ANY,
]
DOCS = [README, *PAGES, *GUIDES, *CARDS]
assert len(CARDS) >= 2  # every embedded model has its card beside its weights
LEGAL = [ROOT / name for name in ("NOTICE", "CITATION.cff", "CHANGELOG.md", "LICENSE")]
TRUNK = {"model_channels": 32, "num_res_blocks": 1, "channel_mult": (1,), "attention_resolutions": ()}


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", path.read_text())


def section(path: Path, title: str) -> str:
    return re.search(rf"(?ms)^## {title}$(.*?)(?=^## |\Z)", path.read_text()).group(1)


def table(text: str) -> list[list[str]]:
    """The cells of all table rows but the heads."""
    lines = re.findall(r"(?m)^\|.*\|$", text)
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    rules = [i for i, row in enumerate(rows) if set("".join(row)) <= set("-|")]
    return [row for i, row in enumerate(rows) if i not in rules and i + 1 not in rules]


# ---------------------------------------------------------------------- examples, on small stand-ins


def randomised(net: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.05)  # so that no layer is the zeros it starts from
    return net.eval().requires_grad_(False)


def small_model(class_names, *, chain=None, null_class=True) -> guided.Model:
    learned, patch = chain is not None, 8
    inner, rows = 3 * patch**2, len(class_names) + null_class
    outer = inner * (1 + learned)
    net = UNet(UNetConfig(in_channels=inner, out_channels=outer, num_classes=rows or None, **TRUNK))
    kind = "edm" if chain is None else "eps"
    options = {"class_names": class_names, "null_class": null_class, "learned_range": learned, "patch": patch}
    return guided.Model(randomised(net), chain, kind, **options)


def small_told_model(row) -> guided.Model:
    """Of the form of an official one that takes text or a small picture."""
    text = TextConfig(context=128, width=32, layers=1, heads=2, vocab=257) if row.takes_text else None
    low_res, names = row.class_name.startswith("SuperRes"), [str(i) for i in range(row.classes)]
    told = {"text": text, "low_res": low_res, "num_classes": len(names) or None}
    net = UNet(UNetConfig(in_channels=192, out_channels=384, **told, **TRUNK))
    options = {"class_names": names, "learned_range": True, "patch": 8, "reader": Bytes(128) if text else None}
    return guided.Model(randomised(net), guided.Schedule.linear(), "eps", image_size=128 if low_res else 64, **options)


def small_classifier(class_names, *, chain=None) -> classifiers.NoisyClassifier:
    config = EncoderConfig(image_size=8, in_channels=192, out_channels=len(class_names), **TRUNK)
    return classifiers.NoisyClassifier(randomised(Encoder(config)), chain, class_names=class_names, patch=8)


@pytest.fixture
def stand_ins(monkeypatch, tmp_path):
    """A working folder with pets/ and a run, and models of no size under the names of the documents.

    The embedded models' class names, official file names and presets are the true ones: an example with a
    wrong one fails.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    names = json.loads((WEIGHTS / "emoji64" / "config.json").read_text())["class_names"]
    embedded, clf = small_model(names), small_classifier(names)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i, picture in enumerate(torch.rand(4, 3, 70, 64) * 2 - 1):
            guided.to_pil(picture)[0].save(tmp_path / "pets" / name / f"{i}.png")

    def official(of_classifier):
        def load(file, *, preset, device=None, vocabulary=None):
            row = guided.openai.PRESETS[preset]
            assert (row.file, row.is_classifier) == (file, of_classifier)
            assert vocabulary is None or row.takes_text
            if row.takes_text or row.class_name == "SuperResModel":
                return small_told_model(row)
            classes = [str(i) for i in range(row.classes)]
            chain = guided.Schedule.linear()
            if of_classifier:
                return small_classifier(classes, chain=chain)
            return small_model(classes, chain=chain, null_class=False)

        return load

    real_load, real_train = guided.load, guided.train

    def load(source=None, **own):
        return real_load(source, **own) if source else embedded

    monkeypatch.setattr(guided, "load", load)
    monkeypatch.setattr(classifiers, "load", lambda source=None, **own: clf)
    monkeypatch.setattr(guided.openai, "load", official(False))
    monkeypatch.setattr(classifiers.openai, "load", official(True))
    monkeypatch.setitem(
        PRESETS, "small64", replace(PRESETS["small64"], network=UNetConfig(**TRUNK), patch=8, batch_size=4)
    )

    def short_train(*what, images, **own):
        return real_train(*what, images=min(images, 8), **{**own, "progress": False, "device": "cpu"})

    monkeypatch.setattr(guided, "train", short_train)
    guided.save(embedded, "runs/emoji64")
    return {"guided": guided, "classifiers": classifiers, "torch": torch, "model": embedded}


def run_block(code: str, namespace: dict, name: str) -> None:
    exec(compile(code, name, "exec"), namespace)
    images = namespace.get("images")
    if images is not None:
        assert images.ndim == 4 and images.shape[1:] == (3, 64, 64) and bool(images.isfinite().all())


@pytest.mark.parametrize("number", range(1, 11))
def test_readme_examples_run_each_after_the_preamble(stand_ins, number):
    preamble, *examples = blocks(README, "python")
    assert len(examples) == 10
    namespace: dict = {}
    run_block(preamble, namespace, "README preamble")
    run_block(examples[number - 1], namespace, f"README example {number}")


@pytest.mark.parametrize("path", [p for p in DOCS[1:] if blocks(p, "python")], ids=lambda p: p.name)
def test_examples_of_the_other_documents_run_in_order(stand_ins, path):
    for i, code in enumerate(blocks(path, "python"), 1):
        run_block(code, stand_ins, f"{path.name} block {i}")


def test_contributing_has_the_three_recipes_short():
    for title in ("A sampler", "A term", "An editor"):
        recipe, check = re.findall(r"(?ms)^```python\n(.*?)^```$", section(ROOT / "CONTRIBUTING.md", title))
        lines = [line for line in recipe.splitlines() if line and not line.startswith(("import", "from"))]
        assert len(lines) <= 20, title
        assert "assert" in check


# ---------------------------------------------------------------------- commands


def commands(path: Path) -> list[str]:
    text = path.read_text() if path.suffix == ".sh" else "\n".join(blocks(path, "bash"))
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [line for line in lines if re.match(r"(guided|python|recipes/|\.ci/)", line)]


SHOWN = [(p.name, c) for p in [*DOCS, *sorted((ROOT / "recipes").glob("*.sh"))] for c in commands(p)]


@pytest.mark.parametrize(("name", "command"), SHOWN)
def test_commands_shown_parse(name, command):
    program, *args = shlex.split(command, comments=True)
    if program == "guided":
        guided.cli.parser().parse_args(args)
    elif args[:1] == ["-m"]:
        importlib.import_module(args[1]).parser().parse_args(args[2:])
    else:
        path = ROOT / (args[0] if program == "python" else program)
        assert path.exists()
        assert program == "python" or os.access(path, os.X_OK)


def test_every_command_is_shown():
    shown = {shlex.split(command)[1] for _, command in SHOWN if command.startswith("guided ")}
    known = {module.__name__.split(".")[-1].strip("_").replace("_", "-") for module in guided.cli.COMMANDS}
    assert shown == known


def test_quick_start_installs_and_draws_then_installs_and_tests():
    draw, test = re.findall(r"(?ms)^```bash\n(.*?)^```$", section(README, "Quick start"))
    assert draw.startswith("pip install -q .\nguided sample ")
    assert test.startswith("pip install -q '.[test]'\n")
    assert "python -m pytest" in test


def test_ci_runs_the_readmes_test_command():
    script = ROOT / ".ci" / "run"
    command = blocks(README, "bash")[2].splitlines()[-1]
    assert command.startswith("OMP_NUM_THREADS=1 python -m pytest")
    assert command in script.read_text().splitlines()
    assert os.access(script, os.X_OK)
    for file in (script, ROOT / "recipes" / "emoji64.sh"):
        subprocess.run(["bash", "-n", file], check=True)


# ---------------------------------------------------------------------- papers.md

EQUATIONS = [(re.fullmatch("`(.*)`", function).group(1), tag) for _, function, tag in table(PAPERS.read_text())]


def source_of(dotted: str) -> str:
    """The source of a function or class, of the whole file for a plain value, as one line."""
    parts = dotted.split(".")
    for i in range(len(parts), 0, -1):
        try:
            thing = module = importlib.import_module(".".join(parts[:i]))
        except ModuleNotFoundError:
            continue
        break
    for part in parts[i:]:
        thing = getattr(thing, part)
    text = inspect.getsource(thing if callable(thing) else module)
    return " ".join(re.sub(r"\n\s*#", "\n", text).split())


@pytest.mark.parametrize(("function", "tag"), EQUATIONS)
def test_equations_have_their_function_and_its_source_has_the_tag(function, tag):
    assert re.search(re.escape(tag) + r"(?!\d)", source_of(function))  # eq. 1 is not eq. 16


TITLES = (
    "DDPM|DDIM|Improved DDPM|ADM, classifier guidance|Classifier-free guidance|EDM|DPM-Solver++|UniPC|GLIDE|"
    "Cascaded diffusion models|Latent diffusion|SDEdit|Blended Diffusion|RePaint|DiffEdit|NCSN|NCSNv2|Score SDE|EDM2"
)


@pytest.mark.parametrize("paper", TITLES.split("|"))
def test_each_paper_has_a_table(paper):
    assert len(table(section(PAPERS, re.escape(paper)))) >= 2


# ---------------------------------------------------------------------- facts


@pytest.mark.parametrize("path", [*DOCS, *LEGAL], ids=lambda p: p.name)
def test_no_figure_is_left_to_be_filled_in(path):
    assert re.findall("<<.*?>>", path.read_text()) == []


@pytest.mark.parametrize("path", DOCS, ids=lambda p: p.name)
def test_links_and_paths_exist(path):
    text = path.read_text()
    linked = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    named = re.findall(r"`((?:tests|benchmarks|docs|recipes|guided|classifiers|demos)/[\w/.-]*\.\w+)`", text)
    missing = [link for link in linked if not (path.parent / link).exists()]
    missing += [name for name in named if not (ROOT / name).exists()]
    assert missing == []


def test_the_table_of_official_checkpoints_is_that_of_the_presets():
    rows = {row[1].strip("`"): row for row in table(section(README, "Official checkpoints"))}
    assert list(rows) == list(guided.openai.PRESETS)
    for name, official in guided.openai.PRESETS.items():
        file, _, size, classes, chain, _, scale = rows[name]
        assert file == official.file
        assert int(size.split()[-1]) == official.image_size
        assert classes == str(official.classes or "none")
        assert chain == ", ".join(map(str, official.schedule or ("as the model it guides",)))
        assert scale == ("-" if official.classifier_scale is None else f"{official.classifier_scale:g}")


@pytest.mark.parametrize("name", ["adm-64", "upsampler-128-512", "classifier-64"])
def test_its_parameters_are_those_of_the_networks(name):
    row = next(row for row in table(section(README, "Official checkpoints")) if row[1] == f"`{name}`")
    count = sum(torch.Size(shape).numel() for shape in guided.openai.PRESETS[name].shapes.values())
    assert row[5] == f"{count / 1e6:.1f} M"


def test_guides_list_every_sampler_and_preset():
    samplers = table(section(ROOT / "docs" / "guides" / "sampling.md", "Samplers"))
    assert {name for row in samplers for name in re.findall(r"`(\w+)`", row[0])} == set(SAMPLERS)
    presets = table(section(ROOT / "docs" / "guides" / "training.md", "Presets"))
    assert {name for row in presets for name in re.findall(r"`([\w-]+)`", row[0])} == set(PRESETS)


def test_changelog_and_citation_have_this_version():
    assert f"\n## {guided.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()
    assert f"\nversion: {guided.__version__}\n" in (ROOT / "CITATION.cff").read_text()
