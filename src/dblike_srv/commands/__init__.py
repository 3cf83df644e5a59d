"""The commands of `dblike-server`, by topic."""
