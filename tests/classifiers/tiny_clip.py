"""A CLIP small enough for finite differences: 16 pixels, seeded random weights, all of them at work."""

from __future__ import annotations

import torch

from classifiers.clip import ClipConfig, ClipNet
from classifiers.clip.checkpoint import fresh
from classifiers.clip.vocabulary import pack

VISION = {
    "transformer": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 4, "image_size": 16},
    "resnet": {"layers": [1, 1, 1, 1], "width": 4, "head_width": 16, "image_size": 32},
    "timm": {"timm_model_name": "test_resnet", "image_size": 32},
}


def described(tower: str = "transformer", context: int = 12) -> dict:
    """A tiny model as open_clip describes it."""
    text = {"context_length": context, "vocab_size": 514, "width": 32, "heads": 2, "layers": 1}
    return {"embed_dim": 16, "vision_cfg": VISION[tower], "text_cfg": text}


def tiny_clip(tower: str = "transformer", *, levels=(0.002, 80.0), dtype=torch.float64, seed: int = 0) -> ClipNet:
    """Seeded random weights, those included that training starts at zero; in eval mode, frozen."""
    size = VISION[tower]["image_size"]
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        net = fresh(ClipConfig(described(tower), size, levels=levels), pack([]))
        for parameter in net.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
    return net.to(dtype).eval().requires_grad_(False)
