"""One file a piece of work, each with a tuple `WORKLOADS`; frameworks are imported inside `setup`, never at the top."""
