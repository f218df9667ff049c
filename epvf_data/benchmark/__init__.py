"""The public benchmark: tasks on policies and their returns, and results that others can put beside ours."""
