"""A model that costs nothing."""

from __future__ import annotations

import torch

import guided

CLASSES = ["cat", "dog", "fish", "heart"]


def make_tiny_model() -> guided.Model:
    """16 pixels, four classes and a null class, seeded random weights; its output depends on x, sigma and label."""
    config = guided.networks.UNetConfig(
        in_channels=12,
        out_channels=12,
        model_channels=32,
        num_res_blocks=1,
        channel_mult=(1, 1),
        attention_resolutions=(2,),
        num_head_channels=32,
        resblock_updown=False,
        num_classes=len(CLASSES) + 1,
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = guided.Model(
            guided.networks.UNet(config),
            parametrization="edm",
            image_size=16,
            class_names=CLASSES,
            null_class=True,
            patch=2,
            time_scale=250.0,
        )
        for parameter in model.parameters():  # the layers that training starts at zero too
            if parameter.ndim > 1 and not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
    return model.eval().requires_grad_(False)
