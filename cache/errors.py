"""The root of every error that featlab raises on purpose.

It lives in the lowest room so that every other room can import it; `featlab.errors` is where users import it from.
"""


class FeatlabError(Exception):
    """Something that the user can act on: the message is one line that says what, where and what to do."""


class CacheError(FeatlabError, ValueError):
    """A cache file that can't be trusted or written; names the file, the dataset and what to do."""
