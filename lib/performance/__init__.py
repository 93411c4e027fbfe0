"""Appendix A1: what everything costs, and how the cost grows.

Like `lib.introduction` this package shows the systems of all chapters: it may import them, and nobody imports it.
"""
