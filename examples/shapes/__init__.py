"""A SigLIP small enough to be in a repository, that knows coloured shapes on coloured grounds."""
