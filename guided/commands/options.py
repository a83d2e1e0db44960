"""What --option says: a sampler's own arguments, as NAME=VALUE."""

from __future__ import annotations

import inspect

from guided.samplers import SAMPLERS


def steps_of(text: str) -> int | str:
    """A number of steps, or a respacing ("250," is one)."""
    return int(text) if text.removeprefix("-").isdecimal() else text.removesuffix(",")


def typed_options(sampler: str, pairs: list[str]) -> dict[str, float | int | str]:
    """--option NAME=VALUE as the sampler takes them.

    Raises:
        ValueError: no "=", a name given twice, or a value of the wrong type. (Unknown names are left as they are for
            `guided.stream`, whose error names what there is.)
    """
    kinds = _option_kinds(sampler)
    options: dict[str, float | int | str] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise ValueError(f"--option {pair!r}: write NAME=VALUE, such as eta=0.3")
        if name in options:
            raise ValueError(f"--option {name} is given twice")
        options[name] = _typed(f"--option {name}", kinds.get(name, "str"), text.strip())
    return options


def _option_kinds(sampler: str) -> dict[str, str]:
    function = SAMPLERS.get(sampler)
    return {} if function is None else {k: str(p.annotation) for k, p in inspect.signature(function).parameters.items()}


def _typed(name: str, kind: str, text: str) -> float | int | str:
    try:
        return {"float": float, "int": int}.get(kind, str)(text)
    except ValueError:
        what = "a whole number" if kind == "int" else "a number"
        raise ValueError(f"{name} must be {what}, got {text!r}") from None
