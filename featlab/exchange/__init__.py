"""Other programs: checkpoints in, models out, scikit-learn estimators."""
