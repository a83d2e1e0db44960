"""Prompts: how they become tokens, how they are bound to a model, and what guidance makes of them."""

from __future__ import annotations

import gzip
import json
import random
import re
import unicodedata
import warnings
from dataclasses import replace
from pathlib import Path

import golden_files
import pytest
import torch
from torch.testing import assert_close

import guided
from guided import openai
from guided.bpe import BytePairs, read_merges, words
from guided.cli import main
from guided.model import Model
from guided.networks import TextConfig, UNet, UNetConfig
from guided.noise import SeededNoise
from guided.text import PAD, Bytes, Gpt2, OpenClip

HERE = Path(__file__).parent / "golden" / "glide"
NET = UNetConfig(
    model_channels=32,
    channel_mult=(1, 1),
    num_res_blocks=1,
    attention_resolutions=(2,),
    num_head_channels=32,
    text=TextConfig(context=8, width=32, layers=1, heads=2, vocab=257),
)


def random_net(config: UNetConfig) -> UNet:
    torch.manual_seed(0)
    net = UNet(config).eval().requires_grad_(False)
    for p in net.parameters():
        p.add_(0.05 * torch.randn_like(p))
    return net


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(random_net(NET), None, "edm", image_size=8, reader=Bytes(8))


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory) -> Path:
    """A file like GPT-2's vocab.bpe: its own merges wherever the prompts of the golden cases come upon one; the others
    are of a letter that no text has."""
    record = json.loads((HERE / "merges.json").read_text())
    pairs = [record["merges"].get(str(i), ["\ue000", str(i)]) for i in range(record["of"])]
    path = tmp_path_factory.mktemp("gpt2") / "vocab.bpe.gz"
    path.write_bytes(gzip.compress("\n".join(["#version: 0.2", *map(" ".join, pairs), ""]).encode()))
    return path


# ---------------------------------------------------------------------- tokens


def test_gpt2_tokens_are_the_references(vocabulary):
    record = json.loads((HERE / "tokenizer.json").read_text())
    assert len(record["cases"]) == 6
    for case in record["cases"]:
        for context in (16, 128):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                tokens = Gpt2(context, vocabulary)([case["prompt"]])[0]
            assert bool(caught) == (case["num_tokens"] > context)
            mask = torch.tensor(case[f"mask_{context}"])
            assert torch.equal(tokens != PAD, mask)
            wanted = torch.tensor(case[f"padded_tokens_{context}"])
            assert torch.equal(torch.where(mask, tokens, record["end_token"]), wanted)
    pairs = Gpt2(128, vocabulary).pairs
    assert len(pairs) == record["n_vocab"] - 1 == record["end_token"]
    assert pairs.encode(record["cases"][4]["prompt"].lower()) == record["cases"][4]["tokens"]


def test_words_are_cut_as_gpt2s_pattern_cuts_them():
    regex = pytest.importorskip("regex")
    pattern = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
    draw = random.Random(0)
    common = "abstrevmld'   \t\n\r\x0b\x1c\x1f\x85\xa0éß中一二½²٣Ⅷ\u2028\u3000\u200b!?.,-_🦊\u0301ªǅ"
    for _ in range(3000):
        text = "".join(
            draw.choice(common) if draw.random() < 0.8 else chr(draw.randrange(32, 0xD7FF))
            for _ in range(draw.randrange(1, 14))
        )
        if all(unicodedata.category(c) != "Cn" for c in text):  # newer versions of Unicode know more of these
            assert words(text) == pattern.findall(text)


def test_byte_pairs_merge_the_most_urgent_pair_everywhere_first():
    pairs = BytePairs([("a", "b"), ("b", "c"), ("ab", "c"), ("Ġ", "ab")])
    assert len(pairs) == 260
    spelled = {number: token for token, number in pairs.number.items()}
    assert [spelled[i] for i in pairs.encode("abcab ab bc cb")] == ["abc", "ab", "Ġab", "Ġ", "bc", "Ġ", "c", "b"]
    assert [spelled[i] for i in pairs.encode("é")] == ["Ã", "©"]  # two bytes of UTF-8


def test_bytes_need_no_vocabulary():
    tokens = Bytes(6)(["Ab", "", "ü"])
    assert tokens.tolist() == [[97, 98, *[PAD] * 4], [PAD] * 6, [0xC3, 0xBC, *[PAD] * 4]]
    with pytest.warns(UserWarning, match="longer than the 6 tokens that the model reads: its end is cut off"):
        assert Bytes(6)(["abcdefgh"]).tolist() == [[97, 98, 99, 100, 101, 102]]


