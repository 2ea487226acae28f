"""Checks of a dataset on disk: files, tables, regions, splits, privacy; ``validate`` runs them all. Mends nothing."""
