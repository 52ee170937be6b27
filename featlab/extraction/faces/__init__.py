"""Landmarks: found by a detector or read from files; faces cut out and levelled by them."""
