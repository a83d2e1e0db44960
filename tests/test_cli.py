"""The command line: what is drawn is what was asked for, files remember it, and bad input is one line."""

from __future__ import annotations

import hashlib
import importlib
import json
import shlex

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import guided
from guided import cli
from guided.commands import draw, sample
from guided.commands.labels import shares, spread, to_tensor
from guided.commands.options import typed_options
from guided.images import GAP, read_metadata, to_pil
from guided.levels import LogNormal

FAST = ["--steps", "3", "--device", "cpu"]


def run(*words) -> int:
    """The exit code of `guided WORDS...`."""
    try:
        return cli.main([str(word) for word in words])
    except SystemExit as stop:
        return stop.code


def tiles(path, side: int = 16) -> np.ndarray:
    """(rows * columns, side, side, 3) bytes of a grid, row by row."""
    grid, step = np.asarray(Image.open(path)), side + GAP
    rows, columns = (grid.shape[0] + GAP) // step, (grid.shape[1] + GAP) // step
    return np.stack([grid[r * step :, c * step :][:side, :side] for r in range(rows) for c in range(columns)])


def as_bytes(images: torch.Tensor) -> np.ndarray:
    return np.stack([np.asarray(image) for image in to_pil(images)])


@pytest.fixture
def drawn(tiny_folder, tmp_path):
    """A grid of four pictures, drawn by the command."""
    out = tmp_path / "grid.png"
    words = ["--label", "cat,heart", "--n", 4, "--seed", 5, "--guidance-scale", 2, "--batch-size", 3, "--out", out]
    assert run("sample", "--model", tiny_folder, *words, *FAST) == 0
    return out


