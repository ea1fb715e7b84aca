"""Global properties of a model: a number that its images have together (section 2.2).

A property module has

    prepare(folder, params)   makes what the property needs, once, in <folder>/models; returns what is worth showing
    settings(folder)          what can change the value, for the key of a measured coalition
    per_image(folder, images) uint8 [n, C, H, W] -> name -> array [n, ...], kept with each measured coalition
    value(arrays)             those arrays -> float

Because the arrays are kept, a property can be bootstrapped or recomputed without any model. One more property is one more
module and one line in PROPERTIES.
"""

from cdlib.properties import inception_score

PROPERTIES = {"inception_score": inception_score}


def named(name: str):
    """The property module of a name in the parameter file."""
    return PROPERTIES[name]
