"""The parts of a search phase; :func:`sparsevit.phases.search.search` is its entry."""
