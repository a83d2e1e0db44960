"""guided info: what a checkpoint is, and what one evaluation of it costs."""

from __future__ import annotations

import argparse
import json
import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

BATCHES = (1, 4, 16)


def add(subparsers: argparse._SubParsersAction) -> None:
    """The command's arguments."""
    p = subparsers.add_parser(
        "info",
        help="parameters, FLOPs, memory, classes and origin of a checkpoint",
        description="What a checkpoint is, and what one evaluation of it costs. Memory is that of the weights and of "
        "the intermediate results of sampling, without what the device's libraries take; classifier-free guidance "
        "evaluates twice the batch.",
    )
    p.add_argument("source", nargs="?", default="emoji64", metavar="NAME|FOLDER|FILE.pt", help="default: emoji64")
    p.add_argument("--classifier", action="store_true", help="the name is an embedded classifier's")
    p.add_argument("--preset", help="of an official .pt file; default: the one that fits")
    p.add_argument("--size", type=int, metavar="PIXELS", help="side of the pictures; default: the model's")
    p.add_argument("--dtype", default="fp32", choices=["fp32", "bf16", "fp16"], help="of the network; default: fp32")
    p.add_argument("--json", action="store_true", help="for programs: one JSON object, sizes in bytes")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Load, look, print."""
    from guided.commands.checkpoints import open_checkpoint
    from guided.commands.clip_info import clip_facts, clip_text, is_clip

    if is_clip(args.source):
        facts = clip_facts(args.source)
        print(json.dumps(facts, indent=1) if args.json else "\n".join([facts["name"], *rows(clip_text(facts))]))
        return
    if is_autoencoder(args.source):
        facts = autoencoder_facts(args.source)
        print(json.dumps(facts, indent=1) if args.json else "\n".join(f"  {k:<12}{v}" for k, v in facts.items()))
        return
    opened = open_checkpoint(args.source, classifier=args.classifier, preset=args.preset)
    facts = {**opened.facts(), **costs(opened.module, size=args.size, dtype=args.dtype)}
    print(json.dumps(facts, indent=1) if args.json else as_text(facts))


def is_autoencoder(source: str) -> bool:
    """Whether the source is the folder of an autoencoder, ours or diffusers'."""
    try:
        config = json.loads((Path(source) / "config.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "autoencoder" in str(config.get("kind", config.get("_class_name"))).lower()


def autoencoder_facts(source: str) -> dict[str, Any]:
    """What an autoencoder is, in values that JSON holds."""
    from guided.latent.files import load_autoencoder

    made = load_autoencoder(source)
    side = made.image_size // made.factor
    return {
        "kind": "autoencoder, KL-regularised" if made.variational else "autoencoder, deterministic",
        "parameters": sum(p.numel() for p in made.parameters()),
        "pictures": [made.channels, made.image_size, made.image_size],
        "latents": [made.latent_channels, side, side],
        "factor": made.factor,
        "scale": made.scale,
        "shift": list(made.shift),
        "origin": {k: v for k, v in made.provenance.items() if not isinstance(v, dict)},
    }


def costs(module: nn.Module, *, size: int | None, dtype: str) -> dict[str, Any]:
    """FLOPs and memory of one evaluation; moves the module to the meta device."""
    import torch

    from guided.commands.cost import flops, peak_bytes, weight_bytes
    from guided.commands.draw import DTYPES

    size, multiple = module.image_size if size is None else size, size_multiple(module)
    if size < 1 or size % multiple:
        raise ValueError(f"--size must be a multiple of {multiple}, got {size}")
    module.net.to_torso(DTYPES[dtype])
    module.to("meta")
    weights = weight_bytes(module.net)

    def evaluate(n: int) -> Any:
        cond = conditions(module, n, size)
        space = getattr(module, "space", None)  # a classifier has none: it looks at pictures
        shape = (module.channels, size, size) if space is None else space.shape(size, size)
        x = torch.empty(n, *shape, device="meta")
        return module(x, torch.tensor(1.0, dtype=torch.float64), **cond)

    return {
        "evaluated": {"size": size, "dtype": dtype},
        "flops": flops(lambda: evaluate(1)),
        "weight_bytes": weights,
        "memory_bytes": {str(n): weights + peak_bytes(lambda n=n: evaluate(n)) for n in BATCHES},
    }


def conditions(module: nn.Module, n: int, size: int) -> dict[str, Any]:
    """Conditions without values for n pictures, those a module takes; low_res four times smaller, text encoded."""
    import torch

    takes, cond = getattr(module, "conditions", ()), {}
    if "label" in takes:
        cond["label"] = torch.zeros(n, dtype=torch.long)
    if "text" in takes:
        text = module.net.config.text
        cond["text"] = torch.empty(n, max(text.context, 1), text.width, device="meta")
    if "low_res" in takes:
        cond["low_res"] = torch.empty(n, module.channels, size // 4, size // 4, device="meta")
    if "image" in takes:
        cond["image"] = torch.empty(n, module.image_channels, size, size, device="meta")
    if "mask" in takes:
        cond["mask"] = torch.empty(n, 1, size, size, device="meta")
    return cond


def size_multiple(module: nn.Module) -> int:
    """What sides must be multiples of."""
    return getattr(module, "inputs", module).size_multiple


def as_text(facts: dict[str, Any]) -> str:
    """The facts for people."""
    classes, evaluated = facts["classes"], facts["evaluated"]
    null = " and the null class" if facts.get("null_class") else ""
    low, high = facts["sigma_range"]
    takes = ", takes " + ", ".join(facts["takes"]) if facts["takes"] else ""
    about = {
        "kind": f"{facts['kind']} ({facts['network']}){takes}",
        "parameters": f"{facts['parameters']:,}",
        "file": f"{unit(facts['file_bytes'], 'B')}, SHA-256 {facts['sha256']}",
        "pictures": f"{facts['image_size']}x{facts['image_size']}, {facts['channels']} channels; "
        f"other sides that are multiples of {facts['size_multiple']}",
        **({"latents": in_latents(facts["latents"])} if facts["latents"] else {}),
        "noise": f"{facts['parametrization']}, {facts['schedule'] or 'continuous'}, sigma {low:.4g} .. {high:.4g}",
        "evaluation": f"{unit(facts['flops'], 'FLOP')} a picture of {evaluated['size']} pixels",
        "memory": ", ".join(f"batch {n}: {unit(b, 'B')}" for n, b in facts["memory_bytes"].items())
        + f" (weights {unit(facts['weight_bytes'], 'B')}, {evaluated['dtype']})",
        "classes": f"{len(classes)}{null}{': ' + ', '.join(classes) if classes else ''}",
        "origin": "; ".join(f"{k} {v}" for k, v in facts["provenance"].items() if not isinstance(v, dict)) or "unknown",
    }
    return "\n".join([facts["name"], *rows(about)])


def rows(about: dict[str, str]) -> list[str]:
    """A line or several for each name and what is said of it."""
    lines = []
    for name, text in about.items():
        indents = {"initial_indent": f"  {name:<12}", "subsequent_indent": " " * 14}
        lines += textwrap.wrap(text, 110, break_on_hyphens=False, **indents)
    return lines


def in_latents(facts: dict[str, Any]) -> str:
    """A line on the latents that a model works in."""
    shape = "x".join(map(str, facts["shape"]))
    return f"{shape}, of an autoencoder of {facts['autoencoder_parameters']:,} parameters, not counted elsewhere here"


def unit(value: float, name: str) -> str:
    """1234567 as "1.2 MB"."""
    power = min(4, max(0, int(math.log10(max(value, 1)) // 3)))
    return f"{value / 1000**power:.3g} {'kMGT'[power - 1] if power else ''}{name}"
