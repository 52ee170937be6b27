"""Detectors: what finds a face's landmarks in an image."""

from featlab.extraction.detectors.base import Detector, detector_names, is_detector, make_detector

__all__ = ["Detector", "detector_names", "is_detector", "make_detector"]
