"""The study: checks of statements, trainings and timings of all mixers, and a report of their results."""
