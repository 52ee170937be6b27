"""The projection P, bottleneck B, classifier C and translator T; their losses; training at the source."""
