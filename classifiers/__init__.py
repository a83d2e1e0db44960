"""Noise-aware classifiers, CLIP and the guidance made of them. This file is the table of contents.

import classifiers
clf = classifiers.load()
images = guided.sample(model, n=4, terms=[clf.term("heart", scale=2.0)])
clip = classifiers.Clip("emoji64")
images = guided.sample(model, n=4, terms=[clip.term("cat with heart eyes", scale=3.0, wrt="x")])
"""

from classifiers import openai
from classifiers.checkpoint import load, save
from classifiers.clip import Clip, ClipConfig, ClipNet, Cutouts, Prompt
from classifiers.noisy import NoisyClassifier, log_target
from classifiers.perceptual import Perceptual
from classifiers.timm_net import TimmConfig, TimmNet

__all__ = [
    "Clip", "ClipConfig", "ClipNet", "Cutouts", "NoisyClassifier", "Perceptual", "Prompt", "TimmConfig", "TimmNet",
    "load", "log_target", "openai", "save",
]  # fmt: skip