@pytest.fixture(scope="session")
def tiny_classifier(tmp_path_factory):
    """The folder of a classifier that knows the tiny model's classes in another order."""
    classifiers = pytest.importorskip("classifiers")
    config = guided.networks.EncoderConfig(
        image_size=16,
        model_channels=32,
        num_res_blocks=1,
        channel_mult=(1, 1),
        attention_resolutions=(2,),
        out_channels=4,
        pool="attention",
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        net = guided.networks.Encoder(config)
    names = ["heart", "fish", "dog", "cat"]
    folder = tmp_path_factory.mktemp("classifiers") / "tiny"
    classifiers.save(classifiers.NoisyClassifier(net, image_size=16, class_names=names), folder)
    return folder


# --- sample -----------------------------------------------------------------------------------------------


def test_sample_draws_what_the_library_draws(drawn, tiny_model):
    want = guided.sample(
        tiny_model, ["cat", "cat", "heart", "heart"], steps=3, guidance_scale=2.0, seeds=5, batch_size=3
    )
    assert np.array_equal(tiles(drawn), as_bytes(want))


def test_the_file_remembers_everything(drawn, tiny_folder):
    kept = read_metadata(drawn)
    weights = (tiny_folder / "model.safetensors").read_bytes()
    assert kept["command"] == "sample" and kept["index"] is None
    assert kept["versions"]["guided"] == guided.__version__ and kept["versions"]["torch"] == torch.__version__
    assert kept["recipe"] == {
        "model": str(tiny_folder),
        "model_sha256": hashlib.sha256(weights).hexdigest(),
        "labels": ["cat", "cat", "heart", "heart"],
        "seeds": [5, 6, 7, 8],
        "batch_size": 3,
        "steps": 3,
        "sampler": "unipc",
        "spacing": None,
        "options": {},
        "guidance_scale": 2.0,
        "window": None,
        "classifier": None,
        "classifier_sha256": None,
        "classifier_scale": 1.0,
        "size": None,
        "device": "cpu",
        "dtype": "fp32",
        "columns": None,
        "prompts": None,
        "clip": None,
        "steering": None,
        "upsampling": None,
    }


def test_sampler_options_and_respacing_reach_the_sampler(tiny_folder, tiny_model, tmp_path):
    out = tmp_path / "a.png"
    how = ["--sampler", "ddim", "--option", "eta=0.5", "--steps", "ddim4", "--size", 24, "--device", "cpu"]
    assert run("sample", "--model", tiny_folder, "--label", "dog", "--seed", 3, *how, "--out", out) == 0
    want = guided.sample(tiny_model, "dog", sampler="ddim", eta=0.5, steps="ddim4", size=24, seeds=3)
    assert np.array_equal(tiles(out, 24), as_bytes(want))


def test_a_number_with_a_comma_is_a_respacing(tiny_folder, tiny_model, tmp_path):
    how = ["--sampler", "ddpm", "--steps", "5,", "--device", "cpu", "--label", "dog", "--seed", 3]
    assert run("sample", "--model", tiny_folder, *how, "--out", tmp_path / "a.png") == 0
    want = guided.sample(tiny_model, "dog", sampler="ddpm", steps="5", seeds=3)
    assert np.array_equal(tiles(tmp_path / "a.png"), as_bytes(want))


def test_without_a_label_it_draws_the_null_class(tiny_folder, tiny_model, tmp_path):
    assert run("sample", "--model", tiny_folder, "--n", 2, "--seed", 1, *FAST, "--out", tmp_path / "a.png") == 0
    want = guided.sample(tiny_model, None, n=2, steps=3, seeds=1)
    assert np.array_equal(tiles(tmp_path / "a.png"), as_bytes(want))


def test_a_seed_that_is_drawn_is_said_and_gives_the_same_again(tiny_folder, tmp_path, capsys):
    assert run("sample", "--model", tiny_folder, "--label", "cat", *FAST, "--out", tmp_path / "a.png") == 0
    said = capsys.readouterr().err
    seed = said.split("--seed ")[1].split()[0]
    words = ["--label", "cat", "--seed", seed, "--out", tmp_path / "b.png"]
    assert run("sample", "--model", tiny_folder, *words, *FAST) == 0
    assert np.array_equal(tiles(tmp_path / "a.png"), tiles(tmp_path / "b.png"))


def test_names_made_up_are_new_ones(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["sample", "--model", tiny_folder, "--label", "cat:0.5+dog:0.5", "--seed", 2, *FAST]
    assert [run(*words), run(*words)] == [0, 0]
    assert capsys.readouterr().out.split() == ["cat-0.5-dog-0.5-2.png", "cat-0.5-dog-0.5-2-2.png"]


def test_files_are_not_lost(drawn, tiny_folder, capsys):
    before = drawn.read_bytes()
    words = ["sample", "--model", tiny_folder, "--label", "fish", "--seed", 0, *FAST, "--out", drawn]
    assert run(*words) == 2
    assert "exists; choose another name or give --overwrite" in capsys.readouterr().err
    assert drawn.read_bytes() == before
    assert run(*words, "--overwrite") == 0
    assert read_metadata(drawn)["recipe"]["labels"] == ["fish"]


def test_separate_files_are_the_grids_pictures_and_replay(drawn, tiny_folder, tmp_path, capsys):
    folder = tmp_path / "each"
    words = ["--label", "cat,heart", "--n", 4, "--seed", 5, "--guidance-scale", 2, "--batch-size", 3]
    assert run("sample", "--model", tiny_folder, *words, "--separate", folder, *FAST) == 0
    assert sorted(path.name for path in tmp_path.rglob("*.png")) == [
        "cat-5.png", "cat-6.png", "grid.png", "heart-7.png", "heart-8.png",
    ]  # fmt: skip
    for tile, name in zip(tiles(drawn), ["cat-5", "cat-6", "heart-7", "heart-8"], strict=True):
        assert np.array_equal(np.asarray(Image.open(folder / f"{name}.png")), tile)
    for name in ("cat-6", "heart-8"):  # of a full batch and of the rest
        assert run("replay", folder / f"{name}.png") == 0
    assert capsys.readouterr().out.count("equal, every pixel") == 2


def test_classifier_guidance_takes_each_batchs_own_classes(tiny_folder, tiny_model, tiny_classifier, tmp_path):
    import classifiers

    words = ["--label", "cat,dog,heart", "--seed", 1, "--batch-size", 2, "--out", tmp_path / "a.png"]
    guidance = ["--classifier", tiny_classifier, "--classifier-scale", 30]
    assert run("sample", "--model", tiny_folder, *words, *guidance, *FAST) == 0
    clf = classifiers.load(tiny_classifier)
    for i, label in enumerate(["cat", "dog", "heart"]):
        term = clf.term(label, scale=30.0)
        want = as_bytes(guided.sample(tiny_model, label, steps=3, seeds=[1 + i], terms=[term]))[0]
        plain = as_bytes(guided.sample(tiny_model, label, steps=3, seeds=[1 + i]))[0]
        got = tiles(tmp_path / "a.png")[i].astype(int)
        assert abs(got - want).max() <= 1
        assert abs(got - plain).max() > 3  # it did guide
    assert run("replay", tmp_path / "a.png") == 0


# --- labels and options -----------------------------------------------------------------------------------


def test_every_label_gets_the_same_number_of_pictures(tiny_model):
    assert spread(["heart", "0, dog"], tiny_model, None) == ["heart", "cat", "dog"]
    assert spread(["heart,cat"], tiny_model, 4) == ["heart", "heart", "cat", "cat"]
    with pytest.raises(ValueError, match="2 labels for 3 pictures: --n must be a multiple of 2"):
        spread(["heart,cat"], tiny_model, 3)


def test_mixtures_are_soft_rows(tiny_model):
    labels = spread(["cat:0.75+heart:0.25", "dog+fish", "dog"], tiny_model, None)
    assert labels == ["cat:0.75+heart:0.25", "dog:0.5+fish:0.5", "dog"]
    want = torch.tensor([[0.75, 0, 0, 0.25], [0, 0.5, 0.5, 0], [0, 1, 0, 0]])
    assert_close(to_tensor(labels, tiny_model), want)
    assert to_tensor(["dog", "cat"], tiny_model).tolist() == [1, 0]


def test_names_with_signs_in_them_are_names(tiny_model):
    class Odd:
        class_names = ("a,b", "c+d", "e:1", "7")

    for index, name in enumerate(Odd.class_names):
        assert shares(name, Odd) == {index: 1.0}
        assert spread([name], Odd, None) == [name]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cet", "unknown class 'cet'; did you mean 'cat'"),
        ("4", "class number 4 is outside 0..3"),
        ("", "a label is empty"),
        ("cat:x+dog:1", "the share 'x' is no number"),
        ("cat:nan+dog:1", "must be a plain number"),
        ("cat:0.5+dog", "give every class a share, or none"),
        ("cat+cat", "names a class twice"),
    ],
)
def test_bad_labels_are_named(tiny_model, text, words):
    with pytest.raises(ValueError, match=words.replace("+", r"\+")):
        spread([text], tiny_model, None)


