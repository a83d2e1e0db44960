"""What each term of a run said and how hard it pulled, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from torch import Tensor

from guided.guidance.gradient import Term


@dataclass(frozen=True, eq=False)
class Reading:
    """One term at one call of the guided denoiser.

    Attributes:
        term: its name.
        sigma: the level of noise, the largest where the pictures have several.
        value: (N,) log_prob, without the scale.
        grad_norm: (N,) Euclidean norm of the gradient of scale * log_prob in what the term looks at: x for wrt="x",
            else x0. 0 for a picture outside the term's window.
    """

    term: str
    sigma: float
    value: Tensor
    grad_norm: Tensor


@dataclass
class Trace:
    """A recorder of terms::

        trace = guided.Trace()
        terms = trace.watch(text=clip.term("snow", 300.0), smooth=guided.terms.total_variation(50.0))
        images = guided.sample(model, terms=terms)
        for name, curve in trace.curves().items(): plot(curve["sigma"], curve["grad_norm"])

    It only listens: guidance is the same with it, and costs the same.

    Attributes:
        readings: in the order in which they were made.
    """

    readings: list[Reading] = field(default_factory=list)

    def watch(self, **terms: Term) -> tuple[Term, ...]:
        """The same terms, listened to; the keywords are their names."""
        return tuple(self._watched(name, term) for name, term in terms.items())

    def curves(self) -> dict[str, dict[str, list[float]]]:
        """For each term's name the lists "sigma", "value" and "grad_norm", means over the pictures, a reading each."""
        curves: dict[str, dict[str, list[float]]] = {}
        for reading in self.readings:
            curve = curves.setdefault(reading.term, {"sigma": [], "value": [], "grad_norm": []})
            curve["sigma"].append(reading.sigma)
            curve["value"].append(float(reading.value.mean()))
            curve["grad_norm"].append(float(reading.grad_norm.mean()))
        return curves

    def _watched(self, name: str, term: Term) -> Term:
        part = None if term.part is None else lambda pictures, n: self._listening(name, term.of(pictures, n))
        return replace(term, log_prob=self._listening(name, term), part=part)

    def _listening(self, name: str, term: Term) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        def log_prob(x: Tensor, sigma: Tensor, x0: Tensor) -> Tensor:
            seen = (x if term.wrt == "x" else x0).clone()  # a copy of the term's own: only its gradient comes back here
            value = term.log_prob(seen, sigma, x0) if term.wrt == "x" else term.log_prob(x, sigma, seen)
            level, said = float(sigma.max()), value.detach()

            def record(grad: Tensor) -> None:
                self.readings.append(Reading(name, level, said, grad.detach().flatten(1).norm(dim=1)))

            if seen.requires_grad:
                seen.register_hook(record)
            return value

        log_prob.__name__ = getattr(term.log_prob, "__name__", name)  # what error messages call it
        return log_prob
