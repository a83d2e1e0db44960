"""docs/study.md and its plots, from the figures that benchmarks/study.py keeps.

python benchmarks/study_page.py
"""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parent.parent
BUDGETS = (5, 10, 20, 50, 250)
TAUGHT, TAUGHT_IMAGES = 2000, 20_000  # pictures that a classifier is taught by, and how many it sees, by default
DISTANCE = "Frechet distance"
COLOURS, STYLES = 10, ("-", ":")  # lines after the tenth have its colour again, and are dotted
ADAPTIVE = ("rk45",)  # takes as many evaluations as its tolerance asks for
SAME = {"euler": "ddim", "euler_ancestral": "ddpm"}  # one method by two names, number for number (tests/test_study.py)
KINDS = {
    "none": "no guidance",
    "cfg": "classifier-free",
    "window": "classifier-free, within a window of sigma",
    "classifier": "classifier",
    "apg": "adaptive projected",
    "cfg-zero": "CFG-Zero*",
    "cfg++": "CFG++",
    "rescale": "classifier-free, rescaled by 0.7",
    "linear": "classifier-free, scale rising linearly",
    "cosine": "classifier-free, scale rising by a cosine",
    "anneal": "classifier-free, condition annealed (CADS)",
    "autoguidance": "autoguidance by a weaker model",
}
HEAD = """\
# Study: samplers, evaluations, guidance

Every row but those of accuracy is a set of samples of equal classes (as frequent as among the training pictures) and
seeds. Its Frechet distance is to the training pictures, at equal counts, averaged over disjoint blocks of them; in
brackets the 95 % interval from halves ([how](guides/evaluation.md)). All rows share their bias, so rows compare, and
held-out pictures in the samples' place are the yardstick; published figures do not compare. What is not measured yet
is left out, or "-".
"""

FOLLOWS = Path(__file__).with_name("study_follows.md")  # what was read from the figures, by hand


def write(results: Path, page: Path, images: Path) -> None:
    """The page from all studies in `results`; nothing where there are none."""
    studies = {p.stem.removeprefix("study-"): json.loads(p.read_text()) for p in sorted(results.glob("study-*.json"))}
    sections = [section(name, study, images) for name, study in studies.items() if len(study["rows"]) > 1]
    if "emoji-64" in studies:
        sections.append(FOLLOWS.read_text())
    if sections:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text("\n".join([HEAD, *sections]))


def section(name: str, study: dict, images: Path) -> str:
    """One study as text; its plots are drawn."""
    about, rows = study["about"], study["rows"]
    features = about["features"]
    seen = f" ({about['seen']:,} pictures seen, weights {about['weights']})" if about.get("seen") else ""
    lines = [
        f"## {name}",
        "",
        f"Model `{about['model']}`{seen} in {about['dtype']}, {about['n']} samples a row, {about['train']} training "
        f"and {about['held_out']} held-out pictures. Made by `python benchmarks/study.py {about['data']} --model "
        f"{about['model']} --n {about['n']} --dtype {about['dtype']}{about.get('told', '')}{told_of_accuracy(rows)}`.",
        "",
    ]
    if any(row["part"] == "samplers" for row in rows.values()):
        same = " and ".join(f"`{name}` is `{other}`" for name, other in SAME.items())
        lines += ["### Evaluations against quality", ""]
        lines += [
            f"No guidance; spacing uniform in log SNR; {same} here. `{'`, `'.join(ADAPTIVE)}` takes as many "
            "evaluations as its tolerance asks for, and has no row.",
            "",
        ]
        others = sorted({row["dtype"] for row in rows.values() if "dtype" in row})
        lines += [f"* in {others[0]}: the same command with `--dtype {others[0]}`.\n"] if others else []
        lines += [image(f"study-{name}-evaluations.png", "Frechet distance by evaluations")]
        for feature in features:
            lines += [f"Frechet distance, {feature} (held-out pictures: {cell(rows['held-out'], feature)}):", ""]
            lines += [*sampler_table(rows, feature), ""]
        evaluations_plot(rows, features, images / f"study-{name}-evaluations.png")
    if any(row["part"] == "guidance" for row in rows.values()):
        low, high = about["window"]
        lines += ["### Guidance scale against fidelity and diversity", ""]
        lines += [
            f"unipc, {about['guided_steps']} steps; the window is {low:g} < sigma <= {high:g}. Composition, particles, "
            "universal and CLIP guidance ask for something else than the class, and have no row.",
            "",
        ]
        lines += [image(f"study-{name}-guidance.png", "Fidelity and diversity by guidance scale")]
        for feature in features:
            lines += [f"By {feature}:", "", *guidance_table(rows, feature, about.get("judge")), ""]
        guidance_plot(rows, features, images / f"study-{name}-guidance.png")
    if any(row["part"] == "accuracy" for row in rows.values()):
        lines += [*accuracy_table(rows), ""]
    return "\n".join(lines)


