"""Forward pass, training step, classifier gradient and classifier-free guidance against the plain way, in one run each.

    python benchmarks/speed.py                      # all tables
    python benchmarks/speed.py forward-openai64 classifier --rounds 7
    python benchmarks/speed.py --reference DIR      # guided-diffusion's own networks too, from a checkout

Writes each table into benchmarks/results/speed.json and all of them into speed.md. One thread, processor time.
diffusers' UNet2DModel of the same form is measured too where it is installed.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
from collections.abc import Callable

import torch
from baseline import Plain, plain, reference
from clock import compare, compare_pairs, keep, said, table
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from guided import openai
from guided.networks import UNet, UNetConfig
from guided.networks.onednn import Conv2d
from guided.openai.presets import PRESETS

SMALL = UNetConfig(
    model_channels=64, channel_mult=(1, 2, 2), num_res_blocks=2, attention_resolutions=(2, 4), num_head_channels=64,
    num_classes=10,
)  # fmt: skip


def randomized(net: nn.Module) -> nn.Module:
    """Every weight random, those that start at zero too, so that errors mean something; frozen, in eval mode."""
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            noise = torch.randn(p.shape, generator=g)
            p.copy_(p[0].numel() ** -0.5 * noise if p.ndim > 1 else p + 0.1 * noise)
    return net.eval().requires_grad_(False)


def unet(name: str) -> tuple[UNet, int]:
    """The network of a table and the side of its pictures."""
    if name == "small":
        return randomized(UNet(SMALL)), 32
    return randomized(official("adm-64")), 64


def official(preset: str) -> nn.Module:
    return openai.build(PRESETS[preset].class_name, **PRESETS[preset].flags)


def inputs(n: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures, the same at every call, times and classes."""
    g = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, side, side, generator=g), torch.linspace(10, 900, n), torch.arange(n)


def bf16(net: nn.Module) -> nn.Module:
    return copy.deepcopy(net).to_torso(torch.bfloat16)


def compiled(net: nn.Module) -> Callable[..., Tensor]:
    """The network as `optimize(compile=True)` runs it on this device."""
    from guided.compiling import compiled_network

    return compiled_network(copy.deepcopy(net))


def diffusers_unet(net: UNet) -> Callable[..., Tensor] | None:
    """diffusers' network of the same form, channels-last, random; None where it is not installed."""
    if importlib.util.find_spec("diffusers") is None:
        return None
    from diffusers import UNet2DModel

    c = net.config
    attends = [2**level in c.attention_resolutions for level in range(len(c.channel_mult))]
    made = UNet2DModel(
        in_channels=3,
        out_channels=c.out_channels,
        block_out_channels=tuple(c.width(level) for level in range(len(c.channel_mult))),
        layers_per_block=c.num_res_blocks,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        attention_head_dim=c.num_head_channels,
        resnet_time_scale_shift="scale_shift",
        downsample_type="resnet",
        upsample_type="resnet",
        num_class_embeds=c.num_classes,
    )
    made = made.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def run(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return made(x.contiguous(memory_format=torch.channels_last), t, y).sample

    return run


def forward(name: str, n: int, args: argparse.Namespace) -> list[str]:
    net, side = unet(name)
    told = inputs(n, side)
    makes: dict[str, Callable[[], Callable[..., Tensor]]] = {
        "guided, fp32": lambda: net,
        "guided, bf16": lambda: bf16(net),
    }
    if args.compile:
        makes["guided, bf16, compiled"] = lambda: compiled(bf16(net))
    if args.reference:
        makes["guided-diffusion, fp32"] = lambda: reference(args.reference, net).requires_grad_(False)
    return against_plain(net, makes, lambda f: f(*told), args.rounds, diffusers=lambda: diffusers_unet(net))


def against_plain(
    net: nn.Module,
    makes: dict[str, Callable[[], Callable[..., Tensor]]],
    call: Callable[[Callable[..., Tensor]], Tensor],
    rounds: int,
    *,
    diffusers: Callable[[], Callable[..., Tensor] | None] = lambda: None,
) -> list[str]:
    """The table of networks against the plain one, a pair at a time to spare memory; and against diffusers."""
    base = plain(net).requires_grad_(False)
    errors: dict[str, float] = {}
    with torch.no_grad():
        wanted = call(base)

        def ready(name: str, f: Callable[..., Tensor]) -> Callable[[], Tensor]:
            if name in makes:
                errors[name] = far(call(f), wanted)
            return lambda: call(f)

        def unpacked(name: str) -> Callable[[], Tensor]:
            for layer in net.modules():
                if isinstance(layer, Conv2d):
                    layer.unpack()  # of the variant before
            return ready(name, makes[name]())

        ours = {name: lambda name=name: unpacked(name) for name in makes}
        rows = table(compare_pairs(("plain, fp32", lambda: call(base)), ours, rounds), "plain, fp32", errors)
        other = diffusers()
        if other is not None:
            del base
            key = "diffusers UNet2DModel, channels-last, fp32"
            mine = {name: make for name, make in ours.items() if name in ("guided, fp32", "guided, bf16")}
            found = compare_pairs((key, lambda: call(other)), mine, rounds)
            each = [f"{name} {said(times, name, key)}" for times, name in zip(found, mine, strict=True)]
            rows += ["", f"Against {key}: {'; '.join(each)}."]
    return rows


def far(got: Tensor, wanted: Tensor) -> float:
    return float((got - wanted).norm() / wanted.norm())


def plain_step() -> Callable[[], object]:
    """A training step of the small network in the plain way: float32, loops over parameters in the average."""
    x, t, y = training_batch()
    net = plain(UNet(SMALL)).train().requires_grad_(True)
    average = [p.detach().clone() for p in net.parameters()]
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, foreach=False, fused=False)

    def step() -> None:
        net(x, t, y).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for a, p in zip(average, net.parameters(), strict=True):
                a.mul_(0.999).add_(p, alpha=0.001)

    return step


