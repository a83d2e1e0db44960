"""CLIP: any open_clip model or a noise-aware one as guidance. This file is the table of contents."""

from classifiers.clip.cutouts import Cutouts
from classifiers.clip.guidance import Clip
from classifiers.clip.net import ClipConfig, ClipNet
from classifiers.clip.prompts import Prompt

__all__ = ["Clip", "ClipConfig", "ClipNet", "Cutouts", "Prompt"]
