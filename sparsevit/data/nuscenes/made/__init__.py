"""Made scenes: a flat world with roads, seen by six cameras, written as nuScenes' tables.

``spec`` says what is chosen, ``world`` what is in a scene and how it moves, ``shapes`` what it
looks like, ``ground`` and ``render`` paint it, ``make`` writes it all.
"""