def test_options_get_the_types_of_the_sampler():
    got = typed_options("dpmpp_2m_sde", ["eta=1", "s-noise=1e-1", "solver_type=heun"])
    assert got == {"eta": 1.0, "s_noise": 0.1, "solver_type": "heun"} and isinstance(got["eta"], float)
    assert typed_options("lms", ["order=3"]) == {"order": 3}
    for pairs, words in (["order=2.5"], "whole number"), (["order"], "NAME=VALUE"), (["order=1", "order=2"], "twice"):
        with pytest.raises(ValueError, match=words):
            typed_options("lms", pairs)


# --- replay -----------------------------------------------------------------------------------------------


def test_replay_makes_the_pixels_again(drawn, tmp_path, capsys):
    again = tmp_path / "again.png"
    assert run("replay", drawn, "--out", again) == 0
    assert capsys.readouterr().out == f"{drawn}: equal, every pixel\n"
    assert np.array_equal(np.asarray(Image.open(again)), np.asarray(Image.open(drawn)))
    assert read_metadata(again)["recipe"] == read_metadata(drawn)["recipe"]


def test_replay_sees_a_changed_pixel(drawn, capsys):
    image, kept = Image.open(drawn), read_metadata(drawn)
    r, g, b = image.getpixel((0, 0))
    image.putpixel((0, 0), (r, g + 9 if g < 128 else g - 9, b))
    guided.save_png(image, drawn, kept)
    assert run("replay", drawn) == 1
    assert "not equal: 0.1% of the pixels differ, by at most 9 of 255" in capsys.readouterr().out


