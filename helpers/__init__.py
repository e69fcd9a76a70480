"""What the notebooks share.

The calls that the course teaches are in the notebooks, and what leaves the laptop is in ``lifecycle``.
"""
