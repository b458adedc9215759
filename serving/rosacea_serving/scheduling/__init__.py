"""Which images are drawn next: the queue of a model, its policy, and the jobs that go to the workers."""
