"""Frames of videos, decoded as a stream."""
