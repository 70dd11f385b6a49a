"""Ranks that another launcher has started: torchrun, srun, mpirun. They meet, and train one run."""
