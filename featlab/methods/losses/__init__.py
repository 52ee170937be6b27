"""Losses of the methods, under the names that the literature gives them."""
