"""What the service answers with: faces, latents, models, and whether an answer is to the question."""
