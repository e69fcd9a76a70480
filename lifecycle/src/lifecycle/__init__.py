"""What leaves the laptop: the parts of one ML lifecycle that a team takes home, and that the image holds.

Nothing here knows a data set, a folder or a clock. What differs from one project to the next comes from the
feature contract, a parameter, or the project's settings (``lifecycle.settings``). See
``lifecycle.features.contract`` for the one thing that all the others share. Importing it has no effect.
"""
