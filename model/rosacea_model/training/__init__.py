"""Trains StyleGAN2-ADA on a few hundred images, exactly reproducible and resumable bit for bit.

    rosacea train --data faces.zip --outdir runs/faces --preset small-data
    torchrun --nproc-per-node 2 -m rosacea_model.training --data faces.zip --outdir runs/faces --preset auto

`loop.py` is the method as paragraphs; `step.py` holds the four passes (generator, path length, discriminator, R1),
`ada.py` what steers the augmentation, `state.py` everything that a restart must find again.
"""
