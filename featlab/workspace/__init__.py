"""A folder with featlab.toml: its stages, its source model, one person."""
