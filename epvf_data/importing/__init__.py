"""Trained policies of other frameworks, as policy files of this project."""
