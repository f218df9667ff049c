"""Critics: functions that read a policy, its parameters or its probing actions, and predict its return."""
