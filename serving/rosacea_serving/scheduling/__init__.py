"""The queue of one model, its fairness policy, and the jobs sent to workers."""
