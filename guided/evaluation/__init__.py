"""Measures of samples: distances between sets of pictures, scores of judges, memorisation, each with its interval.

`guided.evaluate` puts them together; the parts work on plain tensors of features.
"""

from guided.evaluation.accuracy import classification_accuracy
from guided.evaluation.draw import draw
from guided.evaluation.features import Features, averages, colours, extract, pca, timm_features
from guided.evaluation.frechet import Gaussian, frechet, frechet_distance, frechet_infinity
from guided.evaluation.inception import inception_features
from guided.evaluation.intervals import Estimate, estimates
from guided.evaluation.kernel import kernel_distance
from guided.evaluation.lite import lite_features
from guided.evaluation.manifold import density_coverage, precision_recall
from guided.evaluation.memory import memorisation, nearest
from guided.evaluation.pictures import Pictures, from_images, from_npz, from_tensor, open_pictures
from guided.evaluation.report import Report, Row
from guided.evaluation.scores import Matcher, inception_score, share_right

__all__ = [
    "Estimate", "Features", "Gaussian", "Matcher", "Pictures", "Report", "Row", "averages", "classification_accuracy",
    "colours", "density_coverage", "draw", "estimates", "extract", "frechet", "frechet_distance", "frechet_infinity",
    "from_images", "from_npz", "from_tensor", "inception_features", "inception_score", "kernel_distance",
    "lite_features", "memorisation", "nearest", "open_pictures", "pca", "precision_recall", "share_right",
    "timm_features",
]  # fmt: skip
