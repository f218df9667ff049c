"""The paper's figures from our own runs: data, picture and report."""
