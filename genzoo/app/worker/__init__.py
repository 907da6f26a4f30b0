"""The one process beside the page that has torch: it describes, checks, samples and compares."""
