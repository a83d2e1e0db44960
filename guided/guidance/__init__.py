"""Guidance: functions from denoisers to a denoiser.

The order in which they are composed is visible in the caller's code, and means what it says:
`clamp(guide(D, term))` bounds the guided estimate, `guide(clamp(D), term)` guides the bounded one.
"""

from guided.guidance.bounds import clamp, dynamic_threshold
from guided.guidance.classifier_free import cfg
from guided.guidance.gradient import Term, guide, limit
from guided.guidance.trace import Trace

__all__ = ["Term", "Trace", "cfg", "clamp", "dynamic_threshold", "guide", "limit"]
