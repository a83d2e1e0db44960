"""A noise-aware classifier p(y | x, sigma): a network plus what its input means, and the guidance terms made of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from guided.devices import onto
from guided.guidance import Term
from guided.guidance.gradient import LogProb
from guided.guidance.per_picture import part_of
from guided.labels import Labels
from guided.model import Model
from guided.schedule import Schedule, float64


class NoisyClassifier(nn.Module):
    """clf(x, sigma) -> logits (N, K), for x = x0 + sigma * noise in sigma space, as everywhere outside `guided.Model`.

    The network sees what a diffusion model's would: with a schedule x / sqrt(1 + sigma^2) and t(sigma) (Dhariwal &
    Nichol 2021, section 4), without one x / sqrt(sigma^2 + sigma_data^2) and time_scale * ln(sigma) / 4 (Karras et al.
    2022, Table 1).

    Args:
        net: logits(x, t), (N, C * patch^2, H / patch, W / patch) and (N,) -> (N, K): a `guided.networks.Encoder`, a
            `classifiers.TimmNet`, or any module of that form.
        schedule: the discrete chain it was trained on; None for a continuous classifier.
        channels: image channels.
        image_size: side of the images it was trained on.
        class_names: one name a class.
        patch: space-to-depth factor: with 2 a 64-pixel classifier costs what a 32-pixel one does.
        sigma_data: the data's standard deviation (continuous classifiers).
        sigma_min, sigma_max: the range it was trained on; a discrete one takes its schedule's. A clean classifier's is
            tiny: no eye can see it.
        time_scale: factor on what the network is told about the noise level.
    """

    def __init__(
        self,
        net: nn.Module,
        schedule: Schedule | None = None,
        *,
        channels: int = 3,
        image_size: int = 64,
        class_names: Sequence[str] = (),
        patch: int = 1,
        sigma_data: float = 0.5,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        time_scale: float = 1.0,
    ):
        super().__init__()
        # a Model for what it knows of inputs: scaling, t, patches and names; only its decoding has no use here
        self.inputs = Model(
            net,
            schedule,
            "edm" if schedule is None else "eps",
            channels=channels,
            image_size=image_size,
            class_names=class_names,
            patch=patch,
            sigma_data=sigma_data,
            sigma_min=sigma_min,
            sigma_max=sigma_max,
            time_scale=time_scale,
        )
        self.schedule, self.channels, self.image_size = schedule, channels, image_size
        self.class_names = self.inputs.class_names
        self.sigma_min, self.sigma_max = self.inputs.sigma_min, self.inputs.sigma_max

    @property
    def net(self) -> nn.Module:
        """The network."""
        return self.inputs.net

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Logits.

        Args:
            x: (N, C, H, W) = x0 + sigma * noise, x0 in [-1, 1]; float32 or float64.
            sigma: () or (N,), not negative; below sigma_min it is taken for sigma_min, so 0 means a clean image.

        Returns:
            (N, K) in x's dtype.

        Raises:
            ValueError: a shape does not fit, or sigma is negative.
        """
        sigma = float64(sigma)
        if bool((sigma < 0).any()):
            raise ValueError(f"sigma must not be negative, got {float(sigma.min()):g}")
        _, inputs, t = self.inputs.encode(x, sigma.clamp(min=self.sigma_min))
        return self.net(inputs, t).to(x.dtype)

    def term(
        self,
        labels: Labels,
        scale: float | Tensor = 1.0,
        window: tuple[float, float] | None = None,
        *,
        temperature: float = 1.0,
        negative: bool = False,
        joint: bool = False,
        wrt: str = "x",
    ) -> Term:
        """Guidance towards classes: a `guided.Term` whose log-probability is `log_target` of the logits at x.

        Parameters may be frozen. Terms add, so `guide(D, clf.term("cat"), clf.term("dog", negative=True))` is a cat and
        no dog.

        Args:
            labels: name, index, list of them or int64 (N,): one for all pictures or one a picture; or float rows (N, K)
                or (K,): weights of the classes.
            scale: factor, a number or (N,).
            window: (low, high] in sigma, where it is on; None is always.
            temperature: the logits are divided by it.
            negative: away from the classes instead.
            joint: the gradient of log p(x, y) instead of that of log p(y | x).
            wrt: "x", the noisy picture, which this classifier was trained on; "x0" or "x0-frozen", the estimate, taken
                for a clean picture: for models in latents, which have no noisy pictures (see `guided.Term`).

        Raises:
            ValueError: an unknown class (the nearest names are suggested), weights that are negative or all zero (for
                `negative`: outside [0, 1] or all one), a temperature that is not positive; when used, as many labels as
                there are not pictures.

        Source:
            Dhariwal & Nichol 2021, section 4.1; joint: Grathwohl et al. 2020, eq. 5.
        """
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        weights = self.target_weights(labels)
        low, high = float(weights.min()), float(weights.max())
        if low < 0 or (high > 1 and negative):
            bound = "lie in [0, 1] for a negative target" if negative else "not be negative"
            raise ValueError(f"class weights must {bound}, got {low if low < 0 else high:g}")
        if bool((weights.min(1).values == 1).any() if negative else (weights.max(1).values == 0).any()):
            left = "all classes are pushed away: none is left" if negative else "all class weights are zero"
            raise ValueError(f"{left}")

        def towards(weights: Tensor) -> LogProb:
            def log_prob(x: Tensor, sigma: Tensor, x0: Tensor) -> Tensor:
                if len(weights) not in (1, len(x)):
                    raise ValueError(f"the term has {len(weights)} labels for {len(x)} pictures: give 1 or {len(x)}")
                own = onto(weights, x.device, x.dtype)
                logits = self(x, sigma) if wrt == "x" else self(x0, 0.0)
                return log_target(logits, own, temperature=temperature, negative=negative, joint=joint)

            return log_prob

        def part(pictures: slice, n: int) -> LogProb:
            return towards(part_of(weights, pictures, n, "labels"))

        return Term(towards(weights), scale, wrt=wrt, window=window, part=part if len(weights) > 1 else None)

    def target_weights(self, labels: Labels) -> Tensor:
        """(N or 1, K): one-hot rows for labels, soft rows as they are; ValueError as `Model.labels`."""
        if labels is None:
            raise ValueError("a classifier has no null class: say which class")
        y = self.inputs.labels(labels)
        return y if y.is_floating_point() else F.one_hot(y, len(self.class_names)).double()


def log_target(
    logits: Tensor, weights: Tensor, *, temperature: float = 1.0, negative: bool = False, joint: bool = False
) -> Tensor:
    """The log-probability that a classifier's guidance climbs, (N,).

    With f = logits / temperature, log p = log_softmax(f) and weights q:

    - towards: sum_k q_k log p_k; for one class log p_y, for soft targets minus the cross-entropy with q;
    - away (negative): log(1 - sum_k q_k p_k), summed over what remains, so that it is exact however small that is;
    - joint: f_k = log p(x, y = k) + const takes log p_k's place, so the gradient is that of log p(x, y), which knows
      what pictures look like; away it is log p(x, not y).

    Args:
        logits: (N, K).
        weights: (N, K) or (1, K), in [0, 1] where negative.
    """
    log_p = logits / temperature
    if not joint:
        log_p = log_p.log_softmax(1)
    if negative:
        return (log_p + (-weights).log1p()).logsumexp(1)
    return (weights * log_p).sum(1)
