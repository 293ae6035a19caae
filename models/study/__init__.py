"""The study: proofs, trainings and timings of all mixers, and a report of their results."""