def test_a_vocabulary_that_is_missing_or_another_is_told(tmp_path, vocabulary):
    assert (Gpt2(4)(["", ""]) == PAD).all()
    with pytest.raises(FileNotFoundError, match=r"which is not here: get https://.*vocab\.bpe and put it beside"):
        Gpt2(4)(["a cat"])
    with pytest.raises(ValueError, match=r"has 50000 merges, this model's vocabulary 43"):
        Gpt2(4, vocabulary, 43)(["a cat"])
    for name, content in {"a.bpe": b"\xff\xfe", "b.bpe": b"<html>not a list</html>\n", "c.bpe.gz": b"abc"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(name) + " is no list of merges"):
            read_merges(tmp_path / name)


# ---------------------------------------------------------------------- an open_clip tower


@pytest.fixture(scope="module")
def tower(tmp_path_factory) -> OpenClip:
    """A tiny one with random weights, saved as open_clip saves models."""
    open_clip = pytest.importorskip("open_clip")
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("tower")
    config = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "head_width": 32, "patch_size": 8},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**{k: v for k, v in config.items()}).state_dict(), folder / "open_clip_model.safetensors")
    return OpenClip(f"local-dir:{folder}")


def test_an_open_clip_tower_gives_its_last_layer_and_the_end_token_once_more(tower):
    text = tower(["a red cat", "a dog", ""])
    assert text.shape == (3, 13, 16) and tower.width == 16 and not text.requires_grad
    clip, tokenizer = tower.tower
    tokens = tokenizer(["a red cat", "a dog", ""])
    ends = tokens.argmax(1)
    assert ends.tolist() == [4, 3, 1]
    for row, end in zip(text, ends.tolist(), strict=True):
        assert (row[end + 1 : -1] == 0).all() and torch.equal(row[-1], row[end]) and (row[: end + 1] != 0).all()
    # what the tower itself makes of a text is its end token, projected
    assert_close(text[:, -1] @ clip.text_projection, clip.encode_text(tokens), rtol=0, atol=1e-5)
    with pytest.warns(UserWarning, match="longer than the 12 tokens"):
        tower(["a " * 40])


def test_a_model_reads_by_a_tower_and_a_checkpoint_names_it(tower, tmp_path):
    net = random_net(UNetConfig(**{**NET.__dict__, "text": TextConfig(context=13, width=16, layers=0)}))
    model = Model(net, None, "edm", image_size=8, reader=tower)
    guided.save(model, tmp_path)
    again = guided.load(tmp_path)
    assert again.reader == tower and "token_embedding.weight" not in net.state_dict()
    images = guided.sample(again, prompt=["a red cat", "a dog"], steps=2, seeds=[0, 0], guidance_scale=2.0)
    assert (images[0] - images[1]).abs().max() > 1e-3
    assert_close(images, guided.sample(model, prompt=model.text(["a red cat", "a dog"]), steps=2, seeds=[0, 0],
                                       guidance_scale=2.0))  # fmt: skip


def test_guided_train_reads_captions_by_a_tower(tower, tmp_path, monkeypatch):
    row = guided.presets.PRESETS["text64"]
    small = replace(row, network=NET, image_size=8, patch=1, batch_size=2, images=4, warmup=0)
    monkeypatch.setitem(guided.presets.PRESETS, "text64", small)
    data, out = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    for name in ("a", "b"):
        guided.to_pil(torch.rand(1, 3, 8, 8) * 2 - 1)[0].save(data / f"{name}.png")
    (data / "metadata.csv").write_text("file,caption\na.png,a red cat\nb.png,a dog\n")
    words = ["train", str(data), "--preset", "text64", "--out", str(out), "--device", "cpu", "--grid", "2"]
    assert main([*words, "--text-tower", tower.name]) == 0
    model = guided.load(out)
    assert main([*words[:-1], "0", "--init", str(out), "--out", str(tmp_path / "on"), "--text-tower", tower.name]) == 2
    assert main([*words, "--text-tower", f"{tower.name}/../tower0"]) == 2  # a run that reads by another
    assert model.reader == tower and model.net.config.text.layers == 0 and model.net.config.text_width == 16
    assert guided.sample(model, prompt="a dog", steps=2, seeds=0, guidance_scale=2.0).shape == (1, 3, 8, 8)