def test_replay_refuses_other_weights(drawn, tiny_model, tmp_path, capsys):
    import copy

    other = copy.deepcopy(tiny_model)
    for parameter in other.parameters():
        parameter.mul_(1.05)
    guided.save(other, tmp_path / "other")
    assert run("replay", drawn, "--model", tmp_path / "other") == 2
    said = capsys.readouterr().err
    assert "has other weights (SHA-256" in said and said.count("\n") == 1
    assert run("replay", drawn, "--model", tmp_path / "other", "--other-weights") == 1
    assert "has other weights" in capsys.readouterr().out


def test_replay_finds_a_model_that_moved(drawn, tiny_folder, tmp_path, capsys):
    import shutil

    kept = read_metadata(drawn)
    kept["recipe"]["model"] = "runs/gone"
    guided.save_png(Image.open(drawn), drawn, kept)
    assert run("replay", drawn) == 2
    assert "runs/gone" in capsys.readouterr().err
    shutil.copytree(tiny_folder, tmp_path / "moved")
    assert run("replay", drawn, "--model", tmp_path / "moved") == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda kept: kept.update(command="paint"), "was made by 'paint'"),
        (lambda kept: kept["recipe"].pop("sampler"), "its recipe lacks 'sampler'"),
        (lambda kept: kept["recipe"].update(magic=1), "its recipe has an unknown 'magic'"),
        (lambda kept: kept["recipe"].update(dtype="fp64"), "the dtype in its metadata cannot be"),
        (lambda kept: kept["recipe"].update(labels=["cat"]), "the labels in its metadata cannot be"),
        (lambda kept: kept.update(index=7), "the index in its metadata cannot be"),
        (lambda kept: kept.update(versions=3), "the versions in its metadata cannot be"),
    ],
)
def test_replay_says_what_it_cannot_read(drawn, capsys, change, words):
    kept = read_metadata(drawn)
    change(kept)
    guided.save_png(Image.open(drawn), drawn, kept)
    assert run("replay", drawn) == 2
    assert words in capsys.readouterr().err


# --- info and models --------------------------------------------------------------------------------------


