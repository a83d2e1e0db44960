"""What Explore says: each lesson with its equation and the function that computes it."""

from __future__ import annotations

WORDS = {
    "explore.tab": ("Explore", "알아보기"),
    "explore.about": (
        "How diffusion works, in six steps. Each shows the equation and the function of this library that computes it. "
        "Use your own picture, or one of the examples.",
        "확산 모델이 어떻게 작동하는지 여섯 단계로 알아봅니다. "
        "단계마다 수식과, 그 수식을 계산하는 이 라이브러리의 함수를 함께 보여 줍니다. "
        "직접 올린 그림이나 예시로 시작해 보세요.",
    ),
    "explore.picture": ("Picture", "그림"),
    "explore.class": ("Class", "클래스"),
    "explore.class.info": ("What the network is told", "네트워크에 알려 주는 내용"),
    "explore.go": ("Run", "실행"),
    "explore.show": ("Show", "보기"),
    "explore.figure": ("Side by side", "나란히 비교"),
    # ------------------------------------------------------------------ 1
    "explore.forward": ("1 Adding noise", "1 노이즈 더하기"),
    "explore.forward.text": (
        r"""The **forward process** mixes a picture $x_0$ with Gaussian noise $\varepsilon$, a little more at each
timestep $t$. Move the slider: at the right end nothing of the picture is left. All of it in one step:

$$x_t=\sqrt{\bar\alpha_t}\;x_0+\sqrt{1-\bar\alpha_t}\;\varepsilon,\qquad \varepsilon\sim\mathcal N(0,I)$$

`guided.Schedule.noised` computes it. Divided by $\sqrt{\bar\alpha_t}$ it reads
$x=x_0+\sigma_t\,\varepsilon$ with $\sigma_t=\sqrt{(1-\bar\alpha_t)/\bar\alpha_t}$
(`guided.Schedule.sigma`): the picture plus noise of one **noise level** $\sigma$. This library computes
in those terms throughout.""",
        r"""**정방향 과정**(forward process)은 그림 $x_0$에 가우시안 노이즈 $\varepsilon$을 시점 $t$마다 조금씩 더
섞습니다. 슬라이더를 움직여 보세요. 오른쪽 끝에 이르면 그림의 흔적이 사라집니다. 모든 단계를 한 번에
쓰면 다음과 같습니다.

$$x_t=\sqrt{\bar\alpha_t}\;x_0+\sqrt{1-\bar\alpha_t}\;\varepsilon,\qquad \varepsilon\sim\mathcal N(0,I)$$

이 식은 `guided.Schedule.noised`가 계산합니다. 양변을 $\sqrt{\bar\alpha_t}$로 나누면
$x=x_0+\sigma_t\,\varepsilon$, $\sigma_t=\sqrt{(1-\bar\alpha_t)/\bar\alpha_t}$
(`guided.Schedule.sigma`)가 됩니다. 곧 그림에 **노이즈 수준** $\sigma$의 노이즈를 더한 것이며, 이
라이브러리는 모든 계산을 이 형태로 합니다.""",
    ),
    "explore.schedule": ("Noise schedule", "노이즈 스케줄"),
    "explore.t": ("Timestep t", "시점 t"),
    "explore.noisy": ("The picture at t", "시점 t의 그림"),
    "explore.strip": ("All schedules side by side", "모든 스케줄 나란히 보기"),
    # ------------------------------------------------------------------ 2
    "explore.schedules": ("2 Schedules", "2 스케줄"),
    "explore.schedules.text": (
        r"""A **schedule** says how fast the picture goes. The left plot shows how much of it is left,
$\sqrt{\bar\alpha_t}$; the right one the noise level, as $\log_{10}\sigma_t$. With

$$q(x_t\mid x_0)=\mathcal N\!\left(\sqrt{\bar\alpha_t}\,x_0,\;(1-\bar\alpha_t)\,I\right),\qquad
\bar\alpha_t=\prod_{s\le t}(1-\beta_s)$$

the *linear* schedule loses the picture early and spends many steps on almost pure noise; the *cosine*
one spreads the loss evenly. `guided.Schedule.linear`, `.cosine`, `.scaled_linear` and `.sigmoid` make
them.

A sampler walks down in far fewer steps. Below are the levels it visits: `log-snr` in equal ratios,
`karras` with more steps at low noise, `uniform` in equal steps of $t$ (`guided.Model.sigmas`).""",
        r"""**스케줄**은 그림이 얼마나 빨리 사라지는지를 정합니다. 왼쪽 그래프는 남아 있는 그림의 비율
$\sqrt{\bar\alpha_t}$를, 오른쪽 그래프는 노이즈 수준을 $\log_{10}\sigma_t$로 보여 줍니다.

$$q(x_t\mid x_0)=\mathcal N\!\left(\sqrt{\bar\alpha_t}\,x_0,\;(1-\bar\alpha_t)\,I\right),\qquad
\bar\alpha_t=\prod_{s\le t}(1-\beta_s)$$

*linear* 스케줄에서는 그림이 일찍 사라져 많은 단계가 거의 순수한 노이즈에 쓰이고, *cosine* 스케줄에서는
고르게 사라집니다. `guided.Schedule.linear`, `.cosine`, `.scaled_linear`, `.sigmoid`가 이 스케줄들을
만듭니다.

샘플러는 훨씬 적은 스텝으로 내려갑니다. 아래 그래프는 샘플러가 거치는 노이즈 수준입니다. `log-snr`은
같은 비율로, `karras`는 노이즈가 적은 쪽에 더 촘촘하게, `uniform`은 $t$를 같은 간격으로
나눕니다(`guided.Model.sigmas`).""",
    ),
    "explore.steps": ("Steps of the sampler", "샘플러의 스텝 수"),
    "explore.plot.signal": ("Picture left: sqrt(alpha_bar)", "남은 그림: sqrt(alpha_bar)"),
    "explore.plot.sigma": ("Noise level: log10 sigma", "노이즈 수준: log10 sigma"),
    "explore.plot.walk": ("Levels of a run: log10 sigma", "샘플링이 거치는 노이즈 수준: log10 sigma"),
    # ------------------------------------------------------------------ 3
    "explore.denoiser": ("3 Removing noise", "3 노이즈 제거"),
    "explore.denoiser.text": (
        r"""The **network** sees the noisy picture $x$ and its noise level, and answers with the mean of all
pictures that could lie below the noise. With little noise that is the picture; with much it is a
blurred average.

$$D(x,\sigma)\approx\mathbb E[x_0\mid x],\qquad \nabla_x\log p(x;\sigma)=\frac{D(x,\sigma)-x}{\sigma^2}$$

A **noise-aware classifier** reads the same noisy picture: its belief $p(y\mid x,\sigma)$ falls to a
guess as the noise grows. `model(x, sigma).x0` (`guided.Model`) and `classifiers.NoisyClassifier`. Tell
the network another class than the picture's, and look where that begins to matter.""",
        r"""**네트워크**는 노이즈가 섞인 그림 $x$와 노이즈 수준을 보고, 그 노이즈 아래에 있을 수 있는 모든 그림의
평균을 답합니다. 노이즈가 적으면 원래 그림이 나오고, 많으면 흐릿한 평균이 나옵니다.

$$D(x,\sigma)\approx\mathbb E[x_0\mid x],\qquad \nabla_x\log p(x;\sigma)=\frac{D(x,\sigma)-x}{\sigma^2}$$

**노이즈를 아는 분류기**(noise-aware classifier)도 같은 그림을 봅니다. 노이즈가 커질수록 분류기의 확신
$p(y\mid x,\sigma)$는 찍는 수준으로 떨어집니다. 각각 `model(x, sigma).x0`(`guided.Model`)와
`classifiers.NoisyClassifier`가 계산합니다. 그림과 다른 클래스를 알려 주고, 어느 노이즈 수준부터 결과가
달라지는지 살펴보세요.""",
    ),
    "explore.plot.belief": ("The classifier's belief", "분류기의 확신"),
    "explore.no-judge": (
        "No classifier here knows pictures like this model's.",
        "이 모델의 그림을 아는 분류기가 없습니다.",
    ),
    # ------------------------------------------------------------------ 4
    "explore.samplers": ("4 Samplers", "4 샘플러"),
    "explore.samplers.text": (
        r"""A **sampler** goes from noise to a picture, one noise level $\sigma$ to the next, $\sigma'$. All rows
start from the same noise and may call the network equally often.

| | one step, with $D=D(x,\sigma)$ | order |
|---|---|---|
| `guided.ddpm` | $x'=D+\frac{\sigma'^2}{\sigma^2}(x-D)+\sqrt V z$ | draws new noise $z$ |
| `guided.ddim` | $x'=D+\frac{\sigma'}{\sigma}(x-D)$ | 1 |
| `guided.heun` | the mean of the slopes at both ends of the step; two calls | 2 |
| `guided.unipc` | a polynomial through the last estimates, corrected | 3 |

Without new noise all solve one equation, $\frac{dx}{d\sigma}=\frac{x-D(x,\sigma)}{\sigma}$, so with
more evaluations their pictures become the same. Which one is there first?""",
        r"""**샘플러**는 노이즈 수준 $\sigma$에서 다음 수준 $\sigma'$로 한 스텝씩 옮겨 가며 노이즈를 그림으로
바꿉니다. 모든 줄은 같은 노이즈에서 시작하고, 네트워크를 같은 횟수만큼 호출합니다.

| | 한 스텝, $D=D(x,\sigma)$ | 차수 |
|---|---|---|
| `guided.ddpm` | $x'=D+\frac{\sigma'^2}{\sigma^2}(x-D)+\sqrt V z$ | 새 노이즈 $z$를 뽑음 |
| `guided.ddim` | $x'=D+\frac{\sigma'}{\sigma}(x-D)$ | 1 |
| `guided.heun` | 스텝 양 끝 기울기의 평균, 두 번 호출 | 2 |
| `guided.unipc` | 최근 추정값들을 지나는 다항식을 쓰고 보정 | 3 |

새 노이즈를 쓰지 않는 샘플러는 모두 같은 미분방정식 $\frac{dx}{d\sigma}=\frac{x-D(x,\sigma)}{\sigma}$을
풉니다. 그래서 호출 횟수를 늘리면 그림이 서로 같아집니다. 어느 샘플러가 가장 먼저 도달할까요?""",
    ),
    "explore.evaluations": ("Network evaluations", "네트워크 호출 횟수"),
    # ------------------------------------------------------------------ 5
    "explore.eta": ("5 Extra noise", "5 노이즈 추가"),
    "explore.eta.text": (
        r"""DDIM can add new noise in every step: $\eta=0$ adds none, $\eta=1$ as much as DDPM. The step goes down
further, then noise brings it up to $\sigma'$:

$$\sigma_{up}=\eta\,\frac{\sigma'}{\sigma}\sqrt{\sigma^2-\sigma'^2},\quad \sigma_{down}^2=\sigma'^2-\sigma_{up}^2,\quad
x'=D+\frac{\sigma_{down}}{\sigma}(x-D)+\sigma_{up}\,z$$

`guided.ddim(..., eta=...)`. All pictures below start from **one** noise; only what is added later
differs. With $\eta=0$ they are the same picture; the larger $\eta$, the sooner they part.""",
        r"""DDIM은 스텝마다 새 노이즈를 더할 수 있습니다. $\eta=0$이면 더하지 않고, $\eta=1$이면 DDPM만큼 더합니다.
먼저 더 아래까지 내려간 다음, 노이즈를 더해 $\sigma'$로 올라옵니다.

$$\sigma_{up}=\eta\,\frac{\sigma'}{\sigma}\sqrt{\sigma^2-\sigma'^2},\quad \sigma_{down}^2=\sigma'^2-\sigma_{up}^2,\quad
x'=D+\frac{\sigma_{down}}{\sigma}(x-D)+\sigma_{up}\,z$$

함수는 `guided.ddim(..., eta=...)`입니다. 아래 그림은 모두 **하나의** 노이즈에서 시작하며, 나중에 더하는
노이즈만 다릅니다. $\eta=0$이면 모두 같은 그림이고, $\eta$가 클수록 일찍 갈라집니다.""",
    ),
    # ------------------------------------------------------------------ 6
    "explore.guidance": ("6 Guidance", "6 가이던스"),
    "explore.guidance.text": (
        r"""**Guidance** makes the picture show its class more clearly than the network alone would.

*Classifier-free guidance* goes on beyond the step from no class $\varnothing$ to the class $y$, at
scale $w$ (`guided.cfg`; 0 is no class, 1 the network alone):

$$\tilde D=D_\varnothing+w\,(D_y-D_\varnothing)$$

*Classifier guidance* follows the gradient of a noise-aware classifier, at scale $s$ (`guided.guide`,
`NoisyClassifier.term`):

$$\tilde D=D+\sigma^2 s\,\nabla_x\log p(y\mid x,\sigma)$$

All pictures start from one noise. Small scales: variety, and pictures of something else; large ones:
clear classes, too much contrast, all alike.""",
        r"""**가이던스**(guidance)는 네트워크에만 맡길 때보다 클래스가 더 분명하게 드러나도록 이끕니다.

*분류기 없는 유도*(classifier-free guidance)는 클래스를 지정하지 않은 추정 $\varnothing$에서 클래스
$y$의 추정으로 가는 방향을 따라 $w$배만큼 나아갑니다(`guided.cfg`. 0이면 클래스 없음, 1이면 네트워크
그대로).

$$\tilde D=D_\varnothing+w\,(D_y-D_\varnothing)$$

*분류기 유도*(classifier guidance)는 노이즈를 아는 분류기의 기울기를 $s$배로 따라갑니다(`guided.guide`,
`NoisyClassifier.term`).

$$\tilde D=D+\sigma^2 s\,\nabla_x\log p(y\mid x,\sigma)$$

모든 그림은 하나의 노이즈에서 시작합니다. 스케일이 작으면 다양하지만 다른 것이 그려지기도 하고, 크면
클래스는 분명해지지만 대비가 지나치고 모두 비슷해집니다.""",
    ),
    "explore.kind": ("Kind of guidance", "가이던스 종류"),
    "explore.kind.free": ("classifier-free", "분류기 없는 유도"),
    "explore.kind.classifier": ("by a classifier", "분류기 유도"),
}
