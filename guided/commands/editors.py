"""The table of `guided edit`: one row an editor. Nothing here imports more than the standard library."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Option:
    """An argument of an editor, on the command line --name with hyphens.

    Attributes:
        name: the keyword of the function.
        kind: "float", "int", "text"; "levels", numbers with commas; "sides", N or HxW; "place", TOP,LEFT; or what a
            file or name stands for: "mask", "picture", "strokes", "label", "model", "judge" (a classifier, or "clip").
        help: for --help.
        choices: where only some texts will do.
        required: whether it must be given.
    """

    name: str
    kind: str
    help: str
    choices: tuple[str, ...] = ()
    required: bool = False


@dataclass(frozen=True, slots=True)
class Editor:
    """One row.

    Attributes:
        name: the command's word.
        help: one line.
        options: in the order of --help; those that are not given keep the function's defaults.
        sampler: whether the function takes one. common: whether it takes the arguments that one-call editors share.
        example: the rest of a line that begins with `guided edit NAME`.
        function: its name in `editing`, where that is not `name`.
        own_size: the image stays as large as it is, instead of the model's size.
    """

    name: str
    help: str
    options: tuple[Option, ...]
    example: str
    function: str = ""
    own_size: bool = False

    @property
    def of_editing(self) -> str:
        """The function's name in `editing`."""
        return self.function or self.name


def mask(help: str = "1 = paint", required: bool = True) -> tuple[Option, ...]:
    """A row's mask, and what can be done to it."""
    what = "a picture, white, or strokes on a transparent layer, = 1; or a folder of them by the images' names"
    return (
        Option("mask", "mask", f"{what}; {help}", required=required),
        Option("mask_grow", "int", "pixels by which the mask is made wider; negative, narrower"),
        Option("mask_feather", "float", "pixels over which its edge is made soft"),
    )


STRENGTH = Option("strength", "float", "0 keeps the picture, 1 forgets it")
SIGMA = Option("sigma", "float", "the noise level to start at; overrides --strength")
JUMPS = (
    Option("jump", "int", "how far up a jump goes, in steps"),
    Option("resample", "int", "how often each stretch is walked"),
    Option("nfe", "int", "at most so many evaluations; chooses steps, jump and resample"),
)

SIGMA_Y = Option(
    "sigma_y", "float", "of posterior sampling: the noise on what is known; default: 0; rule dps needs some"
)
RULE = Option("rule", "text", "of posterior sampling; default: ddnm", ("ddnm", "pigdm", "mmps", "dps"))

