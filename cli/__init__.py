"""The command line: parse, call, print. No logic lives here."""

__all__ = ["main"]


def main() -> None:
    """Run the ``featlab`` command."""
    from featlab.cli.app import app

    app(prog_name="featlab")
