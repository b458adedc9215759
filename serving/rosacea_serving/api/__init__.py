"""The public API: each call from its message to its answer, health, reflection and signatures."""
