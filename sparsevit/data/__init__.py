"""The embedded dataset (small shapes on busy backgrounds, COCO format) and checks of COCO files.

Importing this room is cheap; numpy and OpenCV are imported by the modules that draw.
"""
