"""Tables, figures and words of an evaluation."""
