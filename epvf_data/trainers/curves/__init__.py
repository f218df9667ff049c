"""What can be seen of runs that learn online: learning curves over seeds, their numbers, pictures and policies."""