def test_towers_that_are_not_here_are_told_at_once(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, weights, error, message in (
        ("ViT-B-33", None, ValueError, "open_clip has no model 'ViT-B-33'"),
        ("ViT-B-32", None, ValueError, "say which weights ViT-B-32 has"),
        ("ViT-B-32", "no_such_tag", ValueError, "ViT-B-32 has no weights 'no_such_tag'; there are, for instance, "),
        ("ViT-B-32", "no/such/file", FileNotFoundError, "no such weights file"),
        ("ViT-B-32", "laion2b_s34b_b79k", FileNotFoundError, r"--text-tower ViT-B-32@PATH/open_clip_model.safetensors"),
        ("local-dir:no/such", None, FileNotFoundError, "no such folder"),
    ):
        with pytest.raises(error, match=message):
            OpenClip(name, weights)(["a cat"])


# ---------------------------------------------------------------------- bound to a model


def test_prompts_tokens_and_encoded_text_are_one_condition(model):
    x, sigma = torch.randn(2, 3, 8, 8), torch.tensor(1.5)
    prompts = ["cat", "a dog"]
    tokens = model.reader(prompts)
    given = model.given(text=prompts)
    assert given.cond["text"].shape == (2, 8, 32) and not given.cond["text"].requires_grad
    by_hand = model.net.encode_text(tokens.clamp(min=0), tokens != PAD)
    assert_close(given.cond["text"], by_hand)
    want = given(x, sigma).x0
    for text in (tokens, given.cond["text"]):
        assert torch.equal(model.given(text=text)(x, sigma).x0, want)
    assert_close(model(x, sigma, text=prompts).x0, want)
    assert_close(model.given(text="cat")(x, sigma).x0[:1], want[:1], rtol=0, atol=1e-5)
    assert torch.equal(model.given()(x, sigma).x0, model.given(text="")(x, sigma).x0)
    assert (model.given()(x, sigma).x0 - want).abs().max() > 1e-3


def test_gradients_reach_the_transformer_from_tokens():
    net = UNet(NET)
    trainable = Model(net, None, "edm", image_size=8, reader=Bytes(8))
    torch.nn.init.normal_(net.out[2].weight)
    torch.nn.init.normal_(net.middle_block[1].proj_out.weight)
    trainable(torch.randn(2, 3, 8, 8), 1.0, text=["cat", ""]).x0.square().sum().backward()
    assert net.token_embedding.weight.grad[ord("c")].abs().max() > 0
    assert net.padding_embedding.grad.abs().max() > 0
    assert net.token_embedding.weight.grad[ord("z")].abs().max() == 0


def test_guidance_is_away_from_the_empty_prompt_in_one_batch(model, monkeypatch):
    x, sigma = torch.randn(2, 3, 8, 8), torch.tensor(1.5)
    c, u = model.given(text=["cat", "dog"]), model.given(text="")
    want = c(x, sigma).x0 + 2.0 * (c(x, sigma).x0 - u(x, sigma).x0)
    D = guided.denoiser(model, prompt=["cat", "dog"], guidance_scale=3.0, clip=False)
    batches = []
    forward = model.net.forward
    monkeypatch.setattr(model.net, "forward", lambda x, *a, **k: (batches.append(len(x)), forward(x, *a, **k))[1])
    assert_close(D(x, sigma).x0, want, rtol=0, atol=1e-4)
    assert batches == [4]


def test_guidance_with_tokens_is_the_references():
    if not (golden_files.FOLDER / "glide" / "cfg_combine.safetensors").exists():
        pytest.skip("only in the whole reference set: let GUIDED_GOLDEN name its folder")
    tensors, meta = golden_files.load("glide/cfg_combine")
    _, about = golden_files.load("glide/glide_base")
    net = openai.build(about["model_class"], n_vocab=about["n_vocab"], **about["constructor_kwargs"])
    net.load_state_dict(golden_files.load(meta["weights"].removesuffix(".safetensors"))[0])
    base = Model(net.eval(), guided.Schedule.cosine(1000), "eps", image_size=16, learned_range=True)
    tokens = torch.where(tensors["in.mask"], tensors["in.tokens"], PAD)
    sigma = base.schedule.sigma[tensors["in.t"][:2]]
    x = tensors["in.x_t"][:2] * (1 + sigma**2).sqrt().float()[:, None, None, None]
    D = guided.cfg(base.given(text=tokens[:2]), base.given(text=tokens[2:]), meta["guidance_scale"])
    with torch.no_grad():
        pred = D(x, sigma)
    eps = ((x - pred.x0) / sigma[:, None, None, None]).float()
    assert_close(eps, tensors["out.combined"][:2, :3], rtol=0, atol=5e-4)
    assert_close(2 * pred.var_frac - 1, tensors["out.combined"][:2, 3:], rtol=0, atol=1e-4)


def test_a_prompt_a_picture_in_any_batches(model):
    def run(prompt, **options):
        return guided.sample(model, prompt=prompt, steps=3, guidance_scale=2.0, **options)

    whole = run(["cat", "dog", "a bee"], seeds=0)
    assert whole.shape == (3, 3, 8, 8)
    assert_close(run(["cat", "dog", "a bee"], seeds=0, batch_size=2), whole, rtol=0, atol=1e-4)
    assert_close(run("dog", seeds=[1]), whole[1:2], rtol=0, atol=1e-4)
    assert len(run("cat", n=2, seeds=0)) == 2 and len(run("cat", seeds=[3, 4])) == 2
    assert (run("cat", seeds=0) - run("cow", seeds=0)).abs().max() > 1e-3


def test_text_is_annealed_as_it_is_encoded(model):
    """CADS by hand: y' = sqrt(g) y + scale std(y) sqrt(1 - g) n, of each prompt's encoded text, g rising to 1."""
    how, prompts, seeds = guided.Anneal(scale=0.5, mix=0.0), ["cat", "dog"], [4, 5]
    y, n, noise, sigmas = model.text(prompts), guided.guidance.anneal_noise(seeds), SeededNoise(seeds), model.sigmas(8)
    x = sigmas[0].float() * noise(torch.empty(2, 3, 8, 8))
    shares = [float(how.share(s)) for s in sigmas[:-1]]
    assert shares[0] == 0 and 0 < shares[1] < 1 and shares[-1] == 1
    for s, s_next, g in zip(sigmas[:-1], sigmas[1:], shares, strict=True):
        spread = 0.5 * y.std((1, 2), keepdim=True, correction=0) * (1 - g) ** 0.5
        x0 = model(x, s, text=g**0.5 * y + spread * n(y) if g < 1 else y).x0
        x = x0 + float(s_next / s) * (x - x0)
    options = {"steps": 8, "sampler": "ddim", "seeds": seeds, "clip": False}
    assert_close(guided.sample(model, prompt=prompts, anneal=how, **options), x, atol=1e-4, rtol=1e-4)
    assert (guided.sample(model, prompt=prompts, **options) - x).abs().max() > 1e-2


def test_a_label_and_a_prompt_are_dropped_together():
    both = Model(
        random_net(UNetConfig(**{**NET.__dict__, "num_classes": 3})),
        None,
        "edm",
        image_size=8,
        class_names=["a", "b"],
        null_class=True,
        reader=Bytes(8),
    )
    assert both.conditions == ("label", "text")
    x, sigma = torch.randn(1, 3, 8, 8), torch.tensor(1.0)
    c, u = both.given(label="a", text="cat"), both.given()
    label_alone, text_alone = both.given(label="a"), both.given(text="cat")
    for labels, prompt, cond in (("a", "cat", c), ("a", None, label_alone), (None, "cat", text_alone)):
        D = guided.denoiser(both, labels, prompt=prompt, guidance_scale=2.0, clip=False)
        assert_close(D(x, sigma).x0, 2 * cond(x, sigma).x0 - u(x, sigma).x0, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": ""}, "a prompt is empty: say what the picture should show, or leave prompt out"),
        ({"prompt": ["cat", "  "]}, "a prompt is empty"),
        ({"prompt": 5}, "prompt must be a text, a list of them, tokens or encoded text, got 5"),
        ({"prompt": b"cat"}, "prompt must be a text, a list of them"),
        ({"prompt": ["cat", 5]}, r"got \['cat', 5\]"),
        ({"prompt": []}, r"text must be a prompt or a list of prompts, got \[\]"),
        ({"prompt": ["cat", "dog"], "n": 3}, "2 prompts for 3 pictures: give 1 or 3"),
        ({"prompt": torch.zeros(1, 8, 31)}, r"text must be prompts, tokens \(N, 8\) below 257 or encoded \(N, L, 32\)"),
        ({"prompt": torch.full((1, 8), 300)}, "text must be prompts, tokens"),
        ({"guidance_scale": 2.0}, "guidance_scale has nothing to guide to without a prompt: give one"),
        ({"labels": 0, "prompt": "cat"}, "this model has no classes"),
        ({"prompt": "cat", "temperature": 0.0}, "temperature must be positive, got 0"),
    ],
)
def test_what_is_wrong_with_a_prompt_is_said_before_any_work(model, monkeypatch, arguments, message):
    monkeypatch.setattr(model.net, "forward", None)
    with pytest.raises(ValueError, match=message):
        guided.stream(model, **arguments)


