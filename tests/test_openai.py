"""Official files: key lists, presets, strict loading, downloads. The files themselves are too large to be here."""

from __future__ import annotations

import http.server
import json
import math
import pickle
import re
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

import guided
from guided import openai
from guided.cli import main
from guided.networks import Encoder, UNet
from guided.openai import PRESETS, Official

KEYS = Path(__file__).parent / "golden" / "official_keys"
NAMES = sorted(path.stem for path in KEYS.glob("*.json"))
BY_FILE = {row.file.removesuffix(".pt"): name for name, row in PRESETS.items()}
ALIKE = ["adm-256-uncond", "lsun-bedroom", "lsun-cat", "lsun-horse", "lsun-horse-nodropout"]


def recorded(name: str) -> dict:
    """What the reference's constructor made of an official file's settings."""
    record = json.loads((KEYS / f"{name}.json").read_text())
    for field in ("state_dict", "attention"):
        if isinstance(record[field], str):  # equal to another file's
            record[field] = json.loads((KEYS / f"{record[field]}.json").read_text())[field]
    return record


# ---------------------------------------------------------------------- the released files


@pytest.mark.parametrize("name", NAMES)
def test_keys_shapes_order_and_attention_are_the_official_files(name):
    assert len(NAMES) == 15
    record = recorded(name)
    with torch.device("meta"):
        net = openai.build(record["model_class"], **record["constructor_kwargs"])
    assert [(k, list(v.shape)) for k, v in net.state_dict().items()] == list(record["state_dict"].items())
    assert sum(p.numel() for p in net.parameters()) == record["total_params"]
    heads = []
    for key, module in net.named_modules():
        if hasattr(module, "num_heads"):
            new = getattr(module, "new_order", True)  # attention pools have the new order always
            heads.append([key, "new" if new else "legacy", module.num_heads])
    assert heads == record["attention"]
    assert next(net.parameters()).dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_presets_say_what_the_released_settings_say(name):
    record, row = recorded(name), PRESETS[BY_FILE[name]]
    assert row.class_name == record["model_class"]
    idle = {"use_checkpoint": False, "use_fp16": None, "num_heads_upsample": -1, "dropout": 0.0}
    for key, value in record["constructor_kwargs"].items():
        if key != "use_fp16":
            ours = row.flags.get(key, idle.get(key, False))
            assert (list(ours) if isinstance(ours, tuple) else ours) == value, key
    if record["diffusion"] is None:
        assert row.is_classifier and row.schedule is None and row.classes == 1000
    else:
        assert row.schedule == (record["diffusion"]["noise_schedule"], record["diffusion"]["steps"])
        assert row.learned_range == (record["diffusion"]["model_var_type"] == "LEARNED_RANGE")
        assert row.rescaled_t == record["diffusion"]["rescale_timesteps"]


@pytest.mark.parametrize(
    ("preset", "parameters", "keys", "time_scale"),
    [
        ("iddpm-imagenet64-uncond", 121_063_942, 450, 0.25),
        ("iddpm-cifar10-uncond", 52_546_438, 446, 0.25),
        ("iddpm-imagenet64-cond", 273_049_350, 451, 1.0),
        ("iddpm-upsample-cond", 279_792_390, 457, 1.0),
        ("iddpm-lsun-bedroom-bs128", 113_676_678, 426, 1.0),
    ],
)
def test_improved_ddpm_files_have_the_published_sizes(preset, parameters, keys, time_scale):
    row = PRESETS[preset]
    assert sum(math.prod(shape) for shape in row.shapes.values()) == parameters
    assert len(row.shapes) == keys
    assert row.time_scale == time_scale


def test_every_preset_has_a_file_of_its_own_and_a_chain():
    assert len({row.url for row in PRESETS.values()}) == len(PRESETS) == 27
    for name, row in PRESETS.items():
        assert row.url.startswith("https://") and row.url.endswith(row.file)
        if not row.is_classifier:
            assert len(row.chain()) == row.schedule[1] and row.chain().name == row.schedule[0], name
    scales = {name: row.classifier_scale for name, row in PRESETS.items() if row.classifier_scale}
    assert scales == {"adm-64": 1.0, "adm-128": 0.5, "adm-256": 1.0, "adm-256-uncond": 10.0, "adm-512": 4.0}


@pytest.mark.parametrize("name", NAMES)
def test_which_presets_an_official_files_shapes_fit(name):
    shapes = {key: tuple(shape) for key, shape in recorded(name)["state_dict"].items()}
    wanted = ALIKE if BY_FILE[name] in ALIKE else [BY_FILE[name]]
    assert list(openai.presets.fitting(shapes)) == wanted


# ---------------------------------------------------------------------- build


