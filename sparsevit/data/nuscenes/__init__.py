"""nuScenes (Caesar et al., arXiv:1903.11027): its tables, its metric, and scenes made in its
format.

Reading, scoring and making need numpy, SciPy and OpenCV. :mod:`~sparsevit.data.nuscenes.registered`
registers dataset, transforms and metric with mmdet.
"""
