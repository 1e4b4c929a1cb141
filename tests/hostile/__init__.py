"""Hostile and unlucky users: thousands of broken inputs, and what becomes of each.

A kind (``kinds/``) makes cases: files to write or to damage, the words of a command, what surrounds
it, and the exit codes that are right. ``server`` runs each in a process of its own, forked from one
that has imported everything, and ``examine`` says what was wrong. ``python tests/hostile --help``.
"""