SMALL = {
    "image_size": 16, "in_channels": 3, "model_channels": 32, "out_channels": 6, "num_res_blocks": 1,
    "attention_resolutions": [2], "channel_mult": [1, 2], "num_head_channels": 32, "resblock_updown": True,
    "use_scale_shift_norm": True,
}  # fmt: skip


def test_build_takes_the_references_arguments():
    net = openai.build("UNetModel", **SMALL, num_classes=7, use_fp16=True, use_checkpoint=True, dims=2)
    assert isinstance(net, UNet) and net.config.checkpoint and net.label_emb.num_embeddings == 7
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    net.convert_to_fp16()
    assert net.middle_block[0].in_layers[2].weight.dtype == torch.float16
    sr = openai.build("SuperResModel", **SMALL)
    assert sr.input_blocks[0][0].weight.shape[1] == 6
    encoder = openai.build("EncoderUNetModel", **SMALL)
    assert isinstance(encoder, Encoder) and encoder.config.pool == "adaptive"  # the reference's default
    by_count = openai.build("UNetModel", **SMALL | {"num_head_channels": -1}, num_heads=4, num_heads_upsample=2)
    assert by_count.middle_block[1].num_heads == 4 and by_count.output_blocks[0][1].num_heads == 2


@pytest.mark.parametrize(
    ("class_name", "flags", "error", "message"),
    [
        ("UNetModel", {"widht": 3}, TypeError, "no argument 'widht'; it has: .*model_channels"),
        ("EncoderUNetModel", {"num_classes": 3}, TypeError, "no argument 'num_classes'"),
        ("UNetModel", {"dims": 3}, ValueError, "dims=3"),
        ("Unet", {}, ValueError, "one of UNetModel, SuperResModel, EncoderUNetModel, .*, got 'Unet'"),
        ("UNetModel", {"n_vocab": 3}, TypeError, "no argument 'n_vocab'"),
        ("Text2ImUNet", {"n_vocab": 3}, TypeError, "needs text_ctx, xf_width, xf_layers, xf_heads, xf_final_ln$"),
    ],
)
def test_build_names_what_it_does_not_know(class_name, flags, error, message):
    with pytest.raises(error, match=message):
        openai.build(class_name, **SMALL | flags)


def test_build_names_missing_arguments():
    with pytest.raises(TypeError, match="needs model_channels, attention_resolutions"):
        flags = {k: v for k, v in SMALL.items() if k not in ("model_channels", "attention_resolutions")}
        openai.build("UNetModel", **flags)


# ---------------------------------------------------------------------- load: real code on small rows


@pytest.fixture
def rows(monkeypatch):
    """The table with four small rows besides: one unlike any, two alike but for the attention order, a classifier."""
    flags = SMALL | {"num_classes": 5}
    own = Official("own.pt", "x", "UNetModel", flags, ("cosine", 4000), rescaled_t=True)
    legacy = Official("legacy.pt", "x", "UNetModel", SMALL)
    new = Official("new.pt", "x", "UNetModel", SMALL | {"use_new_attention_order": True})
    clf = Official("clf.pt", "x", "EncoderUNetModel", SMALL | {"out_channels": 9, "pool": "attention"}, None)
    for name, row in {"own": own, "legacy": legacy, "new": new, "clf": clf}.items():
        monkeypatch.setitem(PRESETS, name, row)
    return PRESETS


def weights(row: Official) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {key: 0.1 * torch.randn(value.shape, generator=g) for key, value in row.network().state_dict().items()}


@pytest.mark.parametrize("form", ["zip", "old", "safetensors"])
def test_a_file_becomes_the_model_its_row_describes(rows, tmp_path, form):
    tensors = weights(rows["own"])
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pt")
    if form == "safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=form == "zip")
    model = openai.load(path)
    assert model.provenance["preset"] == "own"
    assert model.class_names == ["0", "1", "2", "3", "4"] and model.null_label is None
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    # the whole path by hand: eps prediction on a cosine chain of 4000 steps told t / 4, learned variance
    net = rows["own"].network().eval()
    net.load_state_dict(tensors)
    chain = guided.Schedule.cosine(4000)
    sigma, x = chain.sigma[1234], torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        out = net((x / (1 + sigma**2).sqrt()).float(), torch.full((2,), 1234 / 4), y=torch.tensor([4, 1]))
        pred = model.given(label=["4", 1])(x, sigma)
    assert_close(pred.x0, (x - sigma * out[:, :3]).float(), rtol=1e-4, atol=1e-4)
    assert_close(pred.var_frac, (out[:, 3:] + 1) / 2, rtol=1e-4, atol=1e-4)


