"""Measures of models and data sets: images -> features -> statistics -> metric, one pure layer over the other."""
