"""The cache: kept answers, one upstream call for equal requests in flight."""