def test_half_precision_files_load_as_float32_and_class_names_can_be_given(rows, tmp_path):
    torch.save({k: v.half() for k, v in weights(rows["own"]).items()}, tmp_path / "w.pt")
    model = openai.load(tmp_path / "w.pt", "own", class_names=["a", "b", "c", "d", "e"])
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.labels("c").tolist() == [2]
    with pytest.raises(ValueError, match="own has 5 classes, got 2 class_names"):
        openai.load(tmp_path / "w.pt", class_names=["a", "b"])


def test_what_shapes_do_not_show_is_not_guessed(rows, tmp_path):
    torch.save(weights(rows["legacy"]), tmp_path / "w.pt")
    with pytest.raises(ValueError, match="fits legacy, new, which shapes do not tell apart: say which as preset"):
        openai.load(tmp_path / "w.pt")
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    a, b = (openai.load(tmp_path / "w.pt", name)(x, 1.0).x0 for name in ("legacy", "new"))
    assert (a - b).abs().max() > 1e-4  # and it matters


def test_an_encoder_loads_frozen_and_is_differentiable(rows, tmp_path):
    tensors = weights(rows["clf"])
    torch.save(tensors, tmp_path / "c.pt")
    net, row = openai.load_encoder(tmp_path / "c.pt")
    assert row is rows["clf"] and all(torch.equal(v, tensors[k]) for k, v in net.state_dict().items())
    x = torch.randn(2, 3, 16, 16).requires_grad_()
    logits = net(x, torch.tensor([3, 500]))
    assert logits.shape == (2, 9)
    assert torch.autograd.grad(logits[:, 0].sum(), x)[0].abs().max() > 0


def test_models_and_classifiers_are_not_taken_for_each_other(rows, tmp_path):
    torch.save(weights(rows["clf"]), tmp_path / "c.pt")
    torch.save(weights(rows["own"]), tmp_path / "m.pt")
    for preset in (None, "own"):
        with pytest.raises(ValueError, match=r"c\.pt is a classifier's: load it with classifiers\.openai\.load"):
            openai.load(tmp_path / "c.pt", preset)
    for preset in (None, "clf"):
        with pytest.raises(ValueError, match=r"m\.pt is a diffusion model's: load it with guided\.openai\.load"):
            openai.load_encoder(tmp_path / "m.pt", preset)
    with pytest.raises(ValueError, match="preset 'clf' is a classifier's"):
        openai.load(tmp_path / "m.pt", "clf")
    with pytest.raises(ValueError, match="preset 'own' is a diffusion model's"):
        openai.load_encoder(tmp_path / "c.pt", "own")


def test_the_first_wrong_keys_and_shapes_are_named(rows, tmp_path):
    tensors = weights(rows["own"])
    tensors["label_emb.weight"] = tensors["label_emb.weight"][:3].clone()
    tensors["extra.weight"] = tensors.pop("out.0.bias")
    torch.save(tensors, tmp_path / "w.pt")
    wanted = (
        r"1 missing \(out\.0\.bias\); 1 unexpected \(extra\.weight\); "
        r"1 of another shape \(label_emb\.weight is \(3, 128\), should be \(5, 128\)\)"
    )
    with pytest.raises(ValueError, match=wanted):
        openai.load(tmp_path / "w.pt", "own")
    with pytest.raises(ValueError, match="fits no preset; nearest is own: it does not fit the network: " + wanted):
        openai.load(tmp_path / "w.pt")


class Code:
    def __reduce__(self):
        return (exec, ("raise SystemExit('the code ran')",))


