"""A policy better than any in a data set: propose, rank offline, roll out for real, and say how much better."""