def test_info_of_a_model(tiny_folder, tiny_model, capsys):
    assert run("info", tiny_folder, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    count = sum(p.numel() for p in tiny_model.net.parameters())
    assert facts["parameters"] == count and facts["weight_bytes"] == 4 * count
    assert facts["classes"] == ["cat", "dog", "fish", "heart"] and facts["null_class"]
    assert facts["kind"] == "generator" and facts["parametrization"] == "edm" and facts["image_size"] == 16
    assert facts["sigma_range"] == [0.002, 80.0] and facts["provenance"]["licence"] == "MIT"
    memory = [facts["memory_bytes"][n] - facts["weight_bytes"] for n in ("1", "4", "16")]
    assert memory[1] == pytest.approx(4 * memory[0], rel=0.02)  # all but the scalars grows with the batch
    assert memory[2] == pytest.approx(16 * memory[0], rel=0.02)
    assert run("info", tiny_folder) == 0
    said = capsys.readouterr().out
    for words in (f"{count:,}", "16x16", "edm, continuous, sigma 0.002 .. 80", "cat, dog, fish, heart", "licence MIT"):
        assert words in said


def test_info_of_a_larger_picture_costs_more(tiny_folder, capsys):
    facts = []
    for size in (16, 32):
        assert run("info", tiny_folder, "--json", "--size", size) == 0
        facts.append(json.loads(capsys.readouterr().out))
    assert 4 < facts[1]["flops"] / facts[0]["flops"] < 16  # convolutions are linear in pixels, attention is not
    assert facts[0]["weight_bytes"] == facts[1]["weight_bytes"]


def test_info_of_a_classifier(tiny_classifier, capsys):
    assert run("info", tiny_classifier, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["kind"] == "classifier" and facts["network"] == "Encoder" and facts["flops"] > 0
    assert facts["classes"] == ["heart", "fish", "dog", "cat"]


def test_costs_are_those_counted_by_hand():
    from guided.commands.cost import flops, peak_bytes

    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 4, 1)).to("meta")
    x = torch.empty(2, 3, 10, 10, device="meta")
    assert flops(lambda: net(x)) == 2 * 2 * 100 * (9 * 3 * 8 + 8 * 4)
    assert peak_bytes(lambda: net(x)) == 4 * 2 * 100 * (8 + 4)  # the first result lives until the second is there
    chain = torch.nn.Sequential(*[torch.nn.Conv2d(3, 3, 1) for _ in range(9)]).to("meta")
    assert peak_bytes(lambda: chain(x)) == 4 * 2 * 100 * (3 + 3)
    assert peak_bytes(lambda: x.view(-1).add_(1)) == 0


def test_models_lists_what_can_be_loaded(capsys):
    assert run("models", "--json") == 0
    lists = json.loads(capsys.readouterr().out)
    files = {row["file"] for row in lists["official"]}
    assert {"256x256_diffusion.pt", "64x64_classifier.pt", "lsun_cat.pt"} <= files
    assert [row["preset"] for row in lists["training"]] == list(guided.presets.PRESETS)
    for row in lists["embedded"]:
        assert run("info", row["name"], *(["--classifier"] if row["kind"] == "classifier" else [])) == 0
    assert run("models") == 0
    assert "256x256_diffusion.pt" in capsys.readouterr().out


# --- what goes wrong --------------------------------------------------------------------------------------

BAD = [
    ("--label hart", "unknown class 'hart'; did you mean 'heart'"),
    ("--label cat --sampler ddimm", "unknown sampler 'ddimm'; did you mean ddim"),
    ("--label cat --sampler ddim --option etta=1", "the sampler ddim has no option 'etta'; it has eta"),
    ("--label cat --sampler ddim --option eta=x", "--option eta must be a number, got 'x'"),
    ("--label cat --steps 0", "steps must be at least 1, got 0"),
    ("--label cat --steps many", "'many'"),
    ("--label cat --spacing odd", "spacing must be log-snr, karras or uniform, got 'odd'"),
    ("--label cat --size 15", "height and width must be multiples of 4, got 15x15"),
    ("--label cat,dog --n 5", "2 labels for 5 pictures"),
    ("--label cat --n 0", "--n must be at least 1, got 0"),
    ("--label cat --n x", "argument --n: invalid int value: 'x'"),
    ("--label cat --seed -1", "--seed must not be negative, got -1"),
    ("--label cat --device nonsense", "device must be cpu, cuda"),
    ("--label cat --model /nowhere", "/nowhere: no checkpoint folder (config.json) there"),
    ("--label cat --out a.jpg", "a.jpg: the name must end in .png"),
    ("--label cat --window 1 3", "--window bounds guidance, and there is none"),
    ("--label cat --window 3 1 --guidance-scale 2", "window must be (low, high]"),
    ("--label cat --guidance-scale nan", "--guidance-scale must be a plain number, got nan"),
    ("--label cat --size 1000000000", "out of memory"),
    ("--label cat --out /proc/self/none/a.png", "cannot be written: /proc/self"),
    ("--label cat --classifier-scale 2", "--classifier-scale needs --classifier"),
    ("--classifier x", "--classifier has nothing to guide to without --label"),
    ("--guidance-scale 2", "nothing to guide to without labels"),
]


