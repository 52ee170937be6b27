"""The command line: parse, call, print. No logic lives here."""


def main() -> None:
    """Run the ``featlab`` command."""
    raise SystemExit("featlab: the command line is not built yet")
