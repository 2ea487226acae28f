"""Pixels with geometry: files and series as values, volumes cut into slices. Knows nothing of labels or datasets."""