@pytest.mark.parametrize(("line", "words"), BAD, ids=[line for line, _ in BAD])
def test_bad_input_is_one_line_before_any_work(tiny_folder, tmp_path, monkeypatch, capsys, line, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(draw, "draw", lambda *args: pytest.fail("it began to draw"))
    words_given = shlex.split(line)
    if "--model" not in words_given:
        words_given += ["--model", str(tiny_folder)]
    assert run("sample", *words_given) == 2
    said = capsys.readouterr()
    assert words in said.err and said.err.startswith("guided sample: ")
    assert said.err.count("\n") == 1 and not said.out
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(tiny_folder, capsys):
    assert run("sample", "--model", tiny_folder, "--label", "cat", "--device", "cuda") == 2
    assert "no GPU is available; use 'cpu'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["replay", "/nowhere.png"], "/nowhere.png: no such file"),
        (["replay", __file__], "not a readable PNG file"),
        (["info", __file__], "is a file, not a checkpoint folder"),
        (["info", "/nowhere.pt"], "/nowhere.pt: no such file"),
        (["train", "/nowhere", "--out", "/nowhere/run"], "/nowhere"),
        (["train", "/nowhere", "--out", "/nowhere/run", "--preset", "x"], "--preset must be one of"),
        (["draw"], "invalid choice: 'draw'"),
    ],
)
def test_other_commands_bad_input(words, said, capsys):
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_what_a_command_raises_becomes_a_code(tiny_folder, tmp_path, monkeypatch, capsys):
    words = ["sample", "--model", tiny_folder, "--label", "cat", *FAST, "--out", tmp_path / "a.png"]

    def raises(error):
        def draw_nothing(*args):
            raise error

        monkeypatch.setattr(draw, "draw", draw_nothing)
        return run(*words), capsys.readouterr().err.splitlines()[-1]

    assert raises(KeyboardInterrupt()) == (130, "interrupted")
    assert raises(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"))[1].startswith(
        "guided sample: out of memory: use a smaller --batch-size"
    )
    assert raises(OSError(28, "No space left on device")) == (2, "guided sample: [Errno 28] No space left on device")
    assert raises(ValueError("two\nlines")) == (2, "guided sample: two lines")
    with pytest.raises(RuntimeError, match="a bug"):  # not the user's fault: with its traceback
        raises(RuntimeError("a bug"))
    monkeypatch.setenv("GUIDED_TRACEBACK", "1")
    monkeypatch.setattr(sample, "check", lambda args: [].index(1))
    assert run(*words) == 2 and "Traceback" in capsys.readouterr().err


# --- train ------------------------------------------------------------------------------------------------


@pytest.fixture
def pets(tmp_path):
    """A folder of two classes of two pictures each, and one file that is no picture."""
    for name, colour in (("cat", 40), ("dog", 200)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (16, 16), (colour, 90 * i, 0)).save(tmp_path / "pets" / name / f"{i}.png")
    (tmp_path / "pets" / "dog" / "torn.png").write_bytes(b"torn")
    return tmp_path / "pets"