def test_without_a_reader_only_the_empty_prompt_and_tensors_are_understood():
    bare = Model(random_net(NET), None, "edm", image_size=8)
    with pytest.raises(ValueError, match="text must be a prompt or a list of prompts, got 5"):
        bare.given(text=5)
    assert torch.equal(bare.text("")[0], bare.text(torch.full((1, 8), PAD))[0])
    with pytest.raises(ValueError, match="nothing to read prompts with: give tokens or encoded text"):
        bare.given(text="cat")


def test_the_first_noise_has_the_temperature(model):
    first = [next(guided.stream(model, prompt="cat", steps=2, seeds=0, sampler="euler", temperature=t, clip=False))
             for t in (1.0, 0.5)]  # fmt: skip
    sigmas, noise = model.sigmas(2), guided.SeededNoise([0])
    start = float(sigmas[0]) * noise(torch.empty(1, 3, 8, 8))
    D = model.given(text="cat")
    for state, t in zip(first, (1.0, 0.5), strict=True):
        assert_close(state.x0, D(t * start, sigmas[0]).x0)


# ---------------------------------------------------------------------- files


def test_a_checkpoint_remembers_how_it_reads(model, tmp_path):
    guided.save(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["reader"] == {"kind": "bytes", "context": 8} and config["network"]["text"]["layers"] == 1
    again = guided.load(tmp_path)
    assert again.reader == Bytes(8) and again.net.config == model.net.config
    assert torch.equal(again.text("cat"), model.text("cat"))
    config["reader"] = {"kind": "runes"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="by one of bytes, gpt2, open_clip, got 'runes'"):
        guided.load(tmp_path)


def glide_file(folder: Path, monkeypatch) -> Path:
    """A file like one of GLIDE's, small, and a preset for it; its vocabulary is that of 50,000 merges."""
    flags = {
        "in_channels": 3, "model_channels": 32, "out_channels": 6, "num_res_blocks": 1, "attention_resolutions": (2,),
        "channel_mult": (1, 1), "num_head_channels": 32, "text_ctx": 16, "xf_width": 4, "xf_layers": 1, "xf_heads": 2,
        "xf_final_ln": True, "xf_padding": True, "n_vocab": 50257,
    }  # fmt: skip
    row = openai.Official("small.pt", "dec-2021", "SuperResText2ImUNet", flags, ("linear", 1000), side=16)
    monkeypatch.setitem(openai.PRESETS, "glide-small", row)
    torch.manual_seed(0)
    torch.save({k: 0.1 * torch.randn(v.shape) for k, v in row.network().state_dict().items()}, folder / "small.pt")
    return folder / "small.pt"


def test_official_text_models_find_the_vocabulary_and_keep_it(tmp_path, vocabulary, monkeypatch):
    path = glide_file(tmp_path, monkeypatch)
    mute = openai.load(path)
    assert mute.conditions == ("text", "low_res") and mute.provenance["preset"] == "glide-small"
    low = torch.zeros(1, 3, 4, 4)
    with pytest.raises(FileNotFoundError, match=r"get https://.*vocab\.bpe"):
        mute.given(text="a corgi", low_res=low)
    with pytest.raises(FileNotFoundError, match="nowhere: no such file"):
        openai.load(path, vocabulary="nowhere")
    reads = openai.load(path, "glide-small", vocabulary=vocabulary)
    text = reads.text("an oil painting of a corgi")
    assert text.shape == (1, 16, 4) and not torch.equal(text, mute.text(""))
    guided.save(reads, tmp_path / "copy")
    assert (tmp_path / "copy" / "vocab.bpe").is_file()
    assert torch.equal(guided.load(tmp_path / "copy").text("an oil painting of a corgi"), text)
    (tmp_path / "vocab.bpe.gz").write_bytes(vocabulary.read_bytes())
    assert torch.equal(openai.load(path).text("an oil painting of a corgi"), text)
    how = {"steps": "fast27", "sampler": "ddim", "temperature": 0.997, "seeds": 0}
    images = guided.sample(reads, prompt="a corgi", low_res=low, **how)
    assert images.shape == (1, 3, 16, 16)