def our_step(cast: bool) -> Callable[[], object]:
    """The same as `guided.train` makes it, in bfloat16 if `cast`."""
    x, t, y = training_batch()
    net = UNet(SMALL).train()
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            loss = net(x, t, y).float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(net)

    return step


def training_batch() -> tuple[Tensor, Tensor, Tensor]:
    x, t, y = inputs(16, 32)
    return x, t, y % 10


def training(args: argparse.Namespace) -> list[str]:
    variants = {"plain, fp32": plain_step(), "guided, fp32": our_step(False), "guided, bf16": our_step(True)}
    return table(compare(variants, args.rounds), "plain, fp32")


def gradient(of: nn.Module) -> Callable[[], Tensor]:
    """What classifier guidance asks of a classifier of 64-pixel pictures: the gradient of log p(y | x) in x."""
    x, t, _ = inputs(1, 64)

    def run() -> Tensor:
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(of(leaf, t).log_softmax(1)[:, 207].sum(), leaf)[0]

    return run


def classifier(args: argparse.Namespace) -> list[str]:
    net = randomized(official("classifier-64"))
    variants = {"plain, fp32": gradient(plain(net).requires_grad_(False))}
    if args.reference:
        variants["guided-diffusion, fp32"] = gradient(reference(args.reference, net))
    variants |= {"guided, fp32": gradient(net), "guided, bf16": gradient(bf16(net))}
    wanted = variants["plain, fp32"]()
    errors = {key: far(f(), wanted) for key, f in variants.items()}
    return table(compare(variants, args.rounds), "plain, fp32", errors)


def guidance(args: argparse.Namespace) -> list[str]:
    net, side = unet("openai64")
    x, t, y = inputs(1, side)
    pairs = torch.cat([x, x]), torch.cat([t, t]), torch.cat([y, y + 1])

    def two(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *told: torch.cat([f(*(part[i : i + 1] for part in told)) for i in range(2)])

    makes = {
        "guided, fp32, one batch": lambda: net,
        "guided, fp32, two calls": lambda: two(net),
        "guided, bf16, one batch": lambda: bf16(net),
        "guided, bf16, two calls": lambda: two(bf16(net)),
    }
    return against_plain(net, makes, lambda f: (two(f) if isinstance(f, Plain) else f)(*pairs), args.rounds)


TABLES: dict[str, tuple[str, Callable[[argparse.Namespace], list[str]]]] = {
    "forward-small-1": ("Forward, small (32 pixels, 8.0 M), 1 picture", lambda a: forward("small", 1, a)),
    "forward-small-8": ("Forward, small (32 pixels, 8.0 M), 8 pictures", lambda a: forward("small", 8, a)),
    "forward-openai64": ("Forward, adm-64 (295.9 M), 1 picture", lambda a: forward("openai64", 1, a)),
    "forward-openai64-4": ("Forward, adm-64 (295.9 M), 4 pictures", lambda a: forward("openai64", 4, a)),
    "training": ("Training step, small, 16 pictures (forward, backward, AdamW, average)", training),
    "classifier": ("Gradient of classifier-64 in its input, 1 picture", classifier),
    "cfg": ("Classifier-free guidance, adm-64, 1 picture: both evaluations", guidance),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)}; default: all")
    parser.add_argument("--reference", metavar="DIR", help="a checkout of guided-diffusion, measured too")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="leave the compiled variants out")
    args = parser.parse_args()
    unknown = [name for name in args.tables if name not in TABLES]
    if unknown:
        parser.error(f"no table {unknown[0]!r}; there are {', '.join(TABLES)}")
    torch.set_num_threads(1)
    told = (
        [f"--rounds {args.rounds}"] + ["--reference DIR"] * bool(args.reference) + ["--no-compile"] * (not args.compile)
    )
    for name in args.tables or TABLES:
        title, make = TABLES[name]
        rows = make(args)
        print(f"## {title}\n", *rows, "", sep="\n", flush=True)
        keep(name, title, rows, " ".join(["python benchmarks/speed.py", name, *told]))


if __name__ == "__main__":
    main()
