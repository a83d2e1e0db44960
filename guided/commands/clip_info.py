"""What `guided info` says of a CLIP's folder."""

from __future__ import annotations

from typing import Any


def is_clip(source: str) -> bool:
    """Whether the source is a CLIP's folder, or the model.safetensors in one."""
    from guided import stored

    try:
        return stored.read_config(stored.find(source)).get("kind") == "clip"
    except (OSError, ValueError):
        return False  # what is wrong with it is said by whoever reads it as something else


def clip_facts(source: str) -> dict[str, Any]:
    """What it is, in values that JSON holds."""
    from classifiers.clip.checkpoint import load
    from guided import stored
    from guided.commands.recipe import sha256

    net, file = load(stored.find(source)), stored.find(source) / "model.safetensors"
    config = net.config
    towers = {"image": net.model.visual, "noise level": net.noise_embed if net.noise_aware else None}
    sizes = {name: sum(p.numel() for p in tower.parameters()) for name, tower in towers.items() if tower is not None}
    parameters = sum(p.numel() for p in net.parameters())
    return {
        "name": source,
        "kind": "clip, noise-aware" if net.noise_aware else "clip",
        "parameters": parameters,
        "parameters_image": sizes["image"],
        "file": str(file),
        "file_bytes": file.stat().st_size,
        "sha256": sha256(file),
        "image_size": config.image_size,
        "levels": None if config.levels is None else list(config.levels),
        "vectors": config.open_clip["embed_dim"],
        "tokens": config.open_clip["text_cfg"].get("context_length", 77),
        "vocabulary": config.open_clip["text_cfg"]["vocab_size"],
        "provenance": net.provenance,
    }


def clip_text(facts: dict[str, Any]) -> dict[str, str]:
    """The facts for people, a row each."""
    origin = "; ".join(f"{k} {v}" for k, v in facts["provenance"].items() if not isinstance(v, dict))
    noise = "clean pictures only" if facts["levels"] is None else "sigma {:.4g} .. {:.4g}".format(*facts["levels"])
    return {
        "kind": facts["kind"],
        "parameters": f"{facts['parameters']:,}, of which {facts['parameters_image']:,} look at pictures",
        "file": f"{facts['file_bytes'] / 1e6:.3g} MB, SHA-256 {facts['sha256']}",
        "pictures": f"{facts['image_size']}x{facts['image_size']}",
        "noise": noise,
        "texts": f"up to {facts['tokens']} tokens of a vocabulary of {facts['vocabulary']:,}",
        "vectors": f"of {facts['vectors']} numbers",
        "origin": origin or "unknown",
    }
