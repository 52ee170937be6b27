"""scikit-learn estimators over the source stage and the methods."""

from featlab.estimators.classifier import PersonalizedClassifier
from featlab.estimators.translator import StyleTranslator

__all__ = ["PersonalizedClassifier", "StyleTranslator"]
