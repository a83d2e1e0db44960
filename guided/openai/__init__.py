"""OpenAI's released files: what each is, strict loading, networks from the reference's argument names."""

from guided.openai.build import build
from guided.openai.download import download
from guided.openai.load import load, load_encoder
from guided.openai.presets import PRESETS, Official

__all__ = ["PRESETS", "Official", "build", "download", "load", "load_encoder"]
