"""Mixtures of many kinds of policies, as a table says: `epvf-data collect --recipe`."""
