"""Chapter 1: one shot of a film goes through the systems of all five chapters.

This package alone may import the chapters: their public ``load`` and functions, as a user calls them. No chapter
imports it.
"""
