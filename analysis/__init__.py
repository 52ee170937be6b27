"""Tables, plots and ablations over results and caches."""
