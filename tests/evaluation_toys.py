"""A folder with all that evaluations take, tiny; and command lines that differ in one flag that must change figures."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file

import guided
from guided.networks import Encoder, EncoderConfig, UNet, UNetConfig

NAMES = ["blue", "red"]
TRUNK = {"model_channels": 32, "num_res_blocks": 1, "channel_mult": (1,), "attention_resolutions": ()}
CLIP = "tiny-for-evaluation"  # as open_clip knows it

# (real pictures, flags, and those that are added): those of `guided evaluate` and `guided tune-guidance` alike
DIFFERENT = [
    ("data", "", "--split train"),
    ("data", "", "--train-split none"),
    ("data", "", "--train-split test"),
    ("table", "--label kind", "--label group"),
    ("table", "--label kind", "--background red"),
    ("data", "", "--size 8"),
    ("data", "", "--n 16"),
    ("data", "", "--labels even"),
    ("data", "", "--labels reference"),
    ("data", "", "--steps 2"),
    ("data", "", "--sampler ddim"),
    ("data", "", "--spacing karras"),
    ("data", "--sampler ddim", "--option eta=1"),
    ("data", "--diverse 500", "--batch-size 5"),
    ("data", "", "--seed 1"),
    ("data", "", "--dtype bf16"),
    ("data", "--guidance-scale 3", "--guidance apg"),
    ("data", "--guidance-scale 3", "--guidance-option rescale=0.7"),
    ("data", "--guidance-scale 3", "--guidance-schedule linear"),
    ("data", "--guidance-scale 3", "--autoguide weak"),
    ("data", "--guidance-scale 3", "--and red"),
    ("data", "--guidance-scale 3", "--not red"),
    ("data", "", "--anneal 2"),
    ("data", "", "--diverse 500"),
    ("data", "", "--recurrence 2"),
    ("data", "", "--features averages:4"),
    ("data", "--n 24", "--counts all"),
    ("data", "", "--draws 6"),
    ("data", "", "--level 0.5"),
]


def toy_model() -> guided.Model:
    """16 pixels, two classes and a null class; its output depends on x, sigma and label."""
    torch.manual_seed(0)
    net = UNet(UNetConfig(in_channels=48, out_channels=48, num_classes=3, **TRUNK))
    for weights in net.parameters():
        torch.nn.init.normal_(weights, std=0.05)  # a fresh network's output is zero, whatever the class
    torch.nn.init.normal_(net.label_emb.weight, std=3.0)  # so that guidance shows
    return guided.Model(net, parametrization="edm", image_size=16, patch=4, class_names=NAMES, null_class=True)


def save_classifier(folder: str | Path, names: list[str], seed: int = 1) -> None:
    """A classifier of random weights."""
    import classifiers

    torch.manual_seed(seed)
    net = Encoder(EncoderConfig(image_size=4, in_channels=48, out_channels=len(names), pool="spatial", **TRUNK))
    torch.nn.init.normal_(net.out[-1].weight)
    classifiers.save(classifiers.NoisyClassifier(net, class_names=names, image_size=16, patch=4), folder)


def save_clip(file: str | Path, seed: int) -> torch.nn.Module:
    """The weights of an open_clip model that `CLIP` names from here on."""
    import json

    import open_clip

    file = Path(file)
    described = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 10, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    known = file.parent / "open_clip"
    known.mkdir(exist_ok=True)
    (known / f"{CLIP}.json").write_text(json.dumps(described))
    open_clip.add_model_config(known)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = open_clip.create_model(CLIP, pretrained=None).eval()
    save_file(model.state_dict(), file)
    return model


def save_pictures(folder: str | Path) -> None:
    """24 and 12 random pictures of two classes in two splits."""
    for split, n in (("train", 24), ("test", 12)):
        for i in range(n):
            guided.save_png(torch.rand(3, 20, 16) * 2 - 1, Path(folder) / split / NAMES[i % 2] / f"{i}.png")


def save_all(folder: Path) -> None:
    """Folders model, weak, guide, judge, other (a judge), data and table; clip.safetensors and other.safetensors."""
    model = toy_model()
    guided.save(model, folder / "model")
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(0.8)
    guided.save(model, folder / "weak")
    save_classifier(folder / "guide", ["red", "blue"])
    for seed, name in ((2, "judge"), (3, "other")):
        save_classifier(folder / name, NAMES, seed)
    for seed, name in enumerate(("clip", "other")):
        save_clip(folder / f"{name}.safetensors", seed)
    save_pictures(folder / "data")
    rows = ["file,kind,group,split"]
    for i in range(24):  # partly transparent, and each column names other classes
        pixels = torch.rand(16, 16, 4, generator=torch.Generator().manual_seed(i))
        (folder / "table").mkdir(exist_ok=True)
        Image.fromarray((pixels * 255).byte().numpy(), "RGBA").save(folder / "table" / f"{i}.png")
        rows.append(f"{i}.png,{NAMES[i % 2]},{NAMES[i // 2 % 2]},{'test' if i < 12 else 'train'}")
    (folder / "table" / "metadata.csv").write_text("\n".join(rows) + "\n")