def train(pets, out, *more) -> int:
    tiny = ["--preset", "emoji64", "--size", 8, "--batch-size", 2, "--images", 2, "--grid", 0, "--device", "cpu"]
    return run("train", pets, "--out", out, *tiny, *more)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--size", 0], "--size must be positive, got 0"),
        (["--batch-size", 0], "--batch-size must be positive"),
        (["--lr", "nan"], "--lr must be positive, got nan"),
        (["--label-dropout", 3], "--label-dropout must be in [0, 1), got 3.0"),
        (["--grid", -1], "--grid must not be negative"),
        (["--ema", 1], "--ema must be in [0, 1), got 1.0"),
        (["--levels", 0, 0], "--levels takes a mean and a positive standard deviation, got 0.0 and 0.0"),
        (["--levels", "nan", 1], "--levels takes a mean and a positive standard deviation, got nan and 1.0"),
        (["--repeat", "cat"], "--repeat takes CLASS=TIMES with a positive whole number, as dog=3, got 'cat'"),
        (["--repeat", "cat=0"], "--repeat takes CLASS=TIMES with a positive whole number, as dog=3, got 'cat=0'"),
        (["--repeat", "cat=2", "cat=3"], "--repeat names 'cat' twice"),
    ],
)
def test_train_refuses_flags_before_it_reads_a_picture(pets, tmp_path, capsys, words, said):
    assert train(pets, tmp_path / "run", *words) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not (tmp_path / "run").exists()


def test_train_by_levels_and_with_repeated_classes(pets, tmp_path, monkeypatch, capsys):
    given = []

    def no_steps(model, batches, loss, **options):
        given.append((batches, loss, options["ema"]))
        raise ValueError("enough")

    monkeypatch.setattr(importlib.import_module("guided.train"), "train", no_steps)
    assert train(pets, tmp_path / "run", "--levels", -0.5, 1.1, "--repeat", "cat=3", "dog=2", "--ema", 0.9) == 2
    assert "enough" in capsys.readouterr().err
    ((batches, loss, ema),) = given
    assert ema == 0.9 and loss.levels == LogNormal(-0.5, 1.1) and batches.repeat == {"cat": 3, "dog": 2}
    assert train(pets, tmp_path / "run", "--repeat", "bird=3") == 2
    assert "repeat names the class 'bird'; the pictures have cat, dog" in capsys.readouterr().err
    assert train(pets, tmp_path / "run", "--preset", "hybrid64", "--levels", 0, 1) == 2
    assert "--levels is for log-normal noise levels; this model trains on Uniform" in capsys.readouterr().err
    assert len(given) == 1


def test_train_goes_on_with_its_own_run_only(pets, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(pets, out) == 0
    said = capsys.readouterr().err
    assert "guided train: warning: " in said and "skipped 1 corrupt of 5 files: dog/torn.png" in said
    assert f"{out}: complete, 2 images seen" in said and "data.py" not in said
    before = (out / "config.json").read_bytes(), (out / "model.safetensors").read_bytes()
    assert train(pets, out, "--size", 16) == 2
    assert "holds a run with another image_size" in capsys.readouterr().err
    (pets / "cat").rename(pets / "cow")  # as many classes, other ones
    assert train(pets, out, "--images", 4) == 2
    assert "holds a run with another class_names" in capsys.readouterr().err
    assert ((out / "config.json").read_bytes(), (out / "model.safetensors").read_bytes()) == before


def test_train_does_not_overwrite_a_checkpoint_that_is_no_run(pets, tiny_folder, capsys):
    before = (tiny_folder / "model.safetensors").read_bytes()
    assert train(pets, tiny_folder) == 2
    assert "holds a checkpoint and no run" in capsys.readouterr().err
    assert (tiny_folder / "model.safetensors").read_bytes() == before


# --- help -------------------------------------------------------------------------------------------------


def test_help_names_all_commands_and_version(capsys):
    assert run("--help") == 0
    said = capsys.readouterr().out
    for command in ("sample", "train", "info", "import", "replay", "models"):
        assert f"    {command} " in said
        assert run(command, "--help") == 0
    assert run("--version") == 0
    assert capsys.readouterr().out.endswith(f"guided {guided.__version__}\n")


def test_help_of_sample_is_true(capsys):
    assert sorted(sample.SAMPLERS.split(", ")) == sorted(guided.samplers.SAMPLERS)
    for line in sample.EXAMPLES.splitlines()[1:]:
        words = shlex.split(line, comments=True)
        assert words[0] == "guided"
        cli.parser().parse_args(words[1:])
