"""Where work runs: processes of this machine, a dask cluster, or SLURM's job arrays."""
