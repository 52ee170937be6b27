"""The project's own method: a light translator, adapted to one person's neutral clip."""
