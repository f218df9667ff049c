"""Offline training: fit a critic on the rows of a data set and judge it on policies that it never saw."""
