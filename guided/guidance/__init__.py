"""Guidance: functions from denoisers to a denoiser.

The order in which they are composed is visible in the caller's code, and means what it says:
`clamp(guide(D, term))` bounds the guided estimate, `guide(clamp(D), term)` guides the bounded one.
"""

from guided.guidance.bounds import clamp, dynamic_threshold
from guided.guidance.classifier_free import cfg
from guided.guidance.gradient import Term, guide, limit

__all__ = ["Term", "cfg", "clamp", "dynamic_threshold", "guide", "limit"]
