"""Noise-aware classifiers and the guidance made of them. This file is the table of contents.

import classifiers
clf = classifiers.load()
images = guided.sample(model, n=4, terms=[clf.term("heart", scale=2.0)])
"""

from classifiers import openai
from classifiers.checkpoint import load, save
from classifiers.noisy import NoisyClassifier, log_target
from classifiers.timm_net import TimmConfig, TimmNet

__all__ = ["NoisyClassifier", "TimmConfig", "TimmNet", "load", "log_target", "openai", "save"]