EDITORS = {
    row.name: row
    for row in (
        Editor(
            "sdedit", "noise it and denoise it: strokes become a picture, a picture a variation",
            (STRENGTH, SIGMA, *mask("1 = edit", required=False), Option("repeats", "int", "how often, one on another"),
             Option("strokes", "strokes", "a transparent layer with brush strokes, put over the image first")),
            "photo.png --strength 0.4 --label cat-face --guidance-scale 2",
        ),
        Editor(
            "sweep", "a strip of sdedit at several strengths",
            (Option("strengths", "levels", "such as 0,0.3,0.5,0.8"),
             Option("strokes", "strokes", "a transparent layer with brush strokes, put over the image first")),
            "photo.png --strengths 0,0.3,0.5,0.7 --out strip.png",
        ),
        Editor(
            "variations", "pictures like this one", (Option("n", "int", "how many"), STRENGTH, SIGMA),
            "photo.png --n 8",
        ),
        Editor(
            "differential", "sdedit with a map of strengths",
            (Option("strength", "mask", "a grey picture, or a folder of them; black = 0, white = 1", required=True),),
            "photo.png --strength map.png --label heart",
        ),
        Editor(
            "inpaint", "paint what the mask covers",
            (*mask(), Option("method", "text", "default: blend", choices=("blend", "repaint", "posterior", "model")),
             Option("seam", "float", "pixels along the edge that may be drawn once more"), STRENGTH, SIGMA, *JUMPS,
             RULE, SIGMA_Y),
            "photo.png --mask hole.png --method repaint --nfe 100",
        ),
        Editor("blend", "inpaint, by replacing what is known at every level", (*mask(), STRENGTH, SIGMA),
               "photo.png --mask region.png --label heart --guidance-scale 3"),
        Editor("repaint", "inpaint, by going up and down until it fits", (*mask(), *JUMPS),
               "photo.png --mask hole.png --steps 250 --jump 10 --resample 10"),
        Editor(
            "outpaint", "paint around the image until it fills a canvas",
            (Option("size", "sides", "of the canvas, N or HxW", required=True),
             Option("at", "place", "of the image in the canvas; default: the middle"),
             Option("method", "text", "default: repaint", choices=("repaint", "blend")),
             Option("overlap", "float", "of the windows, in [0, 1)")),
            "photo.png --size 96x128",
        ),
        Editor(
            "region", "turn a region into what label or terms say, and choose the best of many",
            (*mask(), STRENGTH, SIGMA, Option("candidates", "int", "how many are drawn"),
             Option("best", "int", "how many of them are kept"),
             Option("judge", "judge", "what says which are best: a classifier (by --label), or clip (by --prompt)"),
             Option("keep_background", "float", "scale of a term that holds the rest"),
             Option("views", "int", "augmented views for terms that look at x0")),
            "photo.png --mask region.png --label heart --candidates 16 --best 4 --judge emoji64",
        ),
        Editor(
            "diffedit", "turn it into another class where the two classes differ",
            (Option("source", "label", "what it shows; default: no class in particular"), STRENGTH, SIGMA,
             Option("threshold", "float", "of the contrast, in (0, 1)"), Option("draws", "int", "of the noise"),
             Option("grow", "int", "pixels by which the mask is made wider")),
            "photo.png --source face-smiling --label face-unwell --guidance-scale 3",
        ),
        Editor(
            "upscale", "the picture at a larger size",
            (Option("factor", "int", "how many times as large; default: to the model's size"),
             Option("method", "text", "default: model, where it was trained so", ("model", "posterior", "ilvr")),
             RULE, SIGMA_Y, *JUMPS[:2],
             Option("low", "float", "of ilvr: the noise level down to which the image rules")),
            "small.png --factor 2", own_size=True,
        ),
        Editor(
            "deblur", "the picture without its blur",
            (Option("deviation", "float", "of the Gaussian blur, in pixels", required=True),
             Option("sigma_y", "float", "the noise on the blurred picture; default: 0.02 of a range of 2"),
             RULE, *JUMPS[:2]),
            "photo.png --deviation 2",
        ),
        Editor(
            "ilvr", "new pictures with the layout and colours of this one",
            (Option("factor", "int", "the side of the blocks whose means are kept; the larger, the freer"),
             Option("low", "float", "the noise level down to which they are")),
            "photo.png --factor 8 --label cat-face",
        ),
        Editor(
            "invert", "turn it to noise and back: itself, or what it would be as another class",
            (Option("to", "label", "the class on the way back; default: --label, that on the way up"), STRENGTH, SIGMA,
             Option("evaluations", "int", "of the network, at most so many a step")),
            "photo.png --label face-smiling --to face-unwell --guidance-scale 2", function="reconstruct",
        ),
        Editor(
            "interpolate", "a row of pictures from this one to another",
            (Option("other", "picture", "the other end", required=True), Option("n", "int", "how many, with the ends"),
             Option("to", "label", "the other's class; default: --label"), STRENGTH,
             Option("evaluations", "int", "of the network, a step of the inversion")),
            "photo.png --other second.png --n 7",
        ),
        Editor(
            "translate", "the picture that another model makes of the noise this model makes it of",
            (Option("target", "model", "a name or a folder", required=True),
             Option("to", "text", "the target's class"), Option("evaluations", "int", "of the model, a step up")),
            "photo.png --target runs/paintings --label cat --to portrait",
        ),
    )
}  # fmt: skip
