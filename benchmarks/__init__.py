"""Measurements of DBLike beside its peers: the same bytes, the same machine, the same run."""