def image(file: str, text: str) -> str:
    """A picture in the page, and an empty line."""
    return f"![{text}](images/{file})\n"


def cell(row: dict | None, feature: str, measure: str = DISTANCE) -> str:
    """A figure with its interval."""
    if row is None or feature not in row or measure not in row[feature]:
        return "-"
    return told(row[feature][measure]) + (" *" if "dtype" in row else "")


def told(e: dict) -> str:
    """An estimate: its value and its interval."""
    return f"{e['value']:.3g} ({e['low']:.3g} .. {e['high']:.3g})"


def sampler_table(rows: dict, feature: str) -> list[str]:
    """A line a sampler, a column a number of evaluations."""
    found = {name: row for name, row in rows.items() if row["part"] == "samplers"}
    samplers = list(dict.fromkeys(row["sampler"] for row in found.values()))
    lines = [f"| sampler | {' | '.join(map(str, BUDGETS))} |", "|---" * (len(BUDGETS) + 1) + "|"]
    for sampler in samplers:
        cells = [cell(found.get(f"{sampler} {budget}"), feature) for budget in BUDGETS]
        lines.append(f"| {sampler} | {' | '.join(cells)} |")
    return lines


def guidance_table(rows: dict, feature: str, judge: str | None) -> list[str]:
    """A line a kind and scale of guidance, and one for held-out pictures."""
    measures = (DISTANCE, "precision", "recall", "coverage")
    head = ["guidance", "scale", *measures, *(["found in the asked class"] if judge else [])]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, row in rows.items():
        if row["part"] not in ("guidance", "real"):
            continue
        said = ["held-out pictures", ""] if name == "held-out" else [KINDS[row["kind"]], f"{row['scale']:g}"]
        cells = [cell(row, feature, measure) for measure in measures]
        if judge:
            cells.append(told(row["judge"][judge]) if "judge" in row else "-")
        lines.append(f"| {' | '.join(said + cells)} |")
    return lines


def told_of_accuracy(rows: dict) -> str:
    """The flags that make the classification accuracy score."""
    row = next((row for row in rows.values() if row["part"] == "accuracy"), None)
    if row is None:
        return ""
    taught = "" if row["n"] == TAUGHT else f" --taught {row['n']}"
    images = "" if row["images"] == TAUGHT_IMAGES else f" --taught-images {row['images']}"
    return f" --parts guidance samplers accuracy{taught}{images}"


def accuracy_table(rows: dict) -> list[str]:
    """A line a set of pictures that a classifier is taught by."""
    found = [row for row in rows.values() if row["part"] == "accuracy"]
    seen, n = found[0]["images"], found[0]["n"]
    lines = [
        "### Classification accuracy score",
        "",
        f"A resnet10t, from scratch, sees {seen:,} pictures, drawn from {n:,} of one kind, and is asked for the",
        "classes of the held-out pictures; one training each, and the interval is over the held-out pictures alone.",
        "",
        "| taught by | scale | right |",
        "|---|---|---|",
    ]
    for row in found:
        name = ["training pictures", ""] if row["kind"] == "real" else [KINDS[row["kind"]], f"{row['scale']:g}"]
        lines.append(f"| {' | '.join(name)} | {told(row['score'])} |")
    return lines


