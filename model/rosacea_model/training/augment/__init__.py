"""Random augmentations of the images that the discriminator sees, reals and fakes alike (Karras et al. 2020, appendix
B); `ada.py` adapts their probability.

Example:

    pipe = AugmentPipe(AUGMENT_SETS["bgc"])
    pipe.p.fill_(0.2)
    shown = pipe(images, RandomDraws(torch.Generator().manual_seed(0)))
"""

from .config import AUGMENT_SETS, AugmentConfig
from .draws import Draws, RandomDraws
from .pipe import AugmentPipe

__all__ = ["AUGMENT_SETS", "AugmentConfig", "AugmentPipe", "Draws", "RandomDraws"]