def test_unreadable_files_are_one_clear_line(rows, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pt: no such file"):
        openai.load(tmp_path / "none.pt")
    with pytest.raises(ValueError, match="unknown preset 'adm-265'; did you mean 'adm-256'"):
        (tmp_path / "x.pt").write_bytes(b"x")
        torch.save(weights(rows["own"]), tmp_path / "w.pt")
        openai.load(tmp_path / "w.pt", "adm-265")
    whole = (tmp_path / "w.pt").read_bytes()
    save_file(weights(rows["own"]), tmp_path / "w.safetensors")
    damaged = {
        "cut.pt": whole[: len(whole) // 2],
        "empty.pt": b"",
        "text.pt": b"<html>not found</html>",
        "cut.safetensors": (tmp_path / "w.safetensors").read_bytes()[:1000],
    }
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(name) + " is not a readable weights file") as error:
            openai.load(tmp_path / name)
        assert "\n" not in str(error.value)
    (tmp_path / "code.pt").write_bytes(pickle.dumps({"w": Code()}, protocol=2))
    torch.save({"w": Code()}, tmp_path / "code_zip.pt")
    for name in ("code.pt", "code_zip.pt"):
        with pytest.raises(ValueError, match=r"pickled Python objects \(.*exec\), not only tensors"):
            openai.load(tmp_path / name)
    for content in ([1, 2], {"a": 1}, {}):
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(ValueError, match="does not hold a state_dict"):
            openai.load(tmp_path / "other.pt")


def test_import_makes_a_folder_that_loads_alike(rows, tmp_path, capsys):
    torch.save(weights(rows["own"]), tmp_path / "w.pt")
    (tmp_path / "names.txt").write_text("ant\nbee\n\ncat\ndog\neel\n")
    out = tmp_path / "out"
    words = ["import", str(tmp_path / "w.pt"), "--preset", "own", "--out", str(out)]
    assert main([*words, "--class-names", str(tmp_path / "names.txt")]) == 0
    model, again = openai.load(tmp_path / "w.pt"), guided.load(out)
    assert again.class_names == ["ant", "bee", "cat", "dog", "eel"] and again.provenance["preset"] == "own"
    x = torch.randn(1, 3, 16, 16)
    assert torch.equal(model(x, 1.0, label=torch.tensor([3])).x0, again(x, 1.0, label=torch.tensor([3])).x0)
    capsys.readouterr()
    assert main(words) == 2
    assert "holds a checkpoint already" in capsys.readouterr().err
    assert main(["import", "--out", str(tmp_path / "b")]) == 2
    assert "give the FILE.pt, or a --preset to download" in capsys.readouterr().err


# ---------------------------------------------------------------------- download, from a server of this machine


@pytest.fixture
def server(monkeypatch):
    """Serves `content` under any name; `seen` are the Range headers asked for, `cut` bytes are all it sends."""

    class Handler(http.server.BaseHTTPRequestHandler):
        content, seen, cut, ranges = bytes(range(256)) * 4000, [], None, True

        def do_GET(self):
            asked = self.headers.get("Range")
            self.seen.append(asked)
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.ranges else 0
            if start >= len(self.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(self.content)}")
                self.end_headers()
                return
            self.send_response(206 if asked and self.ranges else 200)
            self.send_header("Content-Length", str(len(self.content) - start))
            self.end_headers()
            self.wfile.write(self.content[start : self.cut])

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    monkeypatch.setattr(openai.presets, "HOST", f"http://127.0.0.1:{httpd.server_port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield Handler
    httpd.shutdown()
    httpd.server_close()


def test_a_cut_download_goes_on_where_it_stopped(server, tmp_path):
    server.cut = 300_000
    with pytest.raises(ConnectionError, match=r"broke off at 300000 bytes.*run it again to go on"):
        openai.download("adm-64", tmp_path, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["64x64_diffusion.pt.part"]
    server.cut = None
    path = openai.download("adm-64", tmp_path, progress=False)
    assert path.read_bytes() == server.content and path == tmp_path / "64x64_diffusion.pt"
    assert server.seen == [None, "bytes=300000-"]
    assert [p.name for p in tmp_path.iterdir()] == ["64x64_diffusion.pt"]
    assert openai.download("adm-64", tmp_path) == path and len(server.seen) == 2  # there already


def test_a_whole_part_is_taken_and_a_wrong_one_fetched_anew(server, tmp_path):
    part = tmp_path / "64x64_diffusion.pt.part"
    part.write_bytes(server.content)
    assert openai.download("adm-64", tmp_path, progress=False).read_bytes() == server.content
    (tmp_path / "64x64_diffusion.pt").unlink()
    part.write_bytes(server.content + b"more")
    assert openai.download("adm-64", tmp_path, progress=False).read_bytes() == server.content


def test_a_server_that_does_not_resume_starts_again(server, tmp_path):
    server.ranges = False
    (tmp_path / "64x64_diffusion.pt.part").write_bytes(b"x" * 1000)
    assert openai.download("adm-64", tmp_path, progress=False).read_bytes() == server.content


def test_without_a_network_the_error_comes_soon_and_says_what_to_do(monkeypatch, tmp_path):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    # port 9 refuses; .invalid has no address (RFC 2606); 203.0.113.0/24 answers nobody (RFC 5737)
    for host in ("http://127.0.0.1:9", "https://no-such-host.invalid", "https://203.0.113.1"):
        monkeypatch.setattr(openai.presets, "HOST", host)
        start = time.monotonic()
        with pytest.raises(ConnectionError) as error:
            openai.download("adm-64", tmp_path)
        assert time.monotonic() - start < 4
        assert PRESETS["adm-64"].url in str(error.value)
        assert f"put it at {tmp_path / '64x64_diffusion.pt'}" in str(error.value)
    with pytest.raises(ValueError, match="unknown preset 'adm-65'"):
        openai.download("adm-65", tmp_path)