def evaluations_plot(rows: dict, features: list[str], file: Path) -> None:
    """Frechet distance over evaluations, a line a sampler, a panel a feature space."""
    plt = pyplot()
    figure, axes = plt.subplots(1, len(features), figsize=(5.5 * len(features), 4.5), squeeze=False)
    found = [row for row in rows.values() if row["part"] == "samplers"]
    for axis, feature in zip(axes[0], features, strict=True):
        for k, sampler in enumerate(dict.fromkeys(row["sampler"] for row in found)):
            own = sorted((row for row in found if row["sampler"] == sampler), key=lambda row: row["budget"])
            axis.errorbar(
                [row["budget"] for row in own], **bars(own, feature, DISTANCE), ls=STYLES[k // COLOURS], label=sampler
            )
        axis.axhline(rows["held-out"][feature][DISTANCE]["value"], color="0.5", ls="--", label="held-out pictures")
        axis.set(xscale="log", yscale="log", xlabel="evaluations", ylabel="Frechet distance")
        axis.set_title(feature, fontsize=9)
        axis.set_xticks(BUDGETS, [str(b) for b in BUDGETS])
        axis.minorticks_off()
    axes[0, -1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    save(plt, figure, file)


def guidance_plot(rows: dict, features: list[str], file: Path) -> None:
    """Frechet distance by scale; precision over recall, a line a kind of guidance."""
    plt = pyplot()
    figure, axes = plt.subplots(2, len(features), figsize=(5.5 * len(features), 8), squeeze=False)
    found = [row for row in rows.values() if row["part"] == "guidance"]
    plain = [row for row in found if row["kind"] == "none"]
    for i, feature in enumerate(features):
        by_scale, trade = axes[0, i], axes[1, i]
        for k, kind in enumerate(dict.fromkeys(row["kind"] for row in found if row["kind"] != "none")):
            own = [row for row in found if row["kind"] == kind]
            own = sorted(own, key=lambda row: row["scale"])
            style = {"ls": STYLES[k // COLOURS], "label": KINDS[kind]}
            by_scale.errorbar([row["scale"] for row in own], **bars(own, feature, DISTANCE), **style)
            line = plain + own
            recall, precision = ([row[feature][m]["value"] for row in line] for m in ("recall", "precision"))
            trade.plot(recall, precision, marker="o", **style)
            for row in own:
                at = row[feature]["recall"]["value"], row[feature]["precision"]["value"]
                trade.annotate(f"{row['scale']:g}", at, fontsize=8, xytext=(4, 4), textcoords="offset points")
        for name, value in (("no guidance", plain[0] if plain else None), ("held-out pictures", rows["held-out"])):
            if value is not None:
                style = {"color": "0.5", "ls": "--" if name == "held-out pictures" else ":", "label": name}
                by_scale.axhline(value[feature][DISTANCE]["value"], **style)
        by_scale.set(xlabel="scale", ylabel="Frechet distance")
        by_scale.set_title(feature, fontsize=9)
        trade.set(xlabel="recall (diversity)", ylabel="precision (fidelity)")
    axes[0, -1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    save(plt, figure, file)


def bars(rows: list[dict], feature: str, measure: str) -> dict:
    """Values and distances to the ends of their intervals, as errorbar takes them."""
    e = [row[feature][measure] for row in rows]
    below, above = [v["value"] - v["low"] for v in e], [v["high"] - v["value"] for v in e]
    return {"y": [v["value"] for v in e], "yerr": [below, above], "marker": "o", "ms": 4, "capsize": 2, "lw": 1.2}


def pyplot():
    """matplotlib without a screen."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def save(plt, figure, file: Path) -> None:
    """A PNG, without when and by what it was made, so that equal figures give equal files."""
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(file, dpi=90, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    write(ROOT / "benchmarks" / "results", ROOT / "docs" / "study.md", ROOT / "docs" / "images")
