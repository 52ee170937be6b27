"""Run methods on target subjects, score them, compare them, tune them."""
