"""What a policy is worth: real episodes, several of each policy, with a standard error beside every mean."""
