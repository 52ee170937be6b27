"""featlab: personalise facial-expression recognition to one new person, on cached features."""

__version__ = "0.1.0"
