"""What happens inside a model: maps, neighbours, pairs, clips, branches, style."""
