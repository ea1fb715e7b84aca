"""How unlike a model's images are to those that it was trained on, by the kernel distance of an embedding (KID).

Lower is better, as of FID; unlike that, it is not biased by the number of images. Source: Binkowski et al. 2018.
"""

from functools import partial

from cdlib.measure import frechet
from cdlib.measure.properties.fid import per_image, prepare, settings, value

__all__ = ["per_image", "prepare", "settings", "value"]

per_image = partial(per_image, distance=frechet.kid)
