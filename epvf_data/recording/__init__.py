"""What everyone who makes rows needs: the task and the machine in the store's words, probing states, the rows."""
