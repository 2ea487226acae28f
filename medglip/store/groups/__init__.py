"""What belongs together and which split it is in: lineage, look-alikes, splits. Draws nothing."""
